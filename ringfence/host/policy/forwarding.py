"""Whether the kernel passes on what a host is the way for. Docker sees to that as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ringfence.host.files import read, sysctl_path
from ringfence.host.policy.rules import vpn_egress, vpn_of
from ringfence.host.running import Fault

FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")


ROUTERS = Path("/proc/sys/net/ipv6/conf")


def forwarding_off(wish: dict[str, Any]) -> list[str]:
    """The kernel's settings that keep what is declared from passing; none where there is nothing to pass on."""
    if not vpn_of(wish).get("transit") and not vpn_egress(wish):
        return []
    return [key for key in FORWARDING if read(sysctl_path(key)).strip() == "0"]


def forwarding_changes(wish: dict[str, Any]) -> list[str]:
    """What to switch on so that the VPN's packets are passed on."""
    return [f"~ sysctl {key} 0 → 1" for key in forwarding_off(wish)]


def ensure_forwarding(wish: dict[str, Any]) -> None:
    """Let packets be passed on; the rules say which, and have to be loaded before.

    Raises:
        Fault: the kernel does not take it.
    """
    for key in forwarding_off(wish):
        try:
            if key == FORWARDING[1]:
                _keep_routers()
            sysctl_path(key).write_text("1\n", encoding="ascii")
        except OSError as error:
            raise Fault(f"sysctl {key}: cannot be set to 1: {error.strerror}") from error


def _keep_routers() -> None:
    """Let a host that got its way out by a router's advertisement keep it: who forwards does not listen to them."""
    for path in sorted(ROUTERS.glob("*/accept_ra")):
        if read(path).strip() == "1":
            path.write_text("2\n", encoding="ascii")
