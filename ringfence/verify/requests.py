"""What is sent to the probe program on each host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.host.slices import path_within, slice_of
from ringfence.verify.cells import Matrix, doors
from ringfence.verify.declared import HOST_NETWORK, Declared
from ringfence.verify.expected import Rules, Source
from ringfence.verify.seen import Container, Seen

SECONDS = 2.0  # how long a connection may take: one lost packet is sent again within it
PARALLEL = 2000  # connections at once: nearly all of them only wait for an answer that must not come
LIFE = 60.0


def listen_request(declared: Declared, host: str, token: str) -> dict[str, Any]:
    """Return what ``prepare`` reads: it looks around on the host and starts its listener."""
    here = [vantage for vantage in declared.vantages if vantage.host == host]
    # A bound, should nobody ever collect; larger labs take longer to probe.
    life = LIFE + 2.0 * len(declared.services)
    proxies = [
        {"name": s.name, "address": s.networks[0].address, "port": port}
        for s in declared.services
        if s.socket and s.host == host and s.networks
        for proto, port in s.ports[:1]
        if proto == "tcp"
    ]
    slices = {
        s.name: path_within(slice_of(s.name)) for s in declared.services if s.host == host and s.network == HOST_NETWORK
    }
    return {"token": token, "life": life, "doors": doors(declared, here), "proxies": proxies, "slices": slices}


def probe_request(
    declared: Declared, seen: Mapping[str, Seen], matrix: Matrix, host: str, token: str
) -> tuple[dict[str, Any], list[str]]:
    """Return what ``probe`` reads on a host, and the sources' names in its order."""
    names = [name for name, source in matrix.sources.items() if source.host == host]
    numbers = {name: index for index, name in enumerate(names)}
    cells = [cell for cell in matrix.cells if cell.host == host]
    rules = Rules(declared, seen)
    homes = {s.name: s.host for s in declared.services}
    sources: list[dict[str, Any]] = []
    for name in names:
        source = matrix.sources[name]
        if source.container:
            entry = {"pid": source.container.pid, "space": source.container.space}
            slice_ = {"slice": _home(name, source.container)} if rules.is_held(source) else {}
            sources.append({**entry, **slice_})
            continue
        targets = {
            cell.address: homes.get(cell.destination, cell.destination)
            for cell in cells
            if cell.source == name and not cell.forged
        }
        sources.append(_vantage(rules, source, targets))
    request = {
        "token": token,
        "seconds": SECONDS,
        "parallel": PARALLEL,
        "sources": sources,
        "cells": [
            [c.number, numbers[c.source], c.address, c.proto, c.port, c.expected == "open", c.forged, c.through]
            for c in cells
        ],
    }
    return request, names


def _home(service: str, container: Container) -> str:
    """Return below which control group sockets of a service are made: where it runs, also where that is another one."""
    declared = path_within(slice_of(service))
    strays = [group for group in container.strays(f"/{declared}")[:1] if ".." not in group.split("/")]
    return strays[0].rpartition("/")[0].lstrip("/") if strays else declared


def _vantage(rules: Rules, source: Source, targets: Mapping[str, str]) -> dict[str, Any]:
    assert source.vantage is not None
    ways = {target: rules.way(source, host, target) for target, host in targets.items()}
    return {
        "address": source.vantage.address,
        "address6": source.vantage.address6,
        # What is next to the vantage needs no route.
        "ways": {target: way for target, way in ways.items() if way and way != target},
    }
