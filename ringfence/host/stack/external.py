"""What was on the host before: volumes, mounted as they are, and what others hold and write to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ringfence.host.engine import engine
from ringfence.host.mountinfo import MountTable
from ringfence.host.mounts import Led, host_mounts, leading, led_below
from ringfence.host.returning import returning
from ringfence.host.stack.containers import Container, there
from ringfence.host.stack.places import bound_directory, meeting

_RUNS = frozenset({"running", "paused", "restarting"})


@dataclass
class Existing:
    """What the host has of volumes.

    Attributes:
        external: Docker name of each that is to be there → what the engine says of it, {} where it is not there.
        strangers: names of declared volumes that are not there yet, of which the host has one of the very same name.
        returning: ids of stopped containers that the engine starts again by itself.
        held: port and protocol that one of those publishes on every address → its name.
        directories: volume of the engine → the directory of the host that it is; of those that others write to.
    """

    external: dict[str, dict[str, Any]] = field(default_factory=dict)
    strangers: set[str] = field(default_factory=set)
    returning: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    directories: dict[str, str] = field(default_factory=dict)
    _mounts: list[MountTable] = field(default_factory=list, repr=False, compare=False)

    def mounts(self) -> MountTable:
        """What is mounted on the host, read when it is first asked for. Raises Fault."""
        if not self._mounts:
            self._mounts.append(host_mounts())
        return self._mounts[0]


def docker_name(project: str, volume: dict[str, Any]) -> str:
    """Return what the engine calls a named volume of a service."""
    name = str(volume["name"])
    return name if volume.get("external") else f"{project}_{name}"


def copied_names(project: str, service: dict[str, Any]) -> list[str]:
    """Return what the engine calls the volumes that are copied before a service's upgrade."""
    names = {v["name"]: docker_name(project, v) for v in service["volumes"] if v.get("name")}
    return [names.get(name, f"{project}_{name}") for name in service["upgrade"]["backup"]]


def look_at_volumes(projects: Iterable[dict[str, Any]], found: Iterable[Container]) -> Existing:
    """Ask the engine for what is declared and for no more: of what containers have mounted it is known that it is."""
    seen, existing = list(found), Existing()
    mounted = {name for c in seen for name in c["volumes"]}
    for project in projects:
        for volume in (v for s in project["services"] for v in s["volumes"] if v.get("name")):
            name, full = str(volume["name"]), docker_name(str(project["name"]), volume)
            if volume.get("external"):
                if name not in existing.external:
                    existing.external[name] = _volume(name)
            elif volume.get("external") is None and full not in mounted and not _volume(full) and _volume(name):
                existing.strangers.add(name)
    return existing


def look_at_others(projects: Iterable[dict[str, Any]], found: Iterable[Container], existing: Existing) -> None:
    """Ask the engine what those hold that come back with it, and where the volumes are that others write to."""
    services = [service for project in projects for service in project["services"]]
    theirs = _theirs(found)
    ended = {c["id"]: c["name"] for c in theirs if c["state"] == "exited"} if services else {}
    for identity, ports in returning(ended).items():
        existing.returning.add(identity)
        existing.held |= {f"{one.port}/{one.proto}": ended[identity] for one in ports}
    binds = any(v.get("source") or v.get("external") for s in services for v in s["volumes"])
    if binds and any(c.get("written") for c in theirs):
        volumes = engine("GET", "/volumes").get("Volumes") or []
        existing.directories = {str(v["Name"]): place for v in volumes if (place := bound_directory(v))}


