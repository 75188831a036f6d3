"""pyinfra's door to the role `guard`."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import File, Program, Role, Variables, Wanted

ROLE = Role(__file__)


def wanted(v: Variables) -> Wanted:
    """What the role wants on a host, from its variables: pure, so it can be tested and surveyed at once."""
    return Wanted(
        packages=v["guard_packages"],
        files=[
            File("/usr/local/sbin/ringfence-guard", ROLE.file("ringfence-guard"), mode="0755"),
            File("/etc/systemd/system/ringfence-guard-boot.service", ROLE.file("ringfence-guard-boot.service")),
        ],
        program=Program("ringfence-guard", desired=ROLE.render_json("desired.json.j2", v)),
    )


@deploy("guard")
def guard() -> None:
    """Install what takes back a change that nobody confirms."""
    ROLE.converge(wanted)
