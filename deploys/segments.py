"""The role `segments` alone. Run: pyinfra inventory.py deploys/segments.py"""

from __future__ import annotations

from pyinfra import host

from roles.segments.deploy import segments

if "docker_hosts" in host.groups:
    segments()
