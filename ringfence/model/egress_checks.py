"""Destinations of egress that mean nothing: where no packet of a container goes out to, whatever lets it pass."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from ringfence.model.lab import ANYWHERE, INTERNET
from ringfence.model.problems import Problem
from ringfence.model.read import Draft
from ringfence.model.values import PRIVATE, Address, Network, Span

_PRIVATE = tuple(ipaddress.ip_network(text) for text in PRIVATE)
_NOBODYS = tuple(ipaddress.ip_network(text) for text in ("0.0.0.0/8", "240.0.0.0/4"))
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
# The shortest prefix of a network that is somebody's: 10.0.0.0/8 and fc00::/7.
_WIDEST = {4: 8, 6: 7}


def meaningless_egress(draft: Draft) -> Iterator[Problem]:
    """Refuse egress to where nobody answers or no container's packet goes, and to more than one network has."""
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
        return [] if mapped_to(text) else [ipaddress.ip_network(text)]
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
    if _within(network, _MAPPED):
        return f"is IPv4 in the words of IPv6 (write to: {_unmapped(network)})"
    if network.is_link_local:
        return "is link-local, which does not leave a container's own wire (write the device's address in its network)"
    if any(_within(network, of) for of in _NOBODYS) and str(first) != "255.255.255.255":
        return "is no address that anybody answers at (write the device's own address)"
    if network.prefixlen and _is_wide(network):
        return (
            "is wider than any network: the internet is in it, or networks of yours beside others (write to: internet, "
            "and your own networks or places in entries beside it)"
        )
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
    if whole := next((str(of) for of in _networks(draft) if _is_network_address(first, of)), ""):
        return f"is the address of a network, at which nobody answers (write {whole}, or the device's own address)"
    return ""


def mapped_to(text: str) -> str:
    """Return what to write for an IPv4 network in the words of IPv6, "" for all else."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return ""
    return _unmapped(network) if _within(network, _MAPPED) else ""


def _unmapped(network: Network) -> str:
    inner = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    return f"{inner}/{network.prefixlen - _MAPPED.prefixlen}" if network.prefixlen > _MAPPED.prefixlen else INTERNET


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.overlaps(outer)


def _is_wide(network: Network) -> bool:
    """Whether more is in it than a network has: nearly everything, or private addresses and others as well."""
    if network.prefixlen < _WIDEST[network.version]:
        return True
    return any(_within(private, network) and private != network for private in _PRIVATE)


def _networks(draft: Draft) -> Iterator[Network]:
    for place in draft.lab.places.values():
        yield from place


def _is_network_address(address: Address, network: Network) -> bool:
    return network.version == 4 and network.prefixlen < 31 and address == network.network_address


def _is_broadcast(address: Address, network: Network) -> bool:
    # Two addresses and fewer have none (RFC 3021); IPv6 has none at all.
    return network.version == 4 and network.prefixlen < 31 and address == network.broadcast_address
