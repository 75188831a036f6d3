"""Who else is on the attacked host: containers that nobody declared, a user that is not root. Where everybody is."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from tests.live.engines.ring.attacks import World
from tests.live.engines.ring.declared import RESTING, SERVICES, Addresses
from tests.live.engines.ring.forge import Station
from tests.live.labs import Lab

GUESTS = ("guest", "stray", "custom")
NOBODY = 65534
CUSTOM4, CUSTOM6 = "172.29.46.0/24", "fd52:4646::/64"
_REST = f"{RESTING['image']} {' '.join(RESTING['command'])}"
_RUN = "docker run -d --restart unless-stopped --name"
_FORMAT = (
    '{{index .Config.Labels "com.docker.compose.service"}} {{slice .Name 1}}'
    "{{range .NetworkSettings.Networks}} {{.MacAddress}},{{.IPAddress}},{{.GlobalIPv6Address}}{{end}}"
)


def invite(lab: Lab, a: Addresses) -> None:
    """Make what nobody declared, or make it anew: a container that somebody attached to a segment (Docker gives it
    NET_RAW), one on Docker's own bridge, one on a network whose bridge has a name of its own."""
    four, *six = (ipaddress.ip_network(subnet)[200] for subnet in a.subnets["red"])
    mac = ":".join(f"{byte:02x}" for byte in (2, 0x42, *four.packed))
    options = f"--mac-address {mac} --ip {four}" + "".join(f" --ip6 {one}" for one in six)
    ipv6 = f"--ipv6 --subnet {CUSTOM6}" if six else ""
    leave(lab)
    lab.sh(
        f"set -e; docker network create -o com.docker.network.bridge.name=custom0 --subnet {CUSTOM4} {ipv6} custom;"
        "ip link set custom0 address 02:43:00:00:00:01;"  # what aims at it aims at the one that is made later, too
        f"{_RUN} guest --network rf-red {options} {_REST}; {_RUN} stray {_REST};"
        f"{_RUN} custom --network custom {options.split(' --ip')[0].replace('02:42', '02:43')} {_REST}",
        timeout=120,
    )


def leave(lab: Lab) -> None:
    """Remove them again, where they are."""
    lab.sh(f"docker rm -f {' '.join(GUESTS)}; docker network rm custom", check=False, timeout=120)


def _links(lab: Lab, host: str) -> dict[str, Station]:
    found = {}
    for link in json.loads(lab.sh("ip -j address show", host)):
        of: dict[str, Any] = {}
        for one in link.get("addr_info", []):
            if one["scope"] == "global":
                of.setdefault(one["family"], one["local"])
        found[link["ifname"]] = Station(link.get("address", ""), of.get("inet", ""), of.get("inet6", ""))
    return found


def world(lab: Lab, a: Addresses) -> World:
    """Look at the host: MAC addresses and addresses of everybody who attacks or is attacked."""
    at: dict[str, Station] = {}
    for line in lab.sh(f"docker ps -q | xargs docker inspect -f '{_FORMAT}'").splitlines():
        service, name, *ends = line.split(" ")
        if (who := service or name) in (*SERVICES, *GUESTS):
            at[who] = Station(*ends[0].split(","))
    atlas = _links(lab, "atlas")
    at |= {"red": atlas["rf-red"], "docker0": atlas["docker0"], "custom0": atlas["custom0"], "wan": atlas["eth1"]}
    at["outside"] = _links(lab, "outside")["eth1"]
    return World(at, a)
