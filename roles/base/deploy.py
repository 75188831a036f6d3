"""pyinfra's door to the role `base`. Run it alone: pyinfra inventory.py roles/base/deploy.py"""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import Role

ROLE = Role(__file__)


@deploy("base")
def base() -> None:
    """Harden sshd, keep the host up to date and its clock right, set what the kernel should do."""
    ROLE.converge()


if ROLE.is_run_alone():
    base()
