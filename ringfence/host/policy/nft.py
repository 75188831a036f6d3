"""Rules in nftables' words: printed, and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ringfence.host.policy.places import BASES, Live, Place, Rules, table_of
from ringfence.host.policy.rules import EVERY, ICMP, Rule, address
from ringfence.host.policy.xtables import GROUP, MARK, STATES

TABLE = "ringfence"  # nftables' own table, of the family inet


def nft_words(rule: Rule) -> str:
    """A rule in nftables' words."""
    out = []
    if rule.family and not rule.source and not rule.destination and rule.proto not in ICMP.values():
        out.append(f"meta nfproto ipv{rule.family[1]}")
    for key, value in (("iifname", rule.into), ("oifname", rule.out)):
        if value:
            pattern = value.lstrip("!")
            pattern = f"{pattern[:-1]}*" if pattern.endswith("+") else pattern
            out.append(f'{key} {"!= " if value.startswith("!") else ""}"{pattern}"')
    ip = "ip6" if rule.family == "v6" else "ip"
    out += [f"{ip} saddr {rule.source}"] if rule.source else []
    out += [f"{ip} daddr {rule.destination}"] if rule.destination else []
    if rule.proto in ("tcp", "udp"):
        out += [f"{rule.proto} sport {rule.sport}"] if rule.sport else []
        out += [f"{rule.proto} dport {rule.dport}"] if rule.dport else []
        out += [f"meta l4proto {rule.proto}"] if not rule.sport and not rule.dport else []
    elif rule.proto:
        name = {"icmp6": "icmpv6"}.get(rule.proto, rule.proto)
        out.append(f"{name} type {rule.type}" if rule.type else f"meta l4proto {name}")
    if rule.state:
        out.append(f"ct state {STATES[rule.state].lower()}")
    if rule.original:
        out.append(f"ct original proto-dst {rule.original}")
    verdict, _, argument = rule.verdict.partition(" ")
    if verdict == "log":
        out.append(f'limit rate 10/second burst 50 packets log prefix "{argument}" group {GROUP}')
    elif verdict == "pass":
        out.append(f"meta mark set meta mark | {MARK:#x} accept")
    elif verdict in ("jump", "goto"):
        out.append(f"{verdict} {argument}")
    else:
        out.append(verdict)
    return " ".join([*out, f'comment "{rule.name}"'])


def nft_text(rules: Rules, there: bool) -> str:
    """The input of nft -f: the whole table, made anew in one transaction. What follows one another and differs in one
    key only becomes a map (dispatch by bridge) or a set (networks).

    Args:
        there: whether the table exists.
    """
    own = {place.chain: found for place, found in rules.items() if place.medium == "nft"}
    out = [f"delete table inet {TABLE}"] if there else []
    out.append(f"table inet {TABLE} {{")
    # A chain has to exist before a rule leads to it.
    for chain in sorted(own, key=lambda chain: chain in BASES):
        out.append(f"  chain {chain} {{")
        if chain in BASES:
            _, kind, hook, priority = BASES[chain]
            out.append(f"    type {kind} hook {hook} priority {priority}; policy accept;")
        out += [f"    {line}" for line in _grouped(own[chain])]
        out.append("  }")
    return "\n".join([*out, "}", ""])


def grouped(rule: Rule | str) -> str:
    """Which map or set of the own table holds a rule: "segments", "private v4", "private v6"; "" for none."""
    if not isinstance(rule, Rule):
        return ""
    alone = Rule(rule.table, rule.chain, rule.name, rule.verdict)
    if rule.chain == "RF-FWD" and rule.into != EVERY and rule == alone._replace(into=rule.into):
        return "segments" if rule.verdict.startswith("goto ") else ""
    private = alone._replace(name=f"private {rule.destination}", family=rule.family, destination=rule.destination)
    return f"private {rule.family}" if rule.chain == "RF-PUBLIC" and rule.family and rule == private else ""


def _grouped(rules: list[Rule]) -> Iterator[str]:
    done: set[str] = set()
    for rule in rules:
        group = grouped(rule)
        if not group:
            yield nft_words(rule)
        elif group not in done:
            done.add(group)
            held = [other for other in rules if grouped(other) == group]
            if group == "segments":
                pairs = ", ".join(f'"{other.into}" : {other.verdict}' for other in held)
                yield f'iifname vmap {{ {pairs} }} comment "segments"'
            else:
                networks = ", ".join(other.destination for other in held)
                ip = "ip6" if rule.family == "v6" else "ip"
                yield f'{ip} daddr {{ {networks} }} {rule.verdict} comment "private"'


def read_nft(listing: Any, segments: dict[str, str]) -> Live:
    """What is live in the own table, from the answer of nft -j list table.

    Args:
        segments: {bridge: name of its segment}, as a map does not keep the names of its elements.
    """
    found: Live = {}
    for item in (listing or {}).get("nftables", []):
        if "chain" in item:
            chain = item["chain"]
            place = Place("nft", table_of(chain["name"]), chain["name"])
            found.setdefault(place, [])
            base = BASES.get(chain["name"])
            want = (base[1], base[2], base[3], "accept") if base else (None, None, None, None)
            if (chain.get("type"), chain.get("hook"), chain.get("prio"), chain.get("policy")) != want:
                found[place].append(
                    f"hook {chain.get('hook')} priority {chain.get('prio')} policy {chain.get('policy')}"
                )
        elif "rule" in item:
            rule = item["rule"]
            place = Place("nft", table_of(rule["chain"]), rule["chain"])
            found.setdefault(place, []).extend(read_expression(place, rule, segments))
        elif "table" not in item and "metainfo" not in item:
            place = Place("nft", "mangle", next(iter(item)))
            found.setdefault(place, []).append(json.dumps(item, sort_keys=True))
    return found


