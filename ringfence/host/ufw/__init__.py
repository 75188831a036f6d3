"""Modules of the program ringfence-ufw, put into it like the chassis (`python -m ringfence.host`)."""
