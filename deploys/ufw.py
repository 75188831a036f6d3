"""The role `ufw` alone. Run: pyinfra inventory.py deploys/ufw.py"""

from __future__ import annotations

from pyinfra import host

from roles.ufw.deploy import ufw

if "docker_hosts" in host.groups:
    ufw()
