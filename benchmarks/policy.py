"""What the fence costs: throughput and new connections with it, against the same two bridges without it.

    sudo python benchmarks/policy.py [--segments 500] [--seconds 2] [--rounds 5]

Two containers' ends on one bridge, and two on two bridges, in network namespaces of this machine; with connection
tracking in both cases, which Docker switches on. Prints ratios (fence / none; 1.00 is free) and what a new connection
costs more, in microseconds of processor time: UDP datagrams, each of a source port of its own. Machines are noisy: what
counts is the median of the rounds, taken in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ringfence.host.policy.nft import nft_text
from ringfence.host.policy.rule import Around
from ringfence.host.policy.rules import build
from ringfence.host.policy.sources import sources
from ringfence.host.policy.surroundings import tells_bridges

HOST = "rf-bench"
PORT = 5432
# What is tracked anyway, and forwarded.
NONE = """table inet none {
  chain c {
    type filter hook forward priority 0
    ct state established, related accept
  }
}
"""

RECEIVE = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
connection, _ = server.accept()
while connection.recv(1 << 20):
    pass
"""
SEND = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)
data, sent, end = bytes(1 << 20), 0, time.monotonic() + float(sys.argv[3])
begin = time.monotonic()
while time.monotonic() < end:
    connection.sendall(data)
    sent += len(data)
print(sent / (time.monotonic() - begin))
"""
# A raw socket, so that no port has to be bound: what is measured is the way through the rules.
NEW = """
import socket, struct, sys, time
source, target, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), 50_000
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
packets = [struct.pack("!HHHH", 10_000 + n, port, 8, 0) for n in range(count)]
begin = time.process_time()
for packet in packets:
    raw.sendto(packet, (target, 0))
print((time.process_time() - begin) / count * 1e6)
"""


def run(*argv: str, text: str | None = None) -> str:
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True, timeout=120).stdout


def inside(namespace: str, *argv: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *argv]


def segment(number: int) -> dict[str, Any]:
    name = f"s{number:03}"
    return {
        "name": name,
        "bridge": f"rf-{name}",
        "subnet": f"10.{64 + number // 256}.{number % 256}.0/24",
        "subnet6": "",
    }


def address(number: int, host: int) -> str:
    return f"10.{64 + number // 256}.{number % 256}.{host}"


def mac(address_: str) -> str:
    return "02:42:" + ":".join(f"{int(part):02x}" for part in address_.split("."))


# (namespace, segment, host number): two on the last segment but one, one on the last.
def ends(segments: int) -> list[tuple[str, int, int]]:
    return [("rf-bench-a", segments - 2, 10), ("rf-bench-b", segments - 2, 11), ("rf-bench-c", segments - 1, 10)]


def wish(segments: int) -> dict[str, Any]:
    """A lab of so many segments, each with two containers, and the flows that are measured declared last."""
    found = [segment(number) for number in range(segments)]
    endpoints, flows = [], []
    for number, entry in enumerate(found):
        for host in (10, 11):
            own = address(number, host)
            endpoints.append(
                {
                    "name": f"{entry['name']}-{host}",
                    "bridge": entry["bridge"],
                    "mac": mac(own),
                    "address": own,
                    "address6": "",
                }
            )
        there = number + 1 if number + 1 < segments else number - 1
        for to, host in ((number, 11), (there, 10)):
            for proto in ("tcp", "udp"):
                flows.append(
                    {
                        "name": f"{number} > {to}", "from_bridge": entry["bridge"], "to_bridge": found[to]["bridge"],
                        "source": address(number, 10), "source6": "", "destination": address(to, host),
                        "destination6": "", "proto": proto, "port": PORT,
                    }
                )  # fmt: skip
    return {
        "backend": "", "segments": found, "endpoints": endpoints, "places": [], "uplinks": [], "flows": flows,
        "egress": [], "published": [], "host": [], "private": [], "unmanaged": "keep", "ulogd": "", "force": False,
    }  # fmt: skip


@contextlib.contextmanager
def topology(segments: int) -> Iterator[None]:
    """A host with two bridges and three containers' ends."""
    names = [HOST, *(name for name, _, _ in ends(segments))]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run(*inside(HOST, "sysctl", "-qw", "net.ipv4.ip_forward=1"))
        # A set of rules of its own loads the bridge filter, which every bridge asks for itself.
        for number, (name, at, host) in enumerate(ends(segments)):
            bridge = f"rf-s{at:03}"
            own = address(at, host)
            if not run(*inside(HOST, "ip", "-o", "link")).count(f" {bridge}:"):
                run(*inside(HOST, "ip", "link", "add", bridge, "type", "bridge", "nf_call_iptables", "1"))
                run(*inside(HOST, "ip", "addr", "add", f"{address(at, 1)}/24", "dev", bridge))
                run(*inside(HOST, "ip", "link", "set", bridge, "up"))
            run(
                "ip",
                "link",
                "add",
                f"vethb{number}",
                "netns",
                HOST,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                name,
            )
            run(*inside(HOST, "ip", "link", "set", f"vethb{number}", "master", bridge, "up"))
            run(*inside(name, "ip", "link", "set", "eth0", "address", mac(own), "up"))
            run(*inside(name, "ip", "addr", "add", f"{own}/24", "dev", "eth0"))
            run(*inside(name, "ip", "route", "add", "default", "via", address(at, 1)))
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def load(text: str) -> None:
    run(*inside(HOST, "nft", "-f", "-"), text=f"flush ruleset\n{text}")


