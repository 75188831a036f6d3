"""The slices of systemd's in which services of the host's network run."""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
SLICES = "ringfence.slice"


def slice_of(service: str) -> str:
    """Return the slice of a service; in its name a hyphen would be another level."""
    return f"ringfence-{service.replace('-', '_')}.slice"


def path_within(name: str) -> str:
    """Return the path of a slice below the root of the control groups."""
    return f"{SLICES}/{name}"


def depth_of(name: str) -> int:
    """Return how deep a slice is."""
    return path_within(name).count("/") + 1
