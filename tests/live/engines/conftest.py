"""The hosts that the main job is done on, and whatever else depends on the engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab

NFTABLES = "29-nftables"  # the same engine with its other firewall back end, to which the first run brings it
ENGINES = {"20.10": "t-2010", "26.1": "t-261", "28.5": "t-285", "29": "t-29", NFTABLES: "t-29n"}
BARE = ("20.10", "28.5")  # with Debian 12, and sid; on Debian 13 it is a newcomer who has nothing
BY_ANSIBLE = "28.5"  # pyinfra provisions the others


@pytest.fixture(scope="package", params=ENGINES)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A host on which nothing has been run, on some of them nothing installed either."""
    standing = {"docker_firewall_backend": "nftables"} if request.param == NFTABLES else {}
    engine = request.param.removesuffix("-nftables")
    yield from fresh(ENGINES[request.param], engine, preinstalled=request.param not in BARE, **standing)
