"""The probe program between real network namespaces: open, refused, dropped and arrived are told apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.remote.bundle import bundle
from ringfence.remote.request import request
from ringfence.remote.role import LOADER

ROOT = Path(__file__).resolve().parents[2]
# As it is sent, to a host that has nothing of it (-I: no path leads to this repository).
PROGRAM = (sys.executable, "-I", "-c", LOADER)
BUNDLE = bundle("ringfence.verify.remote")
NEEDED = ("ip", "iptables", "ip6tables", "nsenter", "ss")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(name) for name in NEEDED), reason="needs root, iproute2 and iptables"
)

# `a` asks, `b` is asked, `here` plays the host of both: the programs run in it, never on the network of this machine.
SETUP = """
set -e
# Without it, link-local addresses are tentative for their first second, and no neighbour is found over IPv6.
for space in $$ {a} {b}; do nsenter -t $space -n sysctl -qw net.ipv6.conf.default.accept_dad=0; done
ip link set lo up
ip link add to-a type veth peer name eth0 netns {a}
ip link add to-b type veth peer name eth0 netns {b}
ip address add 10.213.77.1/25 dev to-a
ip address add 10.213.77.129/25 dev to-b
ip -6 address add fd52:4600:77:a::1/64 dev to-a nodad
ip -6 address add fd52:4600:77:b::1/64 dev to-b nodad
ip link set to-a up
ip link set to-b up
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
nsenter -t {a} -n sh -ec 'ip link set lo up; ip link set eth0 up; ip address add 10.213.77.2/25 dev eth0
  ip -6 address add fd52:4600:77:a::2/64 dev eth0 nodad; ip route add default via 10.213.77.1
  ip -6 route add default via fd52:4600:77:a::1'
nsenter -t {b} -n sh -ec 'ip link set lo up; ip link set eth0 up; ip address add 10.213.77.130/25 dev eth0
  ip -6 address add fd52:4600:77:b::2/64 dev eth0 nodad; ip route add default via 10.213.77.129
  ip -6 route add default via fd52:4600:77:b::1'
for tables in iptables ip6tables; do
  $tables -A FORWARD -p tcp --dport 8002 -j DROP
  $tables -A FORWARD -p udp --dport 8002 -j DROP
  $tables -A FORWARD -p tcp --dport 8003 -j REJECT
  $tables -A INPUT -p udp --dport 8005 -j DROP
  $tables -A INPUT -i to-a -p udp --dport 5353 -m pkttype --pkt-type multicast -j DROP
done
"""
SERVER = """
import socket, time
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    for port in (8000, 8002, 8003):
        s = socket.socket(family)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((address, port)); s.listen(); globals()[f"s{family}{port}"] = s
    silent = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        silent.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    silent.bind((address, 8000)); globals()[f"u{family}"] = silent
