"""The policy's rules for frames on a kernel that tells bridges apart, as Debian's own does and this machine's may not.

Every frame is sent twice: without the rules each arrives, with them none that is not its sender's own.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Any

import pytest

from ringfence.host.policy.rule import Around
from tests.live.conftest import cannot
from tests.live.kernel.debian import kernel
from tests.live.kernel.machine import boot
from tests.live.kernel.scene import (
    CALLERS_PORT,
    ELSEWHERE,
    FLOWS,
    FOREIGN,
    LIES,
    LIES_TO_HOST,
    OTHER,
    OWN,
    PORT,
    ROUNDS,
    SEGMENT,
    A,
    B,
    C,
    E,
)
from tests.unit.policy_wishes import text_of

GOLDEN = Path(__file__).parents[1] / "golden/policy"
RULESETS = sorted(path.name for path in GOLDEN.glob("*.nft"))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    if platform.machine() != "x86_64":
        cannot("the kernel that is booted is one for amd64")
    if not shutil.which("qemu-system-x86_64"):
        cannot("qemu-system-x86_64 is needed. Use ./run test")
    endpoints = [member._asdict() for member in (A, B, C, ELSEWHERE)]
    nothing: dict[str, Any] = {"egress": [], "published": [], "host": []}
    rules = text_of(
        around=Around(uplinks=("eth0",)), segments=[SEGMENT, OTHER], endpoints=endpoints, flows=FLOWS, **nothing
    )
    assert "meta ibrname" in rules
    return boot(
        kernel(), {"rules.nft": rules, **{f"rulesets/{name}": (GOLDEN / name).read_text() for name in RULESETS}}
    )


def test_the_kernel_tells_bridges_apart(found: dict[str, Any]) -> None:
    assert found["tells"], found["kernel"]


@pytest.mark.parametrize("ruleset", RULESETS)
def test_the_kernel_takes_the_rules_and_lists_them_as_they_are_compared(found: dict[str, Any], ruleset: str) -> None:
    assert found["rulesets"][ruleset] == ""


def test_status_finds_nothing_in_what_is_loaded(found: dict[str, Any]) -> None:
    assert found["status"] == []


def test_what_is_listed_can_be_loaded_again(found: dict[str, Any]) -> None:
    assert found["restored"] == []


@pytest.mark.parametrize(("sent", "name"), [(sent, name) for sent, of in ROUNDS.items() for name in of.frames])
def test_without_the_rules_every_frame_arrives(found: dict[str, Any], sent: str, name: str) -> None:
    assert ROUNDS[sent].aim.name in found["open"][sent][name]


@pytest.mark.parametrize("name", LIES)
def test_a_lie_reaches_nobody(found: dict[str, Any], name: str) -> None:
    assert found["closed"]["lies"][name] == []


@pytest.mark.parametrize("name", LIES_TO_HOST)
def test_a_lie_does_not_reach_the_host(found: dict[str, Any], name: str) -> None:
    assert found["closed"]["to the host"][name] == []


@pytest.mark.parametrize("name", OWN)
def test_what_is_ones_own_arrives(found: dict[str, Any], name: str) -> None:
    assert B.name in found["closed"]["own"][name]


@pytest.mark.parametrize("name", FOREIGN)
def test_nothing_changes_on_a_bridge_that_is_no_segments(found: dict[str, Any], name: str) -> None:
    assert E.name in found["closed"]["foreign"][name]


def test_a_declared_connection_is_made_and_no_other(found: dict[str, Any]) -> None:
    assert found["connections"] == {
        **{f"{by} > {to} {PORT}": "open" for by in ("a", "host") for to in (B.address, B.address6)},
        **{f"a > {to} {CALLERS_PORT}": "TimeoutError" for to in (B.address, B.address6)},
    }
