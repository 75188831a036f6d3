"""Containers that could pose as their neighbours, which the declaration confirms: told in every run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ringfence.verify.declared import Declared
from ringfence.verify.seen import Seen


def notices(declared: Declared, seen: Mapping[str, Seen]) -> Iterator[str]:
    """Yield a line per service that may send any frame and is not alone where it is."""
    named = {service.name: service for service in declared.services}
    for service in declared.services:
        if not service.forging:
            continue
        owner = named.get(service.network, service)  # of the network in which it is
        networks = {n.network for n in owner.networks}
        near = {
            other.name
            for other in declared.services
            if other != owner and other.host == service.host and networks & {n.network for n in other.networks}
        }
        if service.host in seen:
            ours = {(s.project, s.name) for s in declared.services}
            strangers = [c for c in seen[service.host].containers if (c.project, c.service) not in ours]
            near |= {f"({c.name})" for c in strangers if networks & set(c.networks)}
        if near:
            yield (
                f"{service.name}: has {', '.join(service.forging)}, so it could pose as {', '.join(sorted(near))} in "
                f"{', '.join(sorted(networks))} (allow_forging)"
            )
