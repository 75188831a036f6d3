"""The guard's program: exact files, exact rules, and every order of arm, confirm, restore and time."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "roles" / "guard" / "files" / "ringfence-guard"


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    root = tmp_path / "root"
    (root / "etc/ufw").mkdir(parents=True)
    (root / "etc/ufw/user.rules").write_text("old\n")
    (root / "etc/ufw/user.rules").chmod(0o640)
    (root / "etc/ssh/sshd_config.d").mkdir(parents=True)
    (root / "etc/ssh/sshd_config").write_text("Port 22\n")
    monkeypatch.setenv("RINGFENCE_GUARD_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("RINGFENCE_GUARD_ROOT", str(root))
    monkeypatch.setenv("RINGFENCE_GUARD_LOCK", str(tmp_path / "lock"))
    loader = SourceFileLoader("ringfence_guard", str(PROGRAM))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    calls: list[tuple[str, ...]] = []

    def run(*argv: str, text: str | None = None, timeout: float = 20) -> Any:
        calls.append(argv)
        return module.subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "stop_changes", lambda: None)
    monkeypatch.setattr(module, "ssh_connection", lambda: module.connection)
    module.connection = "10.0.0.1 40000 10.0.0.2 22"
    module.calls, module.root = calls, root
    return module


def come_back(guard: Any) -> None:
    guard.connection = "10.0.0.1 40001 10.0.0.2 22"


def test_restores_files_exactly(guard: Any) -> None:
    guard.arm(45, "test")
    rules = guard.root / "etc/ufw/user.rules"
    rules.write_text("new\n")
    rules.chmod(0o600)
    (guard.root / "etc/ufw/new.rules").write_text("x")
    (guard.root / "etc/ssh/sshd_config").unlink()
    (guard.root / "etc/ringfence/policy").mkdir(parents=True)
    (guard.root / "etc/ringfence/policy/rules.v4").write_text("x")
    guard.restore()
    assert rules.read_text() == "old\n"
    assert rules.stat().st_mode & 0o777 == 0o640
    assert not (guard.root / "etc/ufw/new.rules").exists()
    assert (guard.root / "etc/ssh/sshd_config").read_text() == "Port 22\n"
    assert not (guard.root / "etc/ringfence/policy").exists()


def test_a_package_that_came_meanwhile_keeps_its_files(guard: Any) -> None:
    guard.arm(45, "test")
    (guard.root / "etc/default").mkdir()
    (guard.root / "etc/default/ufw").write_text("IPV6=yes\n")
    guard.restore()
    assert (guard.root / "etc/default/ufw").exists()


def test_links_come_back_as_links(guard: Any) -> None:
    link = guard.root / "etc/ufw/before.rules"
    link.symlink_to("/usr/share/ufw/before.rules")
    guard.arm(45, "test")
    link.unlink()
    link.write_text("x")
    guard.restore()
    assert str(link.readlink()) == "/usr/share/ufw/before.rules"


def test_arming_twice_keeps_the_first_snapshot_and_extends(guard: Any) -> None:
    guard.arm(45, "one")
    first = guard.load(guard.PENDING)
    (guard.root / "etc/ufw/user.rules").write_text("half\n")
    guard.arm(300, "two")
    second = guard.load(guard.PENDING)
    assert second["deadline"] > first["deadline"] + 200
    assert second["reasons"] == ["one", "two"]
    guard.restore()
    assert (guard.root / "etc/ufw/user.rules").read_text() == "old\n"


def test_confirm_keeps_the_change_and_may_be_repeated(guard: Any) -> None:
    guard.arm(45, "test")
    (guard.root / "etc/ufw/user.rules").write_text("new\n")
    come_back(guard)
    guard.confirm()
    guard.confirm()
    assert (guard.root / "etc/ufw/user.rules").read_text() == "new\n"
    assert "old" not in guard.CONFIRMED.read_text()
    with pytest.raises(guard.GuardError, match="nothing to restore"):
        guard.restore()


def test_confirm_needs_a_new_connection(guard: Any) -> None:
    guard.arm(45, "test")
    with pytest.raises(guard.GuardError, match="connection that made the change"):
        guard.confirm()
    assert guard.PENDING.exists()


def test_confirm_after_the_restore_fails_and_says_why(guard: Any) -> None:
    guard.arm(45, "policy")
    guard.restore()
    come_back(guard)
    with pytest.raises(guard.GuardError, match=r"too late: the change \(policy\) was taken back"):
        guard.confirm()


def test_confirm_after_the_deadline_fails_even_before_the_restore(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guard.arm(45, "policy")
    come_back(guard)
    later = guard.now() + 46
    monkeypatch.setattr(guard, "now", lambda: later)
    with pytest.raises(guard.GuardError, match="too late"):
        guard.confirm()


def test_confirm_without_arm_fails(guard: Any) -> None:
    with pytest.raises(guard.GuardError, match="nothing waits"):
        guard.confirm()


def test_nothing_is_armed_when_the_timer_does_not_start(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*argv: str, text: str | None = None, timeout: float = 20) -> Any:
        return guard.subprocess.CompletedProcess(argv, 1 if argv[0] == "systemd-run" else 0, "", "no bus")

    monkeypatch.setattr(guard, "run", run)
    with pytest.raises(guard.GuardError, match="nothing may be changed: no bus"):
        guard.arm(45, "test")
    assert not guard.PENDING.exists()


@pytest.mark.parametrize("seconds", [0, -1, 4, 901])
def test_windows_have_bounds(guard: Any, seconds: int) -> None:
    with pytest.raises(guard.GuardError, match="5 to 900"):
        guard.arm(seconds, "test")


def test_an_interrupted_restore_is_run_again(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guard.arm(45, "test")
    (guard.root / "etc/ufw/user.rules").write_text("new\n")
    (guard.root / "etc/ssh/sshd_config").write_text("new\n")
    put_back, done = guard.put_back, []

    def cut(*arguments: Any) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        put_back(*arguments)

    monkeypatch.setattr(guard, "put_back", cut)
    with pytest.raises(KeyboardInterrupt):
        guard.restore()
    monkeypatch.setattr(guard, "put_back", put_back)
    guard.restore()
    assert (guard.root / "etc/ufw/user.rules").read_text() == "old\n"
    assert (guard.root / "etc/ssh/sshd_config").read_text() == "Port 22\n"


def test_expire_waits_on_when_the_window_was_extended(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guard.arm(10, "test")
    unit = guard.load(guard.PENDING)["unit"]
    start = guard.now()
    clock = [start + 10.1]
    monkeypatch.setattr(guard, "now", lambda: clock[0])
    guard.arm(20, "more")
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(guard.time, "sleep", sleep)
    guard.expire(unit)
    assert sum(slept) == pytest.approx(20, abs=0.5)
    assert guard.RESTORED.exists()


def test_a_timer_of_an_earlier_window_does_nothing(guard: Any) -> None:
    guard.arm(45, "test")
    guard.expire("ringfence-guard-restore-0")
    assert guard.PENDING.exists()


def test_sshd_restarts_only_when_its_files_changed(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    restarts: list[int] = []
    monkeypatch.setattr(guard, "restart_sshd", lambda: restarts.append(1))
    guard.arm(45, "test")
    (guard.root / "etc/ufw/user.rules").write_text("new\n")
    guard.restore()
    assert restarts == []
    guard.arm(45, "test")
    (guard.root / "etc/ssh/sshd_config.d/00-ringfence.conf").write_text("PermitRootLogin no\n")
    guard.restore()
    assert restarts == [1]


SAVE = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:RF-FWD - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RF-FWD
-A DOCKER-USER -j RETURN
-A RF-FWD -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
COMMIT
"""


