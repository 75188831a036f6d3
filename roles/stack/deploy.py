"""pyinfra's door to the role `stack`. Run it alone: pyinfra inventory.py roles/stack/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("stack")
def stack() -> None:
    """Run one hardened compose project per declared stack."""
    ROLE.converge()


if ROLE.is_run_alone():
    stack()
