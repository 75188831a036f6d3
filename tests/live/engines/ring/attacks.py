"""What an attacker with raw sockets tries from a container, from the host and from the wire. Pure: a table of cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tests.live.engines.ring.declared import (
    ANYWHERE,
    DATABASE,
    HOST_UDP,
    OTHER,
    PUBLISHED_UDP,
    TALK,
    UNDECLARED,
    Addresses,
    Probe,
)
from tests.live.engines.ring.forge import (
    ADVERTISEMENT,
    ARP,
    EVERYBODY,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ICMP6,
    IP4,
    IP6,
    OPTIONS,
    REDIRECT,
    ROUTER,
    ROUTING,
    SERVICE_VLAN,
    SOLICITATION,
    SPORT,
    TCP,
    UDP,
    VLAN,
    Station,
    advertisement,
    arp,
    behind,
    datagram,
    echo,
    ether,
    fragments,
    icmp6,
    mac_of_group,
    packet,
    redirect4,
    redirect6,
    router,
    solicitation,
    syn,
)

FORGED = "02:66:66:66:66:66"  # nobody's
NOWHERE = "00:00:00:00:00:00"
PREFIX = "2001:db8:bad::"
EVERY_NODE = "ff02::1"
STRANGE = (0x88B5, 0x8864, 0x8035)  # for experiments, PPPoE, RARP
TAGS = {
    "priority tag": ((VLAN, 0),),
    "VLAN tag": ((VLAN, 5),),
    "two tags": ((VLAN, 0), (VLAN, 5)),
    "service tag": ((SERVICE_VLAN, 7), (VLAN, 5)),
}
EXTENSIONS = {
    "hop-by-hop options": (HOP_BY_HOP,),
    "destination options": (OPTIONS,),
    "a routing header": (ROUTING,),
    "three extension headers": (HOP_BY_HOP, ROUTING, OPTIONS),
    "a fragment header": (FRAGMENT,),
}
Carry = Callable[[bytes], bytes]  # what carries a mark


@dataclass(frozen=True)
class World:
    """Who is where.

    Attributes:
        at: {place: its interface}; `red`, `docker0` and `custom0` are bridges, `wan` is the host's interface to the
            internet, `outside` the other machine's there.
        addresses: everybody's addresses.
    """

    at: dict[str, Station]
    addresses: Addresses

    @property
    def six(self) -> bool:
        """Whether segments have IPv6."""
        return self.addresses.six


def attacks(world: World) -> Iterator[Probe]:
    """Every cell, without a range of ports."""
    for at in ("idler", "guest"):
        yield from _another(world, at)
        yield from _neighbours(world, at)
    yield from _frames(world, "idler")
    yield from _behind_headers(world, "idler")
    for at, bridge in (("idler", "red"), ("stray", "docker0"), ("custom", "custom0")):
        yield from _towards_the_host(world, at, world.at[bridge])
    yield from _strangers(world)
    yield from _from_the_host(world)
    yield from _on_the_wrong_wire(world)


def _cell(at: str, into: str, what: str, *frames: Carry, device: str = "eth0") -> Probe:
    return Probe(at, into, "frames", "", 0, what, bind=device, frames=lambda mark: [frame(mark) for frame in frames])


def _version(address: str) -> str:
    return "v6" if ":" in address else "v4"


def _frame(me: Station, mac: str, kind: int, payload: Carry, *tags: tuple[int, int]) -> Carry:
    """A frame of `me` to `mac`."""
    return lambda mark: ether(mac, me.mac, kind, payload(mark), *tags)


def _packet(
    me: Station, mac: str, ends: tuple[str, str], proto: int, body: Carry, *tags: tuple[int, int], hops: int = 64
) -> Carry:
    """A packet of `ends` (source, destination) in a frame of `me` to `mac`."""
    kind = IP6 if ":" in ends[1] else IP4
    return _frame(me, mac, kind, lambda mark: packet(*ends, proto, body(mark), hops=hops), *tags)


def _udp(me: Station, mac: str, source: str, to: str, port: int, *tags: tuple[int, int], sport: int = SPORT) -> Carry:
    return _packet(me, mac, (source, to), UDP, partial(datagram, source, to, port, sport=sport), *tags)


def _tcp(me: Station, mac: str, source: str, to: str, port: int) -> Carry:
    """The first segment of a connection."""
    return _packet(me, mac, (source, to), TCP, partial(syn, source, to, port))


def _fragments(me: Station, mac: str, ends: tuple[str, str], proto: int, body: Carry) -> tuple[Carry, Carry]:
    """A packet in two frames."""
    kind = IP6 if ":" in ends[1] else IP4

    def part(number: int) -> Carry:
        return _frame(me, mac, kind, lambda mark: fragments(*ends, proto, body(mark))[number])

    return part(0), part(1)


def _behind(me: Station, mac: str, ends: tuple[str, str], proto: int, body: Carry, kinds: tuple[int, ...]) -> Carry:
    """A packet whose body stands behind extension headers of IPv6."""

    def build(mark: bytes) -> bytes:
        first, rest = behind(proto, body(mark), *kinds)
        return ether(mac, me.mac, IP6, packet(*ends, first, rest, hops=255))

    return build


def _frames(world: World, at: str) -> Iterator[Probe]:
    """Frames that are neither IPv4 nor IPv6 nor ARP without a tag."""
    me, victim, gateway = world.at[at], world.at["caller"], world.at["red"]
    for name, tags in TAGS.items():
        yield _cell(at, "caller", name, _udp(me, victim.mac, me.four, victim.four, UNDECLARED, *tags))
        yield _cell(at, "caller", f"{name}, IPv6", _udp(me, victim.mac, me.local, victim.local, UNDECLARED, *tags))
    tag = TAGS["VLAN tag"]
    yield _cell(at, "caller", "VLAN tag to everybody", _udp(me, EVERYBODY, me.four, victim.four, UNDECLARED, *tag))
    yield _cell(at, "atlas", "priority tag", _udp(me, gateway.mac, me.four, gateway.four, UNDECLARED, (VLAN, 0)))
    claim = (me.mac, victim.four)
    yield _cell(at, "caller", "tagged ARP", _frame(me, EVERYBODY, ARP, partial(arp, 2, claim, claim), *tag))
    yield _cell(at, "caller", "tagged router advertisement", _packet(
        me, mac_of_group(EVERY_NODE), (me.local, EVERY_NODE), ICMP6, _advertise(me), (VLAN, 0), hops=255))  # fmt: skip
    for kind in STRANGE:
        for to, whom in ((victim.mac, ""), (EVERYBODY, " to everybody")):
            yield _cell(at, "caller", f"ethertype {kind:#06x}{whom}", _frame(me, to, kind, bytes))
    llc = lambda mark: ether(victim.mac, me.mac, len(mark) + 3, b"\x42\x42\x03" + mark)  # noqa: E731
    yield _cell(at, "caller", "LLC", llc)
    yield _cell(at, "atlas", "ethertype 0x88b5", _frame(me, gateway.mac, 0x88B5, bytes))


def _another(world: World, at: str) -> Iterator[Probe]:
    """Another's address, or another's MAC address: never both, which only the declaration can exclude."""
    me, caller, gateway, database, idler = (world.at[name] for name in (at, "caller", "red", "db", "idler"))
    families = [(one.four, one.six) for one in (me, caller, gateway, database, idler)]
    for number, (own, its, way, its_db, its_idler) in enumerate(zip(*families, strict=True)):
        if number and not world.six:
            continue
        lan, internet = (world.addresses.outside[name][number] for name in ("lan", "internet"))
        v = _version(own)
        for kind, send in (("tcp", _tcp), ("udp", _udp)):
            say = f"the caller's address: {kind} {v}"
            yield _cell(at, "db", say, send(me, gateway.mac, its, its_db, TALK))
            yield _cell(at, "outside", say, send(me, gateway.mac, its, lan, TALK))
            if at != "idler":
                yield _cell(at, "idler", say, send(me, idler.mac, its, its_idler, TALK))
            for name, source in (("the database", its_db), ("the gateway", way)):
                say = f"an address of {name}: {kind} {v}"
                yield _cell(at, "caller", say, send(me, caller.mac, source, its, UNDECLARED))
        forged = Station(FORGED)
        yield _cell(at, "caller", f"a MAC address of nobody: udp {v}", _udp(forged, caller.mac, own, its, UNDECLARED))
        yield _cell(at, "atlas", f"a MAC address of nobody: udp {v}", _udp(forged, gateway.mac, own, way, UNDECLARED))
        for name, source in (("the LAN", lan), ("the internet", internet)):
            yield _cell(at, "caller", f"an address of {name}: {v}", _udp(me, caller.mac, source, its, UNDECLARED))


def _advertise(me: Station) -> Carry:
    """A router advertisement to every node."""
    return lambda mark: icmp6(me.local, EVERY_NODE, ROUTER, router(PREFIX, mark))


def _neighbours(world: World, at: str) -> Iterator[Probe]:
    """ARP, neighbour discovery, router advertisements and redirects."""
    me, caller, gateway = (world.at[name] for name in (at, "caller", "red"))
    for name, of, victim, into in (
        ("the gateway", gateway, caller, "caller"), ("the caller", caller, gateway, "atlas"),
    ):  # fmt: skip
        claim, to = (me.mac, of.four), (victim.mac, victim.four)
        yield _cell(at, into, f"ARP answer for {name}", _frame(me, victim.mac, ARP, partial(arp, 2, claim, to)))
        asked = partial(arp, 1, claim, (NOWHERE, victim.four))
        yield _cell(at, into, f"ARP question as {name}", _frame(me, EVERYBODY, ARP, asked))
        told = partial(arp, 2, claim, (EVERYBODY, of.four))
        yield _cell(at, "caller", f"gratuitous ARP for {name}", _frame(me, EVERYBODY, ARP, told))
    lie = partial(arp, 2, (FORGED, me.four), (caller.mac, caller.four))
    yield _cell(at, "caller", "ARP with a MAC address of nobody", _frame(me, caller.mac, ARP, lie))

    def discovery(into: str, name: str, ends: tuple[str, str], kind: int, body: Carry) -> Probe:
        mac = {EVERY_NODE: mac_of_group(EVERY_NODE), gateway.local: gateway.mac}.get(ends[1], caller.mac)
        message: Carry = lambda mark: icmp6(*ends, kind, body(mark))  # noqa: E731
        return _cell(at, into, name, _packet(me, mac, ends, ICMP6, message, hops=255))

    for name, target in (("the caller", caller.six or caller.local), ("the gateway", gateway.six or gateway.local)):
        told = partial(advertisement, target, me.mac)
        ends = (me.local, EVERY_NODE)
        yield discovery("caller", f"advertisement for {name}, to every node", ends, ADVERTISEMENT, told)
        yield discovery("caller", f"advertisement for {name}, as it", (target, caller.local), ADVERTISEMENT, told)
    asked = partial(solicitation, caller.local, me.mac)
    yield discovery("caller", "solicitation as the gateway", (gateway.local, caller.local), SOLICITATION, asked)
    asked = partial(solicitation, gateway.local, me.mac)
    yield discovery("atlas", "solicitation as the caller", (caller.local, gateway.local), SOLICITATION, asked)
    told = partial(advertisement, caller.local, me.mac)
    yield discovery("atlas", "advertisement for the caller", (me.local, gateway.local), ADVERTISEMENT, told)
    asked = partial(solicitation, caller.six or caller.local, "")
    yield discovery("caller", "duplicate detection for the caller's address", ("::", EVERY_NODE), SOLICITATION, asked)
    ends, mac = (me.local, EVERY_NODE), mac_of_group(EVERY_NODE)
    yield discovery("caller", "router advertisement", ends, ROUTER, partial(router, PREFIX))
    for name, kinds in EXTENSIONS.items():
        yield _cell(at, "caller", f"router advertisement behind {name}",
                    _behind(me, mac, ends, ICMP6, _advertise(me), kinds))  # fmt: skip
    yield _cell(at, "caller", "router advertisement in fragments", *_fragments(me, mac, ends, ICMP6, _advertise(me)))
    better = partial(redirect6, PREFIX, me.local, me.mac)
    yield discovery("caller", "redirect v6", (gateway.local, caller.local), REDIRECT, better)
    for name, source in (("as the gateway", gateway.four), ("as itself", me.four)):
        better = partial(redirect4, source, caller.four, me.four)
        yield _cell(at, "caller", f"redirect v4 {name}", _packet(me, caller.mac, (source, caller.four), ICMP, better))


def _behind_headers(world: World, at: str) -> Iterator[Probe]:
    """Ports that do not stand where a filter looks for them."""
    me, caller, gateway, database = (world.at[name] for name in (at, "caller", "red", "db"))
    for into, to, mac in (
        ("caller", caller, caller.mac),
        ("db", database, gateway.mac),
        ("atlas", gateway, gateway.mac),
    ):
        both = [(me.four, to.four)]
        if world.six:
            both.append((me.six, to.six))
        elif into != "db":
            both.append((me.local, to.local))
        for ends in both:
            body: Carry = partial(datagram, *ends, UNDECLARED)
            yield _cell(at, into, f"fragments {_version(ends[1])}", *_fragments(me, mac, ends, UDP, body))
        for ends in both[1:]:
            for name, kinds in EXTENSIONS.items():
                for kind, proto, body in (
                    ("udp", UDP, partial(datagram, *ends, UNDECLARED)), ("tcp", TCP, partial(syn, *ends, UNDECLARED)),
                ):  # fmt: skip
                    yield _cell(at, into, f"{kind} behind {name}", _behind(me, mac, ends, proto, body, kinds))


def _towards_the_host(world: World, at: str, gateway: Station) -> Iterator[Probe]:
    """What hosts answer to their own network: multicast, DHCP, and the declared places' UDP."""
    me, a = world.at[at], world.addresses
    for group, port in (("224.0.0.251", 5353), ("239.255.255.250", 1900), ("255.255.255.255", 67)):
        yield _cell(at, "atlas", f"{group}:{port}", _udp(me, mac_of_group(group), me.four, group, port))
    for group, port in (("ff02::fb", 5353), ("ff02::c", 1900), (EVERY_NODE, UNDECLARED)):
        yield _cell(at, "atlas", f"[{group}]:{port}", _udp(me, mac_of_group(group), me.local, group, port))
    yield _cell(at, "atlas", "the DHCP client v4", _udp(me, gateway.mac, me.four, gateway.four, 68, sport=67))
    yield _cell(at, "atlas", "the DHCP client v6", _udp(me, gateway.mac, me.local, gateway.local, 546, sport=547))
    for port in (HOST_UDP, UNDECLARED):
        yield _cell(at, "atlas", f"link-local udp/{port}", _udp(me, gateway.mac, me.local, gateway.local, port))
    if (
        at != "custom"
    ):  # that a bridge is a container's, and not a guest's of another kind, is known from the next run on
        yield _cell(at, "atlas", "an echo", _packet(me, gateway.mac, (me.four, gateway.four), ICMP, echo))
    sources = {"an address of the LAN": a.outside["lan"], "an address of the internet": a.outside["internet"],
               "an address of the host": a.lan, "an address of the database": a.of["db"],
               "its own address": [me.four, me.six]}  # fmt: skip
    for name, both in sources.items():
        for source, host in zip(both, a.lan[: 1 + world.six], strict=False):
            if not source:
                continue
            say = f"{name} {_version(host)}:"
            yield _cell(at, "atlas", f"{say} udp/{HOST_UDP}", _udp(me, gateway.mac, source, host, HOST_UDP))
            yield _cell(at, "db", f"{say} udp/{PUBLISHED_UDP}", _udp(me, gateway.mac, source, host, PUBLISHED_UDP))
            yield _cell(at, "db", f"{say} tcp/{DATABASE}", _tcp(me, gateway.mac, source, host, DATABASE))


