"""pyinfra's door to the role `policy`."""

from __future__ import annotations

from pyinfra.api.deploy import deploy

from ringfence.role import File, Program, Role, Variables, Wanted

ROLE = Role(__file__)


def wanted(v: Variables) -> Wanted:
    """What the role wants on a host, from its variables: pure, so it can be tested and surveyed at once."""
    return Wanted(
        packages=v["policy_packages"],
        files=[
            File("/usr/local/sbin/ringfence-policy", ROLE.file("ringfence-policy"), mode="0755"),
            File("/etc/systemd/system/ringfence-policy.service", ROLE.file("ringfence-policy.service")),
            File("/etc/systemd/system/ringfence-policy-docker.service", ROLE.file("ringfence-policy-docker.service")),
            File("/etc/systemd/system/ringfence-ulogd.service", ROLE.file("ringfence-ulogd.service")),
            File("/etc/logrotate.d/ringfence-policy", ROLE.file("ringfence-policy.logrotate")),
            File("/etc/ringfence/ulogd.conf", ROLE.render("ulogd.conf.j2", v)),
        ],
        program=Program("ringfence-policy", desired=ROLE.render_json("desired.json.j2", v), guarded=True),
    )


@deploy("policy")
def policy() -> None:
    """Fence the segments: default deny between and inside them, on IPv4 and IPv6."""
    ROLE.converge(wanted)
