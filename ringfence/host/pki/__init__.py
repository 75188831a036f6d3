"""What the program of the role `pki` is made of."""
