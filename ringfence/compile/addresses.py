"""Hands out subnets and host numbers: pure, stable, nothing twice."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from ringfence.compile.book import Book, Place
from ringfence.model import Lab, LabError, Problem
from ringfence.model.read import DEFAULT_POOL, EARLIER_POOL
from ringfence.model.values import Network

DEFAULT_BRIDGE = "172.17.0.0/16"
_GATEWAY = 1


@dataclass(frozen=True)
class Reserved:
    """A network that no segment may overlap.

    Attributes:
        what: whose it is, for messages.
        network: the network; single addresses as /32 or /128.
    """

    what: str
    network: Network


def reserved_by(lab: Lab, docker_pools: Sequence[Mapping[str, object]]) -> list[Reserved]:
    """Return what the lab itself rules out: places, hosts, vantages, resolvers and Docker's own networks."""
    found = [Reserved("Docker's default bridge", ipaddress.ip_network(DEFAULT_BRIDGE))]
    for pool in docker_pools:
        found.append(Reserved("docker_address_pools", ipaddress.ip_network(str(pool["base"]), strict=False)))
    for name, networks in lab.places.items():
        # A place that is everything is refused elsewhere; it must not look like a clash with every segment.
        found += [Reserved(f"the place '{name}'", network) for network in networks if network.prefixlen]
    for name, host in lab.hosts.items():
        found += [Reserved(f"an address of the host '{name}'", ipaddress.ip_network(a)) for a in host.addresses]
    for name, vantage in lab.vantages.items():
        for address in (vantage.address, vantage.address6):
            if address is not None:
                found.append(Reserved(f"the vantage '{name}'", ipaddress.ip_network(address)))
    if vpn := lab.vpn or lab.tailnet:
        found += [Reserved("lab_vpn.network", vpn.network)]
        found += [Reserved("lab_vpn.network6", vpn.network6)] if vpn.network6 else []
    found += [Reserved("lab_resolvers", ipaddress.ip_network(a)) for a in lab.resolvers or ()]
    return found


def allocate(lab: Lab, book: Book, reserved: Sequence[Reserved]) -> Book:
    """Give every segment a subnet on each of its hosts, and every service a host number in each of its segments.

    What the lab says explicitly wins; what the book holds stays; the rest is chosen by hash. Entries of names that
    are gone are dropped.

    Raises:
        LabError: something clashes, or the pool is exhausted.
    """
    problems: list[Problem] = []
    places = places_of(lab)
    booked = _booked(lab, places, book)
    subnets = _subnets(lab, places, booked, reserved, problems)
    ids = _ids(lab, places, booked, problems)
    numbers = _numbers(lab, book, subnets, problems)
    if problems:
        raise LabError(problems)
    return Book({place: (str(subnet), ids[place]) for place, subnet in subnets.items()}, numbers)


def places_of(lab: Lab) -> dict[Place, str]:
    """Return where each segment needs a subnet, by segment and host, and the name whose hash it prefers.

    That is on each host that uses the segment or has a subnet declared for it; or else nowhere yet, but kept ready.
    The first of a segment's hosts has the segment's own name, as if it were the only one.
    """
    hosts = {segment: set(declared.subnet) - {""} for segment, declared in lab.segments.items()}
    for service in lab.services.values():
        for segment in service.segments:
            hosts[segment].add(service.host)
    return {
        Place(host, segment): f"{segment}@{host}" if index else segment
        for segment in sorted(hosts)
        for index, host in enumerate(sorted(hosts[segment] or {""}))
    }


def _booked(lab: Lab, places: Iterable[Place], book: Book) -> dict[Place, tuple[str, int]]:
    """Return what the book holds for the lab's places.

    An entry that names no host, or one that no longer has the segment, passes to a host that has none of its own:
    rather to one with services that were in the segment already.
    """
    found = {place: book.segments[place] for place in places if place in book.segments}
    left: dict[str, list[Place]] = {}
    for place in sorted(set(book.segments) - set(found)):
        left.setdefault(place.segment, []).append(place)
    settled = {Place(lab.services[name].host, s) for name, s in _numbered(book) if name in lab.services}
    for heir in sorted(set(places) - set(found), key=lambda place: (place not in settled, place)):
        if left.get(heir.segment):
            found[heir] = book.segments[left[heir.segment].pop(0)]
    return found


def _numbered(book: Book) -> Iterator[tuple[str, str]]:
    return ((name, segment) for name, numbers in book.services.items() for segment in numbers)


def slots(name: str, count: int) -> Iterator[int]:
    """Yield 0 … count-1, beginning at the name's preferred one."""
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % count
    return ((start + step) % count for step in range(count))


