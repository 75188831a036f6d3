"""Where rules stand: chains of iptables, or of the own table of nftables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ringfence.host.policy.rules import OWN, Rule
from ringfence.host.tables import Tables

HOLD = "RF-HOLD"  # of the role ufw: it holds INPUT while ufw starts anew


BASES = {
    "RF-FWD": ("forward", "filter", "forward", -150),
    "RF-HOST": ("input", "filter", "input", -150),
    "RF-NAT": ("postrouting", "nat", "postrouting", 110),  # behind Docker's
}


class Place(NamedTuple):
    """A chain: medium is v4 or v6 (iptables, ip6tables) or nft."""

    medium: str
    table: str
    chain: str


# What is live is a rule of ours, or the text of one that is not.
Rules = dict[Place, list[Rule]]


Live = dict[Place, list[Rule | str]]


def table_of(chain: str) -> str:
    """The table of a rule in one of the own table's chains, as `Rule` has it."""
    return "nat" if chain == "RF-NAT" else "mangle"


def placed(rules: Iterable[Rule], backend: str, media: Iterable[str]) -> Rules:
    """Which chain of which medium each rule stands in. With Docker's nftables back end, only filter is iptables'."""
    found: Rules = {}
    for rule in rules:
        nft = backend == "nftables" and rule.table != "filter"
        for medium in ("nft",) if nft else media:
            if nft or rule.family in ("", medium):
                # Which family a chain's rules are of is told by the chain on iptables, by the rule on nftables.
                own = rule if nft else rule._replace(family="")
                found.setdefault(Place(medium, rule.table, rule.chain), []).append(own)
            else:
                found.setdefault(Place(medium, rule.table, rule.chain), [])
    for jump in jumps(backend):
        for medium in media if jump.target.startswith(OWN) else ():
            found.setdefault(Place(medium, jump.table, jump.target), [])
    if backend == "nftables":
        for chain in BASES:
            found.setdefault(Place("nft", table_of(chain), chain), [])
    return found


class Jump(NamedTuple):
    """A jump into an own chain (or into DOCKER-USER), and what it must not stand behind."""

    table: str
    chain: str
    target: str
    behind: re.Pattern[str] | None


HARMLESS = r"(TCPMSS|MARK|CONNMARK|LOG|NFLOG|DSCP|TOS|TTL|HL|CLASSIFY|CHECKSUM)\b"


JUMPS = {
    # Nothing that could end the way of a packet comes before the deny.
    "mangle": (
        Jump("mangle", "FORWARD", "RF-FWD", re.compile(rf"-[jg] (?!{HARMLESS})")),
        Jump("mangle", "INPUT", "RF-HOST", re.compile(rf"-[jg] (?!{HARMLESS})")),
    ),
    # What only opens has to stand ahead of what Docker drops; bans of others keep their place before it.
    "iptables": (
        Jump("raw", "PREROUTING", "RF-RAW", re.compile(r"-j DROP$")),
        Jump("filter", "DOCKER-USER", "RF-OPEN", re.compile(r"^-j (ACCEPT|DROP|REJECT)\b|-j RETURN$")),
        Jump("filter", "FORWARD", "DOCKER-USER", re.compile(r"-[jg] DOCKER(?!-USER)|-[io] (rf-|docker|br-)")),
        Jump("nat", "POSTROUTING", "RF-NAT", None),
    ),
    "nftables": (
        Jump("filter", "FORWARD", "RF-OPEN", re.compile(r"^-j (DROP|REJECT)\b|-[jg] ufw6?-")),
    ),
}  # fmt: skip


def jumps(backend: str) -> tuple[Jump, ...]:
    return JUMPS["nftables"] if backend == "nftables" else (*JUMPS["mangle"], *JUMPS["iptables"])


def standing(jump: Jump, rules: list[str]) -> tuple[int, int]:
    """(position of the jump, position where it must stand at the latest), from 1; 0 where there is none."""
    position = rules.index(f"-j {jump.target}") + 1 if f"-j {jump.target}" in rules else 0
    first = next((n for n, rule in enumerate(rules, 1) if jump.behind and jump.behind.search(rule)
                  and rule != f"-j {jump.target}"), 0)  # fmt: skip
    return position, first


def jump_changes(tables: Tables, backend: str) -> list[str]:
    """What has to change so that every table is entered through ringfence's chains."""
    changes = []
    for jump in jumps(backend):
        rules = tables.get(jump.table, {}).get(jump.chain, [])
        position, first = standing(jump, rules)
        way = f"jump {jump.table} {jump.chain} > {jump.target}"
        if not position:
            changes.append(f"+ {way}")
        elif first and first < position:
            changes.append(f"~ {way}: rule {position} → {first}, behind: {rules[first - 1]}")
        elif rules.count(f"-j {jump.target}") > 1:
            changes.append(f"~ {way}: there twice")
    for table, chains in tables.items():
        for chain, rule in strays(table, chains, backend):
            changes.append(f"- jump {table} {chain} > {leads_to(rule)}")
    return changes


def strays(table: str, chains: dict[str, list[str]], backend: str) -> Iterator[tuple[str, str]]:
    """(chain, rule) of the jumps from chains of others into own ones that have no business there."""
    wanted = {(jump.chain, jump.target) for jump in jumps(backend) if jump.table == table}
    for chain, rules in chains.items():
        for rule in rules if not chain.startswith(OWN) else ():
            target = leads_to(rule)
            if target.startswith(OWN) and target != HOLD and ((chain, target) not in wanted or rule != f"-j {target}"):
                yield chain, rule


def leads_to(rule: str) -> str:
    """The chain, or whatever a rule's target is, at its end."""
    found = re.search(r"-[jg] (\S+)$", rule)
    return found[1] if found else ""
