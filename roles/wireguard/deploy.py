"""pyinfra's door to the role `wireguard`. Run it alone: pyinfra inventory.py roles/wireguard/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("wireguard")
def wireguard() -> None:
    """Connect this host to its peers by WireGuard."""
    ROLE.converge()


if ROLE.is_run_alone():
    wireguard()
