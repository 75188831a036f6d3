"""Endpoints that are names: looked up again when their peer is silent."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable, Sequence

from ringfence.host.running import Fault, must, run
from ringfence.host.wireguard.declared import Peer, endpoint_parts, literal, written
from ringfence.host.wireguard.device import Peered

SILENT = 150  # seconds: with traffic there is a handshake every 120
LOOKED_UP, PATIENCE = 10, 60  # seconds: for one name, and for all


def is_silent(present: Peered, now: float) -> bool:
    """Whether the last handshake is older than one would be that is in use."""
    return now - present.handshake > SILENT


def chosen(present: Peered, found: Sequence[str]) -> str:
    """Return the endpoint to use of those that a name has now.

    The present one is kept while it is among them. Only where it has been tried and has never worked the next one has
    its turn: of a name with two addresses one may not be reachable from here.
    """
    if present.endpoint not in found:
        return found[0]
    tried = present.sent and not present.handshake
    return found[(found.index(present.endpoint) + 1) % len(found)] if tried else present.endpoint


def looked_up(endpoint: str) -> list[str]:
    """Return the endpoints that a name with a port means now, in the order of the system's choice.

    Raises:
        Fault: the name cannot be looked up.
    """
    host, port = endpoint_parts(endpoint)
    done = run("getent", "ahosts", host, timeout=LOOKED_UP)
    found = []
    for line in done.stdout.splitlines():
        try:
            found.append(written(str(ipaddress.ip_address(line.split()[0])), port))
        except (ValueError, IndexError):
            continue
    if done.returncode or not found:
        raise Fault(f"{host} cannot be looked up ({done.stderr.strip() or 'nobody knows it'}); this is tried again")
    return list(dict.fromkeys(found))


def follow_peers(interface: str, peers: Iterable[tuple[Peer, Peered]]) -> tuple[list[str], list[str]]:
    """Look up the endpoints of peers; returns what was set, and what failed and is tried again, a line each.

    Where names cannot be looked up at all each takes its time, so the rest is left to the next look.
    """
    done, failed, begun = list[str](), list[str](), time.monotonic()
    for peer, there in peers:
        if time.monotonic() - begun > PATIENCE:
            break
        try:
            endpoint = follow_peer(interface, peer, there)
        except Fault as fault:
            failed.append(str(fault))
            continue
        if endpoint:
            done.append(f"peer {peer.name}: {peer.endpoint} is {endpoint}")
    return done, failed


def follow_peer(interface: str, peer: Peer, present: Peered) -> str:
    """Look a peer's endpoint up and set it where it is another one; returns the new one, "" for none.

    Raises:
        Fault: it cannot be looked up or set.
    """
    if not peer.endpoint or literal(peer.endpoint):
        return ""
    try:
        there = chosen(present, looked_up(peer.endpoint))
    except Fault as fault:
        raise Fault(f"peer {peer.name}: {fault}") from None
    if there == present.endpoint:
        return ""
    must("wg", "set", interface, "peer", peer.key, "endpoint", there)
    return there
