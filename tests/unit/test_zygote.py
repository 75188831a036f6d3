"""What runs by a zygote is the program itself, with its own arguments, environment, output and end."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.live import zygote

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60


def run(command: str, *words: str, seconds: float = SECONDS, **more: str) -> subprocess.CompletedProcess[str]:
    return zygote.run([str(zygote.BIN / command), *words], ROOT, {**os.environ, **more}, seconds)


@pytest.mark.parametrize("command", zygote.PROGRAMS)
def test_it_says_what_the_program_says(command: str) -> None:
    alone = subprocess.run([zygote.BIN / command, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    forked = run(command, "--version")
    # Ansible names its own path, by which it was called.
    assert (forked.returncode, forked.stdout.splitlines()[0]) == (0, alone.stdout.splitlines()[0])
    assert run(command, "--no-such-option").returncode != 0


def test_each_run_has_its_own_environment() -> None:
    for value in ("one", "two"):
        told = run("pyinfra", "-v", "@local", "exec", "--", "echo says $RINGFENCE_TRIED", RINGFENCE_TRIED=value)
        assert told.returncode == 0
        assert f"says {value}" in told.stdout + told.stderr


def test_what_lasts_too_long_is_killed_and_the_next_one_runs() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run("pyinfra", "@local", "exec", "--", "sleep", "30", seconds=2)
    assert run("pyinfra", "@local", "exec", "--", "false").returncode == 1
