"""What holds for all tests."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator

import pytest

# Thousands of tests are kept from their collection to the end: looking through them for garbage is a waste of time.
gc.set_threshold(100_000, 20, 20)

# Roles that tests apply; their own checks are for a host.
collect_ignore = ["fixtures"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI everything a test needs is there: one that skips there checks nothing and has failed.

    All but what no package has or takes long to build: those tests are skipped there, and say so.
    """
    report = yield
    given = any(item.get_closest_marker(name) for name in ("authelia", "tailnet"))
    if report.skipped and os.environ.get("RINGFENCE_CI") and not given:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """What pyinfra's command line makes of its process's threads leaves a worker of xdist waiting in vain."""
    assert "pyinfra_cli" not in sys.modules, f"{item.nodeid} imports pyinfra_cli into the process of the tests"


def pytest_collection_finish() -> None:
    gc.freeze()
