"""The rules of a host, from what is desired: one list, whatever writes it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

OWN = "RF-"


EVERY = "rf-+"  # all segments' bridges


LONGEST_NAME = 120  # characters; nftables takes comments of 127


ICMP = {"v4": "icmp", "v6": "icmp6"}


MULTICAST = {"v4": "224.0.0.0/4", "v6": "ff00::/8"}


class Rule(NamedTuple):
    """One rule, whatever writes it.

    Attributes:
        table: mangle (deny), filter (open), raw (open, ahead of Docker's drops there) or nat.
        chain: own chain, RF-….
        name: what it is for; changes are reported by it.
        verdict: pass (this policy has nothing against it), accept (nobody else is asked), drop, return, masquerade,
            "jump CHAIN", "goto CHAIN" or "log PREFIX".
        family: v4 or v6; "" is both.
        into, out: interface by which it comes and leaves; a final + matches any ending, a leading ! negates.
        source, destination: address or network.
        proto: tcp, udp, icmp, icmp6 or "" for all.
        sport, dport: port or "first-last"; "" is any.
        type: ICMP's.
        state: established (and related), invalid or "".
        original: destination port before DNAT.
        bridged: only frames that a bridge passes between two of its ports.
        marked: only what this policy's own table let pass.
    """

    table: str
    chain: str
    name: str
    verdict: str
    family: str = ""
    into: str = ""
    out: str = ""
    source: str = ""
    destination: str = ""
    proto: str = ""
    sport: str = ""
    dport: str = ""
    type: str = ""
    state: str = ""
    original: str = ""
    bridged: bool = False
    marked: bool = False


class Around(NamedTuple):
    """What only the host knows.

    Attributes:
        leading: bridges that lead outside, such as a br-lan with the default route: no container's.
        named: bridges of Docker's networks that the declared patterns do not cover.
        bridged: bridges that are not Docker's and must keep bridging.
        docker: all bridges of Docker's networks that are no segments.
        subnets: their subnets.
    """

    leading: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    bridged: tuple[str, ...] = ()
    docker: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()


def plain(name: str) -> str:
    """A name as both back ends can keep it in a comment."""
    return re.sub(r'[^ -~]|["\\]', "?", name)[:LONGEST_NAME]


def span(port: Any) -> str:
    """A declared port, or a range of them, as rules have it; "" is any."""
    text = "" if port is None else str(port).replace(":", "-")
    return "" if text in ("any", "0") else text


def of_proto(name: str, proto: str, port: Any) -> str:
    """A flow's name with its port."""
    ports = f"/{span(port)}" if span(port) else ""
    return f"{name} {proto}{ports}" if proto in ("tcp", "udp") else name


def ends(entry: dict[str, Any], *keys: str) -> Iterator[tuple[str, ...]]:
    """(family, address of each key) for every family in which all of the entry's ends have one."""
    for family, suffix in (("v4", ""), ("v6", "6")):
        addresses = [address(entry.get(f"{key}{suffix}") or "") for key in keys]
        if all(addresses):
            yield (family, *addresses)


def address(text: str) -> str:
    """An address or a network in the one way in which rules have it."""
    if not text:
        return ""
    network = ipaddress.ip_network(text, strict=False)
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def family_of(network: str) -> str:
    return "v6" if ":" in network else "v4"


def chain_of(bridge: str) -> str:
    return OWN + bridge.removeprefix("rf-")


def build(wish: dict[str, Any], around: Around, backend: str) -> list[Rule]:
    """All rules of a host, chain by chain in their order: pure.

    Args:
        wish: the desired state.
        backend: "iptables" or "nftables", Docker's.
    """
    opens = _open(wish, around) if backend == "iptables" else _open_marked(wish, around)
    rules = [*_forward(wish, around), *_host(wish), *opens, *_nat(wish)]
    return [rule._replace(name=plain(rule.name)) for rule in rules]


def _forward(wish: dict[str, Any], around: Around) -> Iterator[Rule]:
    """What is forwarded. Everything is entered by goto, so that a pass in any chain leaves all of them."""
    segments = wish["segments"]

    def fwd(verdict: str, name: str = "fence", **match: Any) -> Rule:
        return Rule("mangle", "RF-FWD", name, verdict, **match)

    yield fwd("pass", into=EVERY, state="established")
    yield fwd("pass", out=EVERY, state="established")
    yield fwd("return", state="established")
    yield fwd("drop", into=EVERY, state="invalid")
    yield fwd("drop", out=EVERY, state="invalid")
    yield fwd("jump RF-OTHER", into=EVERY, out=f"!{EVERY}")
    yield fwd("jump RF-OTHER", into=f"!{EVERY}", out=EVERY)
    for segment in segments:
        yield fwd(f"goto {chain_of(segment['bridge'])}", f"segment {segment['name']}", into=segment["bridge"])
    yield fwd("log RF DROP unknown segment", into=EVERY)
    yield fwd("drop", into=EVERY)
    yield fwd("goto RF-IN", out=EVERY)
    if wish["unmanaged"] == "close":
        yield fwd("jump RF-OTHER", "unmanaged closed")
    yield from _other(wish, around)
    for segment in segments:
        yield from _segment(wish, segment)
    yield from _into(wish)
    yield from _public(wish)


def both_ways(rule: Rule, bridge: str) -> tuple[Rule, Rule]:
    """A rule for what comes from a bridge, and for what goes to it."""
    return rule._replace(into=bridge), rule._replace(out=bridge)


def _other(wish: dict[str, Any], around: Around) -> Iterator[Rule]:
    for bridge in around.leading:
        yield from both_ways(Rule("mangle", "RF-OTHER", f"bridge {bridge} leads outside", "return"), bridge)
    for bridge in (*wish["other_bridges"], *around.named):
        yield from both_ways(Rule("mangle", "RF-OTHER", f"other bridge {bridge}", "goto RF-CLOSED"), bridge)
    yield Rule("mangle", "RF-CLOSED", "fence", "log RF DROP other bridge")
    yield Rule("mangle", "RF-CLOSED", "fence", "drop")


def _segment(wish: dict[str, Any], segment: dict[str, Any]) -> Iterator[Rule]:
    """What comes from one segment: declared flows, declared egress, and nothing else."""
    bridge, chain, name = segment["bridge"], chain_of(segment["bridge"]), f"segment {segment['name']}"
    for kind in ("135", "136"):  # neighbours find each other
        yield Rule("mangle", chain, name, "pass", "v6", out=bridge, proto="icmp6", type=kind)
    for flow in wish["flows"]:
        if flow["from_bridge"] == bridge:
            for match in _flow(flow):
                yield Rule(
                    "mangle", chain, of_proto(f"flow {flow['name']}", flow["proto"], flow["port"]), "pass", **match
                )
    egress = [entry for entry in wish["egress"] if entry["bridge"] == bridge]
    # Where "the internet" ends is asked in a chain that does not come back: it is asked last.
    for entry in sorted(egress, key=lambda entry: bool(entry["to"] == "internet")):
        proto, port = entry.get("proto", "any"), entry.get("port", "any")
        match = {"proto": "" if proto == "any" else proto, "dport": "" if proto == "any" else span(port)}
        label = of_proto(f"egress {entry['name']}", proto, port)
        for family, source in ends(entry, "source"):
            if entry["to"] == "internet":
                yield Rule("mangle", chain, label, "goto RF-PUBLIC", family, out=f"!{EVERY}", source=source, **match)
            elif family_of(entry["to"]) == family:
                to = address(entry["to"])
                yield Rule("mangle", chain, label, "pass", family, "", f"!{EVERY}", source, to, **match)
    for family, network in MULTICAST.items():
        yield Rule("mangle", chain, name, "drop", family, destination=network)
    yield Rule("mangle", chain, name, f"log RF DROP {segment['name']}")
    yield Rule("mangle", chain, name, "drop")


def _flow(flow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for family, source, destination in ends(flow, "source", "destination"):
        yield {
            "family": family, "out": flow["to_bridge"], "source": source, "destination": destination,
            "proto": flow["proto"], "dport": span(flow["port"]),
        }  # fmt: skip


def _into(wish: dict[str, Any]) -> Iterator[Rule]:
    """What comes into segments from outside: published ports, from their places."""
    for entry in wish["published"]:
        for family, destination in ends(entry, "destination"):
            for place in entry["sources"]:
                if place == "any" or family_of(place) == family:
                    yield Rule(
                        "mangle", "RF-IN", f"published {entry['name']} {entry['proto']} from {place}", "pass", family,
                        "", entry["bridge"], "" if place == "any" else address(place), destination, entry["proto"],
                        dport=span(entry["port"]), original=span(entry["published"]),
                    )  # fmt: skip
    for segment in wish["segments"]:
        log = f"log RF DROP into {segment['name']}"
        yield Rule("mangle", "RF-IN", f"segment {segment['name']}", log, out=segment["bridge"])
    yield Rule("mangle", "RF-IN", "fence", "drop")


def _public(wish: dict[str, Any]) -> Iterator[Rule]:
    for family in ("v4", "v6"):
        networks = [ipaddress.ip_network(n, strict=False) for n in wish["private"] if n and family_of(n) == family]
        for network in ipaddress.collapse_addresses(networks):  # type: ignore[type-var]
            found = address(str(network))
            yield Rule("mangle", "RF-PUBLIC", f"private {found}", "goto RF-DROP", family, destination=found)
    yield Rule("mangle", "RF-PUBLIC", "fence", "pass")
    for segment in wish["segments"]:
        log = f"log RF DROP {segment['name']}"
        yield Rule("mangle", "RF-DROP", f"segment {segment['name']}", log, into=segment["bridge"])
    yield Rule("mangle", "RF-DROP", "fence", "drop")


def _host(wish: dict[str, Any]) -> Iterator[Rule]:
    """What reaches the host itself: from containers only what is declared; a published port, which Docker's userland
    proxy answers there, only from its places. All the rest is the firewall's matter."""

    def host(verdict: str, name: str = "fence", **match: Any) -> Rule:
        return Rule("mangle", "RF-HOST", name, verdict, **match)

    yield host("return", into="lo")
    yield host("return", state="established")
    yield host("drop", into=EVERY, state="invalid")
    for kind in ("135", "136"):
        yield host("return", family="v6", into=EVERY, proto="icmp6", type=kind)
    for entry in wish["host"]:
        bridge = entry.get("bridge") or EVERY
        name = of_proto(f"host {entry['name']}", entry["proto"], entry["port"])
        match = {"into": bridge, "proto": entry["proto"], "dport": span(entry["port"])}
        if not entry.get("source") and not entry.get("source6"):
            yield host("return", name, **match)
        for family, source in ends(entry, "source"):
            yield host("return", name, family=family, source=source, **match)
    for family, network in MULTICAST.items():
        yield host("drop", family=family, into=EVERY, destination=network)
    yield host("log RF DROP to the host", into=EVERY)
    yield host("drop", into=EVERY)
    names = {segment["bridge"]: segment["name"] for segment in wish["segments"]}
    # A service in two segments has its published port twice.
    ports = {(entry["proto"], span(entry["published"])): entry for entry in reversed(wish["published"])}
    for (proto, port), entry in reversed(ports.items()):
        for place in entry["sources"]:
            found = {} if place == "any" else {"family": family_of(place), "source": address(place)}
            name = f"published {entry['name']} {proto} from {place}"
            yield host("return", name, proto=proto, dport=port, **found)
    for (proto, port), entry in reversed(ports.items()):
        name = f"published {entry['name']} {proto}"
        segment = names.get(entry["bridge"], entry["bridge"])
        yield host(f"log RF DROP into {segment}", name, proto=proto, dport=port)
        yield host("drop", name, proto=proto, dport=port)


def _open(wish: dict[str, Any], around: Around) -> Iterator[Rule]:
    """What opens declared flows against Docker's own drops on its iptables back end."""
    for flow in wish["flows"]:
        name = of_proto(f"flow {flow['name']}", flow["proto"], flow["port"])
        if flow["from_bridge"] != flow["to_bridge"]:
            for match in _flow(flow):
                there = {**match, "into": flow["from_bridge"], "out": ""}
                back = {**there, "into": flow["to_bridge"], "sport": match["dport"], "dport": ""}
                back |= {"source": match["destination"], "destination": match["source"]}
                yield Rule("raw", "RF-RAW", name, "accept", **there)
                yield Rule("raw", "RF-RAW", name, "accept", **back)
    yield Rule("raw", "RF-RAW", "fence", "accept", "v4", into=EVERY, proto="icmp", type="3")
    for kind in ("1", "2"):
        yield Rule("raw", "RF-RAW", "fence", "accept", "v6", into=EVERY, proto="icmp6", type=kind)
    yield Rule("filter", "RF-OPEN", "fence", "accept", into=EVERY, out=EVERY, state="established")
    for segment in wish["segments"]:
        for kind in ("135", "136"):
            yield Rule(
                "filter", "RF-OPEN", f"segment {segment['name']}", "accept", "v6", segment["bridge"],
                segment["bridge"], proto="icmp6", type=kind,
            )  # fmt: skip
    for flow in wish["flows"]:
        name = of_proto(f"flow {flow['name']}", flow["proto"], flow["port"])
        for match in _flow(flow):
            yield Rule("filter", "RF-OPEN", name, "accept", into=flow["from_bridge"], **match)
    yield from _bridging(around)


def _open_marked(wish: dict[str, Any], around: Around) -> Iterator[Rule]:
    """With Docker's nftables back end nobody accepts anything in iptables, where UFW drops what is forwarded."""
    yield Rule("filter", "RF-OPEN", "fence", "accept", marked=True)
    if wish["unmanaged"] == "keep":
        for bridge in around.docker:
            yield from both_ways(Rule("filter", "RF-OPEN", f"other bridge {bridge}", "accept"), bridge)
    yield from _bridging(around)


def _bridging(around: Around) -> Iterator[Rule]:
    # What Docker does not own must keep bridging although frames on bridges are filtered now.
    for bridge in around.bridged:
        yield Rule("filter", "RF-OPEN", f"bridge {bridge}", "accept", "", bridge, bridge, bridged=True)


def _nat(wish: dict[str, Any]) -> Iterator[Rule]:
    for segment in wish["segments"]:
        for family, subnet in ends(segment, "subnet"):
            name = f"segment {segment['name']}"
            yield Rule("nat", "RF-NAT", name, "masquerade", family, out=f"!{EVERY}", source=subnet)


def closed() -> list[Rule]:
    """What is loaded at boot when the policy cannot be: nothing from or to a segment passes."""
    return [
        Rule("mangle", "RF-FWD", "fence", "drop", into=EVERY),
        Rule("mangle", "RF-FWD", "fence", "drop", out=EVERY),
        Rule("mangle", "RF-HOST", "fence", "drop", into=EVERY),
    ]
