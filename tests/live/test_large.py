"""A large lab fits on one host: a hundred services in seventy segments."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "compile.py"
SEGMENTS, SERVICES = 70, 100


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    large = runpy.run_path(str(BENCHMARK))["large_lab"](SERVICES, SEGMENTS)
    for lab in fresh("t-large", "29"):
        lab.declare(lab_segments=large["lab_segments"], lab_services=large["lab_services"])
        yield lab


def test_its_policy_and_networks_are_applied_and_leave_room(lab: Lab) -> None:
    for deploy in ("guard", "docker", "policy", "segments"):
        lab.pyinfra(deploy)
    count = "docker network ls -q --filter label=ringfence.segment | wc -l"
    assert lab.ssh(count) == f"{SEGMENTS}\n"
    for deploy in ("docker", "policy", "segments"):
        assert lab.plan(deploy).changed == []
    # Docker still has subnets for whoever asks for one.
    lab.ssh("docker network create theirs && docker network rm theirs")
