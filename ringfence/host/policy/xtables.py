"""Rules in iptables' words: printed, and read back."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from ringfence.host.policy.places import HOLD, Live, Place, Rules, jumps, leads_to, standing, strays
from ringfence.host.policy.rules import OWN, Rule, address
from ringfence.host.tables import Tables

GROUP = 40  # NFLOG's


MARK = 0x10000000  # Docker's bridge-accept-fwmark on its nftables back end: what this policy lets pass


LIMIT = ("-m", "limit", "--limit", "10/sec", "--limit-burst", "50")


VERDICTS = {"pass": "RETURN", "accept": "ACCEPT", "drop": "DROP", "return": "RETURN", "masquerade": "MASQUERADE"}


STATES = {"established": "RELATED,ESTABLISHED", "invalid": "INVALID"}


def negatable(flag: str, value: str) -> list[str]:
    if not value:
        return []
    return ["!", flag, value[1:]] if value.startswith("!") else [flag, value]


def words(rule: Rule, comment: bool = True) -> list[str]:
    """A rule in iptables' words, behind "-A CHAIN"."""
    out = [*negatable("-s", rule.source), *negatable("-d", rule.destination)]
    out += [*negatable("-i", rule.into), *negatable("-o", rule.out)]
    if rule.proto:
        name = {"icmp6": "ipv6-icmp"}.get(rule.proto, rule.proto)
        out += ["-p", name]
        if rule.sport or rule.dport:
            out += ["-m", name]
            out += ["--sport", rule.sport.replace("-", ":")] if rule.sport else []
            out += ["--dport", rule.dport.replace("-", ":")] if rule.dport else []
        if rule.type:
            out += ["-m", rule.proto, "--icmpv6-type" if rule.proto == "icmp6" else "--icmp-type", rule.type]
    if rule.state:
        out += ["-m", "conntrack", "--ctstate", STATES[rule.state]]
    if rule.original:
        out += ["-m", "conntrack", "--ctorigdstport", rule.original.replace("-", ":")]
    if rule.bridged:
        out += ["-m", "physdev", "--physdev-is-bridged"]
    if rule.marked:
        out += ["-m", "mark", "--mark", f"{MARK:#x}/{MARK:#x}"]
    verdict, _, argument = rule.verdict.partition(" ")
    if verdict == "log":
        out += LIMIT
    if comment:
        out += ["-m", "comment", "--comment", f'"{rule.name}"']
    if verdict == "log":
        out += ["-j", "NFLOG", "--nflog-prefix", f'"{argument}"', "--nflog-group", str(GROUP)]
    elif verdict in ("jump", "goto"):
        out += ["-j" if verdict == "jump" else "-g", argument]
    else:
        out += ["-j", VERDICTS[verdict]]
    return out


def iptables_rules(rules: Rules, medium: str) -> dict[str, dict[str, list[str]]]:
    """The rules of one family in iptables' words: {table: {chain: lines}}."""
    found: dict[str, dict[str, list[str]]] = {}
    for place, own in rules.items():
        if place.medium == medium:
            found.setdefault(place.table, {})[place.chain] = [" ".join(words(rule)) for rule in own]
    return found


# The deny comes first and goes last: a window between two tables' transactions opens nothing.
ORDER = ("mangle", "raw", "filter", "nat")


def restore_input(want: dict[str, dict[str, list[str]]], tables: Tables, backend: str) -> str:
    """The input of iptables-restore --noflush: declared chains, stale chains gone, jumps in their places.

    Chains of others are never declared (that would flush them), except DOCKER-USER where it does not exist.
    """
    out = []
    leaving = [name for name in ORDER if name not in want and any(c.startswith(OWN) for c in tables.get(name, {}))]
    for name in [*(name for name in ORDER if name in want), *reversed(leaving)]:
        live, own = tables.get(name, {}), want.get(name, {})
        stale = [chain for chain in live if chain.startswith(OWN) and chain not in own and chain != HOLD]
        out.append(f"*{name}")
        if "DOCKER-USER" in {jump.chain for jump in jumps(backend) if jump.table == name} - live.keys():
            out.append(":DOCKER-USER - [0:0]")
        out += [f":{chain} - [0:0]" for chain in [*own, *stale]]
        out += [f"-A {chain} {line}" for chain, lines in own.items() for line in lines]
        out += _jumping(name, live, backend)
        out += [f"-D {chain} {rule}" for chain, rule in strays(name, live, backend)]
        out += [f"-X {chain}" for chain in stale]
        out.append("COMMIT")
    return "\n".join([*out, ""])


