"""MAC addresses as Docker up to 27 makes them; newer engines are told to."""

from __future__ import annotations

import ipaddress


def mac_of(address: str) -> str:
    """Return the MAC address that belongs to an IPv4 address: 02:42 and its four bytes."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x42, *ipaddress.IPv4Address(address).packed))
