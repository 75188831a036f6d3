"""Directories of the host that two containers would write to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ringfence.host.mountinfo import MountTable
from ringfence.host.stack.containers import Container

# The host's clock, kernel, devices and sockets: nobody's data.
_NO_DATA = ("/dev", "/proc", "/run", "/sys", "/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo")


def bound_directory(volume: Mapping[str, Any]) -> str:
    """Return the directory of the host that a volume of the engine is, by the options that it was made with, or ""."""
    options = {str(key): str(value) for key, value in (volume.get("Options") or {}).items()}
    is_bind = {"bind", "rbind"} & set(options.get("o", "").split(","))
    return options.get("device", "") if is_bind and volume.get("Driver", "local") == "local" else ""


def meeting(source: str, container: Container, directories: Mapping[str, str], mounts: Callable[[], MountTable]) -> str:
    """Return where a container writes to a directory of the host that a service is to write to, "" where it does not.

    Args:
        source: absolute path on this host.
        container: one that runs or comes back.
        directories: volume of the engine → the directory of the host that it is.
        mounts: gives what is mounted on the host: one directory has several paths there.

    Raises:
        Fault: what is mounted cannot be read.
    """
    own = os.path.realpath(source)
    if not _keeps_data(own):
        return ""
    volumes = (directories.get(name, "") for name in container.get("written", ()))
    places = [*container.get("places", ()), *filter(None, volumes)]
    names = _names(own, mounts()) if places else ()
    return next((str(place) for place in places if _meet(names, os.path.realpath(place))), "")


def _keeps_data(place: str) -> bool:
    """Whether something is kept at a place. Who has the whole host mounted looks after the host, not into a service."""
    return place != "/" and not any(_within(place, one) for one in _NO_DATA)


def _names(place: str, table: MountTable) -> set[str]:
    """Return by which paths the host has a directory, something in it, and what is mounted in it."""
    return {place}.union(*(table.names(one) for one in (place, *table.mounts_below(place))))


def _meet(names: Iterable[str], other: str) -> bool:
    """Whether a directory, by any of its names, lies in another one or around it."""
    return _keeps_data(other) and any(_within(name, other) or _within(other, name) for name in names)


def _within(place: str, above: str) -> bool:
    return place == above or place.startswith(f"{above}/")
