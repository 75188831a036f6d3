"""Docker's translations of published ports, as the kernel has them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ringfence.host.nft import nft_table
from ringfence.host.tables import families, live_text, parse_save

NFT_TABLES = ("ip docker-bridges", "ip6 docker-bridges")
# (protocol, port of the host, address, port of the address)
Translation = tuple[str, str, str, str]

_RULE = re.compile(r"-p (\w+) .*--dport (\d+) .*-j DNAT --to-destination (\[[^]]+\]|[\d.]+):(\d+)$")
_NFT = re.compile(r"(\w+) dport (\d+) .*dnat to (\[[^]]+\]|[\d.]+):(\d+)\b")


def in_rules(rules: Iterable[str]) -> list[Translation]:
    """Read rules of Docker's chain in iptables' table nat, as iptables-save prints them."""
    return [(found[1], found[2], found[3], found[4]) for rule in rules if (found := _RULE.search(rule))]


def in_table(text: str) -> list[Translation]:
    """Read what nft prints of Docker's table."""
    return [(found[1], found[2], found[3], found[4]) for found in _NFT.finditer(text)]


def translated() -> set[tuple[str, int]]:
    """Return (protocol, port) of what Docker translates by either of its back ends. Raises Fault."""
    found = [one for table in NFT_TABLES for one in in_table(nft_table(table))]
    for family in families():
        found += in_rules(parse_save(live_text(family) or "").get("nat", {}).get("DOCKER", []))
    return {(proto, int(port)) for proto, port, _, _ in found}
