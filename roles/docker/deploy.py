"""pyinfra's door to the role `docker`."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import File, Program, Role, Variables, Wanted

ROLE = Role(__file__)


def wanted(v: Variables) -> Wanted:
    """What the role wants on a host, from its variables: pure, so it can be tested and surveyed at once."""
    return Wanted(
        packages=v["docker_packages"],
        files=[File("/usr/local/sbin/ringfence-docker", ROLE.file("ringfence-docker"), mode="0755")],
        program=Program("ringfence-docker", desired=ROLE.render_json("desired.json.j2", v)),
    )


@deploy("docker")
def docker() -> None:
    """Provide Docker's engine, compose v2 and a merged daemon.json."""
    ROLE.converge(wanted)
