"""The kernel's side of the interface: addresses, MTU, routes, and what other interfaces have."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.host.running import Fault, must, run
from ringfence.host.wireguard.declared import Network, Wish, network

INTERFACES = Path("/sys/class/net")
OURS = "boot"  # protocol of the routes that wg-quick and we add; those of a routing daemon are not ours


class Link(NamedTuple):
    """An interface as the kernel has it: addresses with prefix length, and the routes that lead over it."""

    mtu: int
    up: bool
    addresses: frozenset[str]
    routes: frozenset[str]


class Route(NamedTuple):
    """A route over another interface."""

    destination: Network
    device: str
    connected: bool  # the kernel's own: the network of an address


def is_there(interface: str) -> bool:
    """Whether there is an interface of this name."""
    return (INTERFACES / interface).exists()


def has_module() -> bool:
    """Whether this kernel knows WireGuard."""
    return Path("/sys/module/wireguard").exists() or not run("modprobe", "--dry-run", "--quiet", "wireguard").returncode


def read_link(interface: str) -> Link:
    """Ask for addresses and routes of an interface, which must be there. Raises Fault."""
    [found] = _json("address", "show", "dev", interface)
    addresses = frozenset(
        f"{ipaddress.ip_address(entry['local'])}/{entry['prefixlen']}"
        for entry in found["addr_info"]
        if entry.get("scope") != "link"
    )
    routes = frozenset(
        str(_destination(entry))
        for family in ("-4", "-6")
        for entry in _json(family, "route", "show", "dev", interface)
        if entry.get("protocol", OURS) == OURS  # which `ip` does not say
    )
    return Link(int(found["mtu"]), "UP" in found["flags"], addresses, routes)


def other_routes(own: Collection[str]) -> list[Route]:
    """Ask for the routes over other interfaces than our own; default routes aside. Raises Fault."""
    found = []
    for family in ("-4", "-6"):
        for entry in _json(family, "route", "show"):
            to = _destination(entry)
            if to.prefixlen and entry.get("dev") not in (None, "lo", *own) and not to.is_link_local:
                found.append(Route(to, entry["dev"], entry.get("protocol") == "kernel" and "gateway" not in entry))
    return found


def _destination(entry: dict[str, Any]) -> Network:
    everything = "::/0" if ":" in str(entry.get("gateway") or "") else "0.0.0.0/0"
    return network(everything if entry["dst"] == "default" else entry["dst"])


def _json(*words: str) -> list[dict[str, Any]]:
    try:
        return list(json.loads(must("ip", "-j", *words) or "[]"))
    except ValueError:
        raise Fault(f"`ip -j {' '.join(words)}` says something that is not JSON") from None


def routes_of(wish: Wish) -> frozenset[str]:
    """Return the networks that need a route: those of the peers that are in none of the interface's own networks."""
    own = [ipaddress.ip_interface(address).network for address in wish.addresses]
    return frozenset(
        text for peer in wish.peers for text in peer.allowed if not any(within(network(text), one) for one in own)
    )


def within(small: Network, large: Network) -> bool:
    """Whether a network is a part of another, or the same."""
    return small.version == large.version and small.subnet_of(large)  # type: ignore[arg-type]  # of one version


def clashes(wish: Wish, routes: list[Route]) -> list[str]:
    """Say which networks of peers lead elsewhere on this host: a route into the tunnel would take them away."""
    lines = []
    for peer in wish.peers:
        for text in sorted(peer.allowed):
            for route in routes:
                inside = route.connected and within(network(text), route.destination)
                if inside or network(text) == route.destination:
                    lines.append(
                        f"wireguard_peers.{peer.name}.allowed: {text} is this host's own, over {route.device} "
                        f"({route.destination}): leave it out, or give one of the two sides another network"
                    )
                    break
    return lines


def differing(wish: Wish, link: Link) -> list[str]:
    """Say how addresses, MTU and routes of the interface are otherwise than declared."""
    name, wanted, routes = wish.interface, frozenset(wish.addresses), routes_of(wish)
    lines = [f"+ address {one} of {name}" for one in sorted(wanted - link.addresses)]
    lines += [f"- address {one} of {name}" for one in sorted(link.addresses - wanted)]
    lines += [f"~ mtu of {name}: {link.mtu} becomes {wish.mtu}"] if link.mtu != wish.mtu else []
    lines += [] if link.up else [f"~ {name}: is down"]
    lines += [f"+ route {one} over {name}" for one in sorted(routes - link.routes)]
    return lines + [f"- route {one} over {name}" for one in sorted(link.routes - routes)]


def bring_link(wish: Wish) -> None:
    """Let addresses, MTU and routes be as declared; what fits is not touched. Raises Fault."""
    name = wish.interface
    for one in read_link(name).addresses - frozenset(wish.addresses):
        must("ip", "address", "del", one, "dev", name)
    link = read_link(name)  # with an address others of its network may have gone, and routes
    for one in wish.addresses:
        if one not in link.addresses:
            must("ip", "address", "add", one, "dev", name)
    if link.mtu != wish.mtu or not link.up:
        must("ip", "link", "set", "mtu", str(wish.mtu), "up", "dev", name)
    wanted, have = routes_of(wish), read_link(name).routes
    for one in sorted(have - wanted):
        must("ip", "route", "del", one, "dev", name, "proto", OURS)
    for one in sorted(wanted - have):
        # Not `replace`: that would take the same network away from another interface.
        must("ip", "route", "add", one, "dev", name)
