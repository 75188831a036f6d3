"""pyinfra's door to the role `base`."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import File, Program, Role, Variables, Wanted

ROLE = Role(__file__)


def wanted(v: Variables) -> Wanted:
    """What the role wants on a host, from its variables: pure, so it can be tested and surveyed at once."""
    return Wanted(
        packages=v["base_packages"],
        files=[
            File("/usr/local/sbin/ringfence-base", ROLE.file("ringfence-base"), mode="0755"),
            File("/etc/apt/apt.conf.d/20auto-upgrades", ROLE.file("20auto-upgrades")),
        ],
        program=Program("ringfence-base", desired=ROLE.render_json("desired.json.j2", v), guarded=True),
    )


@deploy("base")
def base() -> None:
    """Harden sshd, keep the host up to date and its clock right, set what the kernel should do."""
    ROLE.converge(wanted)
