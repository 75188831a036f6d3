"""The two that the table is held to, each started once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.portal.flows import FLOWS
from tests.portal.program import Program, give_codes, running

DOUBLE = pytest.param(False, id="double", marks=pytest.mark.xdist_group("portal-double"))
REAL = pytest.param(True, id="real", marks=[pytest.mark.authelia, pytest.mark.xdist_group("portal-real")])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "real" in metafunc.fixturenames:
        metafunc.parametrize("real", [DOUBLE, REAL], scope="module")


def need_real() -> str:
    """The path of the real program."""
    path = os.environ.get("RINGFENCE_AUTHELIA", "")
    if not path:
        pytest.skip("RINGFENCE_AUTHELIA does not say where the real Authelia is: only its double was checked")
    return path


@pytest.fixture(scope="module")
def program(real: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    if real:
        need_real()
    with running(tmp_path_factory.mktemp("portal") / "it", real=real) as started:
        # Each takes the start of a program: only those who show a code.
        signs = [step for steps in FLOWS.values() if any(each.what == "code" for each in steps) for step in steps]
        give_codes(started, "owner", *sorted({step.value for step in signs if step.what == "sign"}))
        yield started


@pytest.fixture
def brief(real: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One whose sessions and bans are over in seconds."""
    if real:
        need_real()
    changes = {
        "session": {"inactivity": "2 seconds", "expiration": "4 seconds"},
        "regulation": {"find_time": "8 seconds", "ban_time": "8 seconds"},
    }
    with running(tmp_path_factory.mktemp("brief") / "it", real=real, changes=changes) as started:
        yield started
