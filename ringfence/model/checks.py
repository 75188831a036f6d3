"""Checks of a lab that need more than one value at a time: references, clashes, contradictions.

Each check is a function from the draft to problems; `check_lab` runs them all.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

from ringfence.host.grants import FORGING
from ringfence.host.handing import device_of
from ringfence.host.texts import device_place_fault, nested, place_of
from ringfence.model.egress_checks import mapped_to, meaningless_egress
from ringfence.model.expand import ROLE_SERVICES
from ringfence.model.hostnames import posing
from ringfence.model.lab import ANYWHERE, INTERNET, SELF, Call, Publish, Segment, Service
from ringfence.model.mounts import mount_problems
from ringfence.model.network_checks import callers_of_hosts, known_as_problems, network_problems
from ringfence.model.problems import Problem, did_you_mean, listed
from ringfence.model.read import Draft
from ringfence.model.site_checks import SITE_CHECKS
from ringfence.model.values import Address, Network
from ringfence.model.vpn_checks import VPN_CHECKS

# What only its own application should reach; publishing one of these has to be said twice.
DATABASE_PORTS = {
    1433: "SQL Server",
    1521: "Oracle",
    3306: "MySQL",
    5432: "PostgreSQL",
    5984: "CouchDB",
    6379: "Redis",
    8086: "InfluxDB",
    9042: "Cassandra",
    9200: "Elasticsearch",
    11211: "memcached",
    27017: "MongoDB",
}
_SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_lab(draft: Draft) -> list[Problem]:
    """Return every problem of the well-formed part of a lab, beside those that reading it found."""
    return [_owned(problem) for check in (*_CHECKS, *SITE_CHECKS, *VPN_CHECKS) for problem in check(draft)]


def _owned(problem: Problem) -> Problem:
    """Name the variable that declares a role's service, which nobody finds under lab_services."""
    for role, variable in ROLE_SERVICES.items():
        of = f"lab_services.{role}"
        if problem.owner == of or problem.owner.startswith(f"{of}."):
            return Problem(variable + problem.owner.removeprefix(of), problem.message)
    return problem


def _known(draft: Draft, owner: str, kind: str, value: str, what: str) -> Iterator[Problem]:
    """Check that a name refers to a declared entry of a kind (``segments``, ``services`` …)."""
    names = draft.names[kind]
    if value not in names:
        fix = did_you_mean(value, names, f"declared in lab_{kind}: {listed(names)}")
        yield Problem(owner, f"'{value}' is not {what} ({fix})")


def _references(draft: Draft) -> Iterator[Problem]:
    for name, service in draft.lab.services.items():
        owner = f"lab_services.{name}"
        yield from _known(draft, f"{owner}.host", "hosts", service.host, "a host")
        if service.host in draft.lab.hosts and not draft.lab.hosts[service.host].docker:
            yield Problem(
                f"{owner}.host",
                f"'{service.host}' runs no containers (remove docker: false from lab_hosts.{service.host}, or take "
                "another host)",
            )
        for segment in service.segments:
            yield from _known(draft, f"{owner}.segments", "segments", segment, "a segment")
        for segment in sorted({s for s in service.segments if service.segments.count(s) > 1}):
            yield Problem(f"{owner}.segments", f"'{segment}' is named twice (remove one)")
        for call in service.calls:
            yield from _call(draft, f"{owner}.calls", name, service, call)
        for needed in service.depends:
            yield from _depends(draft, f"{owner}.depends", name, needed)
        yield from _addresses(f"{owner}.address", service)


def _call(draft: Draft, owner: str, name: str, service: Service, call: Call) -> Iterator[Problem]:
    yield from _known(draft, owner, "services", call.service, "a service")
    if call.service == name:
        yield Problem(owner, f"'{name}' calls itself (remove it: a container reaches itself anyway)")
    callee = draft.lab.services.get(call.service)
    if callee is None:
        return
    if callee.host != service.host and not draft.connected:
        yield Problem(
            owner,
            f"'{call.service}' runs on '{callee.host}' and '{name}' on '{service.host}', and {draft.apart}",
        )
    if call.port is None and callee.port is None:
        yield Problem(
            owner,
            f"'{call.service}' has no port (add port: … to lab_services.{call.service}, "
            f"or write {{service: {call.service}, port: …}})",
        )


