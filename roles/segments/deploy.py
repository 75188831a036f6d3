"""pyinfra's door to the role `segments`. Run it alone: pyinfra inventory.py roles/segments/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("segments")
def segments() -> None:
    """Make one Docker network per segment, with nothing open inside."""
    ROLE.converge()


if ROLE.is_run_alone():
    segments()