def _strangers(world: World) -> Iterator[Probe]:
    """Ordinary connections of containers that nobody declared."""
    a = world.addresses
    for at in ("guest", "stray", "custom"):
        six = world.six and bool(world.at[at].six)
        for address in a.lan[: 1 + six]:
            for proto, port in (("tcp", ANYWHERE), ("udp", ANYWHERE), ("tcp", DATABASE), ("tcp", OTHER)):
                yield Probe(at, "db", proto, address, port, "lan")
            yield Probe(at, "atlas", "tcp", address, UNDECLARED, "lan")
        for into in ("db", "caller"):
            for address in a.of[into][: 1 + six]:
                for proto in ("tcp", "udp"):
                    yield Probe(at, into, proto, address, UNDECLARED)


def _from_the_host(world: World) -> Iterator[Probe]:
    """A process of the host that is not root's."""
    for into, ports in (("db", (UNDECLARED, DATABASE)), ("caller", (UNDECLARED,)), ("vault", (UNDECLARED,))):
        for address in world.addresses.of[into]:
            for port in ports:
                yield Probe("nobody", into, "tcp", address, port)
            yield Probe("nobody", into, "udp", address, UNDECLARED)


def _on_the_wrong_wire(world: World) -> Iterator[Probe]:
    """Addresses of the LAN and of a container on the wire of the internet."""
    me, there, a = world.at["outside"], world.at["wan"], world.addresses

    def cell(into: str, what: str, frame: Carry) -> Probe:
        return _cell("outside", into, f"{what} on the wan", frame, device="eth1")

    for number, source in enumerate(a.outside["lan"]):
        for door, address in (("wan", a.wan[number]), ("lan", a.lan[number])):
            say = f"the LAN's address {_version(address)} by {door},"
            yield cell("atlas", f"{say} udp/{HOST_UDP}", _udp(me, there.mac, source, address, HOST_UDP))
            if number < a.published:
                yield cell("db", f"{say} udp/{PUBLISHED_UDP}", _udp(me, there.mac, source, address, PUBLISHED_UDP))
                yield cell("db", f"{say} tcp/{DATABASE}", _tcp(me, there.mac, source, address, DATABASE))
    # Straight to a container, which publishes some ports under their own numbers.
    ports = {"db": (UNDECLARED, PUBLISHED_UDP, DATABASE), "caller": (UNDECLARED,)}
    for into in ports:
        for source, address in zip(a.outside["lan"], a.of[into], strict=False):
            for port in ports[into]:
                kind, send = ("tcp", _tcp) if port == DATABASE else ("udp", _udp)
                say = f"the LAN's address {_version(address)}, straight, {kind}/{port}"
                yield cell(into, say, send(me, there.mac, source, address, port))
    yield cell("db", "the caller's address", _tcp(me, there.mac, a.of["caller"][0], a.of["db"][0], TALK))
