"""Shows the configuration of a device on the screen of who runs the lab."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import click
import segno
from pyinfra.api.exceptions import DeployError
from pyinfra.api.host import Host
from pyinfra.facts.server import Command

from ringfence.compile.wireguard import INTERFACE
from ringfence.device import Configuration, Pair, configuration, new_pair
from ringfence.inventory.front import lab_directory
from ringfence.inventory.labs import load_book
from ringfence.model import LabError
from ringfence.model.read import LAB_VARIABLES
from ringfence.model.tailnet import TAILSCALE
from ringfence.model.vpn import Tunnel, is_key

PUBLIC_KEY = Path("/etc/wireguard/ringfence") / f"{INTERFACE}.pub"


def show(host: Host) -> None:
    """Print a device's configuration, as text and as a QR code, and the line of the lab that lets it in.

    Does nothing but on the hub. ``--data device=NAME`` names the device; ``--data key=PUBLIC`` is a key that it made;
    ``--data tunnel=full`` sends everything through the tunnel, also where that is not declared yet.

    Raises:
        DeployError: the device is not named, the hub has no key yet, or the lab does not take it.
    """
    lab = {name: host.data.get(name) for name in LAB_VARIABLES if host.data.get(name) is not None}
    declared = lab.get("lab_vpn")
    if declared == TAILSCALE or (isinstance(declared, Mapping) and declared.get("kind") == TAILSCALE):
        raise DeployError("a device joins a tailnet by Tailscale's own app; declare the addresses that it gets there")
    if not isinstance(declared, Mapping) or host.name != declared.get("hub"):
        return
    name, given = str(host.data.get("device") or ""), str(host.data.get("key") or "")
    if not name:
        raise DeployError("which device? pyinfra inventory.py deploys/device.py --data device=phone")
    if given and not is_key(given):
        raise DeployError("key: is no key of WireGuard: the app shows a public one of 44 characters")
    tunnel = str(host.data.get("tunnel") or "")
    if tunnel not in ("", *get_args(Tunnel)):
        raise DeployError(f"tunnel: '{tunnel}' is neither split nor full")
    hub_key = str(host.get_fact(Command, command=f"cat {PUBLIC_KEY} 2>/dev/null || true") or "").strip()
    if not is_key(hub_key):
        raise DeployError(f"{host.name} has no key yet: run the site first (pyinfra inventory.py deploys/site.py)")
    pair = Pair(given) if given else new_pair()
    try:
        made = configuration(lab, load_book(lab_directory()), name, pair, hub_key, tunnel)
    except LabError as error:
        raise DeployError(str(error)) from None
    click.echo(shown(name, pair, made, bool((lab.get("lab_devices") or {}).get(name, {}).get("key"))))


def shown(name: str, pair: Pair, made: Configuration, known: bool) -> str:
    """Return what is printed.

    Args:
        known: whether the lab has a key of that device already.
    """
    code = io.StringIO()
    if pair.private:
        segno.make(made.text, error="l").terminal(out=code, compact=True)
    how = "instead of the key that is there (which is cut off then)" if known else "with its owner"
    lines = [
        f"# {name}.conf: for the app, or /etc/wireguard on a laptop. Shown this once, kept nowhere.",
        made.text,
        *([code.getvalue()] if pair.private else []),
        f"Declare in lab_devices, {how}, and run the site:",
        f'  {name}: {{key: "{pair.public}"{", tunnel: full" if made.tunnel == "full" else ""}}}',
    ]
    return "\n".join(lines)
