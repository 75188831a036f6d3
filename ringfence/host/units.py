"""systemd's units."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ringfence.host.running import must

FRESH = 1.0  # seconds


def booted() -> bool:
    """Whether systemd runs this host."""
    return Path("/run/systemd/system").is_dir()


def enable_units(*names: str) -> None:
    """Enable units, and have systemd read all units once: `enable` alone would have them read after every call.

    Raises:
        Fault: systemd does not take one of them.
    """
    if names:
        must("systemctl", "enable", "--quiet", "--no-reload", *names, timeout=90)
    must("systemctl", "daemon-reload", timeout=90)


def unit_states(names: Sequence[str], properties: Sequence[str], *, now: bool = False) -> dict[str, dict[str, str]]:
    """Return the properties of units, asked for in one command: {unit: {property: value}}.

    A unit that does not exist has ``LoadState`` "not-found". ``names`` must be the units' own names, not aliases.

    Args:
        now: ask also for what the one who asks all programs at once has found out for them up to `FRESH` ago.

    Raises:
        Fault: systemd does not answer.
    """
    if not names:
        return {}
    known: tuple[dict[str, dict[str, str]], float] = (globals().get("REQUEST") or {}).get("units") or ({}, 0.0)
    told, asked = known
    if now or time.monotonic() - asked > FRESH:  # somebody has waited for something meanwhile
        told = {}
    if all(name in told and (not told[name] or told[name].keys() >= set(properties)) for name in names):
        return {name: dict(told[name]) for name in names}
    out = must("systemctl", "show", "--property", ",".join(["Id", *properties]), "--", *names)
    states: dict[str, dict[str, str]] = {name: {} for name in names}
    for block in out.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id"):
            states[values["Id"]] = values
    return states
