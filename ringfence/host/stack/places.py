"""Directories of the host that two containers would write to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.host.stack.containers import Container

# The host's clock, kernel, devices and sockets: nobody's data.
_NO_DATA = ("/dev", "/proc", "/run", "/sys", "/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo")


def bound_directory(volume: Mapping[str, Any]) -> str:
    """Return the directory of the host that a volume of the engine is, by the options that it was made with, or ""."""
    options = {str(key): str(value) for key, value in (volume.get("Options") or {}).items()}
    is_bind = {"bind", "rbind"} & set(options.get("o", "").split(","))
    return options.get("device", "") if is_bind and volume.get("Driver", "local") == "local" else ""


def meeting(source: str, container: Container, directories: Mapping[str, str]) -> str:
    """Return where a container writes to a directory of the host that a service is to write to, "" where it does not.

    Args:
        source: absolute path on this host.
        container: one that runs or comes back.
        directories: volume of the engine → the directory of the host that it is.
    """
    own = os.path.realpath(source)
    if not _keeps_data(own):
        return ""
    volumes = (directories.get(name, "") for name in container.get("written", ()))
    places = [*container.get("places", ()), *filter(None, volumes)]
    return next((str(place) for place in places if _meet(own, os.path.realpath(place))), "")


def _keeps_data(place: str) -> bool:
    """Whether something is kept at a place. Who has the whole host mounted looks after the host, not into a service."""
    return place != "/" and not any(_within(place, one) for one in _NO_DATA)


def _meet(own: str, other: str) -> bool:
    if not _keeps_data(other):
        return False
    if _within(own, other) or _within(other, own):
        return True
    try:
        return Path(own).samefile(other)  # mounted elsewhere once more
    except OSError:
        return False


def _within(place: str, above: str) -> bool:
    return place == above or place.startswith(f"{above}/")
