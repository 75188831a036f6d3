"""What holds on a host after the role `watch`, whichever engine applied it."""

from __future__ import annotations

from typing import Any


def test_the_timer_waits(host: Any) -> None:
    timer = host.service("ringfence-watch.timer")
    assert timer.is_enabled
    assert timer.is_running


def test_every_layer_is_as_intended(host: Any) -> None:
    status = host.run("/usr/local/sbin/ringfence-watch status")
    assert status.rc == 0, status.stdout
    assert status.stdout.splitlines()[-1] == "as intended"


def test_what_is_compared_with_is_nobody_elses(host: Any) -> None:
    for role in ("base", "ufw", "docker"):
        kept = host.file(f"/etc/ringfence/{role}/desired.json")
        assert (kept.mode, kept.user) == (0o600, "root")
