"""Addresses are stable: whatever comes and goes, nobody else is renumbered, and nothing is handed out twice."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.compile import compile_lab
from ringfence.compile.book import Book, Place, dump, parse
from ringfence.model import LabError

NAMES = st.from_regex(r"\A[a-z][a-z0-9]{0,8}\Z")
HOSTS = ("atlas", "borea", "helios")
# Service → the host that it runs on, and its segments. Few names, so that many meet in a segment, on a host.
SERVICES = st.tuples(st.sampled_from(HOSTS), st.sets(st.sampled_from(["one", "two", "three"]), min_size=1))
LABS = st.dictionaries(NAMES, SERVICES, max_size=25)

Declared = dict[str, tuple[str, Any]]


def lab(services: Declared, **variables: Any) -> dict[str, Any]:
    segments = sorted({segment for _, names in services.values() for segment in names})
    return {
        "lab_hosts": {name: {"addresses": [f"192.168.10.{number}"]} for number, name in enumerate(HOSTS, 5)},
        "lab_segments": {segment: {} for segment in segments},
        "lab_services": {
            name: {"host": host, "image": "x:1", "segments": sorted(names)} for name, (host, names) in services.items()
        },
        **variables,
    }


def on_atlas(services: dict[str, Any]) -> Declared:
    return {name: ("atlas", segments) for name, segments in services.items()}


def assert_kept(old: Book, new: Book) -> None:
    """Whatever is in both books is the same in both."""
    for place in set(old.segments) & set(new.segments):
        assert old.segments[place] == new.segments[place]
    for service in set(old.services) & set(new.services):
        for segment in set(old.services[service]) & set(new.services[service]):
            assert old.services[service][segment] == new.services[service][segment]


@settings(max_examples=60, deadline=None)
@given(before=LABS, after=LABS)
def test_what_stays_keeps_its_addresses(before: Declared, after: Declared) -> None:
    stays = {name: before.get(name, service) for name, service in after.items()}  # nothing moves to another host
    first = compile_lab(lab(before)).book
    second = compile_lab(lab({**before, **stays}), first).book
    third = compile_lab(lab(stays), second).book
    assert_kept(first, second)
    assert_kept(second, third)
    assert set(third.services) == set(after)


@settings(max_examples=60, deadline=None)
@given(hosts=st.lists(st.sampled_from(HOSTS[:2]), min_size=2, max_size=13), moved=st.integers(0, 12))
def test_a_service_that_moves_to_another_host_renumbers_nobody_there(hosts: list[str], moved: int) -> None:
    # So small that, each host by itself, most would have a number that is taken on the other one.
    segments = {"one": {"subnet": {"atlas": "172.20.9.0/28", "borea": "172.20.9.16/28"}}}
    services = {f"s{n}": (host, ["one"]) for n, host in enumerate(hosts)}
    before = compile_lab(lab(services, lab_segments=segments)).book
    name = f"s{moved % len(hosts)}"
    services[name] = ("borea" if services[name][0] == "atlas" else "atlas", ["one"])
    assert_kept(before, compile_lab(lab(services, lab_segments=segments), before).book)


@settings(max_examples=60, deadline=None)
@given(services=LABS)
def test_nothing_is_handed_out_twice(services: Declared) -> None:
    compiled = compile_lab(lab(services))
    assert {(place.host, place.segment) for place in compiled.book.segments} == {
        (host, segment) for host, segments in services.values() for segment in segments
    }
    networks = [ipaddress.ip_network(subnet) for subnet, _ in compiled.book.segments.values()]
    networks += [ipaddress.ip_network(network.subnet6) for network in compiled.plan.networks.values()]
    assert not any(a.version == b.version and a.overlaps(b) for i, a in enumerate(networks) for b in networks[:i])
    addresses = [a for legs in compiled.plan.legs.values() for leg in legs for a in (leg.address, leg.address6)]
    assert len(addresses) == len(set(addresses))
    gateways = {a for network in compiled.plan.networks.values() for a in (network.gateway, network.gateway6)}
    assert not gateways & set(addresses)
    for name, legs in compiled.plan.legs.items():
        assert {leg.network.host for leg in legs} == {services[name][0]}


@settings(max_examples=60, deadline=None)
@given(services=LABS)
def test_a_book_survives_the_disk(services: Declared) -> None:
    book = compile_lab(lab(services)).book
    assert parse(dump(book), "addresses.yml") == book


def before_hosts(book: Book) -> str:
    """The book's text as it was written when a segment had one subnet for all hosts."""
    data = {
        "segments": {place.segment: {"subnet": subnet, "id": n} for place, (subnet, n) in book.segments.items()},
        "services": {name: dict(numbers) for name, numbers in book.services.items()},
    }
    return yaml.safe_dump(data)


