"""Containers that are not Docker's, or not this host's alone: podman's, and the services of a swarm."""

from __future__ import annotations

import itertools
import json
import pwd
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ringfence.verify.remote.commands import Json, ProbeFailedError, asked

MONITOR = "conmon"  # podman has one for each container, also for those without root
# What holds or hands on a published port of podman's.
HOLDERS = (MONITOR, "rootlessport", "pasta", "passt", "slirp4netns")


def podman(sockets: Iterable[Json], processes: Path = Path("/proc")) -> list[Json]:
    """Podman's containers, of any user: {name, kind, published}, found by their monitors; it need not be asked."""
    found: list[Json] = [
        {"name": f"{name} (of {_user(path)})", "kind": "podman's container", "published": []}
        for path, name in _monitors(processes)
    ]
    held = [{"proto": s["proto"], "port": s["port"]} for s in sockets if s["process"] in HOLDERS]
    if held:
        found.append({"name": "(any of them)", "kind": "podman's container", "published": held})
    return found


def _monitors(processes: Path) -> Iterator[tuple[Path, str]]:
    for path in processes.glob("[0-9]*"):
        try:
            if (path / "comm").read_text().strip() != MONITOR:
                continue
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        named = dict(itertools.pairwise(words))
        yield path, named.get("-n") or named.get("--name") or named.get("-c", "")[:12]


def _user(process: Path) -> str:
    try:
        number = process.stat().st_uid
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
    except OSError:
        return "?"


def swarm(networks: Iterable[Json]) -> list[Json]:
    """The swarm's services that publish ports on every one of its hosts: {name, kind, published}."""
    if not any(network["name"] == "docker_gwbridge" for network in networks):
        return []
    try:
        names = asked("docker", "service", "ls", "-q").split()
        services = json.loads(asked("docker", "service", "inspect", *names)) if names else []
    except ProbeFailedError as failure:
        if re.search(r"not a swarm manager|not part of a swarm", str(failure), re.I):
            return []
        raise
    return [
        {
            "name": one["Spec"]["Name"],
            "kind": "swarm service",
            "published": [
                {"proto": port["Protocol"], "port": port["PublishedPort"]}
                for port in (one.get("Endpoint") or {}).get("Ports") or []
                if port.get("PublishMode", "ingress") == "ingress"
            ],
        }
        for one in services
    ]
