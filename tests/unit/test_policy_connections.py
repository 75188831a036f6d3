"""Which of the connections that live a declaration allows, judged without any rule."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ringfence.host.policy.connections import MANY, Allowed, Connection, deletions, read_connections, within
from ringfence.host.policy.rule import Around
from tests.unit.policy_wishes import FLOW, PUBLISHED, wish

LOCAL = {"127.0.0.1", "10.0.0.1", "172.20.0.1", "172.21.0.1", "fd00:20::1", "fd00:10::1", "fe80::1"}

LISTING = """\
tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=10.0.0.1 sport=40000 dport=8080 src=172.20.0.10 dst=10.0.0.5 sport=80 \
dport=40000 [ASSURED] mark=0 use=1
udp      17 29 src=172.20.0.10 dst=9.9.9.9 sport=5000 dport=53 [UNREPLIED] src=9.9.9.9 dst=10.0.0.1 sport=53 \
dport=5000 mark=0 use=1
icmp     1 29 src=172.20.0.10 dst=172.21.0.11 type=8 code=0 id=7 src=172.21.0.11 dst=172.20.0.10 type=0 code=0 id=7 \
mark=0 use=1
unknown  2 598 src=10.0.0.5 dst=224.0.0.1 [UNREPLIED] src=224.0.0.1 dst=10.0.0.5 mark=0 use=1
"""


def test_the_listing_is_read() -> None:
    found = read_connections(LISTING, "v4")
    assert found[0] == Connection(
        "v4", "tcp", "ESTABLISHED", "10.0.0.5", "10.0.0.1", "40000", "8080", "172.20.0.10", "80"
    )
    assert [(c.proto, c.state, c.callee, c.callee_port) for c in found[1:]] == [
        ("udp", "", "9.9.9.9", "53"),
        ("icmp", "", "172.21.0.11", ""),
        ("unknown", "", "224.0.0.1", ""),
    ]
    assert str(found[0]) == "10.0.0.5 > 10.0.0.1:8080 (which is 172.20.0.10:80) tcp"


def allows(
    source: str, destination: str, port: int, callee: str = "", callee_port: int = 0, proto: str = "tcp",
    state: str = "ESTABLISHED", around: Around | None = None, **changes: Any,
) -> bool:  # fmt: skip
    family = "v6" if ":" in source else "v4"
    connection = Connection(
        family, proto, state, source, destination, "40000", str(port), callee or destination, str(callee_port or port)
    )
    return Allowed(wish(**changes), around or Around(), LOCAL).allows(connection)


WEB, DB, WEB6, DB6 = "172.20.0.10", "172.21.0.11", "fd00:20::10", "fd00:21::11"


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        # To everybody or to a group: nothing lives on, and the kernel keeps entries of what is dropped.
        (True, allows(WEB, "255.255.255.255", 1900, proto="udp", state="")),
        (True, allows(WEB, "172.20.0.255", 1900, proto="udp", state="")),
        (True, allows(WEB, "239.255.255.250", 1900, proto="udp", state="")),
        (True, allows(WEB6, "ff02::c", 1900, proto="udp", state="")),
        (True, allows(WEB, DB, 5432)),
        (True, allows(WEB6, DB6, 5432)),
        (False, allows(WEB, DB, 5433)),
        # By link-local addresses, which tell the container and not the network.
        (False, allows("fe80::42:acff:fe14:a", "fe80::42:acff:fe15:b", 5432)),
        (False, allows("fe80::42:acff:fe14:a", "fe80::1", 22)),
        (True, allows("fe80::99", "fe80::1", 22)),
        (False, allows(WEB, DB, 5432, proto="udp")),
        (False, allows(DB, WEB, 5432)),
        (False, allows("172.20.0.99", DB, 5432)),
        (False, allows(WEB, DB, 5432, flows=[])),
        # By an address of the host it is no declared flow, as if it were published.
        (False, allows(WEB, "10.0.0.1", 15432, DB, 5432)),
        (False, allows(WEB, "10.0.0.1", 15433, DB, 5433)),
    ],
)
def test_flows(expected: bool, case: bool) -> None:
    assert case is expected


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        (True, allows("10.0.0.5", "10.0.0.1", 8080, WEB, 80)),
        (True, allows("fd00:10::5", "fd00:10::1", 8080, WEB6, 80)),
        (False, allows("192.0.2.5", "10.0.0.1", 8080, WEB, 80)),
        (False, allows("2001:db8::5", "fd00:10::1", 8080, WEB6, 80)),
        (False, allows("10.0.0.5", "10.0.0.1", 8080, DB, 80)),
        (False, allows("10.0.0.5", "10.0.0.1", 9090, WEB, 80)),
        (False, allows("10.0.0.5", WEB, 80)),  # past the published port
        (False, allows("10.0.0.5", "10.0.0.1", 8080, WEB, 80, published=[])),
        (False, allows("10.0.0.5", "10.0.0.1", 8080, WEB, 80, published=[{**PUBLISHED, "sources": ["10.0.9.0/24"]}])),
        # By the address of the host that it is published on, and by no other.
        (True, allows("10.0.0.5", "10.0.0.1", 8080, WEB, 80, published=[{**PUBLISHED, "host_address": "10.0.0.1"}])),
        (False, allows("10.0.0.5", "10.0.0.1", 8080, WEB, 80, published=[{**PUBLISHED, "host_address": "10.0.0.2"}])),
        # Answered by the userland proxy.
        (True, allows("10.0.0.5", "10.0.0.1", 8080)),
        (False, allows("192.0.2.5", "10.0.0.1", 8080)),
        (True, allows("192.0.2.5", "10.0.0.1", 22)),  # the host's own service
        (True, allows("192.0.2.5", "172.20.0.1", 8, proto="icmp")),  # by a segment's gateway
        (True, allows("172.20.0.1", WEB, 80)),  # the host itself, or its userland proxy
    ],
)
def test_published_ports(expected: bool, case: bool) -> None:
    assert case is expected


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        (True, allows(WEB, "192.0.2.7", 443)),
        (False, allows(WEB, "192.0.2.7", 80)),
        (False, allows(WEB, "10.0.0.77", 443)),  # not the internet
        (False, allows(DB, "192.0.2.7", 443)),
        (True, allows(WEB, "172.20.0.1", 53, proto="udp")),
        (False, allows(WEB, "172.20.0.1", 53)),
        (False, allows(DB, "172.21.0.1", 53, proto="udp")),
        (True, allows(DB, "172.21.0.1", 22, host=[{"name": "ssh", "bridge": "", "proto": "tcp", "port": 22}])),
    ],
)
def test_egress_and_the_host(expected: bool, case: bool) -> None:
    assert case is expected


def test_what_is_over_and_what_is_not_a_segments_is_left_alone() -> None:
    assert allows(DB, WEB, 1, state="TIME_WAIT")
    assert allows("192.0.2.5", "192.0.2.6", 1)
    docker = Around(docker=("docker0",), subnets=("172.17.0.0/16",))
    assert allows("172.17.0.2", "192.0.2.6", 443, around=docker)
    assert not allows("172.17.0.2", "192.0.2.6", 443, around=docker, unmanaged="close")


def test_ranges() -> None:
    assert within("8005", "8000-8010")
    assert not within("8011", "8000-8010")
    assert within("5", "")
    assert not within("", "53")


def test_a_range_of_ports_is_a_range() -> None:
    ranged = [{**FLOW, "port": "5430-5440"}]
    assert allows(WEB, DB, 5431, flows=ranged)
    assert not allows(WEB, DB, 5441, flows=ranged)


def one(source: str, callee: str, dport: str = "443") -> Connection:
    return Connection("v4", "tcp", "ESTABLISHED", source, callee, "40000", dport, callee, dport)


def test_few_connections_are_deleted_one_by_one() -> None:
    assert deletions([one(WEB, "192.0.2.1"), one(WEB, "192.0.2.1"), one(WEB, "192.0.2.2")]) == [
        ("-f", "ipv4", "-p", "tcp", "-s", WEB, "-d", "192.0.2.1", "-r", "192.0.2.1", "--dport", "443",
         "--reply-port-src", "443"),
        ("-f", "ipv4", "-p", "tcp", "-s", WEB, "-d", "192.0.2.2", "-r", "192.0.2.2", "--dport", "443",
         "--reply-port-src", "443"),
    ]  # fmt: skip


def test_very_many_connections_of_one_end_are_deleted_by_its_address() -> None:
    out = [one(WEB, f"192.0.2.{n}") for n in range(MANY + 1)]
    into = [one(f"198.51.100.{n}", DB) for n in range(MANY + 1)]
    assert deletions([*out, *into]) == [("-f", "ipv4", "-s", WEB), ("-f", "ipv4", "-r", DB)]


def test_a_table_full_of_connections_is_judged_in_a_moment() -> None:
    """A container fills connection tracking: what compares it every 25 seconds must not take longer than it may."""
    allowed = Allowed(
        wish(egress=[{"name": "e", "source": WEB, "to": "internet", "proto": "tcp", "port": 443}]), Around(), LOCAL
    )
    began = time.process_time()
    for n in range(50_000):
        assert allowed.allows(one(WEB, f"{11 + n // 65536}.{n // 256 % 256}.{n % 256}.7"))
    assert time.process_time() - began < 10  # it took minutes


VPN: dict[str, Any] = {
    "interface": "wg-ringfence",
    "networks": ["10.99.0.0/24", "172.30.0.0/24", "fd00:30::/64", "fd00:99::/64"],
    "transit": [
        {"name": "a > b", "source": "10.99.0.7/32", "destination": "172.30.0.9", "proto": "tcp", "port": 22},
    ],
    "egress": [
        {"name": "phone > internet", "source": "10.99.0.7", "source6": "fd00:99::7", "to": "internet"},
        {"name": "laptop > dns", "source": "10.99.0.8", "to": "10.0.0.53/32", "proto": "udp", "port": 53},
    ],
}
OUT = FLOW | {"to_bridge": "wg-ringfence", "destination": "172.30.0.5", "destination6": "fd00:30::5"}
INTO = FLOW | {"from_bridge": "wg-ringfence", "source": "172.30.0.5", "source6": "fd00:30::5"}


@pytest.mark.parametrize(
    ("expected", "source", "destination", "port"),
    [
        (True, WEB, "172.30.0.5", 5432),
        (True, WEB6, "fd00:30::5", 5432),
        (False, WEB, "172.30.0.5", 5433),
        (False, WEB, "172.30.0.6", 5432),
        (False, DB, "172.30.0.5", 5432),
        (True, "172.30.0.5", DB, 5432),
        (False, "172.30.0.6", DB, 5432),
        (False, "172.30.0.5", WEB, 5432),
        # What the hub passes on between others.
        (True, "10.99.0.7", "172.30.0.9", 22),
        (False, "10.99.0.8", "172.30.0.9", 22),
        (False, "10.99.0.7", "172.30.0.9", 23),
        (False, "172.30.0.9", "10.99.0.7", 22),
    ],
)
def test_between_hosts_lives_what_is_declared(expected: bool, source: str, destination: str, port: int) -> None:
    assert allows(source, destination, port, flows=[OUT, INTO], vpn=VPN) is expected


@pytest.mark.parametrize(
    ("expected", "source", "destination", "port", "proto"),
    [
        (True, "10.99.0.7", "192.0.2.7", 443, "tcp"),
        (True, "fd00:99::7", "2001:db8::7", 443, "udp"),
        (False, "10.99.0.7", "10.0.0.77", 443, "tcp"),  # not the internet
        (False, "10.99.0.8", "192.0.2.7", 443, "tcp"),
        (False, "10.99.0.9", "192.0.2.7", 443, "tcp"),
        (True, "10.99.0.8", "10.0.0.53", 53, "udp"),
        (False, "10.99.0.8", "10.0.0.53", 53, "tcp"),
        (False, "10.99.0.8", "10.0.0.53", 80, "udp"),
        (False, "10.99.0.9", "10.0.0.53", 53, "udp"),
        (True, "10.99.0.9", "10.0.0.1", 22, "tcp"),  # the host itself
    ],
)
def test_beyond_the_hub_lives_what_is_declared(
    expected: bool, source: str, destination: str, port: int, proto: str
) -> None:
    assert allows(source, destination, port, proto=proto, vpn=VPN) is expected


def test_a_call_to_another_host_is_none_by_what_it_publishes() -> None:
    assert not allows(WEB, "10.99.0.9", 8080, "172.30.0.5", 5432, flows=[OUT], vpn=VPN)
