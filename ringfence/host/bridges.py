"""Frames on the bridges of segments pass the rules, whatever becomes of the setting for all bridges."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ringfence.host.running import must

INTERFACES = Path("/sys/class/net")

FLAGS = ("nf_call_iptables", "nf_call_ip6tables")


def segment_bridges() -> list[str]:
    """The bridges of segments that are there, sorted."""
    return sorted(path.parent.name for path in INTERFACES.glob("rf-*/bridge"))


def unfiltered(bridges: Iterable[str]) -> list[str]:
    """Those of the bridges by whose own setting (nf_call_iptables of bridge(8)) their frames do not pass the rules."""
    return [
        bridge
        for bridge in bridges
        if any((INTERFACES / bridge / "bridge" / flag).read_text(encoding="ascii").strip() != "1" for flag in FLAGS)
    ]


def filter_frames(bridges: Iterable[str]) -> None:
    """Make them pass. Raises Fault."""
    for bridge in unfiltered(bridges):
        must("ip", "link", "set", "dev", bridge, "type", "bridge", *(word for flag in FLAGS for word in (flag, "1")))
