"""Services that are given something of their host, which the declaration confirms: told in every run."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.verify.declared import Declared, Service
from ringfence.verify.seen import Seen

SHOWN = 4  # requests that are named; one that lets everything through lets many


def notices(declared: Declared) -> Iterator[str]:
    """Yield a line per service that has something of the host, or Docker's socket."""
    for service in declared.services:
        if service.handed:
            yield f"{service.name}: is given its host: {', '.join(service.handed)} (allow_host)"
        if service.socket:
            callers = sorted({flow.source for flow in declared.flows if flow.destination == service.name})
            whom = ", ".join(callers) or "nobody"
            yield f"{service.name}: has Docker's socket, and filters it for {whom} (docker_socket)"


def unfiltered(service: Service, seen: Seen) -> Iterator[str]:
    """Yield what is wrong with a proxy for Docker's socket."""
    found = seen.filters.get(service.name)
    if found is None:
        yield f"{service.name}: has Docker's socket, and whether it filters it was not asked"
        return
    passed, error = found
    if passed:
        rest = f" and {len(passed) - SHOWN} more" if len(passed) > SHOWN else ""
        yield (
            f"{service.name}: lets {', '.join(passed[:SHOWN])}{rest} through to Docker, with which its callers have "
            "the host, or what runs on it (switch that off in its configuration)"
        )
    elif error:
        yield f"{service.name}: has Docker's socket, and whether it filters it is not known: {error}"