def _jumping(table: str, live: dict[str, list[str]], backend: str) -> Iterator[str]:
    for jump in jumps(backend):
        if jump.table != table:
            continue
        rules = live.get(jump.chain, [])
        position, first = standing(jump, rules)
        if not position or (first and first < position) or rules.count(f"-j {jump.target}") > 1:
            yield from [f"-D {jump.chain} -j {jump.target}"] * rules.count(f"-j {jump.target}")
            # Bans that others put before it keep their place.
            before = rules[: first - 1] if first else rules
            place = 1 + sum(rule != f"-j {jump.target}" for rule in before)
            yield f"-I {jump.chain} {place if jump.target == 'RF-OPEN' else 1} -j {jump.target}"


def read_rule(table: str, chain: str, text: str) -> Rule | str:
    """Make a rule of a line of iptables-save (without "-A CHAIN"); the text itself where it is none of ours."""
    match: dict[str, Any] = {}
    limited = False
    prefix = ""
    try:
        tokens = shlex.split(text)
        while tokens:
            word = tokens.pop(0)
            negated = word == "!"
            word = tokens.pop(0) if negated else word
            if word in ("-s", "-d", "-i", "-o"):
                value = tokens.pop(0)
                key = {"-s": "source", "-d": "destination", "-i": "into", "-o": "out"}[word]
                match[key] = ("!" if negated else "") + (address(value) if key in ("source", "destination") else value)
                continue
            if negated:
                return text
            if word == "-m":
                if tokens.pop(0) == "limit":
                    limited = True
            elif word == "-p":
                match["proto"] = {"ipv6-icmp": "icmp6", "icmpv6": "icmp6"}.get(tokens[0], tokens[0])
                tokens.pop(0)
            elif word in ("--sport", "--dport"):
                match[word[2:]] = tokens.pop(0).replace(":", "-")
            elif word in ("--icmp-type", "--icmpv6-type"):
                match["type"] = tokens.pop(0).removesuffix("/255")
            elif word == "--ctstate":
                names = ",".join(sorted(tokens.pop(0).split(",")))
                match["state"] = {"ESTABLISHED,RELATED": "established", "INVALID": "invalid"}[names]
            elif word == "--ctorigdstport":
                match["original"] = tokens.pop(0).replace(":", "-")
            elif word == "--physdev-is-bridged":
                match["bridged"] = True
            elif word == "--mark":
                match["marked"] = True
                if tokens.pop(0) != f"{MARK:#x}/{MARK:#x}":
                    return text
            elif word in ("--limit", "--limit-burst", "--nflog-group"):
                if tokens.pop(0) not in {"--limit": ("10/sec", "10/second"), "--limit-burst": ("50",)}.get(
                    word, (str(GROUP),)
                ):
                    return text
            elif word == "--comment":
                match["name"] = tokens.pop(0)
            elif word == "--nflog-prefix":
                prefix = tokens.pop(0)
            elif word in ("-j", "-g"):
                target = tokens.pop(0)
                match["verdict"] = f"{'goto' if word == '-g' else 'jump'} {target}"
            else:
                return text
    except (IndexError, KeyError, ValueError):
        return text
    if "verdict" not in match or not match.get("name"):
        return text
    target = match["verdict"].partition(" ")[2]
    if target == "NFLOG":
        match["verdict"] = f"log {prefix}"
    elif not target.startswith(OWN):
        known = {word: verdict for verdict, word in VERDICTS.items()}
        # Pass and return are one word to iptables, which `settled` makes one verdict.
        match["verdict"] = known.get(target, "?")
    if match["verdict"] == "?" or limited != match["verdict"].startswith("log "):
        return text
    return Rule(table, chain, **match)


def read_tables(tables: Tables, medium: str) -> Live:
    """What is live in own chains of iptables."""
    return {
        Place(medium, table, chain): [read_rule(table, chain, text) for text in rules]
        for table, chains in tables.items()
        for chain, rules in chains.items()
        if chain.startswith(OWN) and chain != HOLD
    }


def removal_input(tables: Tables) -> str:
    """The transactions that take everything of ringfence out of a family, the deny last."""
    out = []
    for name in sorted(tables, key=lambda name: name == "mangle"):
        own = [chain for chain in tables[name] if chain.startswith(OWN) and chain != HOLD]
        if own:
            out.append(f"*{name}")
            out += [f":{chain} - [0:0]" for chain in own]
            for chain, rules in tables[name].items():
                out += [f"-D {chain} {rule}" for rule in rules if chain not in own and leads_to(rule) in own]
            out += [f"-X {chain}" for chain in own]
            out.append("COMMIT")
    return "\n".join([*out, ""]) if out else ""
