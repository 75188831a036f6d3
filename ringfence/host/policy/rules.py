"""The rules of a host, from what is desired: one list, in the order of its chains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ringfence.host.policy.rule import (
    ECHO,
    EVERY,
    ICMP,
    NEIGHBOURS,
    Around,
    Rule,
    address,
    among,
    chain_of,
    ends,
    family_of,
    networks,
    of_proto,
    outside,
    plain,
    span,
)
from ringfence.host.policy.slices import from_slices, slice_chains


def build(wish: dict[str, Any], around: Around) -> list[Rule]:
    """What is denied, chain by chain in their order: pure.

    Args:
        wish: the desired state.
    """
    rules = [*_forward(wish, around), *_host(wish, around), *_from_host(wish, around), *_nat(wish)]
    return [rule._replace(name=plain(rule.name)) for rule in rules]


def _forward(wish: dict[str, Any], around: Around) -> Iterator[Rule]:
    """What is forwarded. Everything is entered by goto, so that a pass in any chain leaves all of them."""
    segments, vpn = wish["segments"], vpn_of(wish)

    def fwd(verdict: str, name: str = "fence", **match: Any) -> Rule:
        return Rule("RF-FWD", name, verdict, **match)

    if vpn:
        # Before what is established: without its tunnel an answer would leave by the next best way, as it is.
        yield from astray("RF-FWD", vpn)
    yield fwd("pass", into=EVERY, state="established")
    yield fwd("pass", out=EVERY, state="established")
    if vpn:
        yield fwd("pass", "other hosts", into=vpn["interface"], state="established")
        yield fwd("pass", "other hosts", out=vpn["interface"], state="established")
    yield fwd("accept", state="established")
    yield fwd("drop", into=EVERY, state="invalid")
    yield fwd("drop", out=EVERY, state="invalid")
    if vpn:
        yield fwd("goto RF-VPN", "other hosts", into=vpn["interface"])
    yield by_bridge("RF-FWD", "segments", "iifname", {s["bridge"]: chain_of(s["bridge"]) for s in segments})
    yield fwd("log RF DROP unknown segment", into=EVERY)
    yield fwd("drop", into=EVERY)
    # Who is outside is told by the way it comes, not by what it is not: a bridge that somebody makes is inside.
    yield fwd("goto RF-IN", "outside", out=EVERY, **outside(around, "iifname"))
    yield fwd("log RF DROP other bridge", out=EVERY)
    yield fwd("drop", out=EVERY)
    if vpn:
        yield fwd("log RF DROP to other hosts", "other hosts", out=vpn["interface"])
        yield fwd("drop", "other hosts", out=vpn["interface"])
        yield from _vpn(wish, vpn, around)
    if wish["unmanaged"] == "close":
        inner = {
            "keys": ("iifname", "oifname"),
            "elements": tuple((a, b) for a in around.uplinks for b in around.uplinks),
        }
        yield fwd("accept", "unmanaged closed", **inner)
        yield fwd("log RF DROP other bridge", "unmanaged closed")
        yield fwd("drop", "unmanaged closed")
    for segment in segments:
        yield from _segment(wish, segment, around)
    yield from _into(wish)
    yield from _public(wish)


def vpn_of(wish: dict[str, Any]) -> dict[str, Any]:
    """What is wished of the interface that leads to other hosts; {} where there is none."""
    vpn: dict[str, Any] = wish.get("vpn") or {}
    return vpn if vpn.get("interface") else {}


def astray(chain: str, vpn: dict[str, Any]) -> Iterator[Rule]:
    """Stops what is for other hosts and leaves by another interface: while the tunnel is down its routes are gone, and
    the way outside is in plain text."""
    for family, key in (("v4", "ip daddr"), ("v6", "ip6 daddr")):
        there = among(networks(vpn["networks"], family))
        outside = f"!{vpn['interface']}"
        yield Rule(chain, "other hosts", "goto RF-ASTRAY", family=family, out=outside, keys=(key,), elements=there)


def _vpn(wish: dict[str, Any], vpn: dict[str, Any], around: Around) -> Iterator[Rule]:
    """What other hosts and devices send through the VPN: declared flows, published ports, and at the hub what is for
    others and what leaves. Who may send what into the tunnel is WireGuard's matter, whom it reaches is not."""
    for flow in wish["flows"]:
        if flow["from_bridge"] == vpn["interface"]:
            for match in _flow(flow):
                yield Rule("RF-VPN", of_proto(f"flow {flow['name']}", flow["proto"], flow["port"]), "pass", **match)
    for flow in vpn["transit"]:
        for match in _flow({**flow, "to_bridge": vpn["interface"]}):
            yield Rule("RF-VPN", of_proto(f"transit {flow['name']}", flow["proto"], flow["port"]), "pass", **match)
    # What is published for a place inside the VPN comes by it like by any other way.
    yield Rule("RF-VPN", "other hosts", "goto RF-IN", out=EVERY)
    if egress := vpn_egress(wish):
        # Never to bridges, nor back into the tunnel.
        beyond = around._replace(uplinks=tuple(name for name in around.uplinks if name != vpn["interface"]))
        yield Rule("RF-VPN", "ways out of the vpn", "goto RF-VPN/out", **outside(beyond, "oifname"))
        yield from leaving("RF-VPN/out", egress)
        yield Rule("RF-VPN/out", "ways out of the vpn", "goto RF-VPN/drop")
    yield Rule("RF-VPN", "other hosts", "goto RF-VPN/drop")
    yield Rule("RF-VPN/drop", "other hosts", "log RF DROP from other hosts")
    yield Rule("RF-VPN/drop", "other hosts", "drop")


