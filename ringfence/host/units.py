"""systemd's units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ringfence.host.running import must


def booted() -> bool:
    """Whether systemd runs this host."""
    return Path("/run/systemd/system").is_dir()


def unit_states(names: Sequence[str], properties: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the properties of units, asked for in one command: {unit: {property: value}}.

    A unit that does not exist has ``LoadState`` "not-found". ``names`` must be the units' own names, not aliases.

    Raises:
        Fault: systemd does not answer.
    """
    if not names:
        return {}
    out = must("systemctl", "show", "--property", ",".join(["Id", *properties]), "--", *names)
    states: dict[str, dict[str, str]] = {name: {} for name in names}
    for block in out.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id"):
            states[values["Id"]] = values
    return states
