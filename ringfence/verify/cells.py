"""The matrix: every source, every destination, every port, and what the declaration says about each cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from ringfence.host.slices import path_within, slice_of
from ringfence.verify.declared import (
    ANY,
    HOST_NETWORK,
    ICMP,
    NO_NETWORK,
    Declared,
    Egress,
    Machine,
    Published,
    Service,
    Vantage,
    family,
)
from ringfence.verify.expected import NOT_DECLARED, Rules, Source, Verdict
from ringfence.verify.forged import lies
from ringfence.verify.handing import unfiltered
from ringfence.verify.seen import Container, Seen

PROTOS = ("tcp", "udp")
ECHO = ("icmp", 0)  # a request for an echo
# What hosts listen to by multicast: mDNS and SSDP.
GROUPS = (("224.0.0.251", 5353), ("239.255.255.250", 1900), ("ff02::fb", 5353), ("ff02::c", 1900))
PROBE_PORT = 46464  # nobody declares it: shows that egress is closed by port, too
CELLS_AT_MOST = 20_000


@dataclass(frozen=True)
class Cell:
    """One connection to try.

    Attributes:
        number: identity within the run.
        source: name of a service, a vantage or a container that ringfence does not manage.
        host: where the source is, so where the probe runs.
        destination: name of a service, a host or a vantage.
        address: what is connected to, IPv4 or IPv6.
        proto: ``tcp``, ``udp``, or ``icmp`` for a request for an echo.
        port: port number, 0 for ``icmp``.
        expected: ``open``, ``closed``, or ``either`` where the declaration does not decide.
        reason: the declaration that opens it, or the lack of one.
        forged: another's address, which the packet says it comes from; "" for a connection of the source's own.
        through: the source's own address by whose interface it goes, "" where the routes decide.
    """

    number: int
    source: str
    host: str
    destination: str
    address: str
    proto: str
    port: int
    expected: str
    reason: str
    forged: str = ""
    through: str = ""

    @property
    def family(self) -> int:
        """4 or 6."""
        return family(self.address)

    @property
    def door(self) -> str:
        """What is asked, and as whom if that is a lie."""
        return ("icmp" if self.proto == "icmp" else f"{self.proto}/{self.port}") + (
            f" as {self.forged}" if self.forged else ""
        )


@dataclass(frozen=True)
class Matrix:
    """All cells, who probes them, and what is wrong before anything was probed.

    Attributes:
        sources: by name.
        cells: in a stable order.
        destinations: names of all services, hosts and vantages, in the order in which they are shown.
        problems: differences between the declaration and what runs, a line each.
        skipped: number of cells that are expected closed and were left out, because there are too many.
        untried: (source's host, destination) → number of cells for which no way leads from the one to the other, so
            that a probe might wander off into somebody else's network. A declared flow among them is a problem.
    """

    sources: Mapping[str, Source]
    cells: tuple[Cell, ...]
    destinations: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    skipped: int = 0
    untried: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Target:
    """An address that a source may aim at, what it would ask there, and who judges that."""

    name: str
    host: str
    address: str
    asks: tuple[tuple[str, int], ...]
    judge: Callable[[str, int], Verdict]
    through: str = ""


def build(
    declared: Declared, seen: Mapping[str, Seen], keep_rules: Iterable[str] = (), at_most: int = CELLS_AT_MOST
) -> Matrix:
    """Lay out the matrix.

    Args:
        declared: the whole lab.
        seen: host name → what runs there, for every host that takes part.
        keep_rules: hosts on which UFW rules that ringfence did not make are kept by the user's decision.
        at_most: cells beyond this number are thinned out, never those that are expected open (`_thinned`).
    """
    rules = Rules(declared, seen, frozenset(keep_rules))
    sources = {source.name: source for source in _sources(declared, seen)}
    cells: list[Cell] = []
    untried: Counter[tuple[str, str]] = Counter()
    for source in sources.values():
        for target in _targets(rules, source):
            if not _has(source, target.address):
                untried[source.host, target.name] += len(target.asks)
            elif target.through or rules.leads(source, target.host, target.address):
                cells += (_cell(source, target, proto, port) for proto, port in target.asks)
            elif target.asks:
                untried[source.host, target.name] += len(target.asks)
    cells += (
        Cell(-1, lie.source, sources[lie.source].host, lie.destination, lie.address, lie.proto, lie.port,
             NOT_DECLARED.expected, "the address is another's", lie.claim, lie.through)
        for lie in lies(rules, sources)
    )  # fmt: skip
    kept = _thinned(cells, at_most)
    numbered = tuple(replace(cell, number=number) for number, cell in enumerate(kept))
    destinations = [one.name for kind in (declared.services, declared.machines, declared.vantages) for one in kind]
    problems = (*_problems(declared, seen), *_dead_ends(rules, cells))
    skipped = sum(c.expected == "closed" for c in cells) - sum(c.expected == "closed" for c in kept)
    return Matrix(sources, numbered, tuple(destinations), problems, skipped, dict(untried))


def _has(source: Source, address: str) -> bool:
    """Whether a source has an address of the family of another; a container without one is itself to be tried."""
    return source.vantage is None or bool(source.addresses(family(address)))


def _sources(declared: Declared, seen: Mapping[str, Seen]) -> Iterator[Source]:
    managed = set()
    for service in declared.services:
        container = _container(seen, service)
        if container:
            managed.add((service.host, container.name))
            if service.network not in ("", HOST_NETWORK):
                continue  # what holds for whose network it is in holds for it
            yield Source(service.name, service.host, service=service, container=container)
    foreign = [
        (host, container)
        for host, one in sorted(seen.items())
        for container in one.containers
        # In the host's network, or in another's, it is nobody else.
        if (host, container.name) not in managed and container.networks and container.space and not container.mode
    ]
    times = Counter(container.name for _, container in foreign)
    for host, container in foreign:  # several hosts may have one of a name
        name = container.name if times[container.name] == 1 else f"{host}/{container.name}"
        yield Source(f"({name})", host, container=container)
    for vantage in declared.vantages:
        if vantage.host in seen:
            yield Source(vantage.name, vantage.host, vantage=vantage)
    for machine in declared.machines:
        own = declared.vpn.addresses.get(machine.name)
        if own and machine.name in seen:
            name = f"{machine.name} in the VPN"
            yield Source(name, machine.name, vantage=Vantage(name, machine.name, *own), inside=True)


def _container(seen: Mapping[str, Seen], service: Service) -> Container | None:
    return seen[service.host].find(service) if service.host in seen else None


def _targets(rules: Rules, source: Source) -> Iterator[_Target]:
    """Yield whatever a source may aim at, on every host, also where no way leads."""
    yield from _containers(rules, source)
    yield from _machines(rules, source)
    yield from _groups(rules, source)
    yield from _vantages(rules, source)


def _containers(rules: Rules, source: Source) -> Iterator[_Target]:
    for service in rules.declared.services:
        container = _container(rules.seen, service)
        if container is None or source.service == service:
            continue
        if source.vantage and source.host == service.host:
            continue  # what a host does with its own containers is its own affair
        if service.network:
            continue  # it has no address of its own
        addresses = dict.fromkeys(container.addresses())
        addresses.update(dict.fromkeys((n.network, a) for n in service.networks for a in (n.address, n.address6) if a))
        asks = (*((proto, port) for port in sorted({port for _, port in service.ports}) for proto in PROTOS), ECHO)
        for network, address in addresses:
            judge = partial(rules.to_container, source, service, container, network, address)
            yield _Target(service.name, service.host, address, asks, judge)


def _machines(rules: Rules, source: Source) -> Iterator[_Target]:
    for machine in rules.declared.machines:
        if machine.name not in rules.seen:
            continue
        here = rules.seen[machine.name]
        if (source.vantage or source.in_hosts_network) and source.host == machine.name:
            continue  # it would talk to itself
        asks = tuple(_host_ports(rules.declared.published, machine, here, managed_only=source.foreign))
        asks += () if source.foreign else (ECHO,)
        for _, address, _ in here.addresses:
            yield _Target(machine.name, machine.name, address, asks, partial(rules.to_host, source, machine, address))


def _host_ports(
    published: Iterable[Published], machine: Machine, seen: Seen, *, managed_only: bool
) -> list[tuple[str, int]]:
    """Return what a host may be asked for: published ports and its own services by both protocols, and what listens.

    What ringfence does not manage may use the host as before, so only ``managed_only`` ports are asked of it.
    """
    here = [p for p in published if p.host == machine.name]
    # Of a range both ends, and what lies beside it.
    inside = {port for p in here for port, _ in p.pairs[1:-1]}
    ends = {port for p in here for port in (p.published, p.published + p.more)}
    beside = {port for p in here if p.more for port in (p.published - 1, p.published + p.more + 1) if 0 < port < 65536}
    found = {(proto, port) for port in ends | beside for proto in PROTOS}
    if not managed_only:
        found |= {(proto, s.port) for s in machine.services for proto in PROTOS}
        found |= {(proto, port) for rule in machine.rules for port in rule.asked() for proto in PROTOS}
        found |= {(proto, port) for proto, port, _ in seen.sockets}
        found |= {(proto, port) for c in seen.containers for proto, port, _ in c.published if proto in PROTOS}
    return sorted(way for way in found if way[1] not in inside - ends)


def _groups(rules: Rules, source: Source) -> Iterator[_Target]:
    """Yield the groups that a container's own host may listen to, by each of its networks."""
    machine = next((m for m in rules.declared.machines if m.name == source.host), None)
    if source.service is None or source.container is None or machine is None:
        return
    for _, own in source.container.addresses():
        for group, port in GROUPS:
            if family(group) == family(own):
                judge = partial(rules.to_group, source, machine, own)
                yield _Target(machine.name, machine.name, group, (("udp", port),), judge, own)


def _vantages(rules: Rules, source: Source) -> Iterator[_Target]:
    if source.service is None:
        return
    ports = sorted(_asked_of(rules.declared.egress) | {PROBE_PORT})
    asks = (*((proto, port) for port in ports for proto in PROTOS), ECHO)
    for vantage in rules.declared.vantages:
        for address in (vantage.address, vantage.address6):
            if address and vantage.host in rules.seen:
                yield _Target(vantage.name, vantage.host, address, asks, partial(rules.to_outside, source, address))


def _asked_of(egress: Iterable[Egress]) -> set[int]:
    """Return the ports at which egress is tried: of a range both ends; of all ports the one that nobody declares."""
    ways = [e for e in egress if e.proto != ICMP]
    return {port for e in ways for port in ((PROBE_PORT,) if e.every else (e.port, e.last))}


def _cell(source: Source, target: _Target, proto: str, port: int) -> Cell:
    verdict = target.judge(proto, port)
    return Cell(
        -1, source.name, source.host, target.name, target.address, proto, port, verdict.expected, verdict.reason,
        through=target.through,
    )  # fmt: skip


def _thinned(cells: list[Cell], at_most: int) -> list[Cell]:
    """Drop cells until there are few enough, never one that is expected open; the same ones in every run of a lab.

    What is not judged goes first, then of the closed ones those that ask the same by a further address; in the end
    they are thinned out evenly. However many are open, closed ones fill half of what is tried.
    """
    if len(cells) <= at_most:
        return cells
    closed = [cell for cell in cells if cell.expected == "closed"]
    room = max(at_most - sum(cell.expected == "open" for cell in cells), at_most // 2)
    for question in (_of_family, _of_port):
        if len(closed) > room:
            closed = _one_each(closed, question)
    if len(closed) > room:
        closed = [cell for n, cell in enumerate(closed) if (n + 1) * room // len(closed) > n * room // len(closed)]
    kept = {id(cell) for cell in closed}
    return [cell for cell in cells if cell.expected == "open" or id(cell) in kept]


def _of_family(cell: Cell) -> Hashable:
    return (cell.source, cell.destination, cell.proto, cell.port, bool(cell.forged), cell.family)


def _of_port(cell: Cell) -> Hashable:
    return (cell.source, cell.destination, cell.proto, cell.port, bool(cell.forged))


def _one_each(cells: list[Cell], question: Callable[[Cell], Hashable]) -> list[Cell]:
    """Keep one cell of each question, in turn another one of its addresses."""
    groups: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(question(cell), []).append(cell)
    return [group[n % len(group)] for n, group in enumerate(groups.values())]


def _problems(declared: Declared, seen: Mapping[str, Seen]) -> Iterator[str]:
    for machine in declared.machines:
        if machine.name not in seen:
            yield f"{machine.name}: this host did not take part, so nothing is known about it"
    for service in declared.services:
        if service.host not in seen:
            continue
        container = _container(seen, service)
        if container is None and service.ends:
            continue
        if container is None:
            yield f"{service.name}: declared, but no container of it runs on {service.host}"
            continue
        yield from _attachments(service, container)
        yield from _namespace(service, container, seen[service.host], declared)
        if container.mode == HOST_NETWORK and service.name in seen[service.host].fenced:
            yield from _strays(service, container)
        if service.socket:
            yield from unfiltered(service, seen[service.host])
    for vantage in declared.vantages:
        there = {address for _, address, _ in seen[vantage.host].addresses} if vantage.host in seen else set()
        for address in (vantage.address, vantage.address6) if vantage.host in seen else ():
            if address and address not in there:
                yield (
                    f"{vantage.name}: {vantage.host} does not have the address {address}, so nothing was tried from it "
                    "(correct lab_vantages)"
                )
    for one in seen.values():
        yield from (f"{one.host}: {complaint}" for complaint in one.complaints)


def _namespace(service: Service, container: Container, here: Seen, declared: Declared) -> Iterator[str]:
    """Name a container that is not in the network that is declared for it."""
    if service.network in ("", HOST_NETWORK, NO_NETWORK):
        if container.mode != service.network:
            there = container.mode.partition(":")[0] or "one of its own"
            yield f"{service.name}: is in the network {there}; declared is {service.network or 'one of its own'}"
        return
    other = next((s for s in declared.services if s.name == service.network), None)
    found = here.find(other) if other else None
    if found and found.space != container.space:
        yield f"{service.name}: is not in the network of {service.network}, as it is declared"


def _strays(service: Service, container: Container) -> Iterator[str]:
    """Name a container in the host's network that runs beside the slice by which the policy tells it from the host."""
    declared = f"/{path_within(slice_of(service.name))}"
    for group in container.strays(declared):
        yield (
            f"{service.name}: runs in {group}, so nothing holds what it sends: declared is {declared} (take away what "
            "moves it, such as an annotation org.systemd.property.Slice or a cgroup_parent, and deploy again)"
        )
    if not container.groups:
        yield (
            f"{service.name}: in which control group it runs could not be seen, so it is not known whether anything "
            "holds what it sends"
        )


def _attachments(service: Service, container: Container) -> Iterator[str]:
    if service.network:
        return
    wanted = {n.network: n for n in service.networks}
    for network, (address, _) in sorted(container.networks.items()):
        if network not in wanted:
            declared = ", ".join(sorted(wanted))
            yield f"{service.name}: is attached to {network} ({address}); declared is only {declared}"
        elif address != wanted[network].address:
            yield f"{service.name}: has {address} in {network}; declared is {wanted[network].address}"
    for network, want in sorted(wanted.items()):
        if network not in container.networks:
            yield f"{service.name}: is not attached to {network}, where it is declared with {want.address}"


def _dead_ends(rules: Rules, cells: Iterable[Cell]) -> Iterator[str]:
    """Name what is declared and yet expected open nowhere: no probe would miss it where, say, a network is internal."""
    run = {s.name for s in rules.declared.services if _container(rules.seen, s)}
    opened = {(c.source, c.destination, c.proto, c.port) for c in cells if c.expected == "open"}
    for flow in rules.declared.flows:
        way = (flow.source, flow.destination)
        if {*way} <= run and (*way, flow.proto, flow.port) not in opened:
            yield (
                f"{flow.source}: declared to call {flow.destination} at {flow.proto}/{flow.port}, but no network leads "
                "there (the ones that run are internal, or not shared)"
            )
    for egress in rules.declared.egress:
        protos = PROTOS if egress.proto == ANY else (egress.proto,)
        for vantage in rules.declared.vantages:
            way = (egress.source, vantage.name)
            port = PROBE_PORT if egress.every else egress.port
            for proto in protos if egress.source in run else ():
                if not rules.covers(egress, vantage.address, proto, port):
                    continue
                if vantage.host in rules.seen and (*way, proto, port) not in opened:
                    at = "by echo" if proto == ICMP else f"at {proto}/{egress.ports}"
                    yield (
                        f"{egress.source}: declared to reach {egress.to} {at}, but each network that it runs in is "
                        "internal"
                    )


def doors(declared: Declared, vantages: Iterable[Vantage]) -> list[dict[str, object]]:
    """Return where a host must listen so that egress can be tried: ``[{address, ports}]``, TCP."""
    ports = sorted(_asked_of(e for e in declared.egress if e.proto != "udp"))
    return [
        {"address": address, "ports": ports}
        for vantage in vantages
        for address in (vantage.address, vantage.address6)
        if address and ports
    ]
