"""Sockets that are made in a service's control group by a process there, which ends when it is no longer asked."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from ringfence.verify.remote import slices
from ringfence.verify.remote.slices import Maker, control_groups, makers

TCP = (socket.AF_INET, socket.SOCK_STREAM, 0)


def _late(number: int, frame: FrameType | None) -> None:
    raise AssertionError("it hangs")


@pytest.fixture(autouse=True)
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Control groups that are plain directories; what hangs is a failure."""
    monkeypatch.setattr(slices, "CGROUPS", tmp_path)
    monkeypatch.setattr(slices, "ANSWERS", 1.0)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    before = signal.signal(signal.SIGALRM, _late)
    signal.alarm(20)
    yield tmp_path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_makers_end_one_after_the_other_however_many_there_are(names: str) -> None:
    found = [Maker(name) for name in names]
    for maker in found:
        maker.socket(*TCP).close()
    begun = time.monotonic()
    assert [maker.close() for maker in found] == [""] * len(names)
    assert time.monotonic() - begun < 0.9
    for maker in found:
        with pytest.raises(ProcessLookupError):
            os.kill(maker._child, 0)


def test_makers_of_several_sources_make_and_end() -> None:
    errors: dict[str, str] = {}
    with makers([{"slice": "a"}, {"pid": 1}, {"slice": "b"}, {"slice": "gone"}], errors) as found:
        assert sorted(found) == [0, 2]
        for maker in found.values():
            with maker.socket(*TCP) as made:
                assert made.family == socket.AF_INET
    assert errors == {"3": "its slice gone cannot be entered: No such file or directory"}


def test_one_that_does_not_answer_is_an_error_and_the_others_go_on() -> None:
    errors: dict[str, str] = {}
    with makers([{"slice": "a"}, {"slice": "b"}], errors) as found:
        os.kill(found[0]._child, signal.SIGSTOP)
        with pytest.raises(TimeoutError, match="no socket was made in the slice within 1 s"):
            found[0].socket(*TCP)
        with pytest.raises(ConnectionError):
            found[0].socket(*TCP)
        found[1].socket(*TCP).close()
    assert errors == {}


def test_one_that_does_not_end_is_killed_and_said() -> None:
    errors: dict[str, str] = {}
    with makers([{"slice": "a"}, {"slice": "b"}], errors) as found:
        os.kill(found[0]._child, signal.SIGSTOP)
    assert list(errors) == ["0"]
    assert errors["0"].endswith("did not end within 1 s, and was killed")
    with contextlib.suppress(ProcessLookupError):
        os.kill(found[0]._child, 0)
        pytest.fail("it is still there")


def process(proc: Path, pid: int, space: str, group: str) -> None:
    (proc / str(pid) / "ns").mkdir(parents=True)
    (proc / str(pid) / "ns/mnt").symlink_to(space)
    (proc / str(pid) / "cgroup").write_text(f"12:pids:/elsewhere\n0::{group}\n", encoding="utf-8")


def test_the_control_groups_of_all_processes_of_a_container_are_seen(tmp_path: Path) -> None:
    process(tmp_path, 1, "mnt:[1]", "/init.scope")
    process(tmp_path, 7, "mnt:[7]", "/ringfence.slice/ringfence-hub.slice/docker-a.scope")
    process(tmp_path, 5, "mnt:[7]", "/system.slice/moved.scope")
    process(tmp_path, 9, "mnt:[7]", "/ringfence.slice/ringfence-hub.slice/docker-a.scope")
    (tmp_path / "self").mkdir()
    assert control_groups(7, tmp_path) == [
        "/ringfence.slice/ringfence-hub.slice/docker-a.scope", "/system.slice/moved.scope",
    ]  # fmt: skip
    assert control_groups(8, tmp_path) == []
    (tmp_path / "7/cgroup").write_text("4:pids:/docker/a\n", encoding="utf-8")
    (tmp_path / "9/cgroup").write_text("4:pids:/docker/a\n", encoding="utf-8")
    (tmp_path / "5/cgroup").write_text("4:pids:/docker/a\n", encoding="utf-8")
    assert control_groups(7, tmp_path) == []


def test_those_of_this_process_are_seen() -> None:
    groups = control_groups(os.getpid())
    assert groups == [] or groups[0].startswith("/")