def vpn_egress(wish: dict[str, Any]) -> list[dict[str, Any]]:
    """What peers may reach beyond this host."""
    return list(vpn_of(wish).get("egress") or ())


def by_bridge(chain: str, name: str, key: str, chains: dict[str, str]) -> Rule:
    """Enters a chain by the bridge: one look, however many there are."""
    return Rule(chain, name, "", keys=(key,), elements=tuple((bridge, f"goto {to}") for bridge, to in chains.items()))


def _segment(wish: dict[str, Any], segment: dict[str, Any], around: Around) -> Iterator[Rule]:
    """What comes from one segment: declared flows, declared egress, and nothing else."""
    bridge, chain, name = segment["bridge"], chain_of(segment["bridge"]), f"segment {segment['name']}"
    for kind in NEIGHBOURS:  # neighbours find each other
        yield Rule(chain, name, "pass", "v6", out=bridge, proto="icmp6", type=kind)
    # By an address of the host, as for a published port: on some engines it would come back as a declared flow.
    yield Rule(chain, name, f"goto {chain}/drop", out=EVERY, words="ct status dnat")
    for flow in wish["flows"]:
        if flow["from_bridge"] == bridge:
            for match in _flow(flow):
                yield Rule(chain, of_proto(f"flow {flow['name']}", flow["proto"], flow["port"]), "pass", **match)
    yield from _quiet(chain, name)
    # Out of the segments is out by an interface that leads outside; anything else has other containers behind it.
    yield Rule(chain, name, f"goto {chain}/drop", **outside(around, "!oifname"))
    yield from leaving(chain, (entry for entry in wish["egress"] if entry["bridge"] == bridge))
    yield Rule(chain, name, f"goto {chain}/drop")
    yield Rule(f"{chain}/drop", name, f"log RF DROP {segment['name']}")
    yield Rule(f"{chain}/drop", name, "drop")


def leaving(chain: str, egress: Iterable[dict[str, Any]]) -> Iterator[Rule]:
    """What passes of that which leaves for the outside."""
    # Where "the internet" ends is asked in a chain that does not come back: it is asked last.
    for entry in sorted(egress, key=lambda entry: bool(entry["to"] == "internet")):
        proto, port = entry.get("proto", "any"), entry.get("port", "any")
        label = of_proto(f"egress {entry['name']}", proto, port)
        for family, source in ends(entry, "source"):
            match = _asked(family, proto, port)
            if entry["to"] == "internet":
                yield Rule(chain, label, "goto RF-PUBLIC", family, source=source, **match)
            elif family_of(entry["to"]) == family:
                yield Rule(chain, label, "pass", family, source=source, destination=address(entry["to"]), **match)


def _asked(family: str, proto: str, port: Any) -> dict[str, Any]:
    if proto == "icmp":
        return {"proto": ICMP[family], "type": ECHO[family]}
    return {"proto": "" if proto == "any" else proto, "dport": "" if proto == "any" else span(port)}


def _quiet(chain: str, name: str) -> Iterator[Rule]:
    """What every kernel says of itself to all of its neighbours is nobody's attempt, and not worth a line."""
    yield Rule(chain, name, "drop", "v4", proto="igmp")
    yield Rule(chain, name, "drop", "v6", destination="ff00::/8", proto="icmp6")


