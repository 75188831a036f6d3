"""The hosts that are attacked: the tests of this folder follow them one file after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab
from tests.live.ring.scenarios import ALL_OF_IT

ENGINES = {"20.10": "t-ring-2010", "26.1": "t-ring-261", "28.5": "t-ring-285", "29": "t-ring-29"}


@pytest.fixture(scope="package", params=ENGINES)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A fresh host, on which nothing has been run."""
    yield from fresh(ENGINES[request.param], request.param, watched=request.param in ALL_OF_IT)
