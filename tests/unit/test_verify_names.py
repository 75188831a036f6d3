"""Questions for names as verify judges them, and containers that could pose as their neighbours."""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import replace
from typing import Any

import pytest

from ringfence.verify import forging, names
from ringfence.verify.declared import Attachment, Declared, Egress, Service
from ringfence.verify.remote import names as remote_names
from ringfence.verify.seen import Container, Seen

TOKEN = "0123456789abcdef"


def service(name: str, network: str, number: int, **more: Any) -> Service:
    return Service(name, "atlas", name, (Attachment(network, f"172.20.0.{number}", ""),), (), **more)


def running(one: Service, six: str = "") -> Container:
    (leg,) = one.networks
    return Container(f"{one.name}-1", 1, 1, one.project, one.name, {leg.network: (leg.address, six)})


ASKER, PLAIN = service("asker", "rf-front", 2), service("plain", "rf-front", 3)
LAB = Declared(
    services=(ASKER, PLAIN),
    egress=(Egress("asker", "192.168.10.1/32", "udp", 53), Egress("asker", "192.168.10.9/32", "tcp", 443)),
)
SEEN = Seen("atlas", (("eth0", "192.168.10.5", 24),), containers=(running(ASKER), running(PLAIN)))


def judged(
    left: dict[str, Any],
    answered: tuple[int, ...] = (),
    resolvers: tuple[str, ...] = ("192.168.10.1",),
    seen: Seen = SEEN,
) -> list[str]:
    return list(names.differences(LAB, resolvers, seen, {"left": left, "answered": answered, "errors": {}}))


def test_only_who_may_ask_is_heard() -> None:
    assert judged({"0": [["eth0", "192.168.10.1"]]}) == []
    assert judged({"0": [["eth0", "192.168.10.1"]], "1": [["lo", "127.0.0.53"]]}) == [
        "plain → names: a question left atlas for 127.0.0.53 by lo; expected: none, it may ask nobody"
    ]
    assert judged({"0": [["eth0", "192.168.10.9"]]}) == [
        "asker → names: a question left atlas for 192.168.10.9 by eth0; expected: only those for 192.168.10.1/32"
    ]


def test_a_question_to_a_container_of_the_lab_is_a_call() -> None:
    assert judged({"0": [["eth0", "192.168.10.1"]], "1": [["rf-front", "172.20.0.2"]]}) == []


def test_who_is_declared_to_ask_is_heard() -> None:
    assert judged({}) == [
        "asker → names: declared to ask 192.168.10.1, but no question left atlas and none was answered"
    ]
    assert judged({}, answered=(0,)) == []
    assert judged({}, resolvers=()) == []  # what it sends to port 53 is its program's own
    assert judged({}, resolvers=("192.168.10.5",)) == []  # never leaves the host
    assert judged({}, resolvers=("fd00::1",)) == []  # no IPv6 there
    inner = Seen("atlas", SEEN.addresses, containers=SEEN.containers, internal=frozenset({"rf-front"}))
    assert judged({}, seen=inner) == []  # told of already, with every other egress


def test_what_could_not_be_asked_is_no_silence() -> None:
    answer = {"left": {}, "answered": [0], "errors": {"1": "the container was restarted meanwhile"}}
    told = list(names.differences(LAB, ["192.168.10.1"], SEEN, answer))
    assert told == ["plain: could not ask for a name: the container was restarted meanwhile"]


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("proto", [6, 17])
def test_a_question_is_known_by_its_name_and_port(six: bool, proto: int) -> None:
    server = "fd00::1" if six else "192.168.10.1"
    packed = ipaddress.ip_address(server).packed
    mark = re.compile(rb"n(\d+)\x10" + TOKEN.encode())

    def packet(port: int) -> bytes:
        four = b"\x46" + bytes(8) + bytes([proto]) + bytes(6) + packed + bytes(4)  # with an option
        head = b"\x60" + bytes(5) + bytes([proto]) + bytes(17) + packed if six else four
        return head + struct.pack(">HH", 40000, port) + bytes(8) + remote_names.question(7, TOKEN)

    assert remote_names.asked_of(packet(53), mark) == (7, server)
    assert remote_names.asked_of(packet(40001), mark) is None  # an answer holds the question
    assert remote_names.asked_of(packet(53).replace(TOKEN.encode(), b"0" * 16), mark) is None


def test_who_could_pose_as_its_neighbours_is_named_with_them() -> None:
    sniffer = service("sniffer", "rf-front", 4, forging=("NET_RAW",))
    alone = service("alone", "rf-lab", 4, forging=("NET_ADMIN",))
    stranger = Container("guest", 9, 9, "", "", {"rf-front": ("172.20.0.9", "")})
    lab = Declared(services=(PLAIN, sniffer, alone))
    assert list(forging.notices(lab, {"atlas": Seen("atlas", containers=(stranger,))})) == [
        "sniffer: has NET_RAW, so it could pose as (guest), plain in rf-front (allow_forging)"
    ]


def test_who_shares_the_network_of_one_could_pose_as_that_ones_neighbours() -> None:
    tunnel = service("tunnel", "rf-front", 5)
    sniffer = replace(service("sniffer", "rf-front", 4, forging=("NET_RAW",)), networks=(), network="tunnel")
    assert list(forging.notices(Declared(services=(PLAIN, tunnel, sniffer)), {"atlas": Seen("atlas")})) == [
        "sniffer: has NET_RAW, so it could pose as plain in rf-front (allow_forging)"
    ]
