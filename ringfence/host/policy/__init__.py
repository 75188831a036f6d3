"""What ringfence-policy is made of, put into the program as the chassis is."""
