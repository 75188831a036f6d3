"""Fields where the fence is concerned reach real containers: devices, ranges, resolvers, sockets, the host's own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.live.labs import Lab, waited_for
from tests.live.living.test_adopted import answered
from tests.live.living.test_networks import reached, service

pytestmark = pytest.mark.engines("29")
ODD = "$HOME ${X:-y} $$ '\" \\ %} # ~ é {{ braces }}"
# What real images of such proxies do with HAProxy: who asks with GET may read, and nobody may do anything else.
FILTER = """
global
    log stdout format raw local0
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend callers
    bind :::2375 v4v6
    http-request deny if !METH_GET
    http-request deny unless { path,url_dec -m reg -i ^(/v[0-9.]+)?/(containers|version|_ping) }
    default_backend docker
backend docker
    server docker /var/run/docker.sock
"""


# The real program, with what it needs of the host's libraries.
PROXY = "docker.io/tecnativa/docker-socket-proxy:v0.4.1"
PACK = f"""
set -e
DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends haproxy >/dev/null
systemctl disable --now haproxy 2>/dev/null
tar -ch /usr/sbin/haproxy $(ldd /usr/sbin/haproxy | grep -o '/[^ ]*') /etc/passwd /etc/group 2>/dev/null |
    docker import -c 'ENV PATH=/usr/sbin' - {PROXY}
