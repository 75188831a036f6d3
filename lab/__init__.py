"""Throwaway hosts on this machine: system containers that behave like small Debian servers.

Only the standard library is used here, so that `python3 -m lab` runs before any virtual environment exists.
"""
