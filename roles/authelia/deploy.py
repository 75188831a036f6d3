"""pyinfra's door to the role `authelia`. Run it alone: pyinfra inventory.py roles/authelia/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("authelia")
def authelia() -> None:
    """Run the portal where people log in, and which the proxy asks about every request."""
    ROLE.converge()


if ROLE.is_run_alone():
    authelia()
