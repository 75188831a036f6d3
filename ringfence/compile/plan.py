"""The lab with its addresses: what every compiler module reads, worked out once."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ringfence.compile import calls
from ringfence.compile.addresses import subnet6
from ringfence.compile.book import Book, Place
from ringfence.compile.calls import Call
from ringfence.host.mac import mac_of
from ringfence.model import ANYWHERE, INTERNET, Lab
from ringfence.model.lab import HOST_NETWORK, HostService, Service
from ringfence.model.values import Span, bounds

# Where a container that may ask no DNS server is sent by Docker's resolver, which asks from the container's own network
# namespace: nobody listens there. Not 127.0.0.1, where a DNS server of the container's own may.
NOBODY = "127.255.255.254"


@dataclass(frozen=True)
class Network:
    """A segment on one host, with its addresses there. ``name`` is the segment's."""

    host: str
    name: str
    subnet: str
    gateway: str
    subnet6: str
    gateway6: str
    internal: bool

    @property
    def bridge(self) -> str:
        """Name of the Docker network and of its bridge; the same on every host that has the segment."""
        return f"rf-{self.name}"


@dataclass(frozen=True)
class Leg:
    """A service's connection to one segment."""

    network: Network
    address: str
    address6: str

    @property
    def mac(self) -> str:
        """MAC address; it follows from the IPv4 address, so that the policy knows both."""
        return mac_of(self.address)


@dataclass(frozen=True)
class Flow:
    """A call between two legs, in the same segment or across two; the legs know on which host they are."""

    caller: str
    callee: str
    source: Leg
    destination: Leg
    proto: str
    port: int


