"""pyinfra's door to the role `stack`."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import File, Program, Role, Variables, Wanted

ROLE = Role(__file__)


def wanted(v: Variables) -> Wanted:
    """What the role wants on a host, from its variables: pure, so it can be tested and surveyed at once."""
    return Wanted(
        packages=v["stack_packages"],
        files=[File("/usr/local/sbin/ringfence-stack", ROLE.file("ringfence-stack"), mode="0755")],
        program=Program("ringfence-stack", desired=ROLE.render_json("desired.json.j2", v)),
    )


@deploy("stack")
def stack() -> None:
    """Run one hardened compose project per declared stack."""
    ROLE.converge(wanted)
