"""A large lab fits on one host: a hundred services in seventy segments, all of them running."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from benchmarks.compile import large_lab
from tests.live.conftest import fresh
from tests.live.labs import NO_DOOR, Lab

SEGMENTS, SERVICES = 70, 100
# A small container each: it answers at the port that the large lab declares.
CHEAP = {
    "image": "docker.io/library/busybox:1.37",
    "command": ["httpd", "-f", "-p", "80", "-h", "/etc"],
    "pids": 20,
    "memory": "16m",
}
START_SECONDS = 420  # a bound for a busy machine, not a goal
VERIFY_SECONDS = 300


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    large = large_lab(SERVICES, SEGMENTS)
    services = {name: {**service, **CHEAP} for name, service in large["lab_services"].items()}
    for lab in fresh("t-large", "29"):
        lab.declare(lab_segments=large["lab_segments"], lab_services=services, **NO_DOOR)
        yield lab


def test_a_hundred_services_start_in_time_and_leave_room(lab: Lab) -> None:
    started = time.monotonic()
    lab.pyinfra()
    assert time.monotonic() - started < START_SECONDS
    assert lab.sh("docker network ls -q --filter label=ringfence.segment | wc -l") == f"{SEGMENTS}\n"
    running = lab.sh("docker ps --filter status=running --format '{{.Label \"com.docker.compose.service\"}}'")
    assert sorted(running.split()) == sorted(f"service-{number}" for number in range(SERVICES))
    # Docker still has subnets for whoever asks for one.
    lab.sh("docker network create theirs && docker network rm theirs")


def test_nothing_is_left_to_change(lab: Lab) -> None:
    assert lab.plan().changed == []


def test_each_of_them_is_reached_as_declared_and_not_otherwise(lab: Lab) -> None:
    started = time.monotonic()
    lab.must_verify()
    assert time.monotonic() - started < VERIFY_SECONDS
    opened = {(source, name) for source, name, proto, port, _ in lab.opened() if (proto, port) == ("tcp", 80)}
    calls = {(f"service-{n}", f"service-{(n + step) % SERVICES}") for n in range(SERVICES) for step in (1, 7)}
    assert calls <= opened
