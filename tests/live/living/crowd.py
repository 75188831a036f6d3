"""A host as people have them: what runs on it, how its owner comes to it, and whether all of that still works."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from tests.live.hoststate import host_variables
from tests.live.labs import Lab, waited_for

IMAGE = "docker.io/library/busybox:1.37"
# ufw-docker's block, shortened: what decides is that it names chains of ufw's and Docker's.
BLOCK = r"""
# BEGIN UFW AND DOCKER
*filter
:ufw-user-forward - [0:0]
:ufw-docker-logging-deny - [0:0]
:DOCKER-USER - [0:0]
-A DOCKER-USER -j ufw-user-forward
-A DOCKER-USER -j RETURN -s 10.0.0.0/8
-A DOCKER-USER -j RETURN -s 172.16.0.0/12
-A DOCKER-USER -j RETURN -s 192.168.0.0/16
-A DOCKER-USER -j ufw-docker-logging-deny -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -d 172.16.0.0/12
-A DOCKER-USER -j RETURN
-A ufw-docker-logging-deny -j DROP
COMMIT
# END UFW AND DOCKER
"""
DAEMON = {"log-opts": {"max-size": "5m"}, "shutdown-timeout": 20}
UPDATES = 'APT::Periodic::Unattended-Upgrade "0";\n'
JAIL = "[sshd]\nenabled = true\nbackend = systemd\nbanaction = iptables-multiport\n"
NGINX = "server { listen 80 default_server; listen [::]:80 default_server; return 200 'their nginx\\n'; }\n"
# A web application with its database, a proxy that reaches it by the host's address, a home in the host's network.
PROJECTS = {
    "web": f"""
services:
  app: {{image: {IMAGE}, restart: always, command: httpd -f -p 80 -h /bin, ports: ["8080:80"], depends_on: [db]}}
  db: {{image: {IMAGE}, restart: always, command: httpd -f -p 5432 -h /bin}}
""",
    "edge": f"""
services:
  proxy: {{image: {IMAGE}, restart: always, command: sleep 1000000, init: true}}
""",
    "home": f"""
services:
  assistant: {{image: {IMAGE}, restart: always, network_mode: host, command: httpd -f -p 8123 -h /bin}}
""",
}
# Podman's own unit brings its container back, as its manual has people do.
PODMAN = f"""[Unit]
After=network-online.target
[Service]
Restart=always
ExecStartPre=-/usr/bin/podman rm -f pods
ExecStart=/usr/bin/podman --runtime crun run --rm --name pods --cgroups=disabled --log-driver none \\
  --network host {IMAGE} httpd -f -p 9095 -h /bin
