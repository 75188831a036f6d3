"""Volumes that were on the host before: mounted as they are, by their Docker name, and never made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ringfence.host.mounts import Led, leading, led_below
from ringfence.host.stack.containers import Container, there

_RUNS = frozenset({"running", "paused", "restarting"})


@dataclass
class Existing:
    """What the host has of volumes.

    Attributes:
        external: Docker name of each that is to be there → what the engine says of it, {} where it is not there.
        strangers: names of declared volumes that are not there yet, of which the host has one of the very same name.
        returning: ids of stopped containers that the engine starts again by itself.
    """

    external: dict[str, dict[str, Any]] = field(default_factory=dict)
    strangers: set[str] = field(default_factory=set)
    returning: set[str] = field(default_factory=set)


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
    for c in _theirs(seen):
        if c["state"] not in _RUNS and set(c["volumes"]) & set(existing.external):
            policy = (there(f"/containers/{c['id']}/json").get("HostConfig") or {}).get("RestartPolicy") or {}
            if policy.get("Name") == "always":
                existing.returning.add(c["id"])
    return existing


def existing_faults(
    project: str, service: dict[str, Any], existing: Existing, found: Iterable[Container], docker: bool
) -> Iterator[str]:
    """Say why a service cannot have its named volumes as they are declared.

    Args:
        project: name of its project.
        service: the service.
        existing: what the host has of volumes.
        found: all containers of the host.
        docker: whether an engine runs.
    """
    theirs = _theirs(found)
    for volume in (v for v in service["volumes"] if v.get("name")):
        name, read_only = str(volume["name"]), bool(volume.get("read_only"))
        if volume.get("external"):
            said = existing.external.get(name)
            if not said:
                yield _missing(name, docker)
                continue
            yield from (f"the volume {name} is {led}" for led in _ways(said, read_only))
            for c in theirs if not read_only else []:
                if name in c.get("written", ()) and (c["state"] in _RUNS or c["id"] in existing.returning):
                    yield _in_use(name, c)
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


def _in_use(name: str, container: Container) -> str:
    of = container["labels"].get("com.docker.compose.project")
    end = f"docker compose -p {of} down, without --volumes" if of else f"docker rm -f {container['name']}"
    how = "writes to" if container["state"] in _RUNS else "is stopped, but starts again with Docker, and writes to"
    return f"the container {container['name']} {how} the volume {name}, and two would spoil it: end it first: {end}"


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
