"""The host that projects of all kinds are put on: the tests of this folder follow it one file after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import NO_DOOR, Lab


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    yield from fresh("t-stack", "28.5", **NO_DOOR)
