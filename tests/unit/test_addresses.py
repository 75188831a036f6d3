"""Addresses are stable: whatever comes and goes, nobody else is renumbered, and nothing is handed out twice."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.compile import compile_lab
from ringfence.compile.book import Book, dump, parse

NAMES = st.from_regex(r"\A[a-z][a-z0-9]{0,8}\Z")
LABS = st.dictionaries(NAMES, st.sets(st.sampled_from(["one", "two", "three"]), min_size=1), max_size=25)


def lab(services: dict[str, Any], **variables: Any) -> dict[str, Any]:
    segments = sorted({segment for names in services.values() for segment in names})
    return {
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"]}},
        "lab_segments": {segment: {} for segment in segments},
        "lab_services": {
            name: {"host": "atlas", "image": "x:1", "segments": sorted(names)} for name, names in services.items()
        },
        **variables,
    }


@settings(max_examples=40, deadline=None)
@given(before=LABS, after=LABS)
def test_what_stays_keeps_its_addresses(before: dict[str, set[str]], after: dict[str, set[str]]) -> None:
    first = compile_lab(lab(before)).book
    second = compile_lab(lab({**before, **after}), first).book
    third = compile_lab(lab(after), second).book
    for old, new in ((first, second), (second, third)):
        for segment in set(old.segments) & set(new.segments):
            assert old.segments[segment] == new.segments[segment]
        for service in set(old.services) & set(new.services):
            for segment in set(old.services[service]) & set(new.services[service]):
                assert old.services[service][segment] == new.services[service][segment]
    assert set(third.services) == set(after)


@settings(max_examples=40, deadline=None)
@given(services=LABS)
def test_nothing_is_handed_out_twice(services: dict[str, set[str]]) -> None:
    compiled = compile_lab(lab(services))
    networks = [ipaddress.ip_network(subnet) for subnet, _ in compiled.book.segments.values()]
    assert not any(a.overlaps(b) for i, a in enumerate(networks) for b in networks[:i])
    addresses = [a for legs in compiled.plan.legs.values() for leg in legs for a in (leg.address, leg.address6)]
    assert len(addresses) == len(set(addresses))
    gateways = {a for network in compiled.plan.networks.values() for a in (network.gateway, network.gateway6)}
    assert not gateways & set(addresses)


@settings(max_examples=40, deadline=None)
@given(services=LABS)
def test_a_book_survives_the_disk(services: dict[str, set[str]]) -> None:
    book = compile_lab(lab(services)).book
    assert parse(dump(book), "addresses.yml") == Book(dict(book.segments), dict(book.services))


def test_a_small_segment_is_filled_to_the_last_address() -> None:
    services = {f"s{number}": ["one"] for number in range(13)}
    declared = lab(services, lab_segments={"one": {"subnet": "172.20.9.0/28"}})
    numbers = sorted(number["one"] for number in compile_lab(declared).book.services.values())
    assert numbers == list(range(2, 15))


def test_an_explicit_subnet_is_remembered_when_it_is_no_longer_said() -> None:
    said = compile_lab(lab({"a": ["one"]}, lab_segments={"one": {"subnet": "172.21.77.0/24"}})).book
    assert compile_lab(lab({"a": ["one"]}), said).book.segments["one"][0] == "172.21.77.0/24"


def test_v6_has_the_same_host_number_as_v4() -> None:
    compiled = compile_lab(lab({"a": ["one"]}, lab_ula="fd12:3456:789a::/48"))
    leg = compiled.plan.legs["a"][0]
    number = compiled.book.services["a"]["one"]
    assert leg.address.endswith(f".{number}")
    assert int(ipaddress.ip_address(leg.address6)) & 0xFFFF == number
    assert ipaddress.ip_network(leg.network.subnet6).subnet_of(ipaddress.ip_network("fd12:3456:789a::/48"))


def test_seventy_segments_and_a_hundred_services_fit() -> None:
    services = {f"service-{n}": [f"segment-{n % 70}", f"segment-{(n * 7) % 70}"] for n in range(100)}
    compiled = compile_lab(lab({name: sorted(set(segments)) for name, segments in services.items()}))
    assert len(compiled.hosts["atlas"]["segments_networks"]) == 70
    assert len(compiled.hosts["atlas"]["stack_projects"]) == 100
