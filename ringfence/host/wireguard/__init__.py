"""What the program of the role `wireguard` is made of."""
