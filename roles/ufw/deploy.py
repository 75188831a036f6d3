"""pyinfra's door to the role `ufw`. Run it alone: pyinfra inventory.py roles/ufw/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("ufw")
def ufw() -> None:
    """Let in what is declared, and nothing else, on IPv4 and IPv6."""
    ROLE.converge()


if ROLE.is_run_alone():
    ufw()
