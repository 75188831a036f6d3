"""A large host compiles fast, and has room: the benchmark's own goal."""

from __future__ import annotations

import pytest

from benchmarks.compile import main


def test_a_hundred_services_in_seventy_segments_compile_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0
    assert "100 services in 70 segments" in capsys.readouterr().out