def _depends(draft: Draft, owner: str, name: str, needed: str) -> Iterator[Problem]:
    yield from _known(draft, owner, "services", needed, "a service")
    services = draft.lab.services
    if needed == name:
        yield Problem(owner, f"'{name}' depends on itself (remove it)")
    elif needed in services and draft.lab.project(needed) != draft.lab.project(name):
        yield Problem(
            owner,
            f"'{needed}' belongs to the stack '{draft.lab.project(needed)}', not to '{draft.lab.project(name)}' "
            f"(give both the same stack)",
        )
    else:
        seen, waiting = {name}, [needed]
        while waiting:
            current = waiting.pop()
            if current == name:
                yield Problem(owner, f"'{needed}' depends on '{name}' in turn (remove one of the two)")
                return
            if current not in seen and current in services:
                seen.add(current)
                waiting += services[current].depends


def _addresses(owner: str, service: Service) -> Iterator[Problem]:
    for segment, address in service.address.items():
        if segment == "" and len(service.segments) > 1:
            yield Problem(
                owner,
                f"'{address}' is for which of its segments? (write {{{service.segments[0]}: {address}}})",
            )
        elif segment and segment not in service.segments:
            fix = did_you_mean(segment, service.segments, f"its segments: {listed(service.segments)}")
            yield Problem(owner, f"'{segment}' is not one of its segments ({fix})")


