"""A large host compiles fast, and has room: the benchmark's own goal."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "compile.py"


def test_a_hundred_services_in_seventy_segments_compile_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    names = runpy.run_path(str(BENCHMARK))
    assert names["main"]() == 0
    assert "100 services in 70 segments" in capsys.readouterr().out
