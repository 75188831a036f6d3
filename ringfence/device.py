"""A device's end of the VPN, as the app on a phone or a laptop takes it (deploys/device.py). Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ringfence.compile import compile_lab, vpn
from ringfence.compile.book import Book
from ringfence.compile.plan import Plan
from ringfence.compile.wireguard import KEEPALIVE, found_at, preshared, single
from ringfence.model import LabError, Problem
from ringfence.model.vpn import Tunnel

EVERYTHING = ("0.0.0.0/0", "::/0")
# What stands in place of a private key that only the device has.
ON_THE_DEVICE = "the one that the device has made"


@dataclass(frozen=True)
class Pair:
    """A key pair of WireGuard, each 32 bytes in base64. ``private`` is "" where the device keeps it."""

    public: str
    private: str = ""


@dataclass(frozen=True)
class Configuration:
    """A device's configuration, and whether its tunnel is ``split`` or ``full``."""

    text: str
    tunnel: Tunnel


def new_pair() -> Pair:
    """Make a key pair (X25519, as `wg genkey` does)."""
    key = X25519PrivateKey.generate()
    raw = (serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return Pair(base64.b64encode(public).decode(), base64.b64encode(key.private_bytes(*raw)).decode())


def with_key(lab: Mapping[str, Any], name: str, pair: Pair, tunnel: str = "") -> dict[str, Any]:
    """Return the lab in which a device has that key, whether it was declared before or not.

    Args:
        tunnel: split or full; "" is what is declared.
    """
    devices = dict(lab.get("lab_devices") or {})
    changed = {"key": pair.public, **({"tunnel": tunnel} if tunnel else {})}
    return {**lab, "lab_devices": {**devices, name: {**(devices.get(name) or {}), **changed}}}


def configuration(
    lab: Mapping[str, Any], book: Book, name: str, pair: Pair, hub_key: str, tunnel: str = ""
) -> Configuration:
    """Return the configuration of a device.

    Args:
        lab: the ``lab_*`` variables.
        book: the lab's address book.
        name: of the device.
        pair: its keys.
        hub_key: the hub's public key.
        tunnel: split or full; "" is what is declared.

    Raises:
        LabError: the lab cannot be compiled with that device in it.
    """
    plan = compile_lab(with_key(lab, name, pair, tunnel), book).plan
    declared = plan.lab.vpn
    if declared is None:
        raise LabError([Problem("lab_vpn", "there is no VPN that a device could be in (declare lab_vpn)")])
    own = vpn.addresses(plan.lab, plan.book.vpn)[name]
    interface = {"PrivateKey": pair.private or f"# {ON_THE_DEVICE}", "Address": ", ".join(single(own))}
    if declared.dns:
        interface["DNS"] = ", ".join(vpn.servers(plan.lab, plan.book.vpn))
    peer = {
        "PublicKey": hub_key,
        "PresharedKey": preshared(declared.secret, name, declared.hub),
        "AllowedIPs": ", ".join(_inside(plan, name)),
        "Endpoint": found_at(plan, declared.hub),
        "PersistentKeepalive": str(KEEPALIVE),
    }
    sections = {"Interface": interface, "Peer": peer}
    text = "\n".join(
        f"[{title}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for title, keys in sections.items()
    )
    return Configuration(text, plan.lab.devices[name].tunnel)


def _inside(plan: Plan, name: str) -> list[str]:
    """Return what a device sends through the tunnel."""
    if plan.lab.devices[name].tunnel == "full":
        return list(EVERYTHING)
    return [*map(str, vpn.networks(plan.lab)), *vpn.asked(plan.lab)]
