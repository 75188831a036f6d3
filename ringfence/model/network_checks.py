"""Services without a network of their own: in the host's, in another service's, in none; and names in a network."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.host.passing import shared_faults
from ringfence.model.lab import ANYWHERE, HOST_NETWORK, NO_NETWORK, Service
from ringfence.model.problems import Problem, did_you_mean, listed
from ringfence.model.read import Draft

# What belongs to a network, and so is not said by who has none.
_OF_NONE = ("publish", "calls", "egress", "resolvers", "site", "port", "tls")

# Words of compose's network_mode for what every service here has anyway.
_COMPOSE_HAS = ("bridge", "default")


def network_problems(draft: Draft) -> Iterator[Problem]:
    """Check `network` of each service, and what does not go with it."""
    for name, service in draft.lab.services.items():
        owner = f"lab_services.{name}"
        if not service.network:
            if not service.segments:
                yield Problem(
                    f"{owner}.segments",
                    "it is in no segment (write segments: [frontend], or network: host, none, or a service)",
                )
            continue
        for setting in ("segments", "address"):
            if getattr(service, setting):
                yield Problem(
                    f"{owner}.{setting}",
                    f"it is not in a network of its own, as network is '{service.network}' (remove one of the two)",
                )
        for setting, fault in shared_faults(service.network, service.compose):
            yield Problem(f"{owner}.compose", f"'{setting}' {fault}")
        if service.network == NO_NETWORK:
            yield from _nothing(draft, owner, name, service)
        elif service.network == HOST_NETWORK:
            yield from _of_the_host(draft, owner, name, service)
        else:
            yield from _shared(draft, owner, name, service)


def known_as_problems(draft: Draft) -> Iterator[Problem]:
    """Check that each name in a network leads to one service: of its own calls and of those of who shares it."""
    lab = draft.lab
    for network in sorted({lab.network_of(name) for name in lab.services}):
        callers = [name for name in lab.services if lab.network_of(name) == network]
        meant = {call.service: call.service for name in callers for call in lab.services[name].calls}
        for name in callers:
            for call in lab.services[name].calls:
                for known in call.known_as:
                    other = meant.setdefault(known, call.service)
                    if other != call.service:
                        yield Problem(
                            f"lab_services.{name}.calls",
                            f"'{known}' is '{other}' there already, and cannot be '{call.service}' as well (take it "
                            "out of as, and tell the program the other name)",
                        )


def _nothing(draft: Draft, owner: str, name: str, service: Service) -> Iterator[Problem]:
    for setting in _OF_NONE:
        if getattr(service, setting):
            yield Problem(f"{owner}.{setting}", f"it has no network (remove {setting}, or network: none)")
    for other, one in draft.lab.services.items():
        if any(call.service == name for call in one.calls):
            yield Problem(f"lab_services.{other}.calls", f"'{name}' has no network: none (remove the call)")


def _of_the_host(draft: Draft, owner: str, name: str, service: Service) -> Iterator[Problem]:
    for publish in service.publish:
        if publish.host_port != publish.port:
            yield Problem(
                f"{owner}.publish.{publish.port}",
                f"it listens on the host itself, where {publish.port} is {publish.port} (remove published)",
            )
        if publish.address:
            yield Problem(
                f"{owner}.publish.{publish.port}",
                "which address of the host it listens on is its own setting (remove address; from says who may use it)",
            )
    if service.resolvers is not None:
        yield Problem(f"{owner}.resolvers", "it asks whom the host asks for names (remove resolvers)")
    for other, one in draft.lab.services.items():
        if one.host != service.host and any(call.service == name for call in one.calls):
            yield Problem(
                f"lab_services.{other}.calls",
                f"'{name}' is in the network of '{service.host}', which is reached from '{one.host}' as a place is "
                f"(write egress: [{{to: …, port: …}}] there, and publish with from: in '{name}')",
            )
    proxy = draft.lab.proxy
    if service.site and proxy and proxy.host != service.host:
        yield Problem(
            f"{owner}.site",
            f"it is in the network of '{service.host}', where the proxy on '{proxy.host}' does not call it (run both "
            "on one host, or give it segments)",
        )
    if service.oidc:
        yield Problem(f"{owner}.oidc", "in the network of its host it does not find the portal (give it segments)")


def _shared(draft: Draft, owner: str, name: str, service: Service) -> Iterator[Problem]:
    services = draft.lab.services
    of = services.get(service.network)
    if of is None:
        if service.network in _COMPOSE_HAS and service.network not in draft.names["services"]:
            yield Problem(
                f"{owner}.network",
                f"'{service.network}' is not a service (remove network: each of its segments is a bridge of its own)",
            )
        elif service.network not in draft.names["services"]:
            fix = did_you_mean(service.network, services, f"host, none, or one of {listed(services)}")
            yield Problem(f"{owner}.network", f"'{service.network}' is not a service ({fix})")
        return
    if service.network == name or (of.network and of.network != HOST_NETWORK):
        yield Problem(
            f"{owner}.network", f"'{service.network}' has no network of its own to share (name the one that has)"
        )
    elif of.network == HOST_NETWORK:
        yield Problem(f"{owner}.network", f"'{service.network}' is in the host's network (write network: host)")
    if of.docker_socket:
        yield Problem(
            f"{owner}.network",
            f"'{service.network}' has Docker's socket, and a network in which nobody else is (write segments in place "
            f"of network, and calls: [{service.network}] if it is to ask it)",
        )
    if (of.host, draft.lab.project(service.network)) != (service.host, draft.lab.project(name)):
        yield Problem(
            f"{owner}.network",
            f"'{service.network}' is not in its stack, or not on its host (give both the same stack and host)",
        )
    for setting in ("publish", "resolvers", "tls"):
        if getattr(service, setting):
            yield Problem(f"{owner}.{setting}", f"its network is that of '{service.network}' (write {setting} there)")


def callers_of_hosts(draft: Draft) -> Iterator[Problem]:
    """Check that nobody is named who does not show by an address of their own."""
    for host_name, host in draft.lab.hosts.items():
        for name, door in host.services.items():
            for source in door.sources:
                caller = draft.lab.services.get(source)
                if source != ANYWHERE and caller and caller.network not in ("", HOST_NETWORK):
                    other = caller.network
                    yield Problem(
                        f"lab_hosts.{host_name}.services.{name}.from",
                        f"'{source}' has no address of its own, as its network is '{other}' "
                        + (f"(name '{other}')" if other in draft.lab.services else "(remove it)"),
                    )