@dataclass(frozen=True)
class Plan:
    """A checked lab together with its address book.

    Attributes:
        lab: what is declared.
        book: an address for everything that needs one.
        implied: calls that nobody declares because they follow from something else (`ringfence.compile.calls`).
    """

    lab: Lab
    book: Book
    implied: tuple[Call, ...] = ()

    @cached_property
    def open_segments(self) -> frozenset[Place]:
        """Segments with a way out of their bridge, host by host.

        A Docker-internal network has no default route, so a segment stays internal only if it has no internet and
        nothing in it needs to be reached from, or to reach, another network through it. A service that is also in a
        segment with internet uses that one.
        """
        internet = {name for name, segment in self.lab.segments.items() if segment.internet}
        needed = {
            self.lab.network_of(name)
            for name, service in self.lab.services.items()
            if service.publish or service.egress
        }
        for call in self.calls:
            if not self.shared(call.caller, call.callee):
                needed |= {call.caller, call.callee}
        found = {place for place in self.book.segments if place.segment in internet}
        for name in needed:
            service = self.lab.services[name]
            if not set(service.segments) & internet:
                found |= {Place(service.host, segment) for segment in service.segments}
        return frozenset(found)

    @cached_property
    def networks(self) -> Mapping[Place, Network]:
        """Every segment on each of its hosts, by segment and host; one that no host uses is not among them."""
        found = {}
        for place in sorted(self.book.segments, key=lambda place: (place.segment, place.host)):
            if not place.host:
                continue
            subnet, number = self.book.segments[place]
            v4 = ipaddress.IPv4Network(subnet)
            v6 = subnet6(self.lab.ula, number)
            internal = place not in self.open_segments
            found[place] = Network(place.host, place.segment, subnet, str(v4[1]), str(v6), str(v6[1]), internal)
        return found

    @cached_property
    def legs(self) -> Mapping[str, tuple[Leg, ...]]:
        """Every service's legs, in the order of segment names."""
        return {name: tuple(self._legs(name)) for name in sorted(self.lab.services)}

    def _legs(self, service: str) -> list[Leg]:
        legs = []
        for segment, number in sorted(self.book.services.get(service, {}).items()):
            network = self.networks[Place(self.lab.services[service].host, segment)]
            v4 = ipaddress.IPv4Address(int(ipaddress.IPv4Network(network.subnet).network_address) + number)
            v6 = ipaddress.IPv6Address(int(ipaddress.IPv6Network(network.subnet6).network_address) + number)
            legs.append(Leg(network, str(v4), str(v6)))
        return legs

    def open_legs(self, service: str) -> tuple[Leg, ...]:
        """Return the legs through which a service can be reached from other networks. Docker's default route is on
        the first of them (it sorts by network name)."""
        return tuple(leg for leg in self.legs[service] if not leg.network.internal)

    def services_on(self, host: str) -> list[str]:
        """Return the names of a host's services, sorted."""
        return sorted(name for name, service in self.lab.services.items() if service.host == host)

    def networks_on(self, host: str) -> list[Network]:
        """Return the segments that a host's services are in, sorted by name."""
        names = {leg.network.name for service in self.services_on(host) for leg in self.legs[service]}
        return [self.networks[Place(host, name)] for name in sorted(names)]

    @cached_property
    def said_calls(self) -> tuple[Call, ...]:
        """Every call, declared and implied, sorted, each once. Who may reach whom is read from here, nowhere else."""
        return tuple(sorted({*calls.declared(self.lab), *self.implied}))

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """The calls between two networks of containers: of who shares another's network it is the other that calls
        and is called."""
        return tuple(sorted(self._between(self.said_calls)))

    @cached_property
    def declared_calls(self) -> frozenset[Call]:
        """Those of `calls` that somebody wrote down."""
        return frozenset(self._between(calls.declared(self.lab)))

    def _between(self, found: Iterable[Call]) -> set[Call]:
        lab = self.lab
        kept = (c for c in found if not lab.in_hosts_network(c.caller) and not lab.in_hosts_network(c.callee))
        mapped = (c._replace(caller=lab.network_of(c.caller), callee=lab.network_of(c.callee)) for c in kept)
        return {c for c in mapped if c.caller != c.callee}

    @cached_property
    def calls_to_hosts(self) -> tuple[Call, ...]:
        """The calls of containers to services in their host's network, by whose network it is that calls."""
        found = (c for c in self.said_calls if self.lab.in_hosts_network(c.callee))
        mapped = (c._replace(caller=self.lab.network_of(c.caller)) for c in found)
        return tuple(sorted({c for c in mapped if not self.lab.in_hosts_network(c.caller)}))

    def calls_of_hosts(self, service: str) -> tuple[Call, ...]:
        """Return the calls of a service in its host's network to containers."""
        found = (c for c in self.said_calls if c.caller == service and not self.lab.in_hosts_network(c.callee))
        return tuple(sorted({c._replace(callee=self.lab.network_of(c.callee)) for c in found}))

    def meets(self, caller: str, callee: str) -> str:
        """Return the address at which a caller meets a service where one of the two is in its host's network: a
        gateway of the caller, the callee's own address, or loopback. "" where both are in networks of their own."""
        ours, theirs = self.lab.in_hosts_network(caller), self.lab.in_hosts_network(callee)
        if ours and theirs:
            return "127.0.0.1"
        if theirs:
            return next((leg.network.gateway for leg in self.legs[caller]), "")
        return next((leg.address for leg in self.legs[callee]), "") if ours else ""

    def doors(self, host: str) -> dict[str, HostService]:
        """Return what a host itself answers: its services, and what listens on it out of containers."""
        found = dict(self.lab.hosts[host].services)
        for name in self.services_on(host):
            service = self.lab.services[name]
            if service.network != HOST_NETWORK:
                continue
            for publish in (one for one in service.publish if not one.inward):
                for port, _ in publish.pairs:
                    _add(found, f"{name}-{port}", port, publish.proto, publish.sources)
            for call in self.calls_to_hosts:
                if call.callee == name:
                    _add(found, f"{name}-{call.port}", call.port, call.proto, (call.caller,))
        return found

    @cached_property
    def flows(self) -> tuple[Flow, ...]:
        """Every call between legs: on each shared segment, or else by the legs that carry the default routes."""
        return tuple(
            Flow(caller, callee, source, destination, proto, port)
            for caller, callee, proto, port in self.calls
            for source, destination in self._pairs(caller, callee)
        )

    def shared(self, caller: str, callee: str) -> bool:
        """Return whether two services share a bridge, so that Docker's DNS resolves one for the other."""
        one, other = self.lab.services[caller], self.lab.services[callee]
        return one.host == other.host and bool(set(one.segments) & set(other.segments))

    def flows_between(self, host: str) -> tuple[Flow, ...]:
        """Return the flows that begin or end on a host and have their other end on another one."""
        ends = ((f, {f.source.network.host, f.destination.network.host}) for f in self.flows)
        return tuple(f for f, hosts in ends if host in hosts and len(hosts) > 1)

    def flows_within(self, host: str) -> tuple[Flow, ...]:
        """Return the flows that begin and end on a host. Those between hosts have a bridge of it at one end only."""
        return tuple(f for f in self.flows if f.source.network.host == f.destination.network.host == host)

    def _pairs(self, caller: str, callee: str) -> list[tuple[Leg, Leg]]:
        if self.shared(caller, callee):
            there = {leg.network.name: leg for leg in self.legs[callee]}
            return [(leg, there[leg.network.name]) for leg in self.legs[caller] if leg.network.name in there]
        # By another leg the reply would take another way than the request, and Docker drops it from 28.2 on.
        return [(a, b) for a in self.open_legs(caller)[:1] for b in self.open_legs(callee)[:1]]

    @cached_property
    def site_names(self) -> list[str]:
        """Every name that the proxy answers for, sorted."""
        labels = [service.site.name for service in self.lab.services.values() if service.site]
        labels += [self.lab.portal.site] if self.lab.portal else []
        return sorted(f"{label}.{self.lab.domain}" for label in labels)

    @cached_property
    def ports(self) -> Mapping[str, list[tuple[str, int]]]:
        """Every service's declared container ports as (protocol, port), sorted: own, published and called ones."""
        found: dict[str, set[tuple[str, int]]] = {name: set() for name in self.lab.services}
        for name, service in self.lab.services.items():
            if service.port_and_proto:
                found[name].add((service.port_and_proto[1], service.port_and_proto[0]))
            # The ends of a range: what lies between is the same.
            found[name] |= {(publish.proto, port) for publish in service.publish for port in bounds(publish.port)}
        for _, callee, proto, port in self.calls:
            found[callee].add((proto, port))
        for name in [one for one in found if self.lab.services[one].network]:
            # Who shares a network answers at its addresses.
            ports = found.pop(name)
            if (of := self.lab.network_of(name)) != name:
                found[of] |= ports
            found[name] = set()
        return {name: sorted(ports) for name, ports in found.items()}

    @cached_property
    def egress(self) -> tuple[tuple[str, str, str, Span], ...]:
        """Declared egress as (service, "internet" or a network, protocol, ports); with DNS to its resolvers."""
        found: set[tuple[str, str, str, Span]] = set()
        for name, service in self.lab.services.items():
            if self.lab.in_hosts_network(name):
                continue
            of = self.lab.network_of(name)
            found |= self._ways_out(of, service)
            # Names are asked by whoever's network it is.
            for resolver in self.resolvers(of):
                if resolver in self.lab.services:
                    continue  # a call
                network = str(ipaddress.ip_network(resolver))
                found |= {(of, network, proto, 53) for proto in ("tcp", "udp")}
        return tuple(sorted(found, key=lambda way: (*way[:3], bounds(way[3]))))

    def _ways_out(self, name: str, service: Service) -> set[tuple[str, str, str, Span]]:
        return {
            (name, to, proto, port)
            for egress in service.egress
            for to in self._destinations(egress.to)
            for proto, port in egress.ways
        }

    def egress_of_host(self, service: str) -> list[tuple[str, str, str, Span]]:
        """Return the egress of a service in its host's network, in the form of `egress`."""
        found = self._ways_out(service, self.lab.services[service])
        for resolver in self.resolvers(service):
            found |= {(service, str(ipaddress.ip_network(resolver)), proto, 53) for proto in ("tcp", "udp")}
        return sorted(found, key=lambda way: (*way[:3], bounds(way[3])))

    def resolvers(self, service: str) -> list[str]:
        """Return the DNS servers that may be asked for a service: addresses, which are part of its egress, or the
        names of services. Without any of its own, and without egress, there are none."""
        own = self.lab.services[service].resolvers
        if own is not None:
            return list(own)
        sharing = [one for one in self.lab.services if self.lab.network_of(one) == service]
        asked = self.lab.resolvers if any(self.lab.services[one].egress for one in sharing) else ()
        return [str(address) for address in asked or ()]

    def dns(self, service: str) -> list[str]:
        """Return the addresses of `resolvers`."""
        there = {flow.callee: flow.destination.address for flow in self.flows if flow.caller == service}
        return [there.get(resolver, resolver) for resolver in self.resolvers(service)]

    def _destinations(self, to: str) -> list[str]:
        if to == INTERNET:
            return [INTERNET]
        return [str(network) for network in self.lab.places[to]] if to in self.lab.places else [to]

    def sources(self, places: tuple[str, ...]) -> list[str]:
        """Return the networks of places, or ["any"] if one of them is anywhere."""
        if ANYWHERE in places:
            return ["any"]
        found: list[str] = []
        for place in places:
            found += [str(n) for n in self.lab.places[place] if str(n) not in found]
        return found


def _add(doors: dict[str, HostService], name: str, port: int, proto: str, sources: tuple[str, ...]) -> None:
    """Let somebody more in by a door of a host, which is made where it is not there yet."""
    known = doors[name].sources if name in doors else ()
    of = tuple(dict.fromkeys((*known, *sources)))
    doors[name] = HostService.model_validate({"port": port, "proto": proto, "from": of})
