"""Leaves are renewed on the host alone, containers read them, and nobody notices."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ringfence.render import render
from tests.programs import ROLES
from tests.unit.pki.conftest import Host


def age(host: Host, monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    """Let the program's clock go ahead."""
    real = time.time

    class Clock:
        def __getattr__(self, name: str) -> Any:
            return getattr(time, name)

        def time(self) -> float:
            return real() + hours * 3600

    monkeypatch.setattr(host.module, "time", Clock())


def test_a_leaf_is_renewed_at_two_thirds_of_its_life_without_the_controller(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.apply()
    sent, first = len(host.sent), host.cert("caddy").resolve()
    age(host, monkeypatch, 111.5)
    host.module.renew([])
    assert host.cert("caddy").resolve() == first
    age(host, monkeypatch, 112.5)
    host.settled()  # this is the timer's business
    host.module.renew([])
    second = host.cert("caddy").resolve()
    assert second != first
    assert first.exists(), "who reads it now must be able to end"
    host.module.renew([])
    assert host.cert("caddy").resolve() == second
    age(host, monkeypatch, 2 * 112.5)
    host.module.renew([])
    assert not first.exists()
    assert len(host.sent) == sent
    host.settled()


def test_a_timer_that_does_not_do_its_work_is_seen_by_the_next_run(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.apply()
    age(host, monkeypatch, 141)
    assert "and the timer has not renewed it" in host.check()["changes"][0]
    age(host, monkeypatch, 170)
    host.apply()
    host.settled()


def test_a_timer_that_was_stopped_is_started_again(host: Host) -> None:
    host.apply()
    (host.directory / "units" / "active").unlink()
    assert host.check()["changes"] == ["+ ringfence-pki.timer started"]
    host.apply()
    host.settled()


def test_an_ageing_intermediate_is_pending_and_warned_of_once_a_day(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.variables["pki_intermediate_days"] = 10
    host.apply()
    key, old = host.module.SIGNER_KEY.read_text(), host.module.SIGNER.read_text()
    age(host, monkeypatch, 7 * 24)
    assert host.check()["changes"][0].startswith("~ intermediate of atlas, signed by the root: it ends on ")
    capsys.readouterr()
    host.module.renew([])
    host.module.renew([])
    assert capsys.readouterr().err.count("has to be signed again") == 1
    host.apply()
    assert host.module.SIGNER_KEY.read_text() == key
    assert host.module.SIGNER.read_text() != old


def test_near_the_intermediates_end_leaves_are_not_made_anew_for_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.variables |= {"pki_intermediate_days": 5, "pki_leaf_hours": 168.0}
    host.apply()
    assert host.module.pair("caddy").until == host.module.signer().until
    before = host.cert("caddy").resolve()
    age(host, monkeypatch, 4 * 24)
    host.module.renew([])
    assert host.cert("caddy").resolve() == before
    age(host, monkeypatch, 6 * 24)
    with pytest.raises(host.module.Fault, match="this host's intermediate cannot sign: it ended on"):
        host.module.renew([])
    assert 'renewal_failed{name="intermediate"} 1' in Path(host.variables["pki_metrics"]).read_text()


def test_a_clock_that_is_wrong_signs_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.apply()
    host.key("caddy").unlink()
    age(host, monkeypatch, -24 * 365)
    with pytest.raises(host.module.Fault, match=r"this host's clock says .*timedatectl"):
        host.module.renew([])
    monkeypatch.undo()


def test_the_end_of_each_certificate_is_a_metric(host: Host) -> None:
    host.apply()
    metrics = Path(host.variables["pki_metrics"])
    lines = metrics.read_text().splitlines()
    until = host.module.pair("caddy").until
    assert f'ringfence_certificate_expiry_timestamp_seconds{{name="caddy"}} {until:.0f}' in lines
    assert 'ringfence_certificate_renewal_failed{name="caddy"} 0' in lines
    for name in ("root", "intermediate"):
        assert any(
            line.startswith(f'ringfence_certificate_expiry_timestamp_seconds{{name="{name}"}}') for line in lines
        )
    assert "# TYPE ringfence_certificate_expiry_timestamp_seconds gauge" in lines
    host.variables["pki_metrics"] = str(host.directory / "elsewhere" / "pki.prom")
    host.apply()
    assert not metrics.exists()
    assert (host.directory / "elsewhere" / "pki.prom").exists()


@pytest.mark.parametrize(("hours", "seconds"), [(168.0, 600), (24, 600), (1, 150), (0.1, 15), (0.001, 2), ("168", 600)])
def test_the_timer_looks_often_enough(hours: Any, seconds: int) -> None:
    said = render(ROLES / "pki" / "templates" / "ringfence-pki.timer.j2", {"pki_leaf_hours": hours})
    assert f"OnUnitInactiveSec={seconds}\n" in said


def test_what_is_there_can_be_asked_for(host: Host) -> None:
    host.apply()
    lines = host.module.status([]).splitlines()
    assert [line.split()[0] for line in lines] == ["root", "intermediate", "caddy"]
    assert lines[2].endswith("caddy.lab.home")


def test_what_is_kept_for_the_timer_holds_nothing_of_a_single_run(host: Host) -> None:
    host.apply()
    kept = json.loads(host.module.DESIRED.read_text())
    assert not {"answer", "can_sign"} & set(kept)
    assert host.module.DESIRED.stat().st_mode & 0o077 == 0
