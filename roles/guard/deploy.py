"""pyinfra's door to the role `guard`. Run it alone: pyinfra inventory.py roles/guard/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("guard")
def guard() -> None:
    """Install what takes back a change that nobody confirms."""
    ROLE.converge()


if ROLE.is_run_alone():
    guard()
