"""Which version of Docker a host has, or will have."""

from __future__ import annotations

import re
from typing import Any

SUITES = {"bookworm": (20, 10), "trixie": (26, 1)}  # Debian's engine where apt's lists cannot tell


def version(text: str) -> tuple[int, int]:
    """(major, minor) of a version such as `26.1.5+dfsg1` or `5:29.1.0-1~debian`; (0, 0) if there is none."""
    found = re.search(r"(?:^|[^\d.])(?:\d+:)?(\d+)\.(\d+)", " " + text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def expected_version(desired: dict[str, Any], facts: dict[str, Any]) -> tuple[int, int]:
    """The engine's version: the one that is there, else the one that will be installed."""
    if facts["engine"]:
        known: tuple[int, int] = facts["version"]
        return known
    if desired["source"] == "docker":
        return (29, 0)
    candidate = version(facts["candidates"].get("docker.io", ""))
    return candidate if candidate > (0, 0) else SUITES.get(facts["codename"], (28, 0))