def _clash(subnet: Network, reserved: Sequence[Reserved]) -> Reserved | None:
    return next((r for r in reserved if r.network.version == subnet.version and r.network.overlaps(subnet)), None)


def _said(lab: Lab, places: Mapping[Place, str]) -> dict[Place, IPv4Network]:
    """Return the subnets that the lab says. (One that could be for several hosts is refused elsewhere.)"""
    found = {}
    for place, name in places.items():
        subnet = lab.segments[place.segment].subnet
        chosen = subnet.get(place.host) or (subnet.get("") if name == place.segment else None)
        if chosen:
            found[place] = chosen
    return found


def _subnets(
    lab: Lab,
    places: Mapping[Place, str],
    booked: Mapping[Place, tuple[str, int]],
    reserved: Sequence[Reserved],
    problems: list[Problem],
) -> dict[Place, IPv4Network]:
    said = _said(lab, places)
    kept = {place: subnet for place in booked if place not in said and (subnet := _in_pool(lab, booked[place][0]))}
    chosen = {place: (said | kept)[place] for place in places if place in said or place in kept}
    for place, subnet in chosen.items():
        owner, fix = f"lab_segments.{place.segment}.subnet", "choose another, or leave subnet out to get a free one"
        if place in kept:
            owner, fix = f"lab_segments.{place.segment}", "delete its line in addresses.yml to get another one"
        other = _clash(subnet, reserved)
        if other:
            problems.append(Problem(owner, f"'{subnet}' overlaps {other.what}, {other.network} ({fix})"))
    for first, second in _overlapping(chosen):
        # Blame the explicit one: the other was there before, or both are explicit.
        late, early = (second, first) if second in said else (first, second)
        problems.append(
            Problem(
                f"lab_segments.{late.segment}.subnet",
                f"'{chosen[late]}' overlaps the segment '{_name(early, late)}', {chosen[early]} "
                f"(choose another, or leave subnet out to get a free one)",
            )
        )
    taken = [*reserved, *(Reserved(place.segment, subnet) for place, subnet in chosen.items())]
    for place in [place for place in places if place not in chosen]:
        found = next((free for pool in pools(lab) if (free := _free_subnet(pool, places[place], taken))), None)
        if found is None:
            problems.append(
                Problem(
                    "lab_pool", f"'{lab.pool}' has no free /24 left for '{place.segment}' (declare a larger lab_pool)"
                )
            )
            break
        chosen[place] = found
        taken.append(Reserved(place.segment, found))
    return chosen


def _name(place: Place, other: Place) -> str:
    """Name a place for a message, with its host where the other one is of the same segment."""
    return f"{place.segment}@{place.host}" if place.segment == other.segment else place.segment


def _overlapping(chosen: Mapping[Place, IPv4Network]) -> Iterator[tuple[Place, Place]]:
    # Sorted by address, overlapping networks are neighbours of one that contains them.
    ordered = sorted(chosen, key=lambda p: (chosen[p].network_address, chosen[p].prefixlen, p.segment, p.host))
    for index, first in enumerate(ordered):
        for second in ordered[index + 1 :]:
            if chosen[second].network_address > chosen[first].broadcast_address:
                break
            yield first, second


def pools(lab: Lab) -> list[IPv4Network]:
    """Return where subnets come from: lab_pool, and by default in the second place what was the default before."""
    return [lab.pool, *([IPv4Network(EARLIER_POOL)] if lab.pool == IPv4Network(DEFAULT_POOL) else [])]


def _in_pool(lab: Lab, text: str) -> IPv4Network | None:
    """Return a recorded subnet if it still belongs to the pool, or to the one that was the default before."""
    try:
        subnet = IPv4Network(text)
    except ValueError:
        return None
    return subnet if any(subnet.subnet_of(pool) for pool in pools(lab)) else None


def _free_subnet(pool: IPv4Network, name: str, taken: Sequence[Reserved]) -> IPv4Network | None:
    if pool.prefixlen > 24:
        return None
    near = [t for t in taken if t.network.version == 4 and t.network.overlaps(pool)]
    base = int(pool.network_address)
    for slot in slots(name, 2 ** (24 - pool.prefixlen)):
        subnet = IPv4Network((base + slot * 256, 24))
        if _clash(subnet, near) is None:
            return subnet
    return None


