"""Waiting for containers: what a container that starts again and again is, and what is said meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.programs import load

stack: Any = load("stack")


class Engine:
    """Docker and the clock: what both say is a function of the seconds that have passed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, said: Callable[[float], dict[str, Any]]) -> None:
        """`said`: seconds → {state, status, and what is asked for: restarts, started} of the container `web`."""
        self.now, self.said, self.lines = 0.0, said, list[str]()
        monkeypatch.setattr(stack, "containers", lambda *_: [{"id": "1", "name": "web", "labels": {}} | said(self.now)])
        monkeypatch.setattr(stack, "there", self._there)
        monkeypatch.setattr(stack, "docker", lambda *_: "could not connect")
        monkeypatch.setattr(stack, "last_words", lambda text, _: text)
        monkeypatch.setattr(stack.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(stack.time, "sleep", self._sleep)
        monkeypatch.setattr(stack.TELL, "say", self.lines.append)

    def _there(self, path: str) -> dict[str, Any]:
        said = self.said(self.now)
        return {"RestartCount": said.get("restarts", 0), "State": {"StartedAt": said.get("started", "once")}}

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


def running(**more: Any) -> dict[str, Any]:
    return {"state": "running", "status": "Up 1 second", **more}


def test_one_that_runs_is_ready_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(monkeypatch, lambda _: running())
    stack.wait({"web"}, 60)
    assert engine.now == stack.STABLE
    assert engine.lines == ["web is running after 2 s (1 of 1)"]


def test_one_that_lives_for_a_second_never_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look finds it running, in another run each second."""
    engine = Engine(monkeypatch, lambda now: running(started=f"run {now // 1}"))
    with pytest.raises(stack.Fault, match="container web is not ready after 30 s: Up 1 second"):
        stack.wait({"web"}, 30)
    assert engine.now > 30


def test_one_that_is_started_again_and_again_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    restarting = {"state": "restarting", "status": "Restarting (1) 1 second ago"}
    engine = Engine(monkeypatch, lambda now: {**restarting, "restarts": 40 + int(now // 3)})
    with pytest.raises(stack.Fault, match=r"after 24 s: Restarting \(1\)") as told:
        stack.wait({"web"}, 180)
    assert "could not connect" in str(told.value)
    assert engine.now < 30


def test_one_whose_database_comes_up_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    restarting = {"state": "restarting", "status": "Restarting (1) 1 second ago"}
    Engine(monkeypatch, lambda now: running() if now > 12 else {**restarting, "restarts": int(now // 2)})
    stack.wait({"web"}, 180)


def test_a_long_wait_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(
        monkeypatch,
        lambda now: running(status="Up 34 seconds (health: starting)") if now < 34 else running(status="Up (healthy)"),
    )
    stack.wait({"web"}, 60)
    assert engine.lines[0] == "waiting for web (Up 34 seconds (health: starting)): 10 of at most 60 s"
    assert len(engine.lines) == 4
