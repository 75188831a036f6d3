"""pyinfra's door to the role `pki`. Run it alone: pyinfra inventory.py roles/pki/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("pki")
def pki() -> None:
    """Issue and renew certificates for this host's containers."""
    ROLE.converge()


if ROLE.is_run_alone():
    pki()
