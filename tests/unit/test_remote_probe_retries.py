"""A probe asks again where the system itself could not send, and where something must be open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ringfence.verify.remote import probing

SOURCE = {"address": "127.0.0.1", "address6": ""}
FULL = "failed: Invalid argument"  # what the kernel says when its table of neighbours is full


@pytest.mark.parametrize(
    ("proto", "must", "answers", "expected", "rests"),
    [
        ("tcp", False, [FULL, FULL, "timeout"], "timeout", [0.5, 6.0]),
        ("tcp", False, [FULL, FULL, FULL, FULL], FULL, [0.5, 6.0, 12.0]),
        ("tcp", False, ["timeout"], "timeout", []),
        ("tcp", False, ["refused"], "refused", []),
        ("tcp", True, ["timeout", "timeout", "open"], "open", [0.5, 6.0]),
        ("tcp", True, ["timeout", "timeout", "timeout"], "timeout", [0.5, 6.0]),
        ("tcp", True, ["open"], "open", []),
        ("udp", True, ["timeout", "timeout", "timeout"], "timeout", [0, 0]),
        ("udp", False, [FULL, "timeout"], "timeout", [0.5]),
    ],
)
def test_retries(
    monkeypatch: pytest.MonkeyPatch, proto: str, must: bool, answers: list[str], expected: str, rests: list[float]
) -> None:
    left, rested = list(answers), []

    async def ask(*_: Any) -> str:
        return left.pop(0)

    async def rest(seconds: float) -> None:
        rested.append(seconds)

    monkeypatch.setattr(probing, "connect_tcp", ask)
    monkeypatch.setattr(probing, "send_udp", ask)
    monkeypatch.setattr(asyncio, "sleep", rest)
    result = asyncio.run(probing.probe_cell("t", [1, 0, "127.0.0.1", proto, 9, must], SOURCE, None, 0.1))
    assert (result[0], left, rested) == (expected, [], rests)


@pytest.mark.parametrize(
    ("answers", "expected", "rests"),
    [(["timeout"], "timeout", []), ([FULL, "timeout"], "timeout", [0.5]), ([FULL] * 4, FULL, [0.5, 6.0, 12.0])],
)
def test_a_lie_that_could_not_be_sent_is_told_again(
    monkeypatch: pytest.MonkeyPatch, answers: list[str], expected: str, rests: list[float]
) -> None:
    left, rested = list(answers), []

    async def send(*_: Any) -> list[str]:
        return [left.pop(0), ""]

    async def rest(seconds: float) -> None:
        rested.append(seconds)

    monkeypatch.setattr(probing, "send_forged", send)
    monkeypatch.setattr(asyncio, "sleep", rest)
    cell = [1, 0, "127.0.0.1", "tcp", 9, False, "127.0.0.2", ""]
    result = asyncio.run(probing.probe_cell("t", cell, SOURCE, None, 0.1))
    assert (result[0], left, rested) == (expected, [], rests)