def throughput(source: str, target: str, to: str, seconds: float) -> float:
    """Bytes per second over one connection."""
    receiver = subprocess.Popen(
        inside(target, sys.executable, "-c", RECEIVE, to, str(PORT)), stdout=subprocess.PIPE, text=True
    )
    assert receiver.stdout
    receiver.stdout.readline()
    try:
        return float(run(*inside(source, sys.executable, "-c", SEND, to, str(PORT), str(seconds))))
    finally:
        receiver.kill()
        receiver.wait()


def new_connection(source: str, own: str, to: str) -> float:
    """Microseconds of one."""
    with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
        run(*inside(HOST, "conntrack", "-F"))
    return float(run(*inside(source, sys.executable, "-c", NEW, own, to, str(PORT))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("benchmarks/policy.py: needs root, for network namespaces")
    around = Around(uplinks=("eth0",), tells=tells_bridges())
    wanted = wish(given.segments)
    fence = nft_text([*sources(wanted, around, "iptables"), *build(wanted, around)])
    (a, at_a, host_a), (b, at_b, host_b), (c, at_c, host_c) = ends(given.segments)
    own = address(at_a, host_a)
    ways = {"inside a bridge": (b, address(at_b, host_b)), "across bridges": (c, address(at_c, host_c))}
    found: dict[str, dict[str, list[float]]] = {}
    with topology(given.segments):
        for _ in range(given.rounds):
            for kind, text in (("none", NONE), ("fence", fence)):
                load(text)
                for way, (name, to) in ways.items():
                    found.setdefault(f"throughput, {way}", {}).setdefault(kind, []).append(
                        throughput(a, name, to, given.seconds)
                    )
                    found.setdefault(f"new connections, {way}", {}).setdefault(kind, []).append(
                        new_connection(a, own, to)
                    )
    report = {}
    print(f"{given.segments} segments, {fence.count(chr(10))} lines of rules, median of {given.rounds} rounds")
    for what, kinds in found.items():
        none, with_fence = statistics.median(kinds["none"]), statistics.median(kinds["fence"])
        ratio = with_fence / none if what.startswith("throughput") else none / with_fence
        report[what] = round(ratio, 3)
        more = (
            "" if what.startswith("throughput") else f"  ({none:.2f} → {with_fence:.2f} µs, {with_fence - none:+.2f})"
        )
        print(f"{what:34} {ratio:5.2f}{more}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
