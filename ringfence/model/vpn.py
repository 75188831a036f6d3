"""The declared VPN: WireGuard between the hosts of a lab, and for people's devices."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ringfence.model.base import Declared
from ringfence.model.values import AnyAddress, Network4, Network6, PortNumber, PositiveInt, Text, WholeNumber

# The place of everything inside the VPN: hosts and devices.
VPN = "vpn"
WIREGUARD = "wireguard"
KEY_BYTES = 32
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
ENDPOINT = re.compile(rf"(?P<host>{_NAME}|\[[0-9A-Fa-f:]+\])(?::(?P<port>[0-9]{{1,5}}))?")


def is_key(text: str) -> bool:
    """Return whether a text is a key of WireGuard: 32 bytes in base64."""
    try:
        return len(text) == 44 and len(base64.b64decode(text, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False


def _key(value: Any) -> Any:
    if value and not (isinstance(value, str) and is_key(value)):
        raise ValueError(
            "the value is no key of WireGuard: 44 characters (its app shows one, or deploys/device.py makes one)"
        )
    return value


def _endpoint(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    if value.count(":") > 1 and not value.startswith("["):
        try:
            fix = f"[{ipaddress.IPv6Address(value)}]"
        except ValueError:
            fix = "vpn.example.org:51820"
        raise ValueError(f"'{value}' is not a name or an address with a port (write it as {fix})")
    found = ENDPOINT.fullmatch(value)
    if not found or int(found["port"] or 1) not in range(1, 65536):
        raise ValueError(f"'{value}' is not a name or an address with a port (write it as vpn.example.org:51820)")
    return value


# What of a device goes through the VPN: what is for the lab, or everything.
Tunnel = Literal["split", "full"]
PublicKey = Annotated[str, BeforeValidator(_key)]
Endpoint = Annotated[str, BeforeValidator(_endpoint)]


class Vpn(Declared):
    """WireGuard between all hosts of the lab, and for the devices that have a key."""

    kind: Literal["wireguard"] = Field("wireguard", description="or tailscale, which takes other settings")
    hub: str = Field(description="the host that all others call: one whose UDP port can be reached")
    network: Network4 = Field(ipaddress.IPv4Network("10.99.0.0/24"), description="IPv4 network of the tunnels")
    network6: Network6 | None = Field(None, description="IPv6 network of the tunnels; by default the first of lab_ula")
    port: PortNumber = Field(51820, description="UDP port, on every host")
    mesh: bool = Field(False, description="whether hosts that reach each other talk directly, and not by the hub")
    mtu: WholeNumber = Field(
        1420, ge=1280, le=9000, description="largest packet in a tunnel; 1412 where the line is PPPoE"
    )
    dns: tuple[AnyAddress, ...] = Field(
        (), description="DNS servers that devices ask in the tunnel, such as your router"
    )
    secret: Text = Field(
        repr=False,
        min_length=32,
        description="what the preshared keys are made from; from the vault: openssl rand -hex 32",
    )


class HostVpn(Declared):
    """How a host takes part in the VPN."""

    endpoint: Endpoint = Field(
        "",
        description="name or address, with :port where it differs, at which the others reach it; by default its first",
    )
    nat: bool = Field(False, description="whether it is behind NAT: it calls the others, and keeps the way open")
    key: PositiveInt = Field(1, description="another number makes another key on the host")