def read_expression(place: Place, rule: dict[str, Any], segments: dict[str, str]) -> list[Rule | str]:
    """Make a rule, or several of a map or a set, of nft's JSON; its text where it is none of ours."""
    text = json.dumps(rule.get("expr"), sort_keys=True)
    name = rule.get("comment", "")
    match: dict[str, Any] = {"name": name}
    limited = marked = False
    try:
        for part in rule["expr"]:
            [(kind, value)] = part.items()
            if kind == "match":
                many = _read_match(value, match)
                if many:
                    last = next(p for p in rule["expr"] if "goto" in p)["goto"]["target"]
                    return [
                        Rule(place.table, place.chain, f"private {n}", f"goto {last}", match["family"], destination=n)
                        for n in many
                    ]
            elif kind == "vmap":
                return [
                    Rule(
                        place.table, place.chain, f"segment {segments.get(b, b)}", f"goto {v['goto']['target']}", into=b
                    )
                    for b, v in value["data"]["set"]
                ]
            elif kind == "limit":
                limited = (value.get("rate"), value.get("burst"), value.get("per")) == (10, 50, "second")
            elif kind == "log" and limited and value.get("group") == GROUP:
                match["verdict"] = f"log {value['prefix']}"
            elif kind == "mangle":
                marked = value == {
                    "key": {"meta": {"key": "mark"}},
                    "value": {"|": [{"meta": {"key": "mark"}}, MARK]},
                }
                if not marked:
                    return [text]
            elif kind == "accept":
                match["verdict"] = "pass" if marked else "accept"
            elif kind in ("drop", "return", "masquerade"):
                match["verdict"] = kind
            elif kind in ("jump", "goto"):
                match["verdict"] = f"{kind} {value['target']}"
            elif kind != "counter":
                return [text]
        return [Rule(place.table, place.chain, **match)] if name and "verdict" in match else [text]
    except (KeyError, TypeError, ValueError, IndexError):
        return [text]


def _read_match(value: dict[str, Any], match: dict[str, Any]) -> list[str]:
    """Note what one match of nft's JSON asks for; returns the networks of a set. Raises KeyError, ValueError."""
    left, right = value["left"], value["right"]
    negated = "!" if value["op"] == "!=" else ""
    [(kind, what)] = left.items()
    if kind == "meta" and what["key"] in ("iifname", "oifname"):
        pattern = f"{right[:-1]}+" if right.endswith("*") else right
        match["into" if what["key"] == "iifname" else "out"] = negated + pattern
    elif negated:
        raise ValueError("negated")
    elif kind == "meta" and what["key"] == "l4proto":
        match["proto"] = {"ipv6-icmp": "icmp6", "icmpv6": "icmp6"}.get(right, right)
    elif kind == "meta" and what["key"] == "nfproto":
        match["family"] = {"ipv4": "v4", "ipv6": "v6"}[right]
    elif kind == "payload" and what["protocol"] in ("ip", "ip6"):
        match["family"] = "v6" if what["protocol"] == "ip6" else "v4"
        if isinstance(right, dict) and "set" in right:
            return [_network(element) for element in right["set"]]
        match[{"saddr": "source", "daddr": "destination"}[what["field"]]] = _network(right)
    elif kind == "payload" and what["protocol"] in ("tcp", "udp"):
        match["proto"] = what["protocol"]
        match[what["field"]] = _ports(right)
    elif kind == "payload" and what["protocol"] in ("icmp", "icmpv6"):
        family = "v6" if what["protocol"] == "icmpv6" else "v4"
        match |= {"family": family, "proto": ICMP[family], "type": ICMP_TYPES.get(str(right), str(right))}
    elif kind == "ct" and what["key"] == "state":
        names = ",".join(
            sorted(right["set"] if isinstance(right, dict) else [right] if isinstance(right, str) else right)
        )
        match["state"] = {"established,related": "established", "invalid": "invalid"}[names]
    elif kind == "ct" and what["key"] == "proto-dst" and what["dir"] == "original":
        match["original"] = _ports(right)
    else:
        raise ValueError(kind)
    return []


ICMP_TYPES = {
    "nd-neighbor-solicit": "135", "nd-neighbor-advert": "136", "destination-unreachable": "3",
}  # fmt: skip


def _network(value: Any) -> str:
    if isinstance(value, dict) and "elem" in value:
        value = value["elem"]["val"]
    if isinstance(value, dict) and "prefix" in value:
        return address(f"{value['prefix']['addr']}/{value['prefix']['len']}")
    if isinstance(value, str):
        return address(value)
    raise ValueError("neither address nor network")


def _ports(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['range'][0]}-{value['range'][1]}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a port")
    return str(value)
