"""Names: whose questions may leave a host, and whether exactly those do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ringfence.verify.declared import ICMP, INTERNET, Declared, Egress, Service, family, matches
from ringfence.verify.seen import Seen

DNS = 53
SECONDS = 2.0  # the engine asks at once; how long an answer is waited for


def asking(declared: Declared, seen: Seen) -> list[Service]:
    """Return the declared services that run on a host, in the order in which they are asked."""
    here = [s for s in declared.services if s.host == seen.host and not s.network]
    return [s for s in here if (found := seen.find(s)) and found.space]


def request(declared: Declared, seen: Seen, token: str) -> dict[str, Any]:
    """Return what `remote.names.ask` reads."""
    containers = [seen.find(service) for service in asking(declared, seen)]
    sources = [{"pid": one.pid, "space": one.space} for one in containers if one]
    return {"token": token, "sources": sources, "seconds": SECONDS}


def differences(declared: Declared, resolvers: Iterable[str], seen: Seen, answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line per question that left and was not to, or did not and was to.

    Args:
        resolvers: the declaration's `lab_resolvers`.
        answer: what `remote.names.ask` said.
    """
    resolvers = list(resolvers)
    left = {int(number): found for number, found in answer["left"].items()}
    errors = {int(number): why for number, why in answer["errors"].items()}
    inside = {a for s in declared.services for n in s.networks for a in (n.address, n.address6)}
    for number, service in enumerate(asking(declared, seen)):
        if number in errors:
            yield f"{service.name}: could not ask for a name: {errors[number]}"
            continue
        egress = [e for e in declared.egress if e.source == service.name]
        servers = sorted({e.to for e in egress if _asks(e)})
        for device, server in left.get(number, ()):
            # A server that is a container of the lab is called, and that call is a cell.
            if server not in inside and not any(_asks(e) and _to(declared, e, server) for e in egress):
                yield (
                    f"{service.name} → names: a question left {seen.host} for {server} by {device}; expected: "
                    f"{'only those for ' + ', '.join(servers) if servers else 'none, it may ask nobody'}"
                )
        unheard = number not in left and number not in answer["answered"]
        asked = resolvers if service.resolvers is None else list(service.resolvers)
        if egress and unheard and _must_leave(service, seen, asked):
            yield (
                f"{service.name} → names: declared to ask {', '.join(asked)}, but no question left {seen.host} and "
                "none was answered"
            )


def _asks(egress: Egress) -> bool:
    return egress.proto != ICMP and egress.port <= DNS <= egress.last


def _to(declared: Declared, egress: Egress, server: str) -> bool:
    return declared.is_internet(server) if egress.to == INTERNET else matches([egress.to], server)


def _must_leave(service: Service, seen: Seen, resolvers: list[str]) -> bool:
    """Whether a question can be seen leaving: a way leads out to every server, and none of them is the host itself."""
    found = seen.find(service)
    own = {address for _, address, _ in seen.addresses}
    ways = [both for network, both in found.networks.items() if network not in seen.internal] if found else []
    reached = [any(both[family(server) == 6] for both in ways) for server in resolvers]
    return any(reached) and not own & set(resolvers)