def _ids(
    lab: Lab, places: Mapping[Place, str], booked: Mapping[Place, tuple[str, int]], problems: list[Problem]
) -> dict[Place, int]:
    room = 2 ** max(0, 64 - lab.ula.prefixlen)
    ids: dict[Place, int] = {}
    for place in places:
        number = booked[place][1] if place in booked else 0
        if 0 < number < room and number not in ids.values():
            ids[place] = number
    taken = set(ids.values()) | {0}
    for place in places:
        if place not in ids:
            free = next((slot for slot in slots(places[place], room) if slot not in taken), None)
            if free is None:
                many = f"'{lab.ula}' has room for {room - 1} segments, and there are {len(places)}"
                problems.append(Problem("lab_ula", f"{many} (take a larger one, such as fd12:3456:789a::/48)"))
                break
            ids[place] = free
            taken.add(free)
    return ids


def _numbers(
    lab: Lab, book: Book, subnets: Mapping[Place, IPv4Network], problems: list[Problem]
) -> dict[str, dict[str, int]]:
    members: dict[Place, list[str]] = {place: [] for place in subnets}
    # Numbers in use in a segment on any host: a service that moves there finds its own one free.
    held: dict[str, set[int]] = {segment: set() for segment in lab.segments}
    for name, service in sorted(lab.services.items()):
        for segment in service.segments:
            members.setdefault(Place(service.host, segment), []).append(name)
            held[segment].add(book.services.get(name, {}).get(segment, 0))
    numbers: dict[str, dict[str, int]] = {name: {} for name in sorted(lab.services)}
    for place, subnet in subnets.items():
        given = _numbers_on(lab, book, place, subnet, members[place], held[place.segment], problems)
        for name, number in given.items():
            numbers[name][place.segment] = number
            held[place.segment].add(number)
    return numbers


def _numbers_on(
    lab: Lab,
    book: Book,
    place: Place,
    subnet: IPv4Network,
    members: Sequence[str],
    held: Collection[int],
    problems: list[Problem],
) -> dict[str, int]:
    """Return the host numbers of a segment's services on one host; ``held`` ones only if no other is free."""
    segment = place.segment
    numbers: dict[str, int] = {}
    taken: dict[int, str] = {}
    for name in members:
        number = _explicit(lab, name, segment, subnet, taken, problems)
        if number is not None:
            numbers[name] = number
            taken.setdefault(number, name)
    last = min(subnet.num_addresses, 65536) - 2
    for name in members:
        booked = book.services.get(name, {}).get(segment)
        if name in numbers or booked is None or not _GATEWAY < booked <= last:
            continue
        if booked in taken:
            other = taken[booked]
            if lab.services[other].address:
                problems.append(_taken_by_book(subnet, booked, other, name, taken))
            continue
        numbers[name] = booked
        taken[booked] = name
    for name in members:
        if name in numbers:
            continue
        free = (s + 2 for s in slots(name, last - 1) if s + 2 not in taken)
        slot = next((s for s in free if s not in held), None) or next(
            (s + 2 for s in slots(name, last - 1) if s + 2 not in taken), None
        )
        if slot is None:
            problems.append(
                Problem(
                    f"lab_segments.{segment}",
                    f"'{subnet}' has no address left for '{name}' (declare a larger subnet, or split it)",
                )
            )
            continue
        numbers[name] = slot
        taken[slot] = name
    return numbers


def _explicit(
    lab: Lab,
    name: str,
    segment: str,
    subnet: IPv4Network,
    taken: Mapping[int, str],
    problems: list[Problem],
) -> int | None:
    given = lab.services[name].address
    alone = len(lab.services[name].segments) == 1
    address = given.get(segment) or (given.get("") if alone else None)
    if address is None:
        return None
    owner = f"lab_services.{name}.address"
    if address not in subnet:
        problems.append(
            Problem(owner, f"'{address}' is not in the segment '{segment}' (choose one of {subnet}, or leave it out)")
        )
        return None
    number = int(address) - int(subnet.network_address)
    if number in (0, _GATEWAY) or address == subnet.broadcast_address:
        problems.append(
            Problem(
                owner,
                f"'{address}' is the first, the gateway's or the last address of {subnet} "
                f"(choose {subnet[2]} or a later one)",
            )
        )
        return None
    if number in taken:
        problems.append(
            Problem(owner, f"'{address}' is already the address of '{taken[number]}' (give one of the two another)")
        )
        return None
    return number


def _taken_by_book(subnet: IPv4Network, number: int, explicit: str, booked: str, taken: Mapping[int, str]) -> Problem:
    free = next((n for n in range(2, subnet.num_addresses - 1) if n not in taken), 2)
    return Problem(
        f"lab_services.{explicit}.address",
        f"'{subnet[number]}' is already the address of '{booked}' (choose another such as {subnet[free]}, "
        f"or delete the line of '{booked}' in addresses.yml to renumber it)",
    )


def subnet6(ula: IPv6Network, number: int) -> IPv6Network:
    """Return the numbered /64 of the lab's prefix."""
    return IPv6Network((int(ula.network_address) + (number << 64), 64))