print("ready", flush=True)
time.sleep(600)
"""
B4, B6, HERE4 = "10.213.77.130", "fd52:4600:77:b::2", "10.213.77.129"


def sent(verb: str, wanted: dict[str, Any]) -> str:
    """What the program reads on its standard input."""
    return "".join(request(verb, wanted, BUNDLE))


class Bench:
    """Three namespaces, each held by a process."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self.here, self.a, self.b = (self._space() for _ in range(3))

    def _space(self) -> int:
        holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout
        assert holder.stdout.readline() == "ready\n"
        self.processes.append(holder)
        return holder.pid

    def start(self, space: int, *command: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(["nsenter", "-t", str(space), "-n", *command], stdout=subprocess.PIPE, text=True)
        self.processes.append(child)
        return child

    def program(self, verb: str, request: dict[str, Any]) -> Any:
        """Run the probe program in the namespace that plays the host."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.here), "-n", *PROGRAM],
            input=sent(verb, request), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def number(self, space: int) -> int:
        return Path(f"/proc/{space}/ns/net").stat().st_ino

    def listen(self, token: str, life: float = 30) -> subprocess.Popen[str]:
        """Start the listener over the namespaces, as `prepare` does for containers."""
        script = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from ringfence.verify.remote.listening import ears, listen\n"
            "from ringfence.verify.remote.spaces import open_space\n"
            f"named = {{'': ears(None, groups=True), 'b': ears(open_space({self.b}, 0))}}\n"
            f"listen({token!r}, named, [], {life}, lambda: print('ready', flush=True))\n"
        )
        child = self.start(self.here, sys.executable, "-c", script)
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        return child

    def ask(self, token: str, *cells: tuple[str, str, int], must: bool = False) -> dict[tuple[str, str, int], str]:
        """Probe (address, protocol, port) from `a`; returns the outcomes."""
        request = {
            "token": token,
            "seconds": 1.5,
            "sources": [{"pid": self.a, "space": self.number(self.a)}],
            "cells": [[n, 0, address, proto, port, must] for n, (address, proto, port) in enumerate(cells)],
        }
        answer = self.program("probe", request)
        assert answer["errors"] == {}
        return {cell: answer["results"][str(n)][0] for n, cell in enumerate(cells)}

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    bench = Bench()
    try:
        script = SETUP.format(a=bench.a, b=bench.b)
        subprocess.run(["nsenter", "-t", str(bench.here), "-n", "sh", "-c", script], check=True)
        server = bench.start(bench.b, sys.executable, "-c", SERVER)
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        yield bench
    finally:
        bench.close()


def test_tcp_outcomes_are_told_apart(bench: Bench) -> None:
    for address in (B4, B6):
        found = bench.ask("t1", (address, "tcp", 8000), (address, "tcp", 8001), (address, "tcp", 8002))
        assert list(found.values()) == ["open", "refused", "timeout"], address


def test_more_connections_at_once_than_the_usual_limit_of_open_files(bench: Bench) -> None:
    cells = [[number, 0, B4, "tcp", 8002, False] for number in range(300)]
    request = {
        "token": "t0",
        "seconds": 0.5,
        "parallel": 300,
        "sources": [{"pid": bench.a, "space": bench.number(bench.a)}],
        "cells": cells,
    }
    done = subprocess.run(
        ["nsenter", "-t", str(bench.here), "-n", "sh", "-c", 'ulimit -Sn 128; exec "$@"', "sh", *PROGRAM],
        input=sent("probe", request), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {outcome for outcome, _ in json.loads(done.stdout)["results"].values()} == {"timeout"}


def test_a_destination_without_route_is_no_answer(bench: Bench) -> None:
    found = bench.ask("t2", ("203.0.113.200", "tcp", 80), ("2001:db8:77::1", "tcp", 80))
    assert set(found.values()) <= {"no route", "host unreachable"}


def test_datagrams_are_proved_by_arrival_not_by_an_answer(bench: Bench) -> None:
    bench.listen("t3")
    cells = [(B4, "udp", 8000), (B6, "udp", 8000), (B4, "udp", 8002), (B6, "udp", 8002), (B4, "udp", 8004)]
    found = bench.ask("t3", *cells)
    assert found[(B4, "udp", 8000)] == "timeout", "a silent service does not answer"
    assert found[(B4, "udp", 8004)] == "refused", "nobody listens there"
    assert bench.program("collect", {"token": "t3"})["arrivals"] == {"0": ["b"], "1": ["b"], "4": ["b"]}


def test_what_the_hosts_own_firewall_drops_has_not_arrived(bench: Bench) -> None:
    bench.listen("t4")
    bench.ask("t4", (HERE4, "udp", 8005), (HERE4, "udp", 8006))
    assert bench.program("collect", {"token": "t4"})["arrivals"] == {"1": [""]}


def test_an_echo_is_proved_by_arrival_and_by_an_answer(bench: Bench) -> None:
    listener = bench.listen("e1")
    found = bench.ask("e1", (B4, "icmp", 0), (B6, "icmp", 0), (HERE4, "icmp", 0))
    assert set(found.values()) == {"open"}
    assert bench.program("collect", {"token": "e1"})["arrivals"] == {"0": ["b"], "1": ["b"], "2": [""]}
    listener.wait(10)


def test_forged_packets_are_proved_by_arrival(bench: Bench) -> None:
    listener = bench.listen("f1")
    cells = [
        [0, 0, B4, "udp", 8000, False, "10.213.77.3", ""],
        [1, 0, B4, "tcp", 8000, False, "10.213.77.3", ""],
        [2, 0, B6, "udp", 8000, False, "fd52:4600:77:a::3", ""],
        [3, 0, B6, "tcp", 8000, False, "fd52:4600:77:a::3", ""],
        [4, 0, B4, "tcp", 8002, False, "10.213.77.3", ""],
    ]
    request = {"token": "f1", "sources": [{"pid": bench.a, "space": bench.number(bench.a)}], "cells": cells}
    answer = bench.program("probe", {**request, "seconds": 1.5})
    assert {outcome for outcome, _ in answer["results"].values()} == {"timeout"}
    assert bench.program("collect", {"token": "f1"})["arrivals"] == {str(n): ["b"] for n in range(4)}
    listener.wait(10)


def test_datagrams_to_groups_are_seen_where_the_host_would_hear_them(bench: Bench) -> None:
    listener = bench.listen("g1")
    cells = [
        [0, 0, "239.255.255.250", "udp", 1900, False, "", "10.213.77.2"],
        [1, 0, "ff02::c", "udp", 1900, False, "", "fd52:4600:77:a::2"],
        [2, 0, "224.0.0.251", "udp", 5353, False, "", "10.213.77.2"],
        [3, 0, "ff02::fb", "udp", 5353, False, "", "fd52:4600:77:a::2"],
    ]
    request = {"token": "g1", "sources": [{"pid": bench.a, "space": bench.number(bench.a)}], "cells": cells}
    bench.program("probe", {**request, "seconds": 1.5})
    assert bench.program("collect", {"token": "g1"})["arrivals"] == {"0": [""], "1": [""]}
    listener.wait(10)


def test_other_runs_datagrams_are_not_counted(bench: Bench) -> None:
    bench.listen("t5")
    bench.ask("another", (B4, "udp", 8000))
    assert bench.program("collect", {"token": "t5"}) == {"arrivals": {}}


def test_a_listener_ends_by_itself(bench: Bench) -> None:
    listener = bench.listen("t6", life=0.5)
    started = time.monotonic()
    assert listener.wait(10) == 0
    assert time.monotonic() - started < 5
    assert bench.program("collect", {"token": "t6"}) == {"arrivals": {}, "gone": True}


def test_prepare_listens_in_the_background_and_collect_ends_it(bench: Bench) -> None:
    seen = bench.program("prepare", {"token": "t7", "life": 20, "doors": [{"address": HERE4, "ports": [443]}]})
    assert {"device": "to-a", "address": "10.213.77.1", "prefix": 25} in seen["addresses"]
    assert not any(a["address"].startswith(("127.", "fe80")) for a in seen["addresses"])
    assert bench.ask("t7", (HERE4, "tcp", 443), must=True) == {(HERE4, "tcp", 443): "open"}
    assert bench.ask("t7", (HERE4, "udp", 9000)) == {(HERE4, "udp", 9000): "refused"}
    assert bench.program("collect", {"token": "t7"}) == {"arrivals": {"0": [""]}}
    assert bench.ask("t7", (HERE4, "tcp", 443)) == {(HERE4, "tcp", 443): "refused"}


def test_a_vantage_reaches_inner_addresses_by_the_host_next_to_it(bench: Bench) -> None:
    """The bench's host plays the vantage; `b` has an inner address that nothing routes to."""
    subprocess.run(
        ["nsenter", "-t", str(bench.b), "-n", "ip", "address", "add", "172.20.9.1/24", "dev", "lo"], check=True
    )
    request = {
        "token": "t8",
        "seconds": 1.5,
        "sources": [{"address": HERE4, "address6": "", "ways": {"172.20.9.1": B4}}],
        "cells": [[0, 0, "172.20.9.1", "tcp", 8000, True], [1, 0, "fd52:4600:77:b::2", "tcp", 8000, False]],
    }
    results = bench.program("probe", request)["results"]
    assert results["0"][0] == "open"
    assert results["0"][1].startswith(f"{HERE4} port ")
    assert results["1"][0] == "no address of that family"
    rules = subprocess.run(
        ["nsenter", "-t", str(bench.here), "-n", "ip", "rule"], capture_output=True, text=True, check=True
    )
    assert "4646" not in rules.stdout, "the vantage's routing is as it was"


def test_a_restarted_container_is_an_error_not_a_closed_port(bench: Bench) -> None:
    request = {
        "token": "t9",
        "sources": [{"pid": bench.a, "space": 1}, {"pid": 2**22 + 5, "space": 1}],
        "cells": [[0, 0, B4, "tcp", 8000, False], [1, 1, B4, "tcp", 8000, False]],
    }
    answer = bench.program("probe", request)
    assert answer["results"] == {}
    assert "restarted" in answer["errors"]["0"]
    assert "is gone" in answer["errors"]["1"]


def test_an_unknown_verb_is_a_usage_message() -> None:
    done = subprocess.run(PROGRAM, input=sent("x", {}), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")
