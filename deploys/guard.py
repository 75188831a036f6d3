"""The role `guard` alone. Run: pyinfra inventory.py deploys/guard.py"""

from __future__ import annotations

from pyinfra import host

from roles.guard.deploy import guard

if "docker_hosts" in host.groups:
    guard()