def existing_faults(
    project: str, service: dict[str, Any], existing: Existing, found: Iterable[Container], docker: bool
) -> Iterator[str]:
    """Say why a service cannot have its volumes as they are declared.

    Args:
        project: name of its project.
        service: the service.
        existing: what the host has of volumes.
        found: all containers of the host.
        docker: whether an engine runs.
    """
    theirs = [c for c in _theirs(found) if c["state"] in _RUNS or c["id"] in existing.returning]
    yield from _written_by_others(service, existing, theirs)
    for volume in (v for v in service["volumes"] if v.get("name")):
        name, read_only = str(volume["name"]), bool(volume.get("read_only"))
        if volume.get("external"):
            said = existing.external.get(name)
            if not said:
                yield _missing(name, docker)
                continue
            yield from (f"the volume {name} is {led}" for led in _ways(said, read_only))
        elif name in existing.strangers and volume.get("external") is None:
            yield (
                f"the volume {name} would be a new and empty one, {project}_{name}, and this host has one that is"
                f" called {name}: add external: true to mount that one as it is, or external: false for a new one"
            )


def _missing(name: str, docker: bool) -> str:
    known = "" if docker else ", as far as is known: Docker does not run here"
    return (
        f"there is no volume {name} on this host{known}. It is said to be there (external: true), so no empty one is"
        " made in its place: correct the name (`docker volume ls`), bring it back, or leave external out for a new one"
    )


def _written_by_others(service: dict[str, Any], existing: Existing, theirs: list[Container]) -> Iterator[str]:
    """Yield who else writes to what the service is to write to, unless that is meant."""
    for volume in service["volumes"]:
        name, external = str(volume.get("name") or ""), bool(volume.get("external"))
        if volume.get("read_only") or volume.get("shared") or not (external or volume.get("source")):
            continue
        source = bound_directory(existing.external.get(name, {})) if external else str(volume["source"])
        for c in theirs:
            if external and name in c.get("written", ()):
                yield _in_use(f"the volume {name}", c)
            elif source and (place := meeting(source, c, existing.directories, existing.mounts)):
                yield _in_use(place if place == source else f"{place}, which meets {source}", c)


def _in_use(what: str, container: Container) -> str:
    of = container["labels"].get("com.docker.compose.project")
    end = f"docker compose -p {of} down, without --volumes" if of else f"docker rm -f {container['name']}"
    how = "writes to" if container["state"] in _RUNS else "is stopped, but starts again with Docker, and writes to"
    return (
        f"the container {container['name']} {how} {what}; two would spoil it. End it first: {end}; or, where both are"
        " meant to write there (a media library), add shared: true to that entry of volumes"
    )


def _ways(said: dict[str, Any], read_only: bool) -> Iterator[Led]:
    """Yield the first of what a volume leads to on the host that no container is given."""
    options = {str(key): str(value) for key, value in (said.get("Options") or {}).items()}
    words = options.get("o", "").split(",")
    paths = [options.get("device", "")] if {"bind", "rbind"} & set(words) else []
    paths += _mounted_at(options.get("device", ""))
    for key, _, value in (word.partition("=") for word in words):
        paths += value.split(":") if key in ("lowerdir", "upperdir") else []
    found: list[Led] = []
    if said.get("Driver", "local") == "local" and options:
        absolute = [path for path in paths if path.startswith("/")]
        found = list(leading(dict.fromkeys(absolute, read_only)).values())[:1]
        yield from found
    # Of a driver's own volumes it is not known where they are.
    if not found and (there_is := str(said.get("Mountpoint") or "")).startswith("/"):
        led = led_below(there_is)
        yield from [led] if led else []


def _mounted_at(device: str) -> list[str]:
    """Return where a disk is mounted on the host: a volume that is the host's own disk is the host."""
    if not device.startswith("/dev/"):
        return []
    real, lines = os.path.realpath(device), Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    fields = [line.split() for line in lines]
    return [one[1] for one in fields if len(one) > 1 and os.path.realpath(one[0]) == real]


def _theirs(found: Iterable[Container]) -> list[Container]:
    return [c for c in found if "ringfence.project" not in c["labels"]]


def _volume(name: str) -> dict[str, Any]:
    return there(f"/volumes/{quote(name, safe='')}")
