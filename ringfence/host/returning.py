"""Stopped containers that the engine starts again by itself: they hold their ports and directories, too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.host.engine import NotThereError, engine
from ringfence.host.files import read_json

_NEVER = "0001-01-01"  # how the engine writes a moment that never was


class Bound(NamedTuple):
    """A port of the host that a container asks for; `address` is as it is written, "" for every one."""

    proto: str
    address: str
    port: int


def returning(stopped: Iterable[str]) -> dict[str, list[Bound]]:
    """Return those of some stopped containers that the engine starts when it starts next, with their ports.

    Args:
        stopped: ids of containers that have ended.

    Raises:
        Fault: the engine does not answer.
    """
    found = {}
    for identity in stopped:
        try:
            said = engine("GET", f"/containers/{identity}/json")
        except NotThereError:
            continue
        if comes_back(said):
            found[identity] = bound(said)
    return found


def comes_back(said: dict[str, Any]) -> bool:
    """Whether the engine starts a container that has ended when it starts next; one that never ran it does not."""
    policy, state = (said.get("HostConfig") or {}).get("RestartPolicy") or {}, said.get("State") or {}
    if str(state.get("StartedAt") or _NEVER).startswith(_NEVER):
        return False
    if policy.get("Name") == "on-failure":  # also one that was stopped by hand, where that was no good end
        most = int(policy.get("MaximumRetryCount") or 0)
        return bool(state.get("ExitCode")) and (not most or int(said.get("RestartCount") or 0) < most)
    return policy.get("Name") == "always" or (policy.get("Name") == "unless-stopped" and not _stopped_by_hand(said))


def _stopped_by_hand(said: dict[str, Any]) -> bool:
    """What the engine tells nobody, and keeps in its own file of a container."""
    place = str(said.get("ResolvConfPath") or "")
    if not place:
        return False
    own = Path(place).parents[1] / str(said["Id"]) / "config.v2.json"  # it may be in another's network
    return bool((read_json(own) or {}).get("HasBeenManuallyStopped"))


def bound(said: dict[str, Any]) -> list[Bound]:
    """Return the ports of the host that a container is given when it starts; not those that the engine chooses."""
    found = []
    for inner, outer in ((said.get("HostConfig") or {}).get("PortBindings") or {}).items():
        for one in outer or []:
            if str(one.get("HostPort") or "").isdecimal():
                proto = str(inner).partition("/")[2] or "tcp"
                found.append(Bound(proto, str(one.get("HostIp") or ""), int(one["HostPort"])))
    return found
