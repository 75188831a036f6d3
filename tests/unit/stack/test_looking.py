"""What the plan takes a container for, by what Docker says of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.stack.cases import Facts, program


@pytest.mark.parametrize(
    ("status", "restarts", "state"),
    [
        ("Up Less than a second", 40, "restarting"),
        ("Up 2 seconds", 3, "restarting"),
        ("Up 2 seconds", 0, "running"),  # a run has just made it
        ("Up 5 minutes", 40, "running"),  # it did, and stays now
    ],
)
def test_one_that_lives_for_a_second_is_not_running(
    monkeypatch: pytest.MonkeyPatch, status: str, restarts: int, state: str
) -> None:
    """Most looks find it running: what tells is how often Docker has started it, and how long ago."""
    labels = {"ringfence.project": "shop", "com.docker.compose.service": "web"}
    found: dict[str, Any] = {
        "id": "1", "name": "shop-web-1", "labels": labels, "state": "running", "status": status, "created": 1.0,
        "networks": {}, "mode": "none", "ports": [], "volumes": [],
    }  # fmt: skip
    detail = {"Created": "2026-01-01T00:00:00Z", "State": {"StartedAt": "now"}, "RestartCount": restarts}
    monkeypatch.setattr(program, "containers", lambda *_: [found])
    monkeypatch.setattr(program, "engine_version", lambda: "29.0.0")
    monkeypatch.setattr(program, "engine", lambda *_: [])
    monkeypatch.setattr(program, "there", lambda path: detail if path == "/containers/1/json" else {})
    facts = Facts()
    program._ask_docker({"projects": []}, facts)
    assert [one["state"] for one in facts.containers] == [state]
