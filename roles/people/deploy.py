"""pyinfra's door to the role `people`. Run it alone: pyinfra inventory.py roles/people/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("people")
def people() -> None:
    """Bring about the people who may log in."""
    ROLE.converge()


if ROLE.is_run_alone():
    people()
