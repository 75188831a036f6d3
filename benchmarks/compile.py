"""How long the compiler takes for a large host. Run: python benchmarks/compile.py

100 services in 70 segments on one host: read, checked, given addresses and compiled to role variables, without and with
an address book. The goal is less than 2 seconds; the exit status is 1 if it is missed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ringfence.compile import Compiled, compile_lab
from ringfence.compile.book import Book

SERVICES = 100
SEGMENTS = 70
GOAL_SECONDS = 2.0


def large_lab(services: int = SERVICES, segments: int = SEGMENTS) -> dict[str, Any]:
    """Return a lab in which every service is in two segments, calls another one and publishes a port."""
    return {
        "lab_places": {"lan": ["192.168.10.0/24"], "vpn": ["10.99.0.0/24"]},
        "lab_resolvers": ["192.168.10.1"],
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"], "services": {"ssh": {"port": 22, "from": ["lan"]}}}},
        "lab_segments": {f"segment-{number}": {"internet": number % 2 == 0} for number in range(segments)},
        "lab_services": {
            f"service-{number}": {
                "host": "atlas",
                "image": "docker.io/library/caddy:2.11.7",
                "segments": [f"segment-{number % segments}", f"segment-{(number + 1) % segments}"],
                "port": 80,
                "publish": [{"port": 80, "published": 10000 + number, "from": ["lan", "vpn"]}],
                "calls": [f"service-{(number + 1) % services}", f"service-{(number + 7) % services}"],
                "egress": [{"to": "internet", "port": 443}],
                "secrets": {"password": "unimportant"},
            }
            for number in range(services)
        },
    }


def measure(lab: dict[str, Any], book: Book) -> tuple[float, Compiled]:
    """Return the seconds that compiling took, and the result."""
    begin = time.perf_counter()
    compiled = compile_lab(lab, book)
    return time.perf_counter() - begin, compiled


def main() -> int:
    """Print both times. Returns the exit status."""
    lab = large_lab()
    first, compiled = measure(lab, Book())
    again, _ = measure(lab, compiled.book)
    atlas = compiled.hosts["atlas"]
    print(
        f"{SERVICES} services in {len(atlas['segments_networks'])} segments: "
        f"{len(atlas['policy_flows'])} flows, {len(atlas['policy_published'])} published, "
        f"{len(atlas['policy_egress'])} egress"
    )
    print(f"compiled in {first:.2f} s, with its address book in {again:.2f} s (goal: less than {GOAL_SECONDS:.0f} s)")
    return 0 if max(first, again) < GOAL_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
