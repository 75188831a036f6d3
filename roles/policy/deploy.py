"""pyinfra's door to the role `policy`. Run it alone: pyinfra inventory.py roles/policy/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("policy")
def policy() -> None:
    """Fence the segments: default deny between and inside them, on IPv4 and IPv6."""
    ROLE.converge()


if ROLE.is_run_alone():
    policy()
