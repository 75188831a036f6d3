"""Modules of the program ringfence-guard, put into it like the chassis (`python -m ringfence.host`)."""
