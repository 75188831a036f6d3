"""The judge of the live attacks on the ring: a blind or a lenient one would let every ring pass."""

from __future__ import annotations

import itertools
import json
import socket
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.live.engines.ring.agent.frames import SYN, parse, probe_in, probe_of
from tests.live.engines.ring.agent.ledger import Ledger as AgentLedger
from tests.live.engines.ring.agent.loop import Loop
from tests.live.engines.ring.agent.odd import checksum
from tests.live.engines.ring.agent.probes import Probes
from tests.live.engines.ring.attacks import World, attacks
from tests.live.engines.ring.declared import FIRST, LAST, Addresses, declared, forbidden
from tests.live.engines.ring.forge import ICMP6, TCP, UDP, Station, datagram, icmp6, packet, syn
from tests.live.engines.ring.judge import Ledger, blind, judge, leaks

PROBES = {
    "0": {"id": "0", "proto": "tcp", "first": 2000, "span": 100},
    "1": {"id": "1", "proto": "udp", "first": 2100, "span": 100},
    "2": {"id": "2", "proto": "ack", "first": 2200, "span": 100},
}


def _tcp(sport: int, flags: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", sport, 61000, 0, 0, 5 << 4, flags, 0, 0, 0) + payload


def _udp(payload: bytes) -> bytes:
    return struct.pack("!HHHH", 2100, 61000, 8 + len(payload), 0) + payload


def _v4(proto: int, rest: bytes, offset: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(rest), 1, offset, 64, proto, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    return head + rest


def _v6(proto: int, rest: bytes) -> bytes:
    return struct.pack("!IHBB16s16s", 6 << 28, len(rest), proto, 64, b"\xfd" + bytes(15), b"\xfd" + bytes(15)) + rest


@pytest.mark.parametrize(
    ("packet", "probe"),
    [
        (_v4(6, _tcp(2099, SYN)), "0"),
        (_v6(6, _tcp(2000, SYN)), "0"),
        (_v6(0, bytes([6, 0, *bytes(6)]) + _tcp(2000, SYN)), "0"),  # behind hop-by-hop options
        (_v4(17, _udp(b"RING 1\n")), "1"),
        (_v6(44, bytes([17, *bytes(7)]) + _udp(b"RING 1\n")), "1"),  # the first fragment
        (_v4(17, b"RING 1\n", offset=185), "1"),  # a later one
        (_v4(6, _tcp(2000, 0x12)), ""),  # an answer
        (_v4(6, _tcp(2000, 0x10, b"RING 0\n")), ""),  # the same attempt again
        (_v4(6, _tcp(40000, SYN)), ""),
        (_v4(6, _tcp(2200, 0x10, b"RING 2\n")), "2"),
        (_v4(253, bytes(12) + b"RING 2\n"), "2"),
        (_v6(58, bytes([1, 4, *bytes(6)]) + _v6(17, _udp(b"RING 1\n"))), ""),  # an error about a datagram
        (_v4(6, b""), ""),
        (b"", ""),
    ],
)
def test_a_packet_tells_the_probe_that_sent_it(packet: bytes, probe: str) -> None:
    seen = parse(packet)
    assert (probe_of(seen, PROBES) if seen else "") == probe


def _ledger(*entries: dict[str, Any]) -> Ledger:
    ledger = Ledger()
    text = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    for start in range(0, len(text), 7):  # cut anywhere
        ledger.add(text[start : start + 7])
    return ledger


def test_a_ledger_is_read_piece_by_piece() -> None:
    ledger = _ledger({"t": 1.0, "sent": {"0": 5}}, {"t": 1.1, "sent": {"0": 6}})
    assert [entry["sent"]["0"] for entry in ledger.entries] == [5, 6]
    ledger.add(b'{"t": 1.2, "sen')
    ledger.add(b"\n")  # the host was switched off, and wrote on later
    ledger.add(b'{"t": 9.0}\n')
    assert [entry["t"] for entry in ledger.entries] == [1.0, 1.1, 9.0]


def test_what_arrived_is_counted_once_and_only_in_its_time() -> None:
    at = _ledger({"t": 1.0, "sent": {"0": 100}, "here": {"ms": 2000}}, {"t": 9.0, "sent": {"0": 7}}).entries
    into = _ledger(
        {"t": 1.0, "packets": {"0": 3}, "accepted": {"0": 2}}, {"t": 1.5, "accepted": {"? at db tcp/1": 1}},
        {"t": 9.0, "packets": {"0": 50}},
    ).entries  # fmt: skip
    found = judge({"at": at, "into": into}, 0.0, 5.0, {"0": "at"})
    assert found.sent == {"0": 100}
    assert found.arrived == {"0": 3, "? at db tcp/1": 1}
    assert found.rates == {"0": 50.0}
    assert len(leaks(found, {"0": "a > b"})) == 2


def test_what_comes_back_to_its_sender_has_not_arrived() -> None:
    entries = [{"t": 1.0, "sent": {"0": 100}, "packets": {"0": 100}, "accepted": {"0": 100}, "here": {"ms": 2000}}]
    assert not leaks(judge({"at": entries}, 0.0, 5.0, {"0": "at"}), {"0": "a > everybody"})
    assert leaks(judge({"into": entries}, 0.0, 5.0, {"0": "at"}), {"0": "a > everybody"})


@pytest.mark.parametrize(
    ("entry", "is_blind"),
    [
        ({"sent": {"0": 100}, "here": {"ms": 2000}}, False),
        ({"sent": {"0": 20}, "here": {"ms": 400}}, True),  # too seldom to say something
        ({"sent": {"0": 100}, "here": {"ms": 60000}}, True),  # too slow
        ({"here": {"ms": 2000}}, True),  # never
        ({}, True),  # the place was never there
        ({"sent": {"0": 100}, "here": {"ms": 2000}, "errors": {"packets not looked at": 1}}, True),
    ],
)
def test_a_cell_that_was_hardly_tried_proves_nothing(entry: dict[str, Any], is_blind: bool) -> None:
    found = judge({"at": [{"t": 1.0, **entry}]}, 0.0, 5.0, {"0": "at"})
    assert bool(blind(found, {"0": "a > b"}, {"0": 50.0})) == is_blind


def test_a_pause_is_the_longest_time_without_a_byte() -> None:
    entries = [{"t": t, "echoed": {"f": 1}} for t in (1.0, 1.1, 3.6, 3.7)]
    found = judge({"at": entries}, 0.5, 4.0, {})
    assert found.pauses == {"f": pytest.approx(2.5)}
    assert found.echoed == {"f": 4}


def _addresses(*, six: bool, proxy: bool = False) -> Addresses:
    names = ("caller", "idler", "db", "vault")
    services = [
        {"name": name, "networks": [{"network": f"rf-{name}", "address": f"172.20.{n}.2", "address6": f"fd00:{n}::2"}]}
        for n, name in enumerate(names)
    ]
    networks = [
        {
            "name": name, "network": f"rf-{name}", "subnet": f"172.20.{n}.0/24", "subnet6": f"fd00:{n}::/64",
            "gateway": f"172.20.{n}.1", "gateway6": f"fd00:{n}::1",
        }
        for n, name in enumerate(names)
    ]  # fmt: skip
    variables = {
        "stack_projects": [{"services": services}],
        "segments_networks": networks,
        "lab_hosts": {"atlas": {"addresses": ["10.0.0.1", "fd01::1", "198.51.100.1", "2001:db8::1"]}},
    }
    vantages = {
        "lan": {"address": "10.0.0.2", "address6": "fd01::2"},
        "internet": {"address": "198.51.100.2", "address6": "2001:db8::2"},
    }
    return Addresses(variables, vantages, six=six, proxy=proxy)


@pytest.mark.parametrize(("six", "proxy"), [(False, False), (False, True), (True, False)])
def test_every_cell_has_a_name_and_source_ports_of_its_own(six: bool, proxy: bool) -> None:
    probes = forbidden(_addresses(six=six, proxy=proxy))
    assert len({probe.name for probe in probes}) == len(probes)
    ports = [port for probe in probes for port in range(probe.first, probe.first + probe.span)]
    assert len(set(ports)) == len(ports)
    assert FIRST <= min(ports) <= max(ports) < LAST
    # Docker's proxy listens on IPv6 even where segments have none.
    from_outside = {probe.into for probe in probes if probe.at == "outside" and probe.family == 6}
    assert from_outside >= ({"atlas", "db"} if six or proxy else {"atlas"})
    assert any(probe.at == "idler" and probe.family == 6 for probe in probes) == six


def test_nothing_is_declared_and_forbidden_at_once() -> None:
    addresses = _addresses(six=True)
    ways = {(flow.at, flow.into, flow.address, flow.port, flow.bind) for flow in declared(addresses)}
    assert not ways & {(p.at, p.into, p.address, p.port, p.bind) for p in forbidden(addresses) if p.proto == "tcp"}


def _world(*, six: bool) -> World:
    names = ("idler", "caller", "db", "guest", "stray", "custom", "red", "docker0", "custom0", "wan", "outside")
    at = {
        name: Station(f"02:42:ac:14:00:{n:02x}", f"172.20.9.{n + 1}", f"fd00:9::{n + 1}" if six else "")
        for n, name in enumerate(names)
    }
    return World(at, _addresses(six=six))


@pytest.mark.parametrize("six", [False, True])
def test_every_attack_is_seen_in_the_frames_that_it_sends(six: bool) -> None:
    cells = list(attacks(_world(six=six)))
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        if cell.frames:
            frames = cell.frames(b"RING 7\n")
            assert min(map(len, frames)) >= 60
            assert "7" in [probe_in(frame, {"7": {"proto": "frames"}}) for frame in frames], cell.name


@pytest.mark.parametrize("ends", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")])
@pytest.mark.parametrize("mark", [b"RING 1\n", b"RING 12\n"])
def test_checksums_are_right(ends: tuple[str, str], mark: bytes) -> None:
    """A wrong one would be dropped by the kernel, and prove nothing."""
    family = socket.AF_INET6 if ":" in ends[0] else socket.AF_INET
    for proto, body in ((UDP, datagram(*ends, 9, mark)), (TCP, syn(*ends, 9, mark)), (ICMP6, icmp6(*ends, 134, mark))):
        pseudo = b"".join(socket.inet_pton(family, end) for end in ends)
        pseudo += struct.pack("!II" if family == socket.AF_INET6 else "!HH", proto, len(body))
        assert (proto == ICMP6 and family == socket.AF_INET) or checksum(pseudo + body) == 0
    assert family == socket.AF_INET6 or checksum(packet(*ends, UDP, mark)[:20]) == 0


def test_the_first_of_each_way_is_tried_twice_as_often_and_not_twice_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(Probes, "_try", lambda _, probe, __: tried.append(probe["id"]))
    probes = Probes([{"id": "a", "times": 2}, {"id": "b"}, {"id": "c"}], 1000.0, Loop(), AgentLedger(Path("/dev/null")))
    while len(tried) < 400:
        probes.turn()
    counts = Counter(tried[:400])
    assert (counts["a"], counts["b"], counts["c"]) == (200, 100, 100)
    assert all(pair != ("a", "a") for pair in itertools.pairwise(tried[:4]))
