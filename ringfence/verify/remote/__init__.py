"""Sent to a host and run there (`ringfence.remote.bundle`): what runs on it, real connections, and what arrived.

Python 3.11 of the distribution, no dependencies but this package.
"""
