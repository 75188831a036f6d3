"""Reads Ansible inventories with ansible-core's own rules and hands them to both engines.

`front` (standard library only) is what ``inventory.py`` uses; it starts ``python -m ringfence.inventory`` in a process
of its own, because ansible-core cannot be imported into pyinfra's gevent-patched one.
"""
