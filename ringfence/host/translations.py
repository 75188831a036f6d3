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
    return set().union(*translated_by_family().values())


def translated_by_family() -> dict[str, set[tuple[str, int]]]:
    """Return the same by IP version, "4" and "6". Raises Fault."""
    found: dict[str, set[tuple[str, int]]] = {"4": set(), "6": set()}
    for version, table in zip(found, NFT_TABLES, strict=True):
        rules = in_table(nft_table(table))
        if f"v{version}" in families():
            rules += in_rules(parse_save(live_text(f"v{version}") or "").get("nat", {}).get("DOCKER", []))
        found[version] |= {(proto, int(port)) for proto, port, _, _ in rules}
    return found
