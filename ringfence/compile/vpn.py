"""The VPN's addresses, and the places that follow from it: the VPN itself, and every device."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from ringfence.compile.addresses import slots, subnet6
from ringfence.compile.book import Book
from ringfence.model import INTERNET, Lab, LabError, Problem
from ringfence.model.vpn import VPN


def members(lab: Lab) -> list[str]:
    """Return who is in the VPN, sorted: all hosts, and the devices with a key."""
    if lab.vpn is None:
        return []
    return sorted({*lab.hosts, *(name for name, device in lab.devices.items() if device.key)})


def numbers(lab: Lab, book: Book) -> dict[str, int]:
    """Return everybody's number in the VPN's networks: the book's, or else one by the hash of the name.

    Raises:
        LabError: there are more of them than addresses.
    """
    if lab.vpn is None:
        return {}
    last = lab.vpn.network.num_addresses - 2
    found: dict[str, int] = {}
    for name in members(lab):
        if 0 < book.vpn.get(name, 0) <= last and book.vpn[name] not in found.values():
            found[name] = book.vpn[name]
    for name in members(lab):
        if name not in found:
            taken = set(found.values())
            free = next((slot + 1 for slot in slots(name, last) if slot + 1 not in taken), None)
            if free is None:
                raise LabError([Problem("lab_vpn.network", f"'{lab.vpn.network}' is full (take a larger one)")])
            found[name] = free
    return found


def networks(lab: Lab) -> tuple[ipaddress.IPv4Network, ipaddress.IPv6Network]:
    """Return the VPN's networks. Segments' numbers in lab_ula begin at 1, so that the first is free."""
    if lab.tailnet is not None:
        return lab.tailnet.network, lab.tailnet.network6
    if lab.vpn is None:
        raise ValueError("the lab has no VPN")
    return lab.vpn.network, lab.vpn.network6 or subnet6(lab.ula, 0)


def addresses(lab: Lab, given: Mapping[str, int]) -> dict[str, tuple[str, str]]:
    """Return everybody's IPv4 and IPv6 address in the VPN."""
    if lab.vpn is None:
        return {}
    v4, v6 = networks(lab)
    return {
        name: (str(v4.network_address + number), str(v6.network_address + number)) for name, number in given.items()
    }


def servers(lab: Lab, given: Mapping[str, int]) -> list[str]:
    """Return the DNS servers as devices ask them: a host of the lab by its address in the VPN."""
    if lab.vpn is None:
        return []
    inside = addresses(lab, given)
    hosts = {address: inside[name] for name, host in lab.hosts.items() for address in host.addresses}
    found = [hosts[server][server.version == 6] if server in hosts else str(server) for server in lab.vpn.dns]
    return list(dict.fromkeys(found))


def asked(lab: Lab) -> list[str]:
    """Return the DNS servers beyond the hub, such as a router, as networks of one."""
    if lab.vpn is None:
        return []
    hosts = {address for host in lab.hosts.values() for address in host.addresses}
    outside = [server for server in lab.vpn.dns if server not in hosts and not any(server in n for n in networks(lab))]
    return [str(ipaddress.ip_network(server)) for server in dict.fromkeys(outside)]


def ways_out(lab: Lab) -> Iterator[tuple[str, str, str, int | str]]:
    """Yield (device, "internet" or a network, protocol, port) of what devices may reach beyond the hub."""
    for name, device in sorted(lab.devices.items()):
        if lab.vpn is not None and device.key:
            for server in asked(lab):
                yield from ((name, server, proto, 53) for proto in ("tcp", "udp"))
            if device.tunnel == "full":
                yield name, INTERNET, "any", "any"


def with_places(lab: Lab, given: Mapping[str, int]) -> Lab:
    """Return the lab with the places that follow: the VPN, and for each device its addresses, those in the VPN too.

    A device is a place wherever a place can be named.
    """
    places = dict(lab.places)
    inside = addresses(lab, given)
    if lab.vpn or lab.tailnet:
        places[VPN] = networks(lab)
    for name, device in lab.devices.items():
        own = [*map(str, device.addresses), *inside.get(name, ())]
        places[name] = tuple(ipaddress.ip_network(address) for address in own)
    return lab.model_copy(update={"places": places})
