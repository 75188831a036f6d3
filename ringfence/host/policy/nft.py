"""Rules in nftables' words, and what nft lists of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ringfence.host.policy.rule import ICMP, Rule

GROUP = 40  # NFLOG's


PASS = 0x10000000  # Docker's bridge-accept-fwmark on its nftables back end: what this policy lets pass


RAW = 0x20000000  # declared flows, ahead of Docker's drops in raw


TABLES = ("inet ringfence", "bridge ringfence")


STATES = {"established": "established, related", "invalid": "invalid"}


class Base(NamedTuple):
    """Where a chain is entered from."""

    kind: str
    hook: str
    priority: int


# Ahead of raw (-300), which knows no connections yet; where mangle stands (-150); behind Docker's nat (100).
BASES = {
    "RF-PRE": Base("filter", "prerouting", -310),
    "RF-FWD": Base("filter", "forward", -150),
    "RF-HOST": Base("filter", "input", -150),
    "RF-OUT": Base("filter", "output", -150),
    "RF-NAT": Base("nat", "postrouting", 110),
    "RF-FRAME": Base("filter", "prerouting", -300),
}


def table_of(chain: str) -> str:
    return TABLES[chain.partition("/")[0] == "RF-FRAME"]


def in_force(rule: Rule) -> Rule | None:
    """A rule as it can be written: nothing is in an empty set, and everything is outside of it."""
    if rule.keys and not rule.elements:
        return rule._replace(keys=()) if rule.keys[0].startswith("!") else None
    return rule


def _interface(key: str, value: str) -> list[str]:
    if not value:
        return []
    pattern = value.lstrip("!")
    pattern = f"{pattern[:-1]}*" if pattern.endswith("+") else pattern
    return [f'{key} {"!= " if value.startswith("!") else ""}"{pattern}"']


def _quoted(key: str, value: str) -> str:
    return f'"{value}"' if key.lstrip("!") in ("iifname", "oifname", "meta ibrname") else value


def _lookup(rule: Rule) -> str:
    keys, negated = list(rule.keys), rule.keys[0].startswith("!")
    rows = []
    for element in rule.elements:
        row = " . ".join(_quoted(key, value) for key, value in zip(keys, element, strict=False))
        rows.append(f"{row} : {element[-1]}" if len(element) > len(keys) else row)
    word = "vmap " if len(rule.elements[0]) > len(keys) else "!= " if negated else ""
    return f"{' . '.join(keys).lstrip('!')} {word}{{ {', '.join(rows)} }}"


def words(rule: Rule) -> str:
    """A rule in nftables' words."""
    out = []
    ip = "ip6" if rule.family == "v6" else "ip"
    by_address = rule.source or rule.destination or any(key.startswith(f"{ip} ") for key in rule.keys)
    if rule.family and not by_address and rule.proto not in ICMP.values():
        out.append(f"meta nfproto ipv{rule.family[1]}")
    out += [*_interface("iifname", rule.into), *_interface("oifname", rule.out)]
    out += [f"{ip} saddr {rule.source}"] if rule.source else []
    out += [f"{ip} daddr {rule.destination}"] if rule.destination else []
    if rule.proto in ("tcp", "udp"):
        out += [f"{rule.proto} sport {rule.sport}"] if rule.sport else []
        out += [f"{rule.proto} dport {rule.dport}"] if rule.dport else []
        out += [f"meta l4proto {rule.proto}"] if not rule.sport and not rule.dport else []
    elif rule.proto:
        name = {"icmp6": "icmpv6"}.get(rule.proto, rule.proto)
        out.append(f"{name} type {rule.type}" if rule.type else f"meta l4proto {name}")
    out += [f"ct state {STATES[rule.state]}"] if rule.state else []
    out += [f"ct original proto-dst {rule.original}"] if rule.original else []
    out += [_lookup(rule)] if rule.keys else []
    out += [rule.words] if rule.words else []
    verdict, _, argument = rule.verdict.partition(" ")
    if verdict == "log":
        out.append(f'limit rate 10/second burst 50 packets log prefix "{argument}" group {GROUP}')
    elif verdict in ("pass", "raw"):
        out.append(f"meta mark set meta mark | {PASS if verdict == 'pass' else RAW:#x} accept")
    elif verdict:
        out.append(rule.verdict)
    return " ".join([*out, f'comment "{rule.name}"'])


def nft_text(rules: Iterable[Rule]) -> str:
    """The input of nft -f: the whole of both tables, made anew in one transaction."""
    chains: dict[str, dict[str, list[str]]] = {
        table: {chain: [] for chain in BASES if table_of(chain) == table} for table in TABLES
    }
    written = [rule for rule in map(in_force, rules) if rule]
    for rule in written:
        chains[table_of(rule.chain)].setdefault(rule.chain, []).append(words(rule))
    if not any(table_of(rule.chain) == TABLES[1] for rule in written):
        chains[TABLES[1]].clear()
    out = []
    for table, own in chains.items():
        # Added first, so that there is one to delete.
        out += [f"add table {table}", f"delete table {table}"]
        if not own:
            continue
        out.append(f"table {table} {{")
        for chain in own:
            out.append(f"  chain {chain} {{")
            if chain in BASES:
                base = BASES[chain]
                out.append(f"    type {base.kind} hook {base.hook} priority {base.priority}; policy accept;")
            out += [f"    {line}" for line in own[chain]]
            out.append("  }")
        out.append("}")
    return "\n".join([*out, ""])


class Line(NamedTuple):
    """One line that nft lists of a chain: a rule, or where the chain is entered from.

    Attributes:
        name: its comment; "" where somebody else wrote it.
        text: nft's words without the comment, what a set holds in one order.
    """

    table: str
    chain: str
    name: str
    text: str


def listed(table: str, listing: str) -> list[Line]:
    """Take what `nft --stateless list table` prints apart, in its order."""
    found: list[Line] = []
    chain = ""
    for raw in listing.splitlines():
        line = raw.strip()
        opened = re.fullmatch(r"(\w+) (\S+) \{", line)
        if (opened and opened[1] in ("table", "chain")) or line.startswith("table "):
            chain = opened[2] if opened and opened[1] == "chain" else ""
            found += [Line(table, chain, "fence", "chain")] if chain else []
        elif chain and line == "}":
            chain = ""
        elif line and line != "}":
            # Sets, maps and all else that this policy does not use stand outside of chains.
            comment = re.search(r' comment "([^"]*)"$', line)
            words = line[: comment.start()] if comment else line
            name = comment[1] if comment else "fence" if line.startswith("type ") else ""
            found.append(Line(table, chain, name, re.sub(r"\{ ([^{}]*) \}", _in_order, words)))
    return found


def _in_order(found: re.Match[str]) -> str:
    return f"{{ {', '.join(sorted(found[1].split(', ')))} }}"
