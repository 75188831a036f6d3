"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

# Roles that tests apply; their own checks are for a host.
collect_ignore = ["fixtures"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI everything a test needs is there: one that skips there checks nothing and has failed.

    All but the real Authelia, which no package has: those tests are skipped there, and say so.
    """
    report = yield
    if report.skipped and os.environ.get("RINGFENCE_CI") and not item.get_closest_marker("authelia"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report
