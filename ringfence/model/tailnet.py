"""A tailnet, of Tailscale or headscale, as the VPN in place of own WireGuard."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from ringfence.model.base import Declared
from ringfence.model.problems import did_you_mean
from ringfence.model.values import Interface, Network4, Network6, PortNumber
from ringfence.model.vpn import Vpn

TAILSCALE = "tailscale"


class Tailnet(Declared):
    """A tailnet instead of own WireGuard. Its program, tailscaled, and its accounts are the user's."""

    kind: Literal["tailscale"] = Field("tailscale", description="that it is a tailnet, of Tailscale or of headscale")
    network: Network4 = Field(ipaddress.IPv4Network("100.64.0.0/10"), description="IPv4 network of the tailnet")
    network6: Network6 = Field(ipaddress.IPv6Network("fd7a:115c:a1e0::/48"), description="IPv6 network of the tailnet")
    interface: Interface = Field("tailscale0", description="interface of tailscaled on every host")
    port: PortNumber = Field(41641, description="UDP port of tailscaled on every host")

    @model_validator(mode="before")
    @classmethod
    def _only_its_own(cls, given: Any) -> Any:
        """Tell settings of own WireGuard from misspelt ones: each has a fix of its own.

        Raises:
            ValueError: there is one of either.
        """
        strangers = sorted(set(map(str, given)) - set(cls.model_fields)) if isinstance(given, Mapping) else []
        others = [name for name in strangers if name in Vpn.model_fields]
        if others:
            said = ", ".join(f"'{name}'" for name in others)
            raise ValueError(f"{said}: of own WireGuard, not of a tailnet (remove it, or write kind: wireguard)")
        if strangers:
            names = tuple(cls.model_fields)
            fix = did_you_mean(strangers[0], names, f"what it takes: {', '.join(names)}")
            raise ValueError(f"'{strangers[0]}' is not a setting here ({fix})")
        return given
