"""The hosts' own ends of the VPN, as the tests of the fleet ask for them."""

from __future__ import annotations

from tests.live.labs import Lab

INTERFACE = "wg-ringfence"


def address(lab: Lab, host: str, at: str = INTERFACE) -> str:
    """A host's IPv4 address at an interface."""
    return lab.sh(f"ip -4 -br address show {at}", host).split()[2].partition("/")[0]
