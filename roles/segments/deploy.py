"""pyinfra's door to the role `segments`."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import File, Program, Role, Variables, Wanted

ROLE = Role(__file__)


def wanted(v: Variables) -> Wanted:
    """What the role wants on a host, from its variables: pure, so it can be tested and surveyed at once."""
    return Wanted(
        packages=v["segments_packages"],
        files=[File("/usr/local/sbin/ringfence-segments", ROLE.file("ringfence-segments"), mode="0755")],
        program=Program("ringfence-segments", desired=ROLE.render_json("desired.json.j2", v)),
    )


@deploy("segments")
def segments() -> None:
    """Make one Docker network per segment, with nothing open inside."""
    ROLE.converge(wanted)
