"""The host that is lived with: the tests of this folder follow it one file after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab, without_door


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    for lab in fresh("t-daily", "26.1", **without_door()):
        lab.pyinfra()
        yield lab
