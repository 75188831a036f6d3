"""pyinfra's door to the role `caddy`. Run it alone: pyinfra inventory.py roles/caddy/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("caddy")
def caddy() -> None:
    """Run the only door to the services of a lab."""
    ROLE.converge()


if ROLE.is_run_alone():
    caddy()
