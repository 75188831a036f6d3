"""Destinations of egress that mean nothing: where no packet of a container goes out to, whatever lets it pass."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from ringfence.model.lab import ANYWHERE, INTERNET
from ringfence.model.problems import Problem
from ringfence.model.read import Draft
from ringfence.model.values import Network, Span


def meaningless_egress(draft: Draft) -> Iterator[Problem]:
    """Refuse egress to loopback, to a broadcast or multicast address, and to the service's own host."""
    for name, service in draft.lab.services.items():
        for egress in service.egress:
            if egress.to in (INTERNET, ANYWHERE):
                continue
            for network in draft.lab.places.get(egress.to) or _network(egress.to):
                if why := _why(draft, name, service.host, network, egress.port or "…"):
                    shown = egress.to if egress.to == str(network) else f"{egress.to}: {network}"
                    yield Problem(f"lab_services.{name}.egress", f"'{shown}' {why}")


def _network(text: str) -> list[Network]:
    try:
        return [ipaddress.ip_network(text)]
    except ValueError:  # another name, or a fault that is told already
        return []


def _why(draft: Draft, service: str, host: str, network: Network, port: Span) -> str:
    first = network.network_address
    if network.is_loopback or (network.prefixlen and first.is_loopback):
        return (
            "is loopback, which in a container is the container itself: nothing goes out (leave it out; for a service "
            f"of the host write lab_hosts.{host}.services.NAME: {{port: {port}, from: [{service}]}})"
        )
    if network.is_multicast:
        return "is multicast, which does not leave the container's own network (write the device's own address)"
    if network.num_addresses != 1:
        return ""
    if first.is_unspecified:
        return "is no address that anybody answers at (write the device's own address)"
    own = draft.lab.hosts.get(host)
    if own and first in own.addresses:
        return (
            f"is an address of '{host}', on which '{service}' runs: what a container sends to its own host does not go "
            f"out (write lab_hosts.{host}.services.NAME: {{port: {port}, from: [{service}]}}, or calls: where a "
            "service listens there)"
        )
    if str(first) == "255.255.255.255" or any(_is_broadcast(first, of) for of in _networks(draft)):
        return "is a broadcast address, which a container does not reach (write the device's own address)"
    return ""


def _networks(draft: Draft) -> Iterator[Network]:
    for place in draft.lab.places.values():
        yield from place


def _is_broadcast(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: Network) -> bool:
    # Two addresses and fewer have none (RFC 3021); IPv6 has none at all.
    return network.version == 4 and network.prefixlen < 31 and address == network.broadcast_address