[Install]
WantedBy=multi-user.target
"""
STORAGE = """[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""
# What no port of TCP tells: a client of DHCPv6 on its link's address, a neighbour's VRRP.
NEIGHBOURS = """import pathlib, socket
links = [line.split() for line in open("/proc/net/if_inet6") if line.startswith("fe80") and "eth" in line]
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
client.bind((socket.inet_ntop(socket.AF_INET6, bytes.fromhex(links[0][0])), 546, 0, int(links[0][1], 16)))
vrrp = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
while True:
    pathlib.Path("/run/vrrp").write_bytes(vrrp.recv(1500)[20:])
"""
NEIGHBOURS_UNIT = """[Service]
Restart=always
RestartSec=1
ExecStart=/usr/bin/python3 /srv/neighbours.py
[Install]
WantedBy=multi-user.target
"""
SET_UP = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y install --no-install-recommends nginx-light fail2ban python3-systemd podman crun ufw >/dev/null
systemctl restart nginx fail2ban
docker save docker.io/library/busybox:1.37 | podman load -q >/dev/null
systemctl daemon-reload
systemctl reload docker || systemctl restart docker
systemctl disable --now apt-daily-upgrade.timer 2>/dev/null || true
ufw allow 22/tcp >/dev/null
ufw route allow proto tcp from any to any port 8443 >/dev/null
systemctl enable --now pods.service neighbours.service 2>/dev/null
for project in web edge home; do docker compose -p $project -f /srv/$project/compose.yaml up -d --quiet-pull 2>&1; done
"""
NAMES = ("web-app-1", "web-db-1", "edge-proxy-1", "home-assistant-1")
STARTED = f"docker inspect -f '{{{{.Name}}}} {{{{.State.StartedAt}}}}' {' '.join(NAMES)}"
# What a plan must leave as it is.
STATE = (
    f"{STARTED}; podman ps -q; cat /etc/docker/daemon.json /etc/apt/apt.conf.d/20auto-upgrades /etc/ufw/*.rules"
    r" /etc/default/ufw; iptables-save | grep -v '^#' | sed 's/\[.*\]//'"
)
ALIAS = "my-server"


def crowd(lab: Lab) -> None:
    """Let people live on a host that has an engine."""
    made = json.loads(lab.sh("cat /etc/docker/daemon.json 2>/dev/null || echo '{}'"))
    files = {
        "/etc/docker/daemon.json": json.dumps({**made, **DAEMON}),
        "/etc/apt/apt.conf.d/20auto-upgrades": UPDATES,
        "/etc/fail2ban/jail.local": JAIL,
        "/etc/nginx/sites-enabled/default": NGINX,
        "/etc/systemd/system/pods.service": PODMAN,
        "/etc/containers/storage.conf": STORAGE,
        "/srv/neighbours.py": NEIGHBOURS,
        "/etc/systemd/system/neighbours.service": NEIGHBOURS_UNIT,
        **{f"/srv/{name}/compose.yaml": text for name, text in PROJECTS.items()},
    }
    for path, text in files.items():
        lab.sh(f"mkdir -p $(dirname {path}) && cat > {path}", text=text)
    lab.sh(SET_UP, timeout=600)
    lab.sh("cat >> /etc/ufw/after.rules", text=BLOCK)
    lab.sh("ufw status | grep -q inactive || ufw reload")
    lab.listen(9000)


def asks(lab: Lab, container: str, address: str, port: int) -> bool:
    """Whether a container gets an answer of a web server."""
    ask = f"printf 'GET /cat HTTP/1.0\\r\\n\\r\\n' | docker exec -i {container} nc -w 3 {address} {port} | head -c 15"
    return "200 OK" in lab.sh(ask, check=False)


def reaches6(lab: Lab, port: int) -> bool:
    """Whether this machine can open a new connection to a TCP port of the host by IPv6."""
    # The lab's plan numbers a host alike in both families.
    slot, number = lab.address().split(".")[2:]
    with contextlib.suppress(OSError), socket.create_connection((f"fd52:4600:{slot}::{number}", port), timeout=2):
        return True
    return False


def hears_vrrp(lab: Lab) -> bool:
    """Whether a datagram of protocol 112 arrives."""
    said = os.urandom(8).hex()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 112) as neighbour:
        neighbour.sendto(said.encode(), (lab.address(), 0))
    heard = f"timeout 2 sh -c 'until grep -qs {said} /run/vrrp; do sleep 0.05; done' && echo heard"
    return "heard" in lab.sh(heard, check=False)


def works(lab: Lab) -> dict[str, bool]:
    """Return what their host does for them, each with whether it does."""
    route = (
        "grep -q 'route:allow tcp 8443' /etc/ufw/user.rules && { ufw status | grep -q inactive ||"
        " iptables -S ufw-user-forward | grep -q -- '--dport 8443 -j ACCEPT'; } && echo it is"
    )
    return {
        "their nginx from the LAN": lab.reaches(80),
        "their web application from the LAN": lab.reaches(8080),
        "their web application from the LAN by IPv6": reaches6(lab, 8080),
        "a neighbour's VRRP": hears_vrrp(lab),
        "their home automation from the LAN": lab.reaches(8123),
        "podman's container from the LAN": lab.reaches(9095),
        "what somebody started at port 9000": lab.reaches(9000),
        "their proxy reaches the other project by the host's address": asks(lab, "edge-proxy-1", lab.address(), 8080),
        "the application reaches its database": asks(lab, "web-app-1", "db", 5432),
        "their route rule": "it is" in lab.sh(route, check=False),
        "fail2ban watches sshd": "Currently failed" in lab.sh("fail2ban-client status sshd", check=False),
    }  # fmt: skip


def everything_works(lab: Lab, but: frozenset[str] = frozenset()) -> None:
    """Wait until all works but what was given up, which does not."""
    waited_for(lambda: {name for name, good in works(lab).items() if not good} == but, 60, pause=1)
    assert {name for name, good in works(lab).items() if not good} == but


@contextlib.contextmanager
def by_an_alias(lab: Lab) -> Iterator[None]:
    """Come to the host by an alias of OpenSSH's configuration, with a port of its own, behind a jump host."""
    key, known = lab.state / "id_ed25519", lab.state / "known_hosts"
    configuration = lab.state / "alias"
    configuration.write_text(
        f"Host {ALIAS}\n  HostName {lab.address()}\n  Port 22\n  ProxyJump hop\n"
        f"Host hop\n  HostName {lab.address('outside')}\n"
        f"Host *\n  User root\n  IdentityFile {key}\n  UserKnownHostsFile {known}\n  StrictHostKeyChecking yes\n",
        encoding="utf-8",
    )
    values: dict[str, Any] = {
        "ansible_host": ALIAS, "ansible_ssh_common_args": f"-F {configuration}",
        "ansible_ssh_args": "-o ControlMaster=no -o ControlPath=none",
    }  # fmt: skip
    with host_variables(lab, **values):
        yield
