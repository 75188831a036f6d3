"""The watcher of the kill drills stops a program between its first change and its end, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.labs import waited_for

CATCH = Path(__file__).resolve().parents[1] / "live" / "catch.py"
PROGRAM = """
import pathlib, sys, time
here = pathlib.Path(sys.argv[0]).parent
time.sleep(0.3)  # as any program compares first
while not (here / "begin").exists():
    time.sleep(0.01)
(here / "new").write_text("changed")
(here / "new").rename(here / "state")  # at once: between emptying a file and writing to it there is a change as well
time.sleep(60)
"""


class Drill:
    """A directory with a program that does its work when it is told to, and a watcher of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # The watcher looks at all processes of the machine, and another worker may be at the same tests.
        self.role = f"x{os.getpid()}"
        self.path = directory / f"ringfence-{self.role}"
        self.path.write_text(PROGRAM, encoding="utf-8")
        (directory / "state").write_text("old", encoding="utf-8")
        self.caught = directory / "caught"
        sign = f"cat {directory / 'state'}"
        self.watcher = subprocess.Popen([sys.executable, str(CATCH), self.role, sign, str(self.caught)])
        self.program: subprocess.Popen[bytes] | None = None
        assert waited_for(self.caught.exists, 30)  # from now on changes are seen

    def start(self, verb: str) -> None:
        self.program = subprocess.Popen([sys.executable, str(self.path), verb])

    def state(self) -> str:
        assert self.program
        return Path(f"/proc/{self.program.pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0]

    def end(self) -> None:
        for process in (self.watcher, self.program):
            if process:
                process.kill()
                process.wait()


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    found = Drill(tmp_path)
    yield found
    found.end()


def test_a_program_is_stopped_at_work(drill: Drill) -> None:
    drill.start("apply")
    (drill.directory / "begin").touch()
    assert waited_for(lambda: bool(drill.caught.read_text()), 30)
    assert drill.program
    assert int(drill.caught.read_text()) == drill.program.pid
    assert waited_for(lambda: drill.state() == "T", 5)
    assert (drill.directory / "state").read_text() == "changed"
    assert drill.watcher.wait(5) == 0


def test_a_program_that_changes_nothing_or_only_checks_is_left_alone(drill: Drill) -> None:
    drill.start("check")
    (drill.directory / "begin").touch()
    assert waited_for(lambda: (drill.directory / "state").read_text() == "changed", 20)
    time.sleep(0.3)  # nothing can be waited for here: it is the absence that counts
    assert drill.caught.read_text() == ""
    assert drill.state() != "T"
    assert drill.watcher.poll() is None
    assert drill.program
    os.kill(drill.program.pid, signal.SIGTERM)


# The child lives until the test has looked at it.
FORKED = "\nimport os\nif os.fork() == 0:\n    time.sleep(60)\n"


def test_a_child_that_is_not_yet_what_it_is_for_is_left_alone(drill: Drill) -> None:
    """Its parent would wait for it, and never stop."""
    early = PROGRAM.replace('(here / "new").rename', FORKED.strip() + '\n(here / "new").rename')
    drill.path.write_text(early, encoding="utf-8")
    drill.start("apply")
    (drill.directory / "begin").touch()
    assert waited_for(lambda: bool(drill.caught.read_text()), 30)
    assert drill.program
    assert int(drill.caught.read_text()) == drill.program.pid
    (child,) = Path(f"/proc/{drill.program.pid}/task/{drill.program.pid}/children").read_text().split()
    assert waited_for(lambda: drill.state() == "T", 5)
    try:
        assert Path(f"/proc/{child}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] == "S"
    finally:
        os.kill(int(child), signal.SIGKILL)
