"""What is declared: an interface with its peers, and why a declaration cannot be brought about."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

INTERFACE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,14}")  # as wg-quick and systemd take them
RESERVED = (".", "..", "all", "default", "interfaces", "lo")
PEER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")  # 32 bytes in base64
SMALLEST, SMALLEST_WITH_IPV6, LARGEST = 576, 1280, 65535  # bytes of a packet
USERSPACE = ("auto", "never")
TO_BE_MADE = "?"  # in place of a public key that a host makes in this run

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Peer(NamedTuple):
    """Another end, as it is declared.

    Attributes:
        key: its public key; "" while nobody knows it.
        generation: of a host's key; 0 for one whose key is declared.
        allowed: networks behind it, as the kernel writes them.
        endpoint: host:port, the host in brackets where it is an IPv6 address; "" where it calls this host.
        keepalive: seconds, 0 for none.
        secret: the preshared key, "" for none.
    """

    name: str
    key: str
    generation: int
    allowed: frozenset[str]
    endpoint: str
    keepalive: int
    secret: str


class Wish(NamedTuple):
    """The interface as it is declared; `peers` holds those only whose key is known."""

    interface: str
    addresses: tuple[str, ...]
    port: int
    mtu: int
    generation: int
    peers: tuple[Peer, ...]


def network(text: str) -> Network:
    """Read a network, or an address alone. Raises ValueError."""
    return ipaddress.ip_network(text, strict=False)


def address(text: str) -> str:
    """Return an address with its prefix length, as the kernel writes it. Raises ValueError."""
    return str(ipaddress.ip_interface(text))


def endpoint_parts(endpoint: str) -> tuple[str, int]:
    """Return host and port of an endpoint. Raises ValueError: it is none."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9][A-Za-z0-9_.-]*)):(\d{1,5})", endpoint)
    if not found or not 0 < int(found[3]) < 65536:
        raise ValueError(endpoint)
    host = str(ipaddress.IPv6Address(found[1])) if found[1] else found[2]
    if re.fullmatch(r"[0-9.]+", host):
        host = str(ipaddress.IPv4Address(host))
    return host, int(found[3])


def literal(endpoint: str) -> str:
    """Return an endpoint as `wg` writes it where it is an address; "" for a name, which has to be looked up."""
    host, port = endpoint_parts(endpoint) if endpoint else ("", 0)
    return written(host, port) if host and (":" in host or re.fullmatch(r"[0-9.]+", host)) else ""