@settings(max_examples=60, deadline=None)
@given(services=LABS, more=LABS)
def test_an_old_book_keeps_its_meaning_also_when_other_hosts_join(services: Declared, more: Declared) -> None:
    old = {name: ("borea", segments) for name, (_, segments) in services.items()}
    book = compile_lab(lab(old)).book
    read = parse(before_hosts(book), "addresses.yml")
    assert {place.host for place in read.segments} <= {""}
    assert parse(dump(read), "addresses.yml") == read
    assert compile_lab(lab(old), read).book == book
    assert_kept(book, compile_lab(lab({**more, **old}), read).book)


def test_an_old_subnet_of_two_hosts_stays_with_one_of_them() -> None:
    declared = {"a": ("atlas", ["one"]), "b": ("borea", ["one"])}
    old = parse("segments: {one: {subnet: 172.20.7.0/24, id: 7}}\nservices: {a: {one: 9}, b: {one: 8}}", "x")
    book = compile_lab(lab(declared), old).book
    assert book.segments[Place("atlas", "one")] == ("172.20.7.0/24", 7)
    assert book.segments[Place("borea", "one")] != ("172.20.7.0/24", 7)
    assert book.services == {"a": {"one": 9}, "b": {"one": 8}}


def test_a_book_with_one_number_twice_is_mended() -> None:
    book = compile_lab(lab(on_atlas({"a": ["one", "two"]}))).book
    merged = Book({place: (subnet, 7) for place, (subnet, _) in book.segments.items()}, book.services)
    assert (
        len({number for _, number in compile_lab(lab(on_atlas({"a": ["one", "two"]})), merged).book.segments.values()})
        == 2
    )


@pytest.mark.parametrize("name", ["on", "null", "yes", "e1", "x-y"])
def test_a_name_that_yaml_reads_otherwise_keeps_its_entry(name: str) -> None:
    book = compile_lab(lab({name: ("atlas", [name])})).book
    assert parse(dump(book), "addresses.yml") == book
    assert compile_lab(lab({name: ("atlas", [name])}), parse(dump(book), "x")).book == book


def test_a_segment_that_nobody_uses_keeps_its_subnet_for_whoever_comes() -> None:
    used = compile_lab(lab({"a": ("atlas", ["one"])}, lab_segments={"one": {"subnet": "172.20.44.0/24"}})).book
    unused = compile_lab(lab({}, lab_segments={"one": {}}), used).book
    assert unused.segments == {Place("", "one"): used.segments[Place("atlas", "one")]}
    again = compile_lab(lab({"b": ("borea", ["one"])}), parse(dump(unused), "x")).book
    assert again.segments == {Place("borea", "one"): used.segments[Place("atlas", "one")]}


def test_a_small_segment_is_filled_to_the_last_address() -> None:
    services = on_atlas({f"s{number}": ["one"] for number in range(13)})
    declared = lab(services, lab_segments={"one": {"subnet": "172.20.9.0/28"}})
    numbers = sorted(number["one"] for number in compile_lab(declared).book.services.values())
    assert numbers == list(range(2, 15))


def test_small_segments_on_two_hosts_are_filled_to_the_last_address() -> None:
    services = {f"s{number}": (HOSTS[number % 2], ["one"]) for number in range(26)}
    subnets = {"atlas": "172.20.9.0/28", "borea": "172.20.9.16/28"}
    compiled = compile_lab(lab(services, lab_segments={"one": {"subnet": subnets}}))
    addresses = {ipaddress.ip_address(leg.address) for legs in compiled.plan.legs.values() for leg in legs}
    assert len(addresses) == 26
    assert addresses < set(ipaddress.ip_network("172.20.9.0/27"))


def test_a_subnet_may_be_said_for_each_host_and_an_address_is_within_the_own_hosts() -> None:
    declared = lab(
        {"a": ("atlas", ["one"]), "b": ("borea", ["one"]), "c": ("helios", ["one"])},
        lab_segments={"one": {"subnet": {"atlas": "172.20.9.0/24", "borea": "172.20.10.0/24"}}},
    )
    declared["lab_services"]["a"]["address"] = "172.20.9.7"
    declared["lab_services"]["b"]["address"] = "172.20.10.7"  # the same number, on another host
    compiled = compile_lab(declared)
    assert compiled.plan.legs["a"][0].address == "172.20.9.7"
    assert compiled.plan.legs["b"][0].address == "172.20.10.7"
    assert compiled.book.segments[Place("helios", "one")][0] not in ("172.20.9.0/24", "172.20.10.0/24")
    declared["lab_services"]["a"]["address"] = "172.20.10.8"
    with pytest.raises(LabError, match=r"'172.20.10.8' is not in the segment 'one' \(choose one of 172.20.9.0/24"):
        compile_lab(declared)