def _flow(flow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for family, source, destination in ends(flow, "source", "destination"):
        yield {
            "family": family, "out": flow["to_bridge"], "source": source, "destination": destination,
            "proto": flow["proto"], "dport": span(flow["port"]),
        }  # fmt: skip


def _into(wish: dict[str, Any]) -> Iterator[Rule]:
    """What comes into segments from outside: published ports, from their places."""
    chains = {s["bridge"]: f"{chain_of(s['bridge'])}/in" for s in wish["segments"]}
    yield by_bridge("RF-IN", "segments", "oifname", chains)
    yield Rule("RF-IN", "fence", "drop")
    for segment in wish["segments"]:
        chain = chains[segment["bridge"]]
        for entry in wish["published"]:
            for family, destination in ends(entry, "destination") if entry["bridge"] == segment["bridge"] else ():
                for place in entry["sources"]:
                    if place == "any" or family_of(place) == family:
                        yield Rule(
                            chain, f"published {entry['name']} {entry['proto']} from {place}", "pass", family,
                            source="" if place == "any" else address(place), destination=destination,
                            proto=entry["proto"], dport=span(entry["port"]), original=span(entry["published"]),
                        )  # fmt: skip
        yield Rule(chain, f"segment {segment['name']}", f"log RF DROP into {segment['name']}")
        yield Rule(chain, f"segment {segment['name']}", "drop")


def _public(wish: dict[str, Any]) -> Iterator[Rule]:
    drops = {s["bridge"]: f"{chain_of(s['bridge'])}/drop" for s in wish["segments"]}
    drops |= {vpn_of(wish)["interface"]: "RF-VPN/drop"} if vpn_egress(wish) else {}
    for family, key in (("v4", "ip daddr"), ("v6", "ip6 daddr")):
        private = among(networks(wish["private"], family))
        if private:
            yield Rule("RF-PUBLIC", "private", "goto RF-DROP", family, keys=(key,), elements=private)
    yield Rule("RF-PUBLIC", "fence", "pass")
    yield by_bridge("RF-DROP", "segments", "iifname", drops)
    yield Rule("RF-DROP", "fence", "drop")


def _published_ports(wish: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Published ports (protocol, port, address of the host or ""), each once: a service in two segments has its own
    twice."""
    return {
        (entry["proto"], span(entry["published"]), address(entry.get("host_address") or "")): entry
        for entry in wish["published"]
    }


def _host(wish: dict[str, Any], around: Around) -> Iterator[Rule]:
    """What reaches the host itself: from containers only what is declared; a published port, which Docker's userland
    proxy answers there, only from its places. All the rest from outside is the firewall's matter."""

    def host(verdict: str, name: str = "fence", **match: Any) -> Rule:
        return Rule("RF-HOST", name, verdict, **match)

    yield host("accept", into="lo")
    yield host("accept", state="established")
    yield host("drop", into=EVERY, state="invalid")
    chains = {s["bridge"]: f"{chain_of(s['bridge'])}/host" for s in wish["segments"]}
    yield by_bridge("RF-HOST", "segments", "iifname", chains)
    yield host("log RF DROP to the host", into=EVERY)
    yield host("drop", into=EVERY)
    ports = _published_ports(wish)
    for proto in ("tcp", "udp"):
        own = among(port for of, port, _ in ports if of == proto)
        yield host("goto RF-PROXY", "published", proto=proto, keys=("th dport",), elements=own)
    yield host("jump RF-GUESTS", "inside", **outside(around, "!iifname"))
    for segment in wish["segments"]:
        yield from _segment_host(wish, segment, chains[segment["bridge"]])
    yield from _proxy(wish, around, ports)
    yield from _guests()


def _segment_host(wish: dict[str, Any], segment: dict[str, Any], chain: str) -> Iterator[Rule]:
    name = f"segment {segment['name']}"
    for kind in NEIGHBOURS:
        yield Rule(chain, name, "accept", "v6", proto="icmp6", type=kind)
    for entry in wish["host"]:
        if entry.get("bridge") in ("", None, segment["bridge"]):
            label = of_proto(f"host {entry['name']}", entry["proto"], entry["port"])
            match = {"proto": entry["proto"], "dport": span(entry["port"])}
            if not entry.get("source") and not entry.get("source6"):
                yield Rule(chain, label, "accept", **match)
            for family, source in ends(entry, "source"):
                yield Rule(chain, label, "accept", family, source=source, **match)
    yield from _quiet(chain, name)
    yield Rule(chain, name, f"log RF DROP {segment['name']} to the host")
    yield Rule(chain, name, "drop")


def _proxy(wish: dict[str, Any], around: Around, ports: dict[tuple[str, str, str], dict[str, Any]]) -> Iterator[Rule]:
    names = {segment["bridge"]: segment["name"] for segment in wish["segments"]}
    if ports:
        yield Rule("RF-PROXY", "inside", "log RF DROP other bridge", **outside(around, "!iifname"))
        yield Rule("RF-PROXY", "inside", "drop", **outside(around, "!iifname"))
    for (proto, port, on), entry in ports.items():
        for place in entry["sources"]:
            found: dict[str, Any] = {"family": family_of(place), "source": address(place)} if place != "any" else {}
            found |= {"family": family_of(on), "destination": on} if on else {}
            if place == "any" or not on or family_of(place) == family_of(on):
                name = f"published {entry['name']} {proto} from {place}"
                yield Rule("RF-PROXY", name, "accept", proto=proto, dport=port, **found)
    for (proto, port, on), entry in ports.items():
        segment = names.get(entry["bridge"], entry["bridge"])
        name = f"published {entry['name']} {proto}"
        found = {"family": family_of(on), "destination": on} if on else {}
        yield Rule("RF-PROXY", name, f"log RF DROP into {segment}", proto=proto, dport=port, **found)
    if ports:
        yield Rule("RF-PROXY", "published", "drop")


def _guests() -> Iterator[Rule]:
    """What containers and machines outside the segments send to the host: the firewall's matter, except for what UFW
    lets in from anywhere by its own files, which is meant for networks outside."""

    def guests(verdict: str, name: str, **match: Any) -> Rule:
        return Rule("RF-GUESTS", name, verdict, **match)

    # To the servers of DHCP, without which no guest of a virtual machine gets an address.
    yield guests("return", "guests ask for an address", words="udp dport { 67, 547 }")
    yield guests("goto RF-GUESTS/drop", "clients of DHCP", words="udp dport { 68, 546 }")
    to_all = "fib daddr type { broadcast, multicast }"
    yield guests("goto RF-GUESTS/drop", "multicast services", words=f"meta l4proto {{ tcp, udp }} {to_all}")
    for family, kind in ECHO.items():
        yield guests("goto RF-GUESTS/drop", "echo", family=family, proto=ICMP[family], type=kind)
    yield Rule("RF-GUESTS/drop", "inside", "log RF DROP to the host")
    yield Rule("RF-GUESTS/drop", "inside", "drop")


def _from_host(wish: dict[str, Any], around: Around) -> Iterator[Rule]:
    """What the host sends to containers: root may (the engine's proxy, health checks), and everybody may use what is
    published; nobody else."""

    def out(verdict: str, name: str = "fence", **match: Any) -> Rule:
        return Rule("RF-OUT", name, verdict, **match)

    if vpn := vpn_of(wish):
        yield from astray("RF-OUT", vpn)
    yield from from_slices(wish, around)
    yield out("accept", out=f"!{EVERY}")
    yield out("accept", state="established")
    yield out("accept", "root of the host", words="meta skuid 0")
    # One by one: nft 1.0 lists a set of them in words that it does not read.
    for proto, port in dict.fromkeys((proto, port) for proto, port, _ in _published_ports(wish)):
        yield out("accept", "published", proto=proto, original=port, words="ct status dnat")
    # What the kernel itself says to its neighbours.
    for kind in (*NEIGHBOURS, "130", "131", "132", "143"):
        yield out("accept", family="v6", proto="icmp6", type=kind)
    yield out("accept", family="v4", proto="igmp")
    for segment in wish["segments"]:
        yield out(f"log RF DROP the host to {segment['name']}", f"segment {segment['name']}", out=segment["bridge"])
    yield out("drop")
    yield from slice_chains(wish, around)
    if vpn:
        yield Rule("RF-ASTRAY", "own addresses", "accept", out="lo")
        yield Rule("RF-ASTRAY", "other hosts", "log RF DROP outside the vpn")
        yield Rule("RF-ASTRAY", "other hosts", "drop")


def _nat(wish: dict[str, Any]) -> Iterator[Rule]:
    vpn = vpn_of(wish)
    if vpn and not vpn.get("masquerade"):
        # Other hosts are told who calls.
        yield Rule("RF-NAT", "other hosts", "accept", out=vpn["interface"])
    for family, key, subnet, source in (
        ("v4", "ip saddr", "subnet", "source"), ("v6", "ip6 saddr", "subnet6", "source6"),
    ):  # fmt: skip
        own = among(networks((s.get(subnet) or "" for s in wish["segments"]), family))
        if own:
            yield Rule("RF-NAT", "segments", "masquerade", family, out=f"!{EVERY}", keys=(key,), elements=own)
        # Nobody outside has a route back, and IPv6's addresses are as private (fd00::/8).
        peers = among(networks((entry.get(source) or "" for entry in vpn_egress(wish)), family))
        if peers:
            yield Rule(
                "RF-NAT", "ways out of the vpn", "masquerade", family, out=f"!{EVERY}", keys=(key,), elements=peers
            )


def closed() -> list[Rule]:
    """What is loaded at boot when the policy cannot be: nothing from or to a segment passes."""
    return [
        Rule("RF-FWD", "fence", "drop", into=EVERY),
        Rule("RF-FWD", "fence", "drop", out=EVERY),
        Rule("RF-HOST", "fence", "drop", into=EVERY),
        Rule("RF-OUT", "fence", "drop", out=EVERY),
    ]
