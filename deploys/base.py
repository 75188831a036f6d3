"""The role `base` alone. Run: pyinfra inventory.py deploys/base.py"""

from __future__ import annotations

from pyinfra import host

from roles.base.deploy import base

if "docker_hosts" in host.groups:
    base()
