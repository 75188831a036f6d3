"""What the declaration says about one connection. Read from the declaration alone, not from any compiled rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ringfence.verify.declared import (
    ANY,
    HOST_NETWORK,
    INTERNET,
    Declared,
    Egress,
    Machine,
    Published,
    Service,
    Vantage,
    family,
    matches,
)
from ringfence.verify.seen import Container, Seen


@dataclass(frozen=True)
class Source:
    """Who probes: a container of a declared service or of somebody else, or a vantage; ``inside``: one in the VPN."""

    name: str
    host: str
    service: Service | None = None
    container: Container | None = None
    vantage: Vantage | None = None
    inside: bool = False

    @property
    def in_hosts_network(self) -> bool:
        """Whether it is a declared service in the network of its host."""
        return self.service is not None and self.service.network == HOST_NETWORK

    @property
    def foreign(self) -> bool:
        """Whether this is a container that ringfence does not manage."""
        return self.container is not None and self.service is None

    def addresses(self, version: int) -> list[str]:
        """Return its own addresses of a family (4 or 6)."""
        if self.vantage:
            mine = [self.vantage.address, self.vantage.address6]
        else:
            mine = [address for _, address in self.container.addresses()] if self.container else []
        return [address for address in mine if address and family(address) == version]


@dataclass(frozen=True)
class Verdict:
    """``open``, ``closed`` or ``either``, and why."""

    expected: str
    reason: str


NOT_DECLARED = Verdict("closed", "not declared")
ECHO = Verdict("either", "UFW's own rules say whether the host answers an echo")
UNTOLD = "in the network of its host, which cannot tell it from itself"
KEPT = "let in by "  # begins the reason: a rule of the host's that the user keeps


@dataclass(frozen=True)
class Rules:
    """The declaration together with what runs, and on which hosts UFW rules of others are kept."""

    declared: Declared
    seen: Mapping[str, Seen]
    keep_rules: frozenset[str] = frozenset()

    # A large lab has millions of cells: what each of them asks is looked up, not searched.
    @cached_property
    def _flows(self) -> frozenset[tuple[str, str, str, int]]:
        return frozenset((f.source, f.destination, f.proto, f.port) for f in self.declared.flows)

    @cached_property
    def _published(self) -> Mapping[tuple[str, str, int], list[Published]]:
        found: dict[tuple[str, str, int], list[Published]] = {}
        for published in self.declared.published:
            for outer, _ in published.pairs:
                found.setdefault((published.host, published.proto, outer), []).append(published)
        return found

    @cached_property
    def _versions(self) -> Mapping[str, frozenset[int]]:
        """IP versions of which each service's container has an address."""
        found = {}
        for service in self.declared.services:
            container = self.seen[service.host].find(service) if service.host in self.seen else None
            found[service.name] = frozenset(family(a) for _, a in container.addresses()) if container else frozenset()
        return found

    @cached_property
    def _foreign_ports(self) -> Mapping[str, Mapping[tuple[str, int], str]]:
        """Host → (protocol, published port) → container that ringfence does not manage."""
        ours = {(s.host, s.project, s.name) for s in self.declared.services}
        return {
            host: {
                (proto, port): container.name
                for container in one.containers
                if (host, container.project, container.service) not in ours
                for proto, port, _ in container.published
            }
            | {(proto, port): f"{other.name} ({other.kind})" for other in one.others for proto, port in other.published}
            for host, one in self.seen.items()
        }

    @cached_property
    def _foreign_by_host(self) -> frozenset[tuple[str, str, int]]:
        """(host, protocol, published port) of containers without IPv6 that ringfence does not manage: what comes
        by it goes to the host's own process, and so through UFW."""
        return frozenset(
            (host, proto, port)
            for host, one in self.seen.items()
            for container in one.containers
            if container.networks and not any(address6 for _, address6 in container.networks.values())
            for proto, port, _ in container.published
        )

    @cached_property
    def _listeners(self) -> Mapping[str, Mapping[tuple[str, int], str]]:
        """Host → (protocol, port) → process that listens there."""
        return {h: {(proto, port): name for proto, port, name in one.sockets} for h, one in self.seen.items()}

    def _flow(self, source: str, destination: str, proto: str, port: int) -> str | None:
        return f"{source} calls {destination}" if (source, destination, proto, port) in self._flows else None

    def leads(self, source: Source, host: str, address: str) -> bool:
        """Whether a probe finds the way to an address of a host; no probe is sent where it might wander off.

        The addresses by which others reach a machine are found from everywhere, its inner ones (of bridges and of
        containers) from the host itself, by a vantage's own route, or by a route that leads to that very host.
        """
        known = [m.addresses for m in self.declared.machines if m.name == host]
        known += [(v.address, v.address6) for v in self.declared.vantages if v.host == host]
        if any(address in addresses for addresses in known):
            return True
        if source.vantage and any(address == own for _, own, _ in self.seen[source.host].addresses):
            return False  # it would talk to itself: every host may have 172.17.0.1
        if source.vantage and self.way(source, host, address) is not None:
            return True
        return source.host == host or self.seen[source.host].hands_on(
            address, self.seen[host], self.declared.vpn.interface
        )

    def way(self, source: Source, host: str, address: str) -> str | None:
        """Return the neighbour by which a vantage reaches a host's inner address: the host itself, next to it."""
        mine = source.addresses(family(address))
        near = [a for own in mine for a in self.seen[host].next_to(own, self.seen[source.host])]
        return address if address in near else next(iter(near), None)

    def to_container(
        self, source: Source, service: Service, container: Container, network: str, address: str, proto: str, port: int
    ) -> Verdict:
        """Judge a connection to one of a container's own addresses."""
        if source.vantage:
            return self._straight(source, service, proto, port, family(address))
        if source.service is None or source.container is None:
            return NOT_DECLARED
        flow = self._flow(source.service.name, service.name, proto, port)
        if flow is None:
            return self._undeclared(source)
        if source.in_hosts_network:
            return Verdict("open", flow) if (network, address) in container.addresses() else NOT_DECLARED
        if (network, address) not in container.addresses():
            return Verdict("closed", f"{flow}, but IPv{family(address)} is off there")
        # A segment's bridges on two hosts have one name and are two networks.
        here = source.host == service.host
        shared = set(source.container.networks) & set(container.networks) if here else set()
        if shared and network not in shared:
            return Verdict("closed", f"{flow}, but by the shared segment {', '.join(sorted(shared))}")
        ways = {network}
        if not shared:
            internal = self.seen[service.host].internal
            if network in internal:
                return Verdict("closed", f"{flow}, but {network} is internal")
            # Docker puts a container's default route on the first network by name that has one: replies go there.
            first = min(n for n in container.networks if n not in internal)
            if network != first:
                return Verdict("closed", f"{flow}, but by {first}, which has its default route")
            ways = set(source.container.networks) - self.seen[source.host].internal
        if not any(source.container.networks[n][family(address) == 6] for n in ways):
            return Verdict("closed", f"{flow}, but IPv{family(address)} is off at {source.name}")
        return Verdict("open", flow)

    def is_held(self, source: Source) -> bool:
        """Whether the policy tells a service in its host's network from the host."""
        return source.in_hosts_network and source.name in self.seen[source.host].fenced

    def _undeclared(self, source: Source) -> Verdict:
        """Judge what nothing declares: of a service in its host's network, where the host can tell it."""
        return Verdict("either", UNTOLD) if source.in_hosts_network and not self.is_held(source) else NOT_DECLARED

    def _straight(self, source: Source, service: Service, proto: str, port: int, version: int) -> Verdict:
        """Judge a connection from outside to a container's own address, past the host's published port."""
        for published in self.declared.published:
            if (published.service, published.proto) != (service.name, proto):
                continue
            outer = {inner: outer for outer, inner in published.pairs}.get(port)
            if outer is None:
                continue
            if any(matches(published.sources, own) for own in source.addresses(version)):
                # The same caller may use the same service by the host's address; which door it takes is not declared.
                return Verdict("either", f"published as {outer} for {', '.join(published.places)}")
        return NOT_DECLARED

    def to_host(self, source: Source, machine: Machine, address: str, proto: str, port: int) -> Verdict:
        """Judge a connection to one of a host's addresses: a published port, a service of its own, or neither."""
        if source.vantage and proto == "icmp":
            return ECHO
        if source.in_hosts_network:
            return self._from_hosts_network(source, machine, address, proto, port)
        verdicts = [
            self._to_published(source, machine, address, proto, port),
            self._to_service(source, machine, address, proto, port),
            self._to_own_rule(source, machine, address, proto, port),
        ]
        for wanted in ("open", "either"):
            for verdict in verdicts:
                if verdict.expected == wanted:
                    return verdict
        # What a segment publishes is denied ahead of every rule of UFW that is kept, and so is what the host's own
        # segments send to it.
        mine = source.service is not None and source.host == machine.name
        if machine.name in self.keep_rules and (machine.name, proto, port) not in self._published and not mine:
            here = self.seen[machine.name]
            for own in source.addresses(family(address)):
                near = here.next_to(own, self.seen[source.host]) if source.vantage else []
                devices = {device for device, other, _ in here.addresses if other in near}
                if rule := here.kept_rule(proto, port, own, address, devices):
                    return Verdict("either", f"{KEPT}{rule.by}")
        if source.service is None and (proto, port) in self._foreign_ports[machine.name]:
            name = self._foreign_ports[machine.name][proto, port]
            if family(address) == 6 and (machine.name, proto, port) in self._foreign_by_host:
                return Verdict(
                    "closed", f"published by {name}, for which the host itself answers: its network has no IPv6"
                )
            return Verdict("either", f"published by {name}, which ringfence does not manage")
        for verdict in verdicts:
            if verdict != NOT_DECLARED:
                return verdict
        process = self._listeners[machine.name].get((proto, port))
        return Verdict("closed", f"not declared; {process} listens") if process else NOT_DECLARED

    def _from_hosts_network(self, source: Source, machine: Machine, address: str, proto: str, port: int) -> Verdict:
        """Judge the way of a service in its host's network to another host: its egress must lead there, and that host's
        door must be open to the host that it is in."""
        egress = self._egress(source, address, proto, port)
        if egress is None:
            return self._undeclared(source)
        return Verdict("either", f"{egress}, as {source.host}, and {machine.name} decides")

    def _to_published(self, source: Source, machine: Machine, address: str, proto: str, port: int) -> Verdict:
        version = family(address)
        for published in self._published.get((machine.name, proto, port), ()):
            name = f"{published.service} published as {port} for {', '.join(published.places)}"
            if version not in self._versions.get(published.service, ()) or published.only not in ("", address):
                continue
            if source.vantage and any(matches(published.sources, own) for own in source.addresses(version)):
                return self._near(source, machine, address, name)
            if source.container and source.host != machine.name:
                return self._from_other_host(source, published.sources, address, proto, port, name)
            if source.service and source.host == machine.name:
                flow = self._flow(source.service.name, published.service, proto, dict(published.pairs)[port])
                if flow:
                    return Verdict("closed", f"{flow}, but by its own address, not by the host's")
        return NOT_DECLARED

    def to_group(self, source: Source, machine: Machine, own: str, proto: str, port: int) -> Verdict:
        """Judge a datagram of a container to a group that its host may listen to, by the network of its address."""
        for service in machine.services:
            if service.port == port and service.proto in (proto, ANY) and matches(service.sources, own):
                return Verdict("either", f"{service.name} of {machine.name}, by multicast")
        return NOT_DECLARED

    def _to_service(self, source: Source, machine: Machine, address: str, proto: str, port: int) -> Verdict:
        for service in machine.services:
            if service.port != port or service.proto not in (proto, ANY) or (service.outside and source.container):
                continue
            name = f"{service.name} of {machine.name}"
            if service.outside and source.inside:
                return Verdict("either", f"{name}, in which it is already")
            if source.container and source.host != machine.name:
                return self._from_other_host(source, service.sources, address, proto, port, name)
            if not any(matches(service.sources, own) for own in source.addresses(family(address))):
                continue
            if source.vantage:
                return self._near(source, machine, address, name)
            return self._by_own_bridge(source, machine, address, name)
        return NOT_DECLARED

    def _to_own_rule(self, source: Source, machine: Machine, address: str, proto: str, port: int) -> Verdict:
        """Judge by the host's ``ufw_rules`` that follow from no service; the first that matches decides."""
        # The policy denies what containers send to their host, and what others send to a published port, before UFW.
        if (source.container and source.host == machine.name) or (machine.name, proto, port) in self._published:
            return NOT_DECLARED
        doubt = ""
        for rule in machine.rules:
            if not rule.covers(proto, port) or not matches((rule.destination,), address):
                continue
            name = f"{rule.name} of {machine.name} (ufw_rules)"
            if source.container:
                verdict = self._from_other_host(source, (rule.source,), address, proto, port, name)
            elif any(matches((rule.source,), own) for own in source.addresses(family(address))):
                verdict = self._near(source, machine, address, name)
            else:
                continue
            if rule.interface:
                doubt = doubt or f"{name}, by {rule.interface} only"
                if rule.allows and verdict.expected == "open":
                    return Verdict("either", doubt)
                continue
            if not rule.allows:
                return NOT_DECLARED
            if verdict == NOT_DECLARED:
                continue
            if rule.action == "limit" and verdict.expected == "open":
                doubt = doubt or f"{name}, unless it comes too often"
            return Verdict("either", doubt) if doubt else verdict
        return NOT_DECLARED

    def _near(self, source: Source, machine: Machine, address: str, name: str) -> Verdict:
        """Must be open on the address next to the caller, or on all declared ones if it is further away."""
        mine = source.addresses(family(address))
        there = self.seen[machine.name]
        near = [a for own in mine for a in there.next_to(own, self.seen[source.host])]
        places = self.declared.places
        apart = not near and not any(matches(places, own) for own in machine.addresses)
        if apart and any(matches(places, own) for own in mine):
            # A place comes in by the way that leads to it; by another one its addresses are anybody's.
            return Verdict("either", f"{name}, from a place that {machine.name} is not in")
        if address in near or (not near and address in machine.addresses):
            return Verdict("open", name)
        return Verdict("either", f"{name}, by another address of the host")

    def _by_own_bridge(self, source: Source, machine: Machine, address: str, name: str) -> Verdict:
        bridges = source.container.networks if source.container else {}
        device = next((d for d, own, _ in self.seen[machine.name].addresses if own == address), "")
        if device in bridges:
            return Verdict("open", name)
        return Verdict("either", f"{name}, by another address of the host")

    def _from_other_host(
        self, source: Source, sources: tuple[str, ...], address: str, proto: str, port: int, name: str
    ) -> Verdict:
        """Judge a container's way to another host: its own egress and that host's door must both be declared."""
        # It leaves its host masqueraded, so the other host sees its host's address; through the VPN it is seen itself.
        here = self.seen[source.host]
        way, tunnel = here.goes_by(address), self.declared.vpn.interface
        inside = bool(tunnel) and way is not None and way[1] == tunnel
        of_host = [own for _, own, _ in here.addresses if family(own) == family(address)]
        theirs = source.addresses(family(address)) if inside else of_host
        if not any(matches(sources, own) for own in theirs):
            return NOT_DECLARED
        if source.foreign:
            return Verdict("either", f"{name}, and {source.name} goes out as {source.host}")
        egress = self._egress(source, address, proto, port)
        return Verdict("open", f"{name}, and {egress}") if egress else NOT_DECLARED

    def to_outside(self, source: Source, address: str, proto: str, port: int) -> Verdict:
        """Judge a container's connection to a vantage."""
        egress = self._egress(source, address, proto, port)
        return Verdict("open", egress) if egress else self._undeclared(source)

    def _egress(self, source: Source, address: str, proto: str, port: int) -> str | None:
        if source.service is None or source.container is None:
            return None
        internal = self.seen[source.host].internal
        six = family(address) == 6
        ways = [both for network, both in source.container.networks.items() if network not in internal]
        if not source.in_hosts_network and not any(both[six] for both in ways):
            return None
        for egress in self.declared.egress:
            if egress.source == source.service.name and self.covers(egress, address, proto, port):
                return f"egress to {egress.to}"
        return None

    def covers(self, egress: Egress, address: str, proto: str, port: int) -> bool:
        """Whether a declared egress is about a connection to an address."""
        if not egress.port <= port <= egress.last or egress.proto not in (proto, ANY):
            return False
        return self.declared.is_internet(address) if egress.to == INTERNET else matches([egress.to], address)
