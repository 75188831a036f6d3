"""pyinfra's door to the role `watch`. Run it alone: pyinfra inventory.py roles/watch/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("watch")
def watch() -> None:
    """Compare the fence with what is intended every few seconds, and put it back."""
    ROLE.converge()


if ROLE.is_run_alone():
    watch()
