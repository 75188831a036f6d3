"""The role `stack` alone. Run: pyinfra inventory.py deploys/stack.py"""

from __future__ import annotations

from pyinfra import host

from roles.stack.deploy import stack

if "docker_hosts" in host.groups:
    stack()
