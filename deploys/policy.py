"""The role `policy` alone. Run: pyinfra inventory.py deploys/policy.py"""

from __future__ import annotations

from pyinfra import host

from roles.policy.deploy import policy

if "docker_hosts" in host.groups:
    policy()
