"""What Docker's other firewall back end left behind, and how it is taken away."""

from __future__ import annotations

import re
from typing import NamedTuple

from ringfence.host.engine import bridge_of, engine
from ringfence.host.nft import nft_tables
from ringfence.host.tables import Tables, families, iptables, live_text, parse_policies, parse_save
from ringfence.host.translations import NFT_TABLES

# Docker's own chains of the iptables back end; DOCKER-USER is the user's.
DOCKERS = re.compile(r"DOCKER(-(FORWARD|CT|BRIDGE|INTERNAL|ISOLATION-STAGE-[12]))?$")


class Remains(NamedTuple):
    """Something that Docker's other firewall back end left behind, and that would drop or open traffic."""

    what: str
    command: tuple[str, ...]
    text: str  # standard input of the command that takes it away

    @property
    def change(self) -> str:
        return f"- {self.what}, left behind by Docker's other firewall back end"


def look_for_remains(backend: str) -> list[Remains]:
    """What is left of the back end that the running daemon does not use. Raises Fault when that cannot be told."""
    if backend == "iptables":
        tables = nft_tables()
        return [
            Remains(f"nftables table {name}", ("nft", "-f", "-"), f"delete table {name}\n")
            for name in NFT_TABLES
            if name in tables
        ]
    bridges = {"docker0", *(bridge_of(network) for network in engine("GET", "/networks"))}
    found = []
    for family in families():
        text = live_text(family) or ""
        policy = parse_policies(text).get("filter", {}).get("FORWARD", "")
        found += iptables_remains(family, parse_save(text), policy, bridges)
    return found


def iptables_remains(family: str, tables: Tables, policy: str, bridges: set[str]) -> list[Remains]:
    """What Docker's iptables back end left in a family, now that Docker writes to nftables.

    Args:
        policy: of filter FORWARD. Docker sets DROP, which would drop what nftables lets pass.
        bridges: of Docker's networks.
    """
    found = []
    for table, chains in tables.items():
        own = [chain for chain in chains if DOCKERS.match(chain)]
        rules = [
            (chain, rule)
            for chain, those in chains.items()
            if chain not in own
            for rule in those
            if any(rule.endswith(f"-j {name}") for name in own) or of_a_bridge(table, chain, rule, bridges)
        ]
        dropping = table == "filter" and policy == "DROP" and not used_by_others(chains, own)
        if not own and not rules and not dropping:
            continue
        what = [
            *([f"chains {', '.join(own)}"] if own else []),
            *([f"{len(rules)} rules"] if rules else []),
            *(["policy DROP of FORWARD"] if dropping else []),
        ]
        lines = [
            f"*{table}",
            *([":FORWARD ACCEPT [0:0]"] if dropping else []),
            *(f":{chain} - [0:0]" for chain in own),  # emptied first: nothing refers to them when they are deleted
            *(f"-D {chain} {rule}" for chain, rule in rules),
            *(f"-X {chain}" for chain in own),
        ]
        text = "\n".join([*lines, "COMMIT", ""])
        command = (iptables(family, "restore"), "--noflush", "--wait", "10")
        found.append(Remains(f"{iptables(family)} {table}: {', '.join(what)}", command, text))
    return found


def of_a_bridge(table: str, chain: str, rule: str, bridges: set[str]) -> bool:
    """Whether a rule of a built-in chain is one that Docker makes for a bridge or a container on it."""
    shapes = {
        ("raw", "PREROUTING"): r"-d \S+ ! -i (\S+) -j DROP",
        (
            "nat",
            "POSTROUTING",
        ): r"(-s \S+ ! -o (?P<bridge>\S+)|-o (?P<out>\S+) -m addrtype --src-type LOCAL) -j MASQUERADE",
    }
    shape = shapes.get((table, chain))
    match = re.fullmatch(shape, rule) if shape else None
    return bool(match and bridges & set(match.groups()))


def used_by_others(chains: dict[str, list[str]], own: list[str]) -> bool:
    """Whether somebody besides Docker and ringfence filters what is forwarded, and may have set the policy."""
    rules = [*chains.get("FORWARD", []), *chains.get("DOCKER-USER", [])]
    known = {"-j RETURN", "-j DOCKER-USER", *(f"-j {chain}" for chain in own)}
    return any(rule not in known and not re.fullmatch(r"-[jg] RF-\S+", rule) for rule in rules)
