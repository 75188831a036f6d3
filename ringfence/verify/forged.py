"""Which lies are tried: packets with another's source address, towards what that other may use."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ringfence.verify.declared import ANY, Machine, Vantage, family, matches
from ringfence.verify.expected import Rules, Source

PROTOS = ("tcp", "udp")
UNLIKELY = 0x46  # number of a forged address in a place of which no address is known


@dataclass(frozen=True)
class Lie:
    """One packet to try: ``source`` says that it is ``claim``, whose owner may reach the destination by this port.

    ``through`` is the source's own address by whose interface it goes, "" where the routes decide.
    """

    source: str
    destination: str
    host: str
    address: str
    proto: str
    port: int
    claim: str
    through: str = ""


def lies(rules: Rules, sources: Mapping[str, Source]) -> Iterator[Lie]:
    """Yield every packet to try, each expected closed.

    Args:
        rules: the declaration and what runs.
        sources: who probes, by name.
    """
    for host in sorted(rules.seen):
        here = [s for s in sources.values() if s.host == host and s.container and _lies(rules, s)]
        yield from _callers(rules, sources, host, here)
        for machine in rules.declared.machines:
            if machine.name == host:
                yield from _places(rules, here, machine)
    yield from _wires(rules, sources)


def _lies(rules: Rules, source: Source) -> bool:
    """Whether it can be told from the host's root, who makes whatever packets it likes."""
    return not source.in_hosts_network or rules.is_held(source)


def _callers(rules: Rules, sources: Mapping[str, Source], host: str, here: list[Source]) -> Iterator[Lie]:
    """The address of who may call, from neighbours in its segments, the host's network and one container elsewhere."""
    for flow in rules.declared.flows:
        caller, callee = sources.get(flow.source), sources.get(flow.destination)
        if not (caller and caller.container and callee and callee.service and callee.container):
            continue
        if {caller.host, callee.host} != {host}:
            continue
        others = [s for s in here if s.name not in (flow.source, flow.destination) and s.container]
        near = [s for s in others if s.container and set(s.container.networks) & set(caller.container.networks)]
        # Who is in the host's network may make any packet there, and is held by rules of its own.
        of_host = [s for s in others if rules.is_held(s)]
        far = [s for s in others if s not in near and s not in of_host]
        for network, address in callee.container.addresses():
            verdict = rules.to_container(
                caller, callee.service, callee.container, network, address, flow.proto, flow.port
            )
            claim = _own(caller, network, address)
            if verdict.expected == "open" and claim:
                for liar in (*near, *of_host, *far[:1]):
                    yield Lie(liar.name, callee.name, callee.host, address, flow.proto, flow.port, claim)


def _own(caller: Source, network: str, address: str) -> str:
    """The address that a caller has on the way to an address: in the same network, or else any of its own."""
    assert caller.container is not None
    six = family(address) == 6
    there = caller.container.networks.get(network)
    return there[six] if there else next(iter(caller.addresses(6 if six else 4)), "")


def _doors(rules: Rules, machine: Machine) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """What a machine answers: (protocol, port, sources)."""
    for published in rules.declared.published:
        if published.host == machine.name:
            yield published.proto, published.published, published.sources
    for service in machine.services:
        for proto in PROTOS if service.proto == ANY else (service.proto,):
            yield proto, service.port, service.sources


def _places(rules: Rules, here: list[Source], machine: Machine) -> Iterator[Lie]:
    """The address of a place, or of a container that the host answers, from one container of each bridge."""
    for liar in _one_of_each_network(here):
        for proto, port, allowed in _doors(rules, machine):
            for address in _one_of_each_family(machine.addresses):
                claim = next((c for c in _inhabitants(rules, allowed, family(address)) if c != address), "")
                if claim and claim not in liar.addresses(family(address)) and claim not in machine.addresses:
                    yield Lie(liar.name, machine.name, machine.name, address, proto, port, claim)


def _one_of_each_network(here: list[Source]) -> Iterator[Source]:
    covered: set[str] = set()
    for source in here:
        networks = set(source.container.networks) if source.container else set()
        if not networks <= covered:
            covered |= networks
            yield source


def _one_of_each_family(addresses: Iterable[str]) -> list[str]:
    found: dict[int, str] = {}
    for address in addresses:
        found.setdefault(family(address), address)
    return list(found.values())


def _inhabitants(rules: Rules, allowed: Iterable[str], version: int) -> Iterator[str]:
    """Addresses of who is allowed: known ones first."""
    for vantage in rules.declared.vantages:
        address = vantage.address if version == 4 else vantage.address6
        if address and ANY not in allowed and matches(allowed, address):
            yield address
    for text in allowed:
        if text != ANY:
            network = ipaddress.ip_network(text, strict=False)
            if network.version == version:
                yield str(network[min(UNLIKELY, network.num_addresses - 1)])


def _wires(rules: Rules, sources: Mapping[str, Source]) -> Iterator[Lie]:
    """One place's address by the wire of another: only where the machine itself has two interfaces for the two."""
    vantages = [s for s in sources.values() if s.vantage]
    for liar in vantages:
        for machine in rules.declared.machines:
            for other in vantages:
                if liar.vantage and other.vantage and machine.name in rules.seen and liar.host != machine.name:
                    yield from _wire(rules, liar, liar.vantage, other, machine)


def _wire(rules: Rules, liar: Source, own: Vantage, other: Source, machine: Machine) -> Iterator[Lie]:
    there = rules.seen[machine.name]
    devices = {address: device for device, address, _ in there.addresses}
    for through, claim in zip((own.address, own.address6), _both(other), strict=True):
        near = [a for a in there.next_to(through, rules.seen[liar.host]) if a in machine.addresses] if through else []
        theirs = {devices[a] for a in there.next_to(claim, rules.seen[other.host])} if claim else set()
        if not near or not theirs or devices[near[0]] in theirs:
            continue
        for proto, port, allowed in _doors(rules, machine):
            if matches(allowed, claim) and not matches(allowed, through):
                yield Lie(liar.name, machine.name, machine.name, near[0], proto, port, claim, through)


def _both(source: Source) -> tuple[str, str]:
    assert source.vantage is not None
    return source.vantage.address, source.vantage.address6
