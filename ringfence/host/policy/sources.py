"""Who sends: a container by its own addresses, a place by the way to it. Asked first of all."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from ringfence.host.policy.rule import EVERY, ICMP, Around, Rule, among, ends, networks, outside, plain
from ringfence.host.policy.rules import vpn_of

FAMILIES = (("v4", "ip", "address", "subnet"), ("v6", "ip6", "address6", "subnet6"))


TO_HOST = "fib daddr type { local, broadcast, multicast }"


ANOTHER_WAY = "fib saddr . iif oif missing"  # the answer would leave by another interface: RFC 3704's strict check


TARGET = "@th,64,128"  # of a neighbour solicitation or advertisement (RFC 4861, 4.3 and 4.4)


def link_local(mac: str) -> str:
    """The IPv6 address that a kernel gives an interface by itself (RFC 4291, appendix A)."""
    parts = [int(part, 16) for part in mac.split(":")]
    return str(ipaddress.IPv6Address(bytes([0xFE, 0x80, *[0] * 6, parts[0] ^ 2, *parts[1:3], 0xFF, 0xFE, *parts[3:]])))


def sources(wish: dict[str, Any], around: Around, backend: str) -> list[Rule]:
    """What no packet and no frame may claim to be: pure.

    Args:
        wish: the desired state.
        backend: "iptables" or "nftables", Docker's.
    """
    found = [*_before(wish, around, backend), *_from_segments(wish, backend), *_forged(wish), *_frames(wish, around)]
    return [rule._replace(name=plain(rule.name)) for rule in found]


def _before(wish: dict[str, Any], around: Around, backend: str) -> Iterator[Rule]:
    def pre(verdict: str, name: str, **match: Any) -> Rule:
        return Rule("RF-PRE", name, verdict, **match)

    yield pre("accept", "fence", into="lo")
    yield pre("goto RF-FROM", "segments", into=EVERY)
    for family, ip, _, subnet in FAMILIES:
        own = among(networks((s.get(subnet) or "" for s in wish["segments"]), family))
        yield pre(
            "goto RF-FORGED", "segments' addresses from elsewhere", family=family, keys=(f"{ip} saddr",), elements=own
        )
    # A route that is not the answer's is only for interfaces that are declared for the place.
    for place in wish["places"]:
        for family, ip, _, _ in FAMILIES:
            ways = tuple((i, n) for i in place["interfaces"] for n in networks(place["networks"], family))
            name = f"place {place['name']} by {', '.join(place['interfaces'])}"
            yield pre("accept", name, family=family, keys=("iifname", f"{ip} saddr"), elements=ways)
    for family, ip, _, subnet in FAMILIES:
        found = networks((n for place in wish["places"] for n in place["networks"] if not n.endswith("/0")), family)
        inside = networks((s.get(subnet) or "" for s in wish["segments"]), family)
        # A neighbour on another wire may take this host for its router, straight to a container.
        for to in (TO_HOST, *([f"{ip} daddr {{ {', '.join(inside)} }}"] if inside else [])):
            yield pre(
                "goto RF-FORGED", "places by another way", family=family, keys=(f"{ip} saddr",), elements=among(found),
                words=f"{to} {ANOTHER_WAY}",
            )  # fmt: skip
    vpn = vpn_of(wish)
    for family, ip, _, _ in FAMILIES if vpn else ():
        yield pre(
            "goto RF-FORGED", "other hosts by another way", family=family, into=f"!{vpn['interface']}",
            keys=(f"{ip} saddr",), elements=among(networks(vpn["networks"], family)),
        )  # fmt: skip
    yield pre(
        "goto RF-FORGED", "others' addresses from inside", words=f"fib daddr type local {ANOTHER_WAY}",
        **outside(around, "!iifname"),
    )  # fmt: skip
    if vpn and backend == "iptables":
        yield pre("goto RF-RAW", "other hosts", into=vpn["interface"])


def _from_segments(wish: dict[str, Any], backend: str) -> Iterator[Rule]:
    def own(verdict: str, name: str, **match: Any) -> Rule:
        return Rule("RF-FROM", name, verdict, **match)

    # Who routes is the engine's matter, and nobody else's. Containers ask for a router all the same.
    yield own("drop", "router solicitations", family="v6", proto="icmp6", type="133")
    for family, kind, name in (
        ("v4", "5", "redirects"), ("v6", "134", "router advertisements"), ("v6", "137", "redirects"),
    ):  # fmt: skip
        yield own("goto RF-FORGED", name, family=family, proto=ICMP[family], type=kind)
    targets = tuple(
        (mac, f"{int(ipaddress.IPv6Address(address)):#034x}")
        for entry in wish["endpoints"]
        for mac, address in _pairs6(entry)
    )
    yield own("jump RF-NEIGHBOUR", "neighbour advertisements", family="v6", proto="icmp6", type="136")
    asked: dict[str, Any] = {"keys": ("ether saddr", TARGET), "elements": targets}
    yield own("goto RF-TRIED", "an address is tried", family="v6", source="::", proto="icmp6", type="135")
    yield own("drop", "no address yet", family="v6", source="::")
    past = "goto RF-RAW" if backend == "iptables" else "accept"
    four = tuple((e["bridge"], e["mac"], e["address"]) for e in wish["endpoints"] if e.get("address"))
    six = tuple((e["bridge"], *pair) for e in wish["endpoints"] for pair in _pairs6(e))
    for family, key, pairs in (("v4", "ip saddr", four), ("v6", "ip6 saddr", six)):
        yield own(past, "endpoints", family=family, keys=("iifname", "ether saddr", key), elements=pairs)
    yield own("goto RF-FORGED", "fence")
    # In chains of their own: beside ICMP's type, some releases of nft (1.1.3) list this in words that they do not read.
    for chain, verdict in (("RF-NEIGHBOUR", "return"), ("RF-TRIED", "accept")):
        yield Rule(chain, "endpoints", verdict, "v6", **asked)
        yield Rule(chain, "fence", "goto RF-FORGED")
    if backend == "iptables":
        yield from _past_docker(wish)


def _pairs6(endpoint: dict[str, Any]) -> list[tuple[str, str]]:
    """(MAC, address) for every IPv6 address of an endpoint."""
    mac = endpoint["mac"]
    return [(mac, found) for found in (endpoint.get("address6"), link_local(mac)) if found]


def _past_docker(wish: dict[str, Any]) -> Iterator[Rule]:
    """Declared flows across bridges, both ways: Docker drops them in raw unless they are accepted there (28.2 on)."""
    for family, ip, _, _ in FAMILIES:
        # Not looked up: of a protocol beside a range of ports, nft 1.0.6 makes what Linux 6.12 refuses (byteorder).
        for proto in ("tcp", "udp"):
            there, back = [], []
            for flow in wish["flows"]:
                if flow["from_bridge"] != flow["to_bridge"] and flow["proto"] == proto:
                    port = str(flow["port"]).replace(":", "-")
                    for own, source, destination in ends(flow, "source", "destination"):
                        if own == family:
                            there.append((flow["from_bridge"], source, destination, port))
                            back.append((flow["to_bridge"], destination, source, port))
            for name, key, found in (("flows", "th dport", there), ("answers", "th sport", back)):
                keys = ("iifname", f"{ip} saddr", f"{ip} daddr", key)
                yield Rule("RF-RAW", name, "raw", family, proto=proto, keys=keys, elements=tuple(dict.fromkeys(found)))
    # Errors about declared flows; connection tracking tells whether they are.
    for family, kind in (("v4", "3"), ("v6", "1"), ("v6", "2")):
        yield Rule("RF-RAW", "errors", "raw", family, proto=ICMP[family], type=kind)


def _forged(wish: dict[str, Any]) -> Iterator[Rule]:
    for segment in wish["segments"]:
        name = f"segment {segment['name']}"
        yield Rule("RF-FORGED", name, f"log RF DROP forged in {segment['name']}", into=segment["bridge"])
    yield Rule("RF-FORGED", "fence", "log RF DROP forged", into=f"!{EVERY}")
    yield Rule("RF-FORGED", "fence", "drop")


def _frames(wish: dict[str, Any], around: Around) -> Iterator[Rule]:
    """What no IP packet is. Where the kernel cannot tell bridges apart, all containers' ports are meant, and what a
    segment's neighbour says of itself is told by its addresses."""

    def frame(verdict: str, name: str, **match: Any) -> Rule:
        return Rule("RF-FRAME", name, verdict, **match)

    if not wish["segments"]:
        return
    yield frame("accept", "fence", **({"words": 'meta ibrname != "rf-*"'} if around.tells else {"into": "!veth+"}))
    # A tag makes another type.
    yield frame("goto RF-FRAME/drop", "tags and other protocols", words="ether type != { ip, ip6, arp }")
    yield frame("accept", "packets", words="ether type != arp")
    by = ("meta ibrname",) if around.tells else ()
    said = tuple(
        (*((e["bridge"],) if around.tells else ()), e["mac"], e["mac"], address)
        for e in wish["endpoints"]
        if e.get("address")
        for address in (e["address"], "0.0.0.0")
    )
    yield frame("accept", "endpoints", keys=(*by, "ether saddr", "arp saddr ether", "arp saddr ip"), elements=said)
    if around.tells:
        yield frame("goto RF-FRAME/drop", "fence")
    else:
        macs = among(e["mac"] for e in wish["endpoints"])
        own = among(networks((s.get("subnet") or "" for s in wish["segments"]), "v4"))
        yield frame("goto RF-FRAME/drop", "fence", words="ether type arp", keys=("ether saddr",), elements=macs)
        yield frame("goto RF-FRAME/drop", "fence", keys=("arp saddr ip",), elements=own)
    yield Rule("RF-FRAME/drop", "fence", "log RF DROP frame")
    yield Rule("RF-FRAME/drop", "fence", "drop")
