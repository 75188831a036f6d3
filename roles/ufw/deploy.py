"""pyinfra's door to the role `ufw`."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import File, Program, Role, Variables, Wanted

ROLE = Role(__file__)


def wanted(v: Variables) -> Wanted:
    """What the role wants on a host, from its variables: pure, so it can be tested and surveyed at once."""
    return Wanted(
        packages=v["ufw_packages"],
        files=[File("/usr/local/sbin/ringfence-ufw", ROLE.file("ringfence-ufw"), mode="0755")],
        program=Program("ringfence-ufw", desired=ROLE.render_json("desired.json.j2", v), guarded=True),
    )


@deploy("ufw")
def ufw() -> None:
    """Let in what is declared, and nothing else, on IPv4 and IPv6."""
    ROLE.converge(wanted)