def test_only_own_rules_are_kept_from_the_kernel(guard: Any) -> None:
    part = guard.parse_save(SAVE)
    assert list(part["chains"]) == ["RF-FWD"]
    assert part["jumps"] == {"DOCKER-USER": [[0, "-j RF-FWD"]]}
    assert part["policies"] == {"INPUT": "ACCEPT", "FORWARD": "DROP", "OUTPUT": "ACCEPT"}


def test_unchanged_rules_need_no_transaction(guard: Any) -> None:
    part = guard.parse_save(SAVE)
    assert guard.transaction("filter", part, part) == ""


def test_transaction_removes_what_is_new_and_never_names_dockers_chains_as_its_own(guard: Any) -> None:
    before = guard.parse_save(SAVE)
    after = guard.parse_save(
        SAVE.replace(":INPUT ACCEPT", ":INPUT DROP")
        .replace(":RF-FWD - [0:0]\n", ":RF-FWD - [0:0]\n:RF-iot - [0:0]\n:ufw-user-input - [0:0]\n")
        .replace("-A FORWARD -j", "-A INPUT -j ufw-user-input\n-A FORWARD -j", 1)
    )
    text = guard.transaction("filter", before, after)
    assert ":INPUT ACCEPT [0:0]" in text
    assert "-D INPUT -j ufw-user-input" in text
    assert "-X RF-iot" in text
    assert "-X ufw-user-input" in text
    assert "-I DOCKER-USER 1 -j RF-FWD" in text
    assert ":DOCKER" not in text


def test_nothing_was_there_before(guard: Any) -> None:
    text = guard.transaction("filter", {}, guard.parse_save(SAVE))
    assert ":FORWARD ACCEPT [0:0]" in text
    assert "-D DOCKER-USER -j RF-FWD" in text
    assert "-X RF-FWD" in text


def test_check_says_that_a_change_waits(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "timer_active", lambda unit: True)
    guard.arm(45, "ufw")
    assert any("waits for confirmation" in line for line in guard.check()["notices"])


def test_messages_not_tracebacks(guard: Any, capsys: pytest.CaptureFixture[str]) -> None:
    guard.STATE.mkdir()
    guard.PENDING.write_text("{broken")
    assert guard.main(["confirm"]) == 1
    assert "cannot be read" in capsys.readouterr().err
    assert guard.main(["status"]) == 1


def test_snapshot_is_for_root_only(guard: Any) -> None:
    guard.arm(45, "test")
    assert guard.STATE.stat().st_mode & 0o777 == 0o700
    assert guard.PENDING.stat().st_mode & 0o777 == 0o600
    assert os.getuid() == json.loads(guard.PENDING.read_text())["files"]["etc/ufw"]["etc/ufw"]["uid"]
