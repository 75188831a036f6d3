"""What the program of the role stack is made of; `python -m ringfence.host` writes it in there."""
