"""pyinfra's door to the role `docker`. Run it alone: pyinfra inventory.py roles/docker/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("docker")
def docker() -> None:
    """Provide Docker's engine, compose v2 and a merged daemon.json."""
    ROLE.converge()


if ROLE.is_run_alone():
    docker()
