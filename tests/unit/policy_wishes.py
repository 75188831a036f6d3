"""A small policy that several tests start from."""

from __future__ import annotations

from typing import Any

from ringfence.host.policy.nft import nft_text
from ringfence.host.policy.rule import Around, Rule
from ringfence.host.policy.rules import build
from ringfence.host.policy.sources import sources

BACKEND = {"name": "backend", "bridge": "rf-backend", "subnet": "172.21.0.0/24", "subnet6": "fd00:21::/64"}
FRONTEND = {"name": "frontend", "bridge": "rf-frontend", "subnet": "172.20.0.0/24", "subnet6": "fd00:20::/64"}
WEB = {
    "name": "web", "bridge": "rf-frontend", "mac": "02:42:ac:14:00:0a", "address": "172.20.0.10",
    "address6": "fd00:20::10",
}  # fmt: skip
DB = {
    "name": "db", "bridge": "rf-backend", "mac": "02:42:ac:15:00:0b", "address": "172.21.0.11",
    "address6": "fd00:21::11",
}  # fmt: skip
FLOW = {
    "name": "web > db", "from_bridge": "rf-frontend", "to_bridge": "rf-backend", "source": "172.20.0.10",
    "source6": "fd00:20::10", "destination": "172.21.0.11", "destination6": "fd00:21::11", "proto": "tcp", "port": 5432,
}  # fmt: skip
PUBLISHED = {
    "name": "web 8080", "bridge": "rf-frontend", "destination": "172.20.0.10", "destination6": "fd00:20::10",
    "proto": "tcp", "port": 80, "published": 8080, "sources": ["10.0.0.0/24", "fd00:10::/64"],
}  # fmt: skip
EGRESS = {
    "name": "web > internet", "bridge": "rf-frontend", "source": "172.20.0.10", "source6": "fd00:20::10",
    "to": "internet", "proto": "tcp", "port": 443,
}  # fmt: skip
HOST = {
    "name": "dns from web", "bridge": "rf-frontend", "source": "172.20.0.10", "source6": "fd00:20::10", "proto": "udp",
    "port": 53,
}  # fmt: skip
LAN = {"name": "lan", "networks": ["10.0.0.0/24", "fd00:10::/64"], "interfaces": []}
AROUND = Around(uplinks=("eth0",), docker=("docker0",), subnets=("172.17.0.0/16",))


def wish(**changes: Any) -> dict[str, Any]:
    """The desired state of a host with two segments, a flow, a published port, egress and a host service."""
    return {
        "backend": "", "segments": [BACKEND, FRONTEND], "endpoints": [WEB, DB], "places": [LAN], "uplinks": [],
        "flows": [FLOW], "egress": [EGRESS], "published": [PUBLISHED], "host": [HOST],
        "private": ["10.0.0.0/8", "172.16.0.0/12", "fc00::/7"], "unmanaged": "keep", "ulogd": "", "force": False,
        **changes,
    }  # fmt: skip


def rules_of(backend: str = "iptables", around: Around = AROUND, **changes: Any) -> list[Rule]:
    """All rules of nftables."""
    wanted = wish(**changes)
    return [*sources(wanted, around, backend), *build(wanted, around)]


def text_of(backend: str = "iptables", around: Around = AROUND, **changes: Any) -> str:
    """What nft is told."""
    return nft_text(rules_of(backend, around, **changes))
