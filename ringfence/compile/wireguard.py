"""Variables of the role `wireguard`: a host's end of the VPN, and who it talks to."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

from ringfence.compile import vpn
from ringfence.compile.plan import Plan
from ringfence.model.values import Address
from ringfence.model.vpn import ENDPOINT, VPN, Vpn

INTERFACE = "wg-ringfence"
KEEPALIVE = 25  # seconds; shorter than routers forget a UDP flow (30 is the shortest that is seen)


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return the host's addresses in the VPN and its peers; {} where there is no VPN."""
    if plan.lab.vpn is None:
        return {}
    own = vpn.addresses(plan.lab, plan.book.vpn)[host]
    lengths = [network.prefixlen for network in vpn.networks(plan.lab)]
    peers = _peers(plan, plan.lab.vpn, host)
    return {
        "wireguard_host": host,
        "wireguard_interface": INTERFACE,
        "wireguard_addresses": [f"{address}/{length}" for address, length in zip(own, lengths, strict=True)],
        "wireguard_port": plan.lab.vpn.port,
        "wireguard_mtu": plan.lab.vpn.mtu,
        "wireguard_key": plan.lab.hosts[host].vpn.key,
        "wireguard_peers": peers,
        "wireguard_secrets": {peer["name"]: preshared(plan.lab.vpn.secret, host, peer["name"]) for peer in peers},
    }


def preshared(secret: str, one: str, other: str) -> str:
    """Return the preshared key of a pair, the same for both: from the lab's secret and both names."""
    pair = "\0".join(sorted((one, other)))
    return base64.b64encode(
        hmac.digest(secret.encode(), f"ringfence preshared\0{pair}".encode(), hashlib.sha256)
    ).decode()


def direct(plan: Plan, declared: Vpn, host: str) -> list[str]:
    """Return the hosts that a host talks to without the hub in between, sorted."""
    others = sorted(set(plan.lab.hosts) - {host})
    if host == declared.hub:
        return others
    if not declared.mesh:
        return [declared.hub]
    # One of the two has to be found by the other.
    meets = [name for name in others if endpoint(plan, name, host) or endpoint(plan, host, name)]
    return sorted({declared.hub, *meets})


def _peers(plan: Plan, declared: Vpn, host: str) -> list[dict[str, Any]]:
    near = direct(plan, declared, host)
    peers = [_host(plan, declared, host, name, near) for name in near]
    if host == declared.hub:
        inside = vpn.addresses(plan.lab, plan.book.vpn)
        peers += [
            {
                "name": name,
                "public_key": device.key,
                "key": 1,
                "allowed": single(inside[name]),
                "endpoint": "",
                "keepalive": 0,
            }
            for name, device in sorted(plan.lab.devices.items())
            if device.key
        ]
    return sorted(peers, key=lambda peer: str(peer["name"]))


def _host(plan: Plan, declared: Vpn, host: str, name: str, near: list[str]) -> dict[str, Any]:
    allowed = _behind(plan, name)
    if name == declared.hub:
        # Everything that is nowhere else is behind the hub; WireGuard takes the narrower network first.
        far = sorted(set(plan.lab.hosts) - {host, *near})
        allowed = [*map(str, vpn.networks(plan.lab)), *_segments(plan, name)]
        allowed += [network for other in far for network in _segments(plan, other)]
    us = plan.lab.hosts[host].vpn
    return {
        "name": name,
        "public_key": "",
        "key": plan.lab.hosts[name].vpn.key,
        "allowed": allowed,
        "endpoint": endpoint(plan, name, host),
        # Both ends may be behind something that forgets; who cannot be called keeps the way open.
        "keepalive": KEEPALIVE if us.nat else 0,
    }


def endpoint(plan: Plan, host: str, caller: str) -> str:
    """Return where another host finds a host's UDP port: in a place that both are in, or else where everybody finds it;
    "" where it is behind NAT and calls."""
    near = _neighbour(plan, host, caller)
    if near is not None:
        return _with_port(plan, _written(near))
    return "" if plan.lab.hosts[host].vpn.nat else found_at(plan, host)


def found_at(plan: Plan, host: str) -> str:
    """Return where everybody finds a host's UDP port: as it is declared, or else at its first address."""
    return _with_port(plan, plan.lab.hosts[host].vpn.endpoint or _written(plan.lab.hosts[host].addresses[0]))


def _written(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _with_port(plan: Plan, text: str) -> str:
    found = ENDPOINT.fullmatch(text)
    port = plan.lab.vpn.port if plan.lab.vpn else 0
    return text if found and found["port"] else f"{text}:{port}"


def _neighbour(plan: Plan, host: str, caller: str) -> Address | None:
    """Return a host's address in a network of a place in which another host has one as well."""
    places = [network for name, networks in sorted(plan.lab.places.items()) if name != VPN for network in networks]
    for address in plan.lab.hosts[host].addresses:
        for network in places:
            if address in network and any(other in network for other in plan.lab.hosts[caller].addresses):
                return address
    return None


def _behind(plan: Plan, host: str) -> list[str]:
    """Return what a host may send from: its own addresses in the VPN, and its segments."""
    return [*single(vpn.addresses(plan.lab, plan.book.vpn)[host]), *_segments(plan, host)]


def _segments(plan: Plan, host: str) -> list[str]:
    return [subnet for network in plan.networks_on(host) for subnet in (network.subnet, network.subnet6)]


def single(pair: tuple[str, str]) -> list[str]:
    """Return an IPv4 and an IPv6 address as networks of one."""
    return [f"{pair[0]}/32", f"{pair[1]}/128"]
