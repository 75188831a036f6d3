"""What is tried in a network namespace is tried once, as long as nothing that it follows from changes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ringfence.host import kept, nowhere


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A host with ringfence, as root sees it, on which scripts run where this test is; the scripts that ran."""
    ran: list[str] = []

    def run(*argv: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        ran.append(str(text))
        return subprocess.run(argv[2:], input=text, capture_output=True, text=True, check=False)

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(kept, "_RINGFENCE", tmp_path)
    monkeypatch.setattr(kept, "MEMORY", tmp_path / "run" / "kept")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(nowhere, "run", run)
    return ran


def test_what_succeeded_is_not_tried_again(runs: list[str]) -> None:
    assert nowhere.tried_nowhere("cat", ["cat"], "rules").stdout == "rules"
    assert nowhere.tried_nowhere("cat", ["cat"], "rules").stdout == "rules"
    assert runs == ["rules"]
    assert nowhere.tried_nowhere("cat", ["cat"], "other rules").stdout == "other rules"
    assert len(runs) == 2


def test_what_failed_is_tried_each_time(runs: list[str]) -> None:
    for _ in range(2):
        assert nowhere.tried_nowhere("echo no >&2; exit 3", ["sh"]).returncode == 3
    assert len(runs) == 2


def test_another_version_of_a_program_tries_again(
    runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho one\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert nowhere.tried_nowhere("tool", ["tool"]).stdout == "one\n"
    tool.write_text("#!/bin/sh\necho another\n")
    assert nowhere.tried_nowhere("tool", ["tool"]).stdout == "another\n"


def test_no_more_is_kept_than_is_of_use(runs: list[str], tmp_path: Path) -> None:
    for number in range(nowhere.TRIALS + 3):
        nowhere.tried_nowhere("cat", ["cat"], f"rules {number}")
    assert len(list((tmp_path / "run" / "kept").iterdir())) == nowhere.TRIALS
    nowhere.tried_nowhere("cat", ["cat"], f"rules {nowhere.TRIALS + 2}")
    assert len(runs) == nowhere.TRIALS + 3
