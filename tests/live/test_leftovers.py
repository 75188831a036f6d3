"""What a killed run of the tests left does not stop the next one."""

from __future__ import annotations

import pytest

from lab.engine import docker
from lab.networks import existing
from lab.plan import LABEL
from tests.live import leftovers


def test_a_run_removes_what_a_killed_one_left_and_leaves_alone_who_is_on_its_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leftovers, "NAMES", f"{leftovers.PREFIX}left-t-")
    monkeypatch.delenv("RINGFENCE_KEEP", raising=False)
    name = f"{leftovers.NAMES}one"
    labels = [f"--label={LABEL}={name}", "--label=ringfence.slot=1", "--label=ringfence.engine=none"]

    def left() -> None:
        # Another clone's, which is still there.
        docker("network", "create", "--internal", *labels, "--label=ringfence.root=/", f"{name}-lan")

    left()
    with leftovers.removed():
        assert name not in existing()
        left()
        with leftovers.removed():
            assert name in existing()
    with leftovers.removed():
        assert name not in existing()