def test_a_segment_has_a_subnet_of_its_own_on_each_host() -> None:
    hosts = compile_lab(lab({"a": ("atlas", ["one"]), "b": ("borea", ["one"]), "c": ("borea", ["two"])})).hosts
    (there,) = hosts["atlas"]["segments_networks"]
    here, other = hosts["borea"]["segments_networks"]
    assert (there["bridge"], here["bridge"], other["bridge"]) == ("rf-one", "rf-one", "rf-two")
    for key in ("subnet", "gateway", "subnet6", "gateway6"):
        assert len({there[key], here[key], other[key]}) == 3
    assert [segment["subnet"] for segment in hosts["atlas"]["policy_segments"]] == [there["subnet"]]
    assert set(hosts["atlas"]["policy_private"]) >= {there["subnet"], here["subnet"], here["subnet6"]}


def test_an_explicit_subnet_is_remembered_when_it_is_no_longer_said() -> None:
    services = on_atlas({"a": ["one"]})
    said = compile_lab(lab(services, lab_segments={"one": {"subnet": "172.21.77.0/24"}})).book
    assert compile_lab(lab(services), said).book.segments[Place("atlas", "one")][0] == "172.21.77.0/24"


def test_v6_has_the_same_host_number_as_v4() -> None:
    compiled = compile_lab(lab(on_atlas({"a": ["one"]}), lab_ula="fd12:3456:789a::/48"))
    leg = compiled.plan.legs["a"][0]
    number = compiled.book.services["a"]["one"]
    assert leg.address.endswith(f".{number}")
    assert int(ipaddress.ip_address(leg.address6)) & 0xFFFF == number
    assert ipaddress.ip_network(leg.network.subnet6).subnet_of(ipaddress.ip_network("fd12:3456:789a::/48"))


def test_seventy_segments_and_a_hundred_services_fit() -> None:
    services = {f"service-{n}": {f"segment-{n % 70}", f"segment-{(n * 7) % 70}"} for n in range(100)}
    compiled = compile_lab(lab(on_atlas(services)))
    assert len(compiled.hosts["atlas"]["segments_networks"]) == 70
    assert len(compiled.hosts["atlas"]["stack_projects"]) == 100


# What Docker hands out by itself where nobody says otherwise (its libnetwork's ipamutils).
BY_DOCKER = [ipaddress.IPv4Network(f"172.{n}.0.0/16") for n in range(17, 32)] + [
    ipaddress.IPv4Network("192.168.0.0/16")
]
ONE = on_atlas({"app": ["one"], "db": ["one", "two"]})


def subnets(book: Book) -> dict[str, ipaddress.IPv4Network]:
    return {place.segment: ipaddress.IPv4Network(subnet) for place, (subnet, _) in book.segments.items()}


def test_the_default_pool_is_nothing_that_docker_hands_out() -> None:
    for subnet in subnets(compile_lab(lab(ONE)).book).values():
        assert not any(subnet.overlaps(other) for other in BY_DOCKER)


def test_what_the_default_before_handed_out_stays_and_what_is_new_comes_from_the_other() -> None:
    before = Book({Place("atlas", "one"): ("172.20.9.0/24", 7)}, {"app": {"one": 12}})
    first = compile_lab(lab(ONE), before)
    assert first.book.segments[Place("atlas", "one")] == ("172.20.9.0/24", 7)
    assert first.book.services["app"]["one"] == 12
    assert subnets(first.book)["two"].subnet_of(ipaddress.IPv4Network("10.180.0.0/14"))
    second = compile_lab(lab({**ONE, **on_atlas({"web": ["three"]})}), parse(dump(first.book), "addresses.yml"))
    assert_kept(first.book, second.book)


def test_where_the_own_places_take_the_default_pool_there_is_another() -> None:
    wide = lab(ONE, lab_places={"lan": ["10.0.0.0/8"]})
    for subnet in subnets(compile_lab(wide).book).values():
        assert subnet.subnet_of(ipaddress.IPv4Network("172.20.0.0/14"))


def test_a_pool_that_is_said_is_the_only_one() -> None:
    before = Book({Place("atlas", "one"): ("172.20.9.0/24", 7)}, {})
    said = compile_lab(lab(ONE, lab_pool="10.64.0.0/16"), before)
    for subnet in subnets(said.book).values():
        assert subnet.subnet_of(ipaddress.IPv4Network("10.64.0.0/16"))
    with pytest.raises(LabError, match=r"lab_pool: '10\.64\.0\.0/16' has no free /24 left"):
        compile_lab(lab(ONE, lab_pool="10.64.0.0/16", lab_places={"lan": ["10.0.0.0/8"]}))