def written(host: str, port: int) -> str:
    """Return an endpoint as `wg` writes it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def wished(desired: Mapping[str, Any], before: Mapping[str, tuple[str, int]]) -> Wish:
    """Return what is declared, with each peer's key as far as it is known. `refused` must have found nothing.

    Args:
        before: {name: (key, generation)} of the present configuration: a peer whose key is not known in this run, such
            as a host that is off, keeps its last one.
    """
    peers = []
    for one in desired["peers"]:
        name = str(one["name"])
        key, generation = str(one.get("public_key") or ""), 0
        if not key:
            key, generation = told_key(desired, name), int(one.get("key") or 1)
        if not key:
            key, generation = before.get(name, ("", generation))
        if key:
            peers.append(
                Peer(
                    name,
                    key,
                    generation,
                    frozenset(str(network(text)) for text in one.get("allowed") or []),
                    str(one.get("endpoint") or ""),
                    int(one.get("keepalive") or 0),
                    str(desired["secrets"].get(name) or ""),
                )
            )
    addresses = tuple(dict.fromkeys(address(text) for text in desired["addresses"]))
    return Wish(
        desired["interface"], addresses, int(desired["port"]), int(desired["mtu"]), int(desired["key"]), tuple(peers)
    )


def told_key(desired: Mapping[str, Any], name: str) -> str:
    """Return the public key of a host as the run has learned it; "" where it has not, or not yet."""
    key = str(desired["keys"].get(name) or "")
    return "" if key == TO_BE_MADE else key


def awaited(desired: Mapping[str, Any]) -> list[str]:
    """Say of which hosts the key is made in this run: they are peers by its end."""
    keys = desired["keys"]
    names = [str(one["name"]) for one in desired["peers"] if not one.get("public_key")]
    return [f"~ peer {name}: a key that it makes in this run" for name in names if keys.get(name) == TO_BE_MADE]


def unknown(desired: Mapping[str, Any], before: Mapping[str, tuple[str, int]]) -> list[str]:
    """Say of which hosts the key is not known in this run, and what is done about it."""
    lines = []
    for one in desired["peers"]:
        name = str(one["name"])
        if one.get("public_key") or desired["keys"].get(name):
            continue
        last = before.get(name)
        if not last:
            lines.append(f"peer {name}: its key is not known yet; it is left out until a run has reached that host")
        elif last[1] != int(one.get("key") or 1):
            lines.append(
                f"peer {name}: its key of generation {one.get('key') or 1} is not known yet: the last one stays"
            )
    return lines


def refused(desired: Mapping[str, Any]) -> list[str]:
    """Say why the declaration cannot be brought about, each with the fix; no secret is in it."""
    return [*_interface(desired), *(_peers(desired) if desired["addresses"] else ())]


def _interface(desired: Mapping[str, Any]) -> Iterator[str]:
    name = desired["interface"]
    if not INTERFACE.fullmatch(name) or name in RESERVED:
        yield f"wireguard_interface: '{name}' is no name of an interface: 1 to 15 letters, digits, - and _ make one"
    if desired["userspace"] not in USERSPACE:
        yield f"wireguard_userspace: '{desired['userspace']}' is none of {', '.join(USERSPACE)}"
    if not 0 <= int(desired["port"]) < 65536:
        yield f"wireguard_port: {desired['port']} is no port (1 to 65535; 0 for any)"
    if int(desired["key"]) < 1:
        yield f"wireguard_key: {desired['key']} is no generation: count from 1"
    families = set()
    for text in desired["addresses"]:
        try:
            families.add(ipaddress.ip_interface(text).version)
        except ValueError:
            yield f"wireguard_addresses: '{text}' is no address with a prefix length (write it as 10.99.0.1/24)"
    least = SMALLEST_WITH_IPV6 if 6 in families else SMALLEST
    if not least <= int(desired["mtu"]) <= LARGEST:
        yield f"wireguard_mtu: {desired['mtu']} is not within {least} and {LARGEST} (1420 fits almost everywhere)"


def _peers(desired: Mapping[str, Any]) -> Iterator[str]:
    names, keys, networks = set[str](), dict[str, str](), dict[str, str]()
    for one in desired["peers"]:
        name = str(one["name"])
        where = f"wireguard_peers.{name}"
        if not PEER.fullmatch(name):
            yield f"{where}: letters, digits, dots, - and _ make a name, at most 63"
        if name == desired["host"]:
            yield f"{where}: is this host itself (leave it out)"
        if name in names:
            yield f"{where}: there are two of this name (rename one)"
        names.add(name)
        key = str(one.get("public_key") or told_key(desired, name))
        if key and not KEY.fullmatch(key):
            origin = f"{where}.public_key" if one.get("public_key") else f"wireguard_keys.{name}"
            yield f"{origin}: is no public key: it has 44 characters, as `wg pubkey` prints it"
        elif key and keys.setdefault(key, name) != name:
            yield f"{where}: has the same public key as {keys[key]}: give one of the two another key"
        yield from _allowed(where, one, networks)
        try:
            endpoint_parts(str(one.get("endpoint") or "x:1"))
        except ValueError:
            yield f"{where}.endpoint: '{one['endpoint']}' is not host:port (an IPv6 address in brackets)"
        if not 0 <= int(one.get("keepalive") or 0) < 65536:
            yield f"{where}.keepalive: {one['keepalive']} is not within 0 and 65535 seconds (25 is usual)"
        secret = str(desired["secrets"].get(name) or "")
        if secret and not KEY.fullmatch(secret):
            yield f"wireguard_secrets.{name}: is no preshared key: make one with `wg genpsk`"


def _allowed(where: str, one: Mapping[str, Any], taken: dict[str, str]) -> Iterator[str]:
    for text in one.get("allowed") or []:
        try:
            found = network(text)
        except ValueError:
            yield f"{where}.allowed: '{text}' is no network (write it as 172.20.3.0/24)"
            continue
        if not found.prefixlen:
            yield f"{where}.allowed: {found} takes this host's own way out away (name the networks behind it)"
        if taken.setdefault(str(found), where) != where:
            yield f"{where}.allowed: {found} is {taken[str(found)]}'s already, and it can be one peer's only"


def unused_secrets(desired: Mapping[str, Any]) -> list[str]:
    """Say which preshared keys are nobody's."""
    names = {str(one["name"]) for one in desired["peers"]}
    return [f"wireguard_secrets.{name}: no peer has this name" for name in sorted(set(desired["secrets"]) - names)]
