"""Hands out subnets and host numbers: pure, stable, nothing twice."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from ringfence.compile.book import Book
from ringfence.model import Lab, LabError, Problem
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
    found += [Reserved("lab_resolvers", ipaddress.ip_network(a)) for a in lab.resolvers]
    return found


def allocate(lab: Lab, book: Book, reserved: Sequence[Reserved]) -> Book:
    """Give every segment a subnet and every service a host number in each of its segments.

    What the lab says explicitly wins; what the book holds stays; the rest is chosen by hash. Entries of names that
    are gone are dropped.

    Raises:
        LabError: something clashes, or the pool is exhausted.
    """
    problems: list[Problem] = []
    subnets = _subnets(lab, book, reserved, problems)
    ids = _ids(lab, book)
    numbers = _numbers(lab, book, subnets, problems)
    if problems:
        raise LabError(problems)
    return Book(
        {name: (str(subnet), ids[name]) for name, subnet in subnets.items()},
        numbers,
    )


def _slots(name: str, count: int) -> Iterator[int]:
    """Yield 0 … count-1, beginning at the name's preferred one."""
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % count
    return ((start + step) % count for step in range(count))


def _clash(subnet: Network, reserved: Sequence[Reserved]) -> Reserved | None:
    return next((r for r in reserved if r.network.version == subnet.version and r.network.overlaps(subnet)), None)


def _subnets(lab: Lab, book: Book, reserved: Sequence[Reserved], problems: list[Problem]) -> dict[str, IPv4Network]:
    chosen: dict[str, IPv4Network] = {}
    for name, segment in sorted(lab.segments.items()):
        owner = f"lab_segments.{name}.subnet"
        booked = _booked(lab, book, name) if segment.subnet is None else None
        subnet = segment.subnet or booked
        if subnet is None:
            continue
        fix = "choose another, or leave subnet out to get a free one"
        if booked:
            owner, fix = f"lab_segments.{name}", "delete its line in addresses.yml to get another one"
        other = _clash(subnet, reserved)
        if other:
            problems.append(Problem(owner, f"'{subnet}' overlaps {other.what}, {other.network} ({fix})"))
        chosen[name] = subnet
    for first, second in _pairs(chosen):
        if chosen[first].overlaps(chosen[second]):
            # Blame the explicit one: the other was there before, or both are explicit.
            late, early = (second, first) if lab.segments[second].subnet else (first, second)
            problems.append(
                Problem(
                    f"lab_segments.{late}.subnet",
                    f"'{chosen[late]}' overlaps the segment '{early}', {chosen[early]} "
                    f"(choose another, or leave subnet out to get a free one)",
                )
            )
    taken = [*reserved, *(Reserved(name, subnet) for name, subnet in chosen.items())]
    for name in sorted(set(lab.segments) - set(chosen)):
        found = _free_subnet(lab.pool, name, taken)
        if found is None:
            problems.append(
                Problem("lab_pool", f"'{lab.pool}' has no free /24 left for '{name}' (declare a larger lab_pool)")
            )
            break
        chosen[name] = found
        taken.append(Reserved(name, found))
    return chosen


def _pairs(chosen: Mapping[str, IPv4Network]) -> Iterator[tuple[str, str]]:
    # Sorted by address, overlapping networks are neighbours of one that contains them.
    ordered = sorted(chosen, key=lambda name: (chosen[name].network_address, chosen[name].prefixlen, name))
    for index, first in enumerate(ordered):
        for second in ordered[index + 1 :]:
            if chosen[second].network_address > chosen[first].broadcast_address:
                break
            yield first, second


def _booked(lab: Lab, book: Book, name: str) -> IPv4Network | None:
    """Return the recorded subnet if it still belongs to the pool."""
    if name not in book.segments:
        return None
    try:
        subnet = IPv4Network(book.segments[name][0])
    except ValueError:
        return None
    return subnet if subnet.subnet_of(lab.pool) else None


def _free_subnet(pool: IPv4Network, name: str, taken: Sequence[Reserved]) -> IPv4Network | None:
    if pool.prefixlen > 24:
        return None
    near = [t for t in taken if t.network.version == 4 and t.network.overlaps(pool)]
    base = int(pool.network_address)
    for slot in _slots(name, 2 ** (24 - pool.prefixlen)):
        subnet = IPv4Network((base + slot * 256, 24))
        if _clash(subnet, near) is None:
            return subnet
    return None


def _ids(lab: Lab, book: Book) -> dict[str, int]:
    room = 2 ** (64 - lab.ula.prefixlen)
    ids: dict[str, int] = {}
    for name in sorted(lab.segments):
        booked = book.segments[name][1] if name in book.segments else 0
        if 0 < booked < room and booked not in ids.values():
            ids[name] = booked
    taken = set(ids.values()) | {0}
    for name in sorted(set(lab.segments) - set(ids)):
        ids[name] = next(slot for slot in _slots(name, room) if slot not in taken)
        taken.add(ids[name])
    return ids


def _numbers(
    lab: Lab, book: Book, subnets: Mapping[str, IPv4Network], problems: list[Problem]
) -> dict[str, dict[str, int]]:
    numbers: dict[str, dict[str, int]] = {name: {} for name in sorted(lab.services)}
    for segment, subnet in sorted(subnets.items()):
        members = sorted(name for name, service in lab.services.items() if segment in service.segments)
        taken: dict[int, str] = {}
        for name in members:
            number = _explicit(lab, name, segment, subnet, taken, problems)
            if number is not None:
                numbers[name][segment] = number
                taken.setdefault(number, name)
        last = min(subnet.num_addresses, 65536) - 2
        for name in members:
            booked = book.services.get(name, {}).get(segment)
            if segment in numbers[name] or booked is None or not _GATEWAY < booked <= last:
                continue
            if booked in taken:
                other = taken[booked]
                if lab.services[other].address:
                    problems.append(_taken_by_book(subnet, booked, other, name, taken))
                continue
            numbers[name][segment] = booked
            taken[booked] = name
        for name in members:
            if segment not in numbers[name]:
                slot = next((s + 2 for s in _slots(name, last - 1) if s + 2 not in taken), None)
                if slot is None:
                    problems.append(
                        Problem(
                            f"lab_segments.{segment}",
                            f"'{subnet}' has no address left for '{name}' (declare a larger subnet, or split it)",
                        )
                    )
                    continue
                numbers[name][segment] = slot
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
