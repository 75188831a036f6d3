"""Modules of the program ringfence-docker, put into it like the chassis (`python -m ringfence.host`)."""