def _sources(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    for name, service in lab.services.items():
        for publish in service.publish:
            owner = f"lab_services.{name}.publish.{publish.port}.from"
            yield from _bound_to(draft, f"lab_services.{name}.publish.{publish.port}.address", service.host, publish)
            if publish.inward:
                continue
            for source in publish.sources:
                if source != ANYWHERE and source not in draft.names["devices"]:
                    yield from _known(draft, owner, "places", source, "a place")
    for host_name, host in lab.hosts.items():
        for name, host_service in host.services.items():
            owner = f"lab_hosts.{host_name}.services.{name}.from"
            for source in host_service.sources:
                if source == ANYWHERE or source in draft.names["places"] | draft.names["devices"]:
                    continue
                if source not in draft.names["services"]:
                    names = draft.names["places"] | draft.names["services"]
                    fix = did_you_mean(source, names, f"places: {listed(draft.names['places'])}")
                    yield Problem(owner, f"'{source}' is neither a place nor a service ({fix})")
                elif source in lab.services and lab.services[source].host != host_name:
                    yield Problem(
                        owner,
                        f"'{source}' runs on '{lab.services[source].host}': its address never shows on '{host_name}' "
                        f"(name the place that '{lab.services[source].host}' is in)",
                    )
        for place in host.interfaces:
            yield from _known(draft, f"lab_hosts.{host_name}.interfaces", "places", place, "a place")
    for name in sorted(draft.names["places"] & draft.names["services"]):
        yield Problem(f"lab_places.{name}", f"'{name}' is a service as well (rename one: both appear in 'from')")


def _egress(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    for name, service in lab.services.items():
        for egress in service.egress:
            owner = f"lab_services.{name}.egress"
            if egress.to == INTERNET:
                of = lab.services.get(service.network, service)
                segments = [lab.segments[s] for s in of.segments if s in lab.segments]
                if segments and len(segments) == len(of.segments) and not any(s.internet for s in segments):
                    yield Problem(
                        owner,
                        f"'{INTERNET}' cannot be reached from {listed(of.segments)}: internet is false there "
                        f"(add a segment with internet: true to the service)",
                    )
            elif egress.to == ANYWHERE:
                yield Problem(owner, f"'{ANYWHERE}' is not a destination (write internet, a place or a network)")
            elif egress.to in draft.names["services"]:
                yield Problem(owner, f"'{egress.to}' is a service (write it under calls)")
            elif "/" in egress.to or egress.to.replace(".", "").isdecimal() or ":" in egress.to:
                yield from _egress_network(draft, owner, egress.to)
            elif egress.to not in draft.names["places"]:
                names = draft.names["places"] | {INTERNET}
                fix = did_you_mean(egress.to, names, "write internet, a place or a network such as 192.168.10.5/32")
                yield Problem(owner, f"'{egress.to}' is not a destination ({fix})")


def _egress_network(draft: Draft, owner: str, to: str) -> Iterator[Problem]:
    try:
        network = ipaddress.ip_network(to, strict=False)
    except ValueError:
        yield Problem(owner, f"'{to}' is not a network (write it as 192.168.10.0/24 or fd00:1::/64)")
        return
    if ours := mapped_to(to):
        yield Problem(owner, f"'{to}' is IPv4 in the words of IPv6 (write to: {ours})")
        return
    if str(network) != to and str(network.network_address) != to:
        yield Problem(owner, f"'{to}' has host bits set (did you mean '{network}'?)")
    elif "/" not in to:
        yield Problem(owner, f"'{to}' is an address (did you mean '{network}'?)")
    if network.prefixlen == 0:
        yield Problem(owner, f"'{to}' is everything (write to: internet, which leaves your own networks out)")
    for name, segment in draft.lab.segments.items():
        if network.prefixlen and any(_overlap(network, subnet) for subnet in segment.subnet.values()):
            yield Problem(owner, f"'{to}' is inside the segment '{name}' (declare the service there under calls)")
            return
    outside = any(_within(network, place) for place in itertools.chain(*draft.lab.places.values()))
    for name, own in (("lab_pool", draft.lab.pool), ("lab_ula", draft.lab.ula)):
        if _within(network, own) and not outside:
            yield Problem(
                owner,
                f"'{to}' is a part of {name}, of which segments get their networks, and egress leads to none of them "
                f"(declare the service there under calls, or the network as a place in lab_places where it is another)",
            )


def _resolvers(draft: Draft) -> Iterator[Problem]:
    lab, owner = draft.lab, "lab_resolvers"
    asking = sorted(name for name, service in lab.services.items() if service.egress and service.resolvers is None)
    if lab.resolvers is None and asking:
        yield Problem(
            owner,
            f"it is not said whom services with egress may ask for names, so {listed(asking)} would resolve none but "
            "the lab's (write lab_resolvers: [192.168.10.1] with the DNS server's address, usually the router's, or "
            "lab_resolvers: [] where none of them needs names)",
        )
    for resolver in lab.resolvers or ():
        yield from _asked(draft, owner, resolver, asking)
    for name, service in lab.services.items():
        for own in service.resolvers or ():
            of = f"lab_services.{name}.resolvers"
            if own[0].isdigit() or ":" in own:
                yield from _asked(draft, of, ipaddress.ip_address(own), [name])
            else:
                yield from _call(draft, of, name, service, Call.model_validate({"service": own, "port": 53}))


def _asked(draft: Draft, owner: str, resolver: Address, asking: Sequence[str]) -> Iterator[Problem]:
    """Check the address of a DNS server that services ask."""
    lab = draft.lab
    if resolver.is_loopback or resolver.is_unspecified or resolver.is_link_local or resolver.is_multicast:
        yield Problem(
            owner,
            f"'{resolver}' is no address that a container reaches (write the DNS server's own address in the "
            "network, as `resolvectl status` or your router shows it)",
        )
    for host in (name for name, host in lab.hosts.items() if resolver in host.addresses):
        doors = [service for service in lab.hosts[host].services.values() if service.port == 53]
        named = {source for door in doors for source in door.sources}
        shut = [name for name in asking if lab.services[name].host == host and not named & {name, ANYWHERE}]
        if shut:
            yield Problem(
                owner,
                f"'{resolver}' is '{host}' itself, which answers nobody but whom its services name (add "
                f"lab_hosts.{host}.services.dns: {{port: 53/udp, from: [{', '.join(shut)}]}}, "
                "or write another DNS server)",
            )


def _volumes(service: Service) -> set[str]:
    """An external one is no part of a stack: hosts may have one of the same name each."""
    return {v.source for v in service.volumes if not v.source.startswith("/") and not v.external}


def _stacks(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    for (first, a), (second, b) in combinations(lab.services.items(), 2):
        if lab.project(first) != lab.project(second):
            continue
        # Each host has a part of the stack, and a volume belongs to a part.
        for volume in sorted(_volumes(a) & _volumes(b)) if a.host != b.host else ():
            yield Problem(
                f"lab_services.{second}.volumes",
                f"'{volume}' is a volume of '{first}' on '{a.host}' too, and hosts share none "
                f"(run both on one host, or give it another name)",
            )
        for secret in sorted(set(a.secrets) & set(b.secrets)):
            if a.secrets[secret] != b.secrets[secret]:
                yield Problem(
                    f"lab_services.{second}.secrets.{secret}",
                    f"'{secret}' differs from the one of '{first}' in the same stack "
                    f"(make value and owner equal, or rename one)",
                )
    for name, service in lab.services.items():
        for secret in service.secrets:
            if not _SECRET_NAME.fullmatch(secret):
                yield Problem(
                    f"lab_services.{name}.secrets",
                    f"'{secret}' cannot be a file name (write letters, digits, '_', '-' and '.')",
                )


def _bound_to(draft: Draft, owner: str, name: str, publish: Publish) -> Iterator[Problem]:
    """A published port's own address is one of its host's; what only the host reaches is for no place."""
    host = draft.lab.hosts.get(name)
    if publish.inward and publish.sources != (SELF,):
        yield Problem(owner, "'self' is for the host alone (remove from, or name an address of the host)")
    elif publish.address and not publish.inward and host:
        own = [str(address) for address in host.addresses]
        if publish.address not in own:
            yield Problem(owner, f"'{publish.address}' is no address of '{name}' (its addresses: {listed(own)})")


def _ports(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    taken: dict[tuple[str, int, str], dict[str, str]] = {}
    for host_name, host in lab.hosts.items():
        for name, host_service in host.services.items():
            owner = f"lab_hosts.{host_name}.services.{name}.port"
            yield from _take(taken, (host_name, host_service.port, host_service.proto), "", owner, name)
    for name, service in lab.services.items():
        for publish in service.publish:
            owner = f"lab_services.{name}.publish.{publish.port}"
            for outer, _ in publish.pairs:
                problems = list(_take(taken, (service.host, outer, publish.proto), publish.on, owner, name))
                yield from problems
                if problems:
                    break
            found = (DATABASE_PORTS.get(port) for pair in publish.pairs for port in pair)
            database = next((name for name in found if name), "")
            if database and not publish.allow_database:
                yield Problem(
                    owner,
                    f"'{publish.host_port}' is a database port ({database}) "
                    f"(let its application use calls instead, or add allow_database: true)",
                )


def _take(
    taken: dict[tuple[str, int, str], dict[str, str]], key: tuple[str, int, str], on: str, owner: str, name: str
) -> Iterator[Problem]:
    """Take a port of a host on one of its addresses, "" for every one, with which each of them clashes."""
    host, port, proto = key
    others = taken.setdefault(key, {})
    if other := others.get(on) or others.get("") or ("" if on else next(iter(others.values()), "")):
        fix = "add published: with a free port" if "publish" in owner else "give one another port"
        yield Problem(owner, f"'{port}/{proto}' on '{host}' is already used by '{other}' ({fix})")
    others.setdefault(on, name)


def _storage(draft: Draft) -> Iterator[Problem]:
    for name, service in draft.lab.services.items():
        owner = f"lab_services.{name}"
        targets: dict[str, str] = {}
        yield from mount_problems(owner, service)
        for volume in service.volumes:
            if fault := device_place_fault(volume.target, volume.source):
                yield Problem(f"{owner}.volumes", f"'{volume.target}' {fault}")
        places = [("volumes", v.target) for v in service.volumes]
        places += [("files", target) for target in service.files]
        places += [("config", target) for target in service.config]
        places += [("tmpfs", entry.partition(":")[0]) for entry in service.tmpfs]
        places += [("devices", device_of(device)[1]) for device in service.devices]
        for kind, target in places:
            where = place_of(target)
            if f"{where}/".startswith("/run/secrets/"):
                yield Problem(f"{owner}.{kind}", f"'{target}' is where secrets are put (declare it under secrets)")
            if where in targets:
                yield Problem(f"{owner}.{kind}", f"'{target}' is already in {targets[where]} (remove one of the two)")
            targets.setdefault(where, kind)
        for above, below in nested(targets):
            if targets[above] in ("files", "config"):
                yield Problem(
                    f"{owner}.{targets[below]}",
                    f"'{below}' lies below '{above}' in {targets[above]} (declare it there, or move one of the two)",
                )
        for directory, files in service.config.items():
            for above, below in nested(files):
                yield Problem(
                    f"{owner}.config", f"'{above}' in '{directory}' is also the directory of '{below}' (rename one)"
                )
        if service.reload and not service.config and not service.secrets:
            yield Problem(
                f"{owner}.reload",
                f"'{name}' has nothing that it could read again (declare config or secrets, or remove it)",
            )


def _forging(draft: Draft) -> Iterator[Problem]:
    """Frames with another's MAC and IP address cannot be told from that one's by any rule on a bridge."""
    services = draft.lab.services
    for name, service in services.items():
        forging = sorted(FORGING & set(service.capabilities))
        owner = service.network if service.network in services else name  # of the network, whose segments it is in
        segments = set(services[owner].segments)
        near = [
            other
            for other, one in services.items()
            if owner not in (other, one.network) and one.host == service.host and set(one.segments) & segments
        ]
        if forging and near and not service.allow_forging:
            yield Problem(
                f"lab_services.{name}.capabilities",
                f"'{forging[0]}' lets '{name}' pose as what shares a segment with it, {listed(near)} (give it a "
                "segment of its own, where it calls and is called as before, or add allow_forging: true, which verify "
                "names each time)",
            )


def _shared_names(draft: Draft) -> Iterator[Problem]:
    """Names by which verify, the policy and the log tell who it was."""
    for kind, other, what in (("hosts", "services", "a service"), ("vantages", "services", "a service"),
                              ("vantages", "hosts", "a host")):  # fmt: skip
        for name in sorted(draft.names[kind] & draft.names[other]):
            yield Problem(f"lab_{kind}.{name}", f"'{name}' is {what} as well (rename one: verify could not tell them)")


def _networks(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    chosen = [(f"lab_segments.{name}.subnet", n) for name, s in lab.segments.items() for n in s.subnet.values()]
    for owner, network in [("lab_pool", lab.pool), *chosen]:
        if not _private(network):
            yield Problem(owner, f"'{network}' is public (take a part of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16)")
    if lab.pool.prefixlen > 24:
        yield Problem("lab_pool", f"'{lab.pool}' has no room for a /24 (take a larger one, such as 10.180.0.0/14)")
    if not lab.ula.subnet_of(ipaddress.IPv6Network("fc00::/7")) or lab.ula.prefixlen > 60:
        yield Problem("lab_ula", f"'{lab.ula}' is not a local prefix with room (write it as fd12:3456:789a::/48)")
    for name, networks in lab.places.items():
        for place in networks:
            if place.prefixlen == 0:
                yield Problem(f"lab_places.{name}", f"'{place}' is everything (write from: [anywhere] instead)")
    for owner, subnet in chosen:
        if not 16 <= subnet.prefixlen <= 28:
            yield Problem(owner, f"'{subnet}' has the wrong size (write a network from /16 to /28, usually /24)")
    for name, segment in lab.segments.items():
        yield from _subnet_hosts(draft, f"lab_segments.{name}.subnet", segment, lab.hosts_of(name))


def _subnet_hosts(draft: Draft, owner: str, segment: Segment, hosts: list[str]) -> Iterator[Problem]:
    """Check for which host each chosen subnet is: a network that is on two hosts at once is in nobody's reach."""
    if "" in segment.subnet and len(hosts) > 1:
        yield Problem(
            owner,
            f"'{segment.subnet['']}' is for which of {listed(hosts)}? Each has a network of its own "
            f"(write {{{hosts[0]}: {segment.subnet['']}}} and leave the others out to get free ones)",
        )
    for host in sorted(segment.subnet):
        if host:
            yield from _known(draft, owner, "hosts", host, "a host")


def _host_addresses(draft: Draft) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for name, host in draft.lab.hosts.items():
        for address in host.addresses:
            text = str(address)
            if address.is_loopback or address.is_unspecified or address.is_multicast:
                yield Problem(f"lab_hosts.{name}.addresses", f"'{text}' is no address that others reach (remove it)")
            elif text in owners:
                yield Problem(
                    f"lab_hosts.{name}.addresses",
                    f"'{text}' is already an address of '{owners[text]}' (correct one of the two)",
                )
            owners.setdefault(text, name)


def _private(network: Network) -> bool:
    return network.is_private or (network.version == 4 and network.subnet_of(ipaddress.IPv4Network("100.64.0.0/10")))


def _within(inner: Network, outer: Network) -> bool:
    return _overlap(inner, outer) and inner.prefixlen >= outer.prefixlen


def _overlap(a: Network, b: Network) -> bool:
    return a.version == b.version and a.overlaps(b)


_CHECKS: tuple[Callable[[Draft], Iterable[Problem]], ...] = (
    _references,
    _sources,
    _egress,
    meaningless_egress,
    network_problems,
    known_as_problems,
    callers_of_hosts,
    _resolvers,
    _stacks,
    _ports,
    _storage,
    _forging,
    posing,
    _shared_names,
    _networks,
    _host_addresses,
)
