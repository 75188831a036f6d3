"""A run that is killed anywhere leaves what serves, and the next one finishes it."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from tests.unit.pki.conftest import Host, leaf


class Killed(BaseException):
    """The run is killed."""


STEPS = (
    "replace_file", "ensure_key", "question", "take", "enable_units", "issue", "put", "tidy", "trust",
    "record", "write_metrics",
)  # fmt: skip


def killing(host: Host, monkeypatch: pytest.MonkeyPatch, point: int) -> list[str]:
    """Make the program die before or after one of its steps; returns the list in which all of them are noted."""
    passed: list[str] = []

    def dying(name: str, real: Any) -> Any:
        def pass_by(when: str) -> None:
            passed.append(f"{when} {name}")
            if len(passed) == point + 1:
                raise Killed(passed[-1])

        def step(*words: Any, **more: Any) -> Any:
            pass_by("before")
            done = real(*words, **more)
            pass_by("after")
            return done

        return step

    for name in STEPS:
        monkeypatch.setattr(host.module, name, dying(name, getattr(host.module, name)))
    return passed


def test_there_are_as_many_places_to_be_killed_at_as_are_tried(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.variables["pki_leaves"] = [leaf("caddy"), leaf("db")]
    with monkeypatch.context() as patch:
        passed = killing(host, patch, -1)
        host.apply()
    assert {name.partition(" ")[2] for name in passed} >= {*STEPS} - {"record"}
    assert len(passed) <= POINTS, "try more of them"


POINTS = 110


@pytest.mark.parametrize("part", range(0, 6, 2))
def test_a_run_that_is_killed_anywhere_is_finished_by_the_next_one(
    host: Host, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """Killed again and again, each time a little later; whatever is there serves, and the last run finishes it."""
    host.variables["pki_leaves"] = [leaf("caddy"), leaf("db")]
    for point in range(part, POINTS, 6):
        with monkeypatch.context() as patch:
            killing(host, patch, point)
            try:
                host.apply()
            except Killed:
                # As after a kill: what was in memory is still there.
                (host.module.SCRATCH / "pki-left").mkdir(parents=True, exist_ok=True)
        for name in ("caddy", "db"):
            if host.cert(name).exists():
                assert host.verify(name).returncode == 0
                assert host.module.public_half(host.key(name)) == host.module.pair(name).key
        if point % 3 == 0:  # otherwise the next kill meets what this one has left
            host.apply()
            host.settled()
            assert [path.name for path in host.module.SCRATCH.glob("pki-*")] == []
            for path in (host.module.HOME, host.module.LEAVES):
                shutil.rmtree(path)
    host.apply()
    host.settled()
    assert [host.verify(name).returncode for name in ("caddy", "db")] == [0, 0]
