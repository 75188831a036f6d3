"""The configuration that wg-quick reads at boot: made here, with the private key in it.

A peer's name and the generation of its key stand in comments. Where an endpoint is a name, that one, too: at boot a
name that cannot be looked up would keep the whole interface from coming up, so `ringfence-wireguard follow` does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ringfence.host.files import read
from ringfence.host.running import Fault
from ringfence.host.wireguard.declared import Peer, Wish, literal
from ringfence.host.wireguard.device import Peered

CONFS = Path("/etc/wireguard")
MANAGED = "# Managed by ringfence. Changes made by hand are undone by the next run.\n"
NO_SECRET = "A" * 43 + "="  # takes a preshared key away, as 32 zeros


class Written(NamedTuple):
    """A peer of the present configuration."""

    name: str
    key: str
    generation: int
    endpoint: str
    peered: Peered


def conf_path(interface: str) -> Path:
    """Where the configuration of an interface is."""
    return CONFS / f"{interface}.conf"


def rendered(wish: Wish, private: str) -> str:
    """Return the configuration."""
    head = [
        *(f"Address = {address}" for address in wish.addresses),
        *([f"ListenPort = {wish.port}"] if wish.port else []),
        f"MTU = {wish.mtu}",
        f"PrivateKey = {private}",
    ]
    return MANAGED + "[Interface]\n" + "\n".join(head) + "\n" + sections((peer, True, False) for peer in wish.peers)


def sections(peers: Iterable[tuple[Peer, bool, bool]]) -> str:
    """Return peers as sections, as `wg addconf` takes them: (peer, whether to say the endpoint, whether to clear)."""
    text = ""
    for peer, at, cleared in peers:
        lines = ["", "[Peer]", f"# Name = {peer.name}"]
        lines += [f"# Key = {peer.generation}"] if peer.generation else []
        lines += [f"PublicKey = {peer.key}"]
        lines += [f"PresharedKey = {peer.secret or NO_SECRET}"] if peer.secret or cleared else []
        lines += [f"AllowedIPs = {', '.join(sorted(peer.allowed))}"] if peer.allowed else []
        if peer.endpoint and not literal(peer.endpoint):
            lines.append(f"# Endpoint = {peer.endpoint}")
        elif peer.endpoint and at:
            lines.append(f"Endpoint = {literal(peer.endpoint)}")
        # Said where there is none as well: `wg addconf` leaves what is not said as it is.
        lines.append(f"PersistentKeepalive = {peer.keepalive or 'off'}")
        text += "\n".join(lines) + "\n"
    return text


def parsed(text: str) -> list[Written]:
    """Read the peers of a configuration that `rendered` made; what else is in it is passed over."""
    found = []
    for part in re.split(r"^\[Peer\]$", text, flags=re.M)[1:]:
        said = dict(re.findall(r"^(?:# )?([A-Za-z]+) = (.*)$", part, re.M))
        if said.get("PublicKey"):
            allowed = frozenset(one.strip() for one in said.get("AllowedIPs", "").split(",")) - {""}
            endpoint, keepalive = said.get("Endpoint", ""), _number(said.get("PersistentKeepalive", ""))
            peered = Peered(said.get("PresharedKey", ""), endpoint, allowed, keepalive=keepalive)
            name = said.get("Name") or said["PublicKey"]
            found.append(Written(name, said["PublicKey"], _number(said.get("Key", "")), endpoint, peered))
    return found


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def read_conf(interface: str) -> list[Written]:
    """Read the peers of the present configuration.

    Raises:
        Fault: there is one that is not ringfence's, or it cannot be read.
    """
    path = conf_path(interface)
    text = read(path)
    if text and not text.startswith(MANAGED):
        raise Fault(
            f"wireguard_interface: {path} is there and not ringfence's: move it away (and `systemctl disable --now "
            f"wg-quick@{interface}`), or choose another name"
        )
    return parsed(text)
