"""One rule of the own tables, and the words that rules are made of."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

OWN = "RF-"


EVERY = "rf-+"  # all segments' bridges


LONGEST_NAME = 120  # characters; nftables takes comments of 127


ICMP = {"v4": "icmp", "v6": "icmp6"}
ECHO = {"v4": "8", "v6": "128"}  # a request for an echo


NEIGHBOURS = ("135", "136")  # neighbour solicitation and advertisement


class Rule(NamedTuple):
    """One rule of an own table.

    Attributes:
        chain: own chain, RF-….
        name: what it is for; changes are reported by it.
        verdict: pass (this policy lets it through, whoever else is asked), accept (none of this chain's business),
            raw (is to be let past Docker's drops ahead of connection tracking), drop, return, masquerade,
            "jump CHAIN", "goto CHAIN" or "log PREFIX"; "" where each element has one.
        family: v4 or v6; "" is both.
        into, out: interface by which it comes and leaves; a final + matches any ending, a leading ! negates.
        source, destination: address or network.
        proto: tcp, udp, icmp, icmp6, igmp or "" for all.
        sport, dport: port or "first-last"; "" is any.
        type: ICMP's.
        state: established (and related), invalid or "".
        original: destination port before DNAT.
        keys: what is looked up in `elements`, in nftables' words (such as ("iifname", "ip saddr")); the first may be
            negated by a leading !.
        elements: the values that it is looked up in; with a last one more than keys, the verdict of each.
        words: further matches in nftables' words.
    """

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
    keys: tuple[str, ...] = ()
    elements: tuple[tuple[str, ...], ...] = ()
    words: str = ""


class Around(NamedTuple):
    """What only the host knows.

    Attributes:
        uplinks: interfaces that lead outside.
        docker: bridges of Docker's networks that are no segments.
        subnets: their subnets.
        tells: whether the kernel can tell by which bridge a frame comes (its nft_meta_bridge).
        slices: whether it can tell by which control group something is sent; asked only where that is wished.
    """

    uplinks: tuple[str, ...] = ()
    docker: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    tells: bool = True
    slices: bool = False


def plain(name: str) -> str:
    """A name as a comment can keep it."""
    return re.sub(r'[^ -~]|["\\]', "?", name)[:LONGEST_NAME]


def span(port: Any) -> str:
    """A declared port, or a range of them, as rules have it; "" is any."""
    text = "" if port is None else str(port).replace(":", "-")
    return "" if text in ("any", "0") else text


def of_proto(name: str, proto: str, port: Any) -> str:
    """A flow's name with its port."""
    ports = f"/{span(port)}" if span(port) else ""
    return f"{name} {proto}{ports}" if proto in ("tcp", "udp") else f"{name} echo" if proto == "icmp" else name


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


def networks(texts: Iterable[str], family: str) -> list[str]:
    """The networks of one family, none of them in another one: what a set of nftables takes."""
    found = [ipaddress.ip_network(n, strict=False) for n in texts if n and family_of(n) == family]
    collapsed = ipaddress.collapse_addresses(found)  # type: ignore[type-var]  # all are of one family, by the line above
    return [address(str(n)) for n in collapsed]


def chain_of(bridge: str) -> str:
    return OWN + bridge.removeprefix("rf-")


def among(values: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Elements of a set with one key, each once."""
    return tuple((value,) for value in dict.fromkeys(values))


def outside(around: Around, key: str) -> dict[str, Any]:
    """Matches what comes (iifname) or leaves (oifname) by an interface that leads outside."""
    return {"keys": (key,), "elements": among(around.uplinks)}