"""


def services(lab: Lab) -> dict[str, Any]:
    outside = lab.address("outside")
    return {
        "names": service(
            segments=["backend"], egress=[{"to": f"{outside}/32", "port": 4433}], resolvers=[outside],
        ),
        "media": service(
            segments=["frontend"], devices=["/dev/ttyUSB0", "/dev/net/tun:/dev/net/tun:rw"], group_add=["44", "1234"],
            command=["sh", "-c", "for p in 7000 7001 7004; do httpd -p $p -h /bin; done; exec sleep 1000000"],
            publish=[{"port": "7000-7004", "published": "17000-17004", "from": ["lan"]}],
            compose={"env_file": "media.env"}, environment={"OVER": "environment"},
        ),
        "metrics": service(
            segments=["frontend"], pid="host", allow_host=True, volumes=["/:/host:ro"], read_only=True,
        ),
        "bound": service(
            segments=["frontend"], command=["httpd", "-f", "-p", "80", "-h", "/bin"],
            publish=[
                {"port": 80, "published": 18080, "from": ["lan"], "address": lab.address()},
                {"port": 80, "published": 18081, "address": "self"},
            ],
        ),
        "socket": service(
            segments=["frontend"], image=PROXY, docker_socket=True, port=2375,
            user="0", command=["haproxy", "-W", "-db", "-f", "/filter.cfg"], files={"/filter.cfg": FILTER},
        ),
        "dashboard": service(segments=["frontend"], calls=["socket"]),
    }  # fmt: skip


def test_they_reach_the_containers(lab: Lab) -> None:
    lab.sh(PACK, timeout=300)
    written = re.sub(r'([\\"$])', r"\\\1", ODD)
    (lab.inventory / "media.env").write_text(f'ODD="{written}"\nOVER=file\n', encoding="utf-8")
    answered(lab, lab_services=services(lab))
    told = lab.pyinfra(check=False)
    assert told.code != 0
    assert "service media: /dev/ttyUSB0 does not exist on this host" in told.text, told.text
    assert "Success" not in told.text.partition("Starting operation: guard")[2], "something was changed before"
    # A stick for the radio, and the tunnel's device, as far as a container's host has drivers.
    lab.sh("mknod /dev/ttyUSB0 c 188 0; mkdir -p /dev/net; test -e /dev/net/tun || mknod /dev/net/tun c 10 200")
    lab.pyinfra()
    [media] = json.loads(lab.sh("docker inspect media-media-1"))
    assert {d["PathOnHost"] for d in media["HostConfig"]["Devices"]} == {"/dev/ttyUSB0", "/dev/net/tun"}
    assert media["HostConfig"]["GroupAdd"] == ["44", "1234"]
    values = dict(entry.split("=", 1) for entry in media["Config"]["Env"])
    assert (values["ODD"], values["OVER"]) == (ODD, "environment")
    assert lab.sh('docker exec metrics-metrics-1 sh -c \'tr "\\0" " " < /proc/1/cmdline\'').startswith("/")
    held = lab.sh("ss -Hltn")
    assert f"{lab.address()}:18080" in held
    assert "127.0.0.1:18081" in held
    assert "0.0.0.0:1808" not in held
    for port, there in ((17000, True), (17001, True), (17004, True)):
        assert lab.reaches(port) == there
    assert lab.reaches(18080)
    assert not lab.reaches(18081)


def test_they_verify_and_what_is_given_is_listed(lab: Lab) -> None:
    verified = lab.verify()
    assert verified.code == 0, verified.text
    assert "metrics: is given its host: pid host, volumes /, Docker's socket with it (allow_host)" in verified.text, (
        verified.text
    )
    assert "socket: has Docker's socket, and filters it for dashboard (docker_socket)" in verified.text, verified.text
    opened = lab.opened()
    assert {("lan", "atlas", "tcp", port, 4) for port in (17000, 17004)} <= opened
    assert not any(port in (16999, 17005) for _, _, _, port, _ in opened)
    lab.must_be_converged()
    assert lab.ansible("--tags", "stack,policy,ufw").changed == []


def test_the_socket_is_read_by_whom_it_is_for_and_commands_nothing(lab: Lab) -> None:
    ask = "printf '%s /containers/json HTTP/1.0\\r\\nContent-Length: 0\\r\\n\\r\\n' {} | nc -w 3 socket 2375 | head -1"
    in_dashboard = 'docker exec dashboard-dashboard-1 sh -c "{}"'
    assert "200" in lab.sh(in_dashboard.format(ask.format("GET")))
    assert "403" in lab.sh(in_dashboard.format(ask.format("POST")))
    assert not reached(lab, "media-media-1", "socket", 2375)


def test_a_proxy_that_lets_everything_through_is_a_difference(lab: Lab) -> None:
    changed = services(lab)
    open_ = "\n".join(line for line in FILTER.splitlines() if "deny" not in line) + "\n"
    changed["socket"]["files"] = {"/filter.cfg": open_}
    answered(lab, lab_services=changed)
    lab.pyinfra()
    assert any("socket: lets POST /containers/create" in line for line in lab.verify().changed)
    answered(lab, lab_services=services(lab))
    lab.pyinfra()
    assert waited_for(lambda: lab.verify().changed == [], 60)


def test_what_hands_over_the_host_is_refused_unless_it_is_confirmed(lab: Lab) -> None:
    plain = service(segments=["frontend"])
    refused = {
        "a": plain | {"privileged": True}, "b": plain | {"pid": "host"}, "c": plain | {"devices": ["/dev/sda"]},
        "d": plain | {"volumes": ["/var/run/docker.sock:/s"], "allow_host": True, "privileged": True},
    }  # fmt: skip
    ways = ["//var/run/docker.sock", "/var/run/../run/podman/podman.sock", "/srv/../etc/shadow", "/etc//ringfence/x",
            "/proc/1/root", "/var/", "/var/lib", "/root/./.ssh"]  # fmt: skip
    refused["e"] = plain | {"volumes": [f"{way}:/mounted/{number}:ro" for number, way in enumerate(ways)]}
    answered(lab, lab_services=refused)
    told = lab.pyinfra(check=False)
    answered(lab, lab_services=services(lab))
    assert told.code != 0
    for words in ("lab_services.a.privileged", "lab_services.b.pid", "lab_services.c.devices", "allow_host: true",
                  "'/var/run/docker.sock' hands the whole host", *(f"'{way}' " for way in ways)):  # fmt: skip
        assert words in told.text, told.text
