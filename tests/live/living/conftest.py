"""The hosts on which people live: two that are crowded, one with compose projects to take over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import NO_DOOR, Lab
from tests.live.living.crowd import IMAGE, crowd

# What is declared on all of them, beside what people have: little, as it is theirs that matters.
IDLE = {"host": "atlas", "image": IMAGE, "segments": ["frontend"], "command": ["sleep", "1000000"], "init": True}


@pytest.fixture(scope="package", params=["26.1", "29", "28.5"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One host for each release of Docker; the tests of it follow each other in the files' order."""
    projects = request.param == "28.5"
    declared = {"lab_services": {} if projects else {"idle": IDLE}}
    for lab in fresh(f"t-living-{request.param.replace('.', '')}", request.param, **NO_DOOR, **declared):
        if not projects:
            crowd(lab)
        yield lab
