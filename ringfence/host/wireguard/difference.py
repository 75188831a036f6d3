"""How peers that run differ from those that are declared: in words, and in what has to be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ringfence.host.wireguard.conf import Written
from ringfence.host.wireguard.declared import Peer, Wish, literal
from ringfence.host.wireguard.device import Device, Peered


class Change(NamedTuple):
    """A peer that is to be set.

    Attributes:
        at: whether its endpoint is set, too; a peer that has moved keeps the one that it was last heard from.
        cleared: whether a preshared key is taken away.
        looked_up: whether its endpoint is a name that has to be looked up now.
    """

    peer: Peer
    at: bool
    cleared: bool
    looked_up: bool


class Changes(NamedTuple):
    """What has to be done to the peers.

    Attributes:
        lines: in words.
        removed: public keys of peers that go.
        changed: peers that are new or different; all others are not touched.
    """

    lines: list[str]
    removed: list[str]
    changed: list[Change]


def peer_changes(wish: Wish, have: Mapping[str, Peered], before: Sequence[Written]) -> Changes:
    """Compare the declared peers with those that are there.

    Args:
        have: the peers that run; where nothing runs, those of the present configuration.
        before: the peers of the present configuration: it knows their names.
    """
    lines, changed = list[str](), list[Change]()
    names = {one.key: one.name for one in before}
    written = {one.name: one for one in before}
    keys = {peer.key for peer in wish.peers}
    for peer in wish.peers:
        present, last = have.get(peer.key), written.get(peer.name)
        moved = last is None or last.key != peer.key or last.endpoint != said_endpoint(peer)
        if present is None:
            known = any(names.get(key) == peer.name for key in have)
            said = ", ".join(sorted(peer.allowed)) or "no networks"
            lines.append(f"~ peer {peer.name}: another key" if known else f"+ peer {peer.name} ({said})")
            changed.append(Change(peer, at=True, cleared=False, looked_up=True))
            continue
        why = differences(peer, present, last, moved)
        if why:
            lines.append(f"~ peer {peer.name}: {', '.join(why)}")
            at = moved or not present.endpoint
            changed.append(Change(peer, at, bool(present.secret) and not peer.secret, at))
    removed = [key for key in have if key not in keys]
    declared = {peer.name for peer in wish.peers}
    for key in removed:
        name = names.get(key, "")
        if not name:
            lines.append(f"- peer {key} (not declared)")
        elif name not in declared:
            lines.append(f"- peer {name}")
        elif not any(line.startswith(f"~ peer {name}: another key") for line in lines):
            lines.append(f"- peer {name}: its other key")
    return Changes(lines, removed, changed)


def said_endpoint(peer: Peer) -> str:
    """Return a peer's endpoint as the configuration says it."""
    return literal(peer.endpoint) or peer.endpoint


def differences(peer: Peer, present: Peered, last: Written | None, moved: bool) -> list[str]:
    """Say how one peer differs; of a preshared key never more than that it does."""
    why = []
    if peer.allowed != present.allowed:
        why += [f"+ {one}" for one in sorted(peer.allowed - present.allowed)]
        why += [f"- {one}" for one in sorted(present.allowed - peer.allowed)]
    if peer.secret != present.secret:
        why.append("its preshared key" if peer.secret else "no preshared key")
    if peer.keepalive != present.keepalive:
        why.append(f"keepalive {present.keepalive} becomes {peer.keepalive}")
    if last is not None and last.key == peer.key and moved:
        why.append(f"endpoint {last.endpoint or 'none'} becomes {peer.endpoint or 'none'}")
    elif literal(peer.endpoint) and not present.endpoint:
        why.append(f"endpoint {peer.endpoint}")
    if last is not None and last.generation != peer.generation:
        why.append(f"its key is of generation {peer.generation}")
    return why


def device_lines(wish: Wish, device: Device, private: str) -> list[str]:
    """Say how key and port of the running interface differ.

    Args:
        private: the key that is to be in use, "" while it has not been made.
    """
    lines = [] if private and device.private == private else [f"~ {wish.interface}: another private key"]
    if wish.port and device.port != wish.port:
        lines.append(f"~ port of {wish.interface}: {device.port} becomes {wish.port}")
    return lines
