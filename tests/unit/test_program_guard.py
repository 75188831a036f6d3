"""The guard's program: exact files, exact rules, and every order of arm, confirm, restore and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import load, path_of


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
    module: Any = load("guard")
    calls: list[tuple[str, ...]] = []

    def run(*argv: str, **options: Any) -> Any:
        calls.append(argv)
        return module.subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "stop_changes", lambda: None)
    monkeypatch.setattr(module, "connection", lambda: module.here)
    module.here = "10.0.0.1 40000 10.0.0.2 22"
    module.calls, module.root = calls, root
    return module


def come_back(guard: Any) -> None:
    guard.here = "10.0.0.1 40001 10.0.0.2 22"


def test_restores_files_exactly(guard: Any) -> None:
    guard.arm(45, "test")
    rules = guard.root / "etc/ufw/user.rules"
    rules.write_text("new\n")
    rules.chmod(0o600)
    (guard.root / "etc/ufw/new.rules").write_text("x")
    (guard.root / "etc/ssh/sshd_config").unlink()
    (guard.root / "etc/ringfence/policy").mkdir(parents=True)
    (guard.root / "etc/ringfence/policy/rules.v4").write_text("x")
    (guard.root / "etc/ringfence/ufw").mkdir()
    (guard.root / "etc/ringfence/ufw/desired.json").write_text("x")
    guard.restore()
    assert rules.read_text() == "old\n"
    assert rules.stat().st_mode & 0o777 == 0o640
    assert not (guard.root / "etc/ufw/new.rules").exists()
    assert (guard.root / "etc/ssh/sshd_config").read_text() == "Port 22\n"
    assert not (guard.root / "etc/ringfence/policy").exists()
    assert not (guard.root / "etc/ringfence/ufw").exists()


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
    first = guard.read_json(guard.PENDING)
    (guard.root / "etc/ufw/user.rules").write_text("half\n")
    guard.arm(300, "two")
    second = guard.read_json(guard.PENDING)
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
    with pytest.raises(guard.Fault, match="nothing to restore"):
        guard.restore()


def test_confirm_needs_a_new_connection(guard: Any) -> None:
    guard.arm(45, "test")
    with pytest.raises(guard.Fault, match="connection that made the change"):
        guard.confirm()
    assert guard.PENDING.exists()


def test_confirm_after_the_restore_fails_and_says_why(guard: Any) -> None:
    guard.arm(45, "policy")
    guard.restore()
    come_back(guard)
    with pytest.raises(guard.Fault, match=r"too late: the change \(policy\) was taken back"):
        guard.confirm()


def test_confirm_after_the_deadline_fails_even_before_the_restore(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guard.arm(45, "policy")
    come_back(guard)
    later = guard.now() + 46
    monkeypatch.setattr(guard, "now", lambda: later)
    with pytest.raises(guard.Fault, match="too late"):
        guard.confirm()


def test_confirm_without_arm_fails(guard: Any) -> None:
    with pytest.raises(guard.Fault, match="nothing waits"):
        guard.confirm()


def test_nothing_is_armed_when_the_timer_does_not_start(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*argv: str, **options: Any) -> Any:
        return guard.subprocess.CompletedProcess(argv, 1 if argv[0] == "systemd-run" else 0, "", "no bus")

    monkeypatch.setattr(guard, "run", run)
    with pytest.raises(guard.Fault, match="nothing may be changed: no bus"):
        guard.arm(45, "test")
    assert not guard.PENDING.exists()


@pytest.mark.parametrize("seconds", [0, -1, 4, 901])
def test_windows_have_bounds(guard: Any, seconds: int) -> None:
    with pytest.raises(guard.Fault, match="5 to 900"):
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
    monkeypatch.setattr(guard, "timer_active", lambda unit: True)
    guard.arm(10, "test")
    unit = guard.read_json(guard.PENDING)["unit"]
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


def part_of(guard: Any, text: str, table: str = "filter") -> Any:
    return guard.own_part(guard.parse_save(text)[table], guard.parse_policies(text)[table])


def test_only_own_rules_are_kept_from_the_kernel(guard: Any) -> None:
    part = part_of(guard, SAVE)
    assert list(part["chains"]) == ["RF-FWD"]
    assert part["jumps"] == {"DOCKER-USER": [[0, "-j RF-FWD"]]}
    assert part["policies"] == {"INPUT": "ACCEPT", "FORWARD": "DROP", "OUTPUT": "ACCEPT"}


def test_unchanged_rules_need_no_transaction(guard: Any) -> None:
    part = part_of(guard, SAVE)
    assert guard.transaction("filter", part, part) == ""


def test_transaction_removes_what_is_new_and_never_names_dockers_chains_as_its_own(guard: Any) -> None:
    before = part_of(guard, SAVE)
    after = part_of(
        guard,
        SAVE.replace(":INPUT ACCEPT", ":INPUT DROP")
        .replace(":RF-FWD - [0:0]\n", ":RF-FWD - [0:0]\n:RF-iot - [0:0]\n:ufw-user-input - [0:0]\n")
        .replace("-A FORWARD -j", "-A INPUT -j ufw-user-input\n-A FORWARD -j", 1),
    )
    text = guard.transaction("filter", before, after)
    assert ":INPUT ACCEPT [0:0]" in text
    assert "-D INPUT -j ufw-user-input" in text
    assert "-X RF-iot" in text
    assert "-X ufw-user-input" in text
    assert "-I DOCKER-USER 1 -j RF-FWD" in text
    assert ":DOCKER" not in text


def test_nothing_was_there_before(guard: Any) -> None:
    text = guard.transaction("filter", {}, part_of(guard, SAVE))
    assert ":FORWARD ACCEPT [0:0]" in text
    assert "-D DOCKER-USER -j RF-FWD" in text
    assert "-X RF-FWD" in text


# -- a program that does not answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [("iptables-save",), ("ip6tables-save",), ("nft", "list", "tables")])
@pytest.mark.parametrize("code", [124, 1])
def test_rules_that_cannot_be_read_are_no_rules_to_flush(
    guard: Any, monkeypatch: pytest.MonkeyPatch, silent: tuple[str, ...], code: int
) -> None:
    """A hanging iptables-save counted as an empty ruleset: arming then noted nothing, and the restore flushed."""
    monkeypatch.setattr(guard, "families", lambda: ["v4", "v6"])
    guard.arm(45, "test")
    calls: list[tuple[str, ...]] = []

    def run(*argv: str, **options: Any) -> Any:
        calls.append(argv)
        hangs = argv[: len(silent)] == silent
        return guard.subprocess.CompletedProcess(argv, code if hangs else 0, "", "took longer" if hangs else "")

    monkeypatch.setattr(guard, "run", run)
    with pytest.raises(guard.Fault, match=silent[0]):
        guard.restore()
    assert guard.PENDING.exists()
    assert not any(argv[0].endswith("-restore") or argv[:2] == ("nft", "-f") for argv in calls)
    guard.PENDING.unlink()
    with pytest.raises(guard.Fault, match=silent[0]):
        guard.arm(45, "test")
    assert not guard.PENDING.exists()


def test_a_program_that_is_not_installed_has_no_rules(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*argv: str, **options: Any) -> Any:
        missing = argv[0] in ("iptables-save", "ip6tables-save", "nft")
        return guard.subprocess.CompletedProcess(argv, 127 if missing else 0, "", "")

    monkeypatch.setattr(guard, "run", run)
    assert guard.kernel_state()["nft"] == {}
    guard.arm(45, "test")
    guard.restore()
    assert guard.RESTORED.exists()


@pytest.mark.parametrize("verb", ["check", "apply"])
def test_a_systemd_that_does_not_answer_is_an_error(guard: Any, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setattr(guard, "booted", lambda: True)
    monkeypatch.setattr(guard, "run", lambda *argv, **_: guard.subprocess.CompletedProcess(argv, 124, "", "hangs"))
    with pytest.raises(guard.Fault, match="systemctl show"):
        getattr(guard, verb)()


# -- the order of a restore ------------------------------------------------------------------------------------------

RING = {"chains": {"RF-FWD": ["-j DROP"]}, "jumps": {"FORWARD": [[0, "-j RF-FWD"]]}, "policies": {}, "lengths": {}}
OPEN = {"chains": {"RF-OPEN": ["-j ACCEPT"]}, "jumps": {"DOCKER-USER": [[0, "-j RF-OPEN"]]}, "policies": {}}
OPEN["lengths"] = {"DOCKER-USER": 1}
RAW = {"chains": {"RF-RAW": ["-j ACCEPT"]}, "jumps": {"PREROUTING": [[0, "-j RF-RAW"]]}, "policies": {}, "lengths": {}}
OLD_LAYOUT = {"4": {"filter": RING, "raw": RAW}, "nft": ""}
NEW_LAYOUT = {"4": {"mangle": RING, "filter": OPEN, "raw": RAW}, "nft": ""}
NFTABLES = {"4": {"filter": OPEN}, "nft": "table inet ringfence {\n}"}  # as a window of the release before has it
BOTH = {"inet ringfence": "table inet ringfence {\n}", "bridge ringfence": "table bridge ringfence {\n}"}
NATIVE = {"4": {"filter": OPEN, "raw": RAW}, "nft": BOTH}
MARKS = {"4": {"mangle": RING}, "nft": {"inet ringfence": "table inet ringfence {\n\tchain mark {\n\t}\n}"}}
NOTHING: dict[str, Any] = {"4": {}, "nft": {}}


@pytest.mark.parametrize(
    ("wanted", "present", "order"),
    [
        (OLD_LAYOUT, NEW_LAYOUT, ["filter", "mangle"]),
        (NEW_LAYOUT, OLD_LAYOUT, ["mangle", "filter"]),
        (NEW_LAYOUT, NFTABLES, ["mangle", "raw", "inet ringfence"]),
        (NFTABLES, NEW_LAYOUT, ["inet ringfence", "raw", "mangle"]),
        (NEW_LAYOUT, NOTHING, ["mangle", "filter", "raw"]),
        (NOTHING, NEW_LAYOUT, ["raw", "filter", "mangle"]),
        (NOTHING, OLD_LAYOUT, ["raw", "filter"]),
        (OLD_LAYOUT, NOTHING, ["filter", "raw"]),
        (NOTHING, NFTABLES, ["filter", "inet ringfence"]),
        (NEW_LAYOUT, NEW_LAYOUT, []),
        (NATIVE, NATIVE, []),
        (NATIVE, NOTHING, ["inet ringfence, bridge ringfence", "filter", "raw"]),
        (NOTHING, NATIVE, ["raw", "filter", "inet ringfence, bridge ringfence"]),
        (NEW_LAYOUT, NATIVE, ["mangle", "inet ringfence, bridge ringfence"]),
        (NATIVE, NEW_LAYOUT, ["inet ringfence, bridge ringfence", "mangle"]),
        (NFTABLES, NATIVE, ["raw", "bridge ringfence"]),
        (NATIVE, NFTABLES, ["bridge ringfence", "raw"]),
        (MARKS, NATIVE, ["mangle", "inet ringfence", "raw", "filter", "bridge ringfence"]),
        (NATIVE, MARKS, ["bridge ringfence", "filter", "inet ringfence", "raw", "mangle"]),
    ],
)
def test_a_deny_comes_first_and_goes_last(guard: Any, wanted: Any, present: Any, order: list[str]) -> None:
    assert [step.table for step in guard.steps(wanted, present)] == order


def test_a_deny_stays_while_what_replaces_it_cannot_be_loaded(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def run(*argv: str, text: str = "", **options: Any) -> Any:
        loaded.append(text.split()[0])
        return guard.subprocess.CompletedProcess(argv, int("*filter" in text), "", "line 3 failed")

    monkeypatch.setattr(guard, "run", run)
    monkeypatch.setattr(guard, "kernel_state", lambda: NEW_LAYOUT)
    failures = guard.restore_kernel(OLD_LAYOUT)
    assert loaded == ["*filter"]
    assert "mangle stays as it is" in failures[1]


def test_our_tables_of_nftables_come_back_in_one_transaction(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tables, loaded = ["table ip docker-bridges\ntable inet ringfence\ntable bridge ringfence\n"], []

    def run(*argv: str, text: str = "", **options: Any) -> Any:
        said = f"table {' '.join(argv[4:])} {{\n}}\n" if argv[1:4] == ("--stateless", "list", "table") else tables[0]
        if argv[:2] == ("nft", "-f"):
            loaded.append(text)
        return guard.subprocess.CompletedProcess(argv, 0, said if argv[0] == "nft" else "", "")

    monkeypatch.setattr(guard, "run", run)
    guard.arm(45, "test")
    assert guard.read_json(guard.PENDING)["kernel"]["nft"] == {
        "inet ringfence": "table inet ringfence {\n}\n",
        "bridge ringfence": "table bridge ringfence {\n}\n",
    }
    tables[0] = "table ip docker-bridges\n"
    guard.restore()
    [text] = loaded
    for family in ("inet", "bridge"):
        assert f"add table {family} ringfence\ndelete table {family} ringfence\ntable {family} ringfence {{" in text


def test_a_table_that_could_not_be_loaded_again_arms_nothing(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*argv: str, **options: Any) -> Any:
        answer = "table inet ringfence\n" if argv == ("nft", "list", "tables") else ""
        return guard.subprocess.CompletedProcess(argv, int("--check" in argv), answer, "syntax error")

    monkeypatch.setattr(guard, "run", run)
    with pytest.raises(guard.Fault, match=r"nft --check.*syntax error"):
        guard.arm(45, "test")
    assert not guard.PENDING.exists()


# -- the rest --------------------------------------------------------------------------------------------------------


def test_sshd_is_restarted_also_by_a_restore_that_is_run_again(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    restarts: list[int] = []
    monkeypatch.setattr(guard, "restart_sshd", lambda: restarts.append(1))
    guard.arm(45, "test")
    (guard.root / "etc/ssh/sshd_config").write_text("new\n")

    def cut(wanted: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(guard, "restore_kernel", cut)
    with pytest.raises(KeyboardInterrupt):
        guard.restore()
    monkeypatch.setattr(guard, "restore_kernel", lambda wanted: [])
    guard.restore()
    assert restarts == [1]


def test_a_full_disk_does_not_keep_the_rules_from_coming_back(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[Any] = []
    monkeypatch.setattr(guard, "restore_kernel", lambda wanted: restored.append(wanted) or [])
    guard.arm(45, "test")
    (guard.root / "etc/ufw/user.rules").write_text("new\n")
    real = guard.restore_file

    def full(name: str, entry: Any) -> None:
        raise OSError(28, "No space left on device", f"/{name}")

    monkeypatch.setattr(guard, "restore_file", full)
    with pytest.raises(guard.Fault, match=r"not back yet.*user.rules: No space left"):
        guard.restore()
    assert len(restored) == 1
    assert guard.PENDING.exists()
    # Once there is room, the next try brings the files back as well.
    monkeypatch.setattr(guard, "restore_file", real)
    guard.restore()
    assert (guard.root / "etc/ufw/user.rules").read_text() == "old\n"
    assert not guard.PENDING.exists()


def test_rules_that_do_not_come_back_are_not_called_restored(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "TRIES", 3)
    answers: list[list[str]] = []
    monkeypatch.setattr(guard, "restore_kernel", lambda wanted: answers.append([]) or ["nft: no such device"])
    guard.arm(45, "test")
    for _ in range(2):
        with pytest.raises(guard.Fault, match="tried again: nft: no such device"):
            guard.restore()
        assert guard.PENDING.exists()
    assert len(answers) == 4  # each time again after ufw and the policy were asked to load their files
    assert ("/usr/lib/ufw/ufw-init", "force-stop") in guard.calls
    with pytest.raises(guard.Fault, match="could not be brought back as a whole: nft: no such device"):
        guard.restore()
    assert not guard.PENDING.exists()
    with pytest.raises(guard.Fault, match="the old state is except for: nft: no such device"):
        guard.confirm()


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["/usr/bin/python3", "/usr/local/sbin/ringfence-ufw", "apply"], True),
        (["/usr/bin/python3", "/usr/local/sbin/ringfence-policy", "mend"], True),
        (["/usr/bin/python3", "-c", "import json", "ringfence-policy", "remove"], True),
        (["/usr/bin/python3", "/usr/local/sbin/ringfence-ufw", "check"], False),
        (["/usr/bin/python3", "/usr/local/sbin/ringfence-stack", "apply"], False),
        (["sh", "-c", "ringfence-ufw apply"], False),
    ],
)
def test_who_changes_rules_is_known_by_its_command_line(guard: Any, words: list[str], changes: bool) -> None:
    assert guard.changes_rules("\0".join([*words, ""]).encode()) is changes


def test_extending_never_arms(guard: Any) -> None:
    guard.extend(600)
    assert not guard.PENDING.exists()
    guard.arm(30, "test")
    first = guard.read_json(guard.PENDING)["deadline"]
    guard.extend(600)
    assert guard.read_json(guard.PENDING)["deadline"] > first + 500
    guard.extend(None)
    assert guard.read_json(guard.PENDING)["deadline"] == pytest.approx(first, abs=5)


def test_an_overdue_window_is_restored_by_apply(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "booted", lambda: True)
    guard.arm(45, "ufw")
    rules = guard.root / "etc/ufw/user.rules"
    rules.write_text("new\n")
    later = guard.now() + 46
    monkeypatch.setattr(guard, "now", lambda: later)
    states = {"UnitFileState": "enabled", "NeedDaemonReload": "no"}
    monkeypatch.setattr(guard, "unit_states", lambda names, properties: dict.fromkeys(names, states))
    assert guard.apply() == {"changes": ["~ restore the state before ufw: it was never confirmed"]}
    assert rules.read_text() == "old\n"


def test_check_says_that_a_change_waits(guard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "booted", lambda: True)
    monkeypatch.setattr(guard, "timer_active", lambda unit: True)
    guard.arm(45, "ufw")
    assert any("wait until another change is settled (ufw; restored in 45 s" in c for c in guard.check()["changes"])


# -- the window of an engine: it is its own, and counts from the end of applying ---------------------------------------


def arm(guard: Any, name: str = "one", seconds: int = 45, limit: int = 300, holder: int | None = None) -> None:
    here = guard.process(os.getpid() if holder is None else holder)
    guard.arm(seconds, "ufw", {"window": name, "holder": here, "limit": limit})


@pytest.fixture
def clock(guard: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The guard's clock; what sleeps moves it, and a timer waits."""
    moment = [guard.now()]
    monkeypatch.setattr(guard, "now", lambda: moment[0])
    monkeypatch.setattr(guard, "timer_active", lambda unit: True)
    monkeypatch.setattr(guard.time, "sleep", lambda seconds: moment.__setitem__(0, moment[0] + seconds))
    return moment


def test_the_window_counts_from_the_end_of_applying(guard: Any, clock: list[float]) -> None:
    arm(guard)
    clock[0] += 200
    assert guard.left(guard.read_json(guard.PENDING)) == pytest.approx(100)
    guard.applied("one")
    assert guard.left(guard.read_json(guard.PENDING)) == pytest.approx(45)
    clock[0] += 44
    come_back(guard)
    guard.confirm("one")
    assert guard.CONFIRMED.exists()


def test_a_late_confirmation_is_told_what_was_slow(guard: Any, clock: list[float]) -> None:
    arm(guard)
    clock[0] += 60
    guard.applied("one")
    unit = guard.read_json(guard.PENDING)["unit"]
    guard.expire(unit)
    come_back(guard)
    with pytest.raises(
        guard.Fault, match=r"nobody confirmed within 45 s after it was applied, which took 60 s.*guard_sec"
    ):
        guard.confirm("one")


def test_what_hangs_while_it_is_applied_is_taken_back_at_its_limit(guard: Any, clock: list[float]) -> None:
    arm(guard, limit=100)
    (guard.root / "etc/ufw/user.rules").write_text("new\n")
    begin = clock[0]
    guard.expire(guard.read_json(guard.PENDING)["unit"])
    assert clock[0] - begin == pytest.approx(100, abs=2)
    assert (guard.root / "etc/ufw/user.rules").read_text() == "old\n"
    with pytest.raises(guard.Fault, match=r"applying it was not done after 100 s.*guard_apply_seconds is 100"):
        guard.applied("one")


def test_a_step_that_needs_longer_says_so(guard: Any, clock: list[float]) -> None:
    arm(guard, limit=100)
    guard.extend(900)
    assert guard.left(guard.read_json(guard.PENDING)) == pytest.approx(900)
    guard.extend(None)
    assert guard.left(guard.read_json(guard.PENDING)) == pytest.approx(100)


def test_the_clock_of_a_change_whose_maker_died_has_run_since_it_began(guard: Any, clock: list[float]) -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        arm(guard, holder=child.pid)
        clock[0] += 20
        assert guard.is_held(guard.read_json(guard.PENDING))
    finally:
        child.kill()
        child.wait()
    assert guard.left(guard.read_json(guard.PENDING)) == pytest.approx(25)
    guard.expire(guard.read_json(guard.PENDING)["unit"])
    assert "what applied it ended on the way" in guard.status()


def test_a_later_process_with_the_number_of_the_maker_is_not_the_maker(guard: Any) -> None:
    assert guard.process(os.getpid())
    assert guard.process(2**22 + 1) == ""
    assert not guard.is_held({"boot": guard.boot_id(), "holder": f"{os.getpid()} 12345"})


def test_nothing_is_confirmed_while_it_is_made(guard: Any, clock: list[float]) -> None:
    arm(guard)
    come_back(guard)
    with pytest.raises(guard.Fault, match="not yet"):
        guard.confirm("one")
    assert guard.PENDING.exists()


def test_a_run_waits_for_the_change_of_another(
    guard: Any, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    arm(guard, "one")
    guard.applied("one")
    (guard.root / "etc/ufw/user.rules").write_text("one\n")
    come_back(guard)

    def sleep(seconds: float) -> None:
        assert "waits: another change is not settled yet (ufw; restored in 45 s" in capsys.readouterr().err
        guard.confirm("one")

    guard.time.sleep = sleep
    arm(guard, "two")
    assert guard.read_json(guard.PENDING)["window"] == "two"
    # Its snapshot holds what the other has kept.
    (guard.root / "etc/ufw/user.rules").write_text("two\n")
    guard.restore(window="two")
    assert (guard.root / "etc/ufw/user.rules").read_text() == "one\n"


def test_nobody_confirms_or_restores_the_change_of_another_run(guard: Any, clock: list[float]) -> None:
    arm(guard, "one")
    guard.applied("one")
    guard.expire(guard.read_json(guard.PENDING)["unit"])
    arm(guard, "two")
    guard.applied("two")
    come_back(guard)
    for verb in (guard.confirm, lambda name: guard.restore(window=name), guard.applied):
        with pytest.raises(guard.Fault, match="this run's change was taken back, and another one waits now"):
            verb("one")
    assert guard.PENDING.exists()
    guard.confirm("two")
    with pytest.raises(guard.Fault, match="this run's change was taken back, and another one was made since"):
        guard.confirm("one")
    guard.confirm("two")


def test_a_window_whose_timer_is_gone_is_restored_by_the_next_run(
    guard: Any, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    arm(guard, "one")
    guard.applied("one")
    (guard.root / "etc/ufw/user.rules").write_text("one\n")
    clock[0] += 46
    monkeypatch.setattr(guard, "timer_active", lambda unit: False)
    arm(guard, "two")
    assert (guard.root / "etc/ufw/user.rules").read_text() == "old\n"


def test_a_window_of_the_release_before_is_restored(guard: Any) -> None:
    guard.arm(45, "test")
    old = guard.read_json(guard.PENDING)
    guard.save(guard.PENDING, {key: value for key, value in old.items() if key != "armed"})
    guard.restore()
    guard.save(guard.RESTORED, {"reasons": ["test"], "when": "then"})
    with pytest.raises(guard.Fault, match="taken back at then: nobody confirmed it"):
        guard.confirm()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["confirm"], 1, "cannot be read"),
        (["status"], 1, "cannot be read"),
        (["arm", "--seconds", "3"], 1, "5 to 900"),
        (["arm", "--second", "60"], 2, "unrecognized"),
        (["status", "now"], 2, "unrecognized"),
        (["shout"], 2, "usage: ringfence-guard arm"),
    ],
)
def test_messages_not_tracebacks(guard: Any, words: list[str], code: int, said: str) -> None:
    guard.STATE.mkdir()
    guard.PENDING.write_text("{broken")
    done = subprocess.run([sys.executable, path_of("guard"), *words], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_snapshot_is_for_root_only(guard: Any) -> None:
    guard.arm(45, "test")
    assert guard.STATE.stat().st_mode & 0o777 == 0o700
    assert guard.PENDING.stat().st_mode & 0o777 == 0o600
    assert os.getuid() == json.loads(guard.PENDING.read_text())["files"]["etc/ufw"]["etc/ufw"]["uid"]


def test_tunnels_come_back_as_their_files_say_and_only_where_those_differ(
    guard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ringfence-wireguard"
    program.touch()
    monkeypatch.setattr(guard, "TUNNEL_PROGRAM", program)
    conf = guard.root / "etc/wireguard/wg0.conf"
    conf.parent.mkdir()
    conf.write_text("old\n")
    guard.arm(45, "ufw")
    (guard.root / "etc/ufw/user.rules").write_text("new\n")
    guard.restore()
    assert (str(program), "restored") not in guard.calls
    guard.arm(45, "wireguard")
    conf.write_text("new\n")
    (guard.root / "etc/ringfence/wireguard").mkdir(parents=True)
    guard.restore()
    assert conf.read_text() == "old\n"
    assert not (guard.root / "etc/ringfence/wireguard").exists()
    assert (str(program), "restored") in guard.calls


def test_tunnels_that_do_not_come_back_are_tried_again(
    guard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ringfence-wireguard"
    program.touch()
    monkeypatch.setattr(guard, "TUNNEL_PROGRAM", program)
    failing = [True]

    def run(*argv: str, **_: Any) -> Any:
        bad = argv[0] == str(program) and failing[0]
        return guard.subprocess.CompletedProcess(argv, int(bad), "", "no wg" if bad else "")

    monkeypatch.setattr(guard, "run", run)
    (guard.root / "etc/wireguard").mkdir()
    guard.arm(45, "wireguard")
    (guard.root / "etc/wireguard/wg0.conf").write_text("new\n")
    with pytest.raises(guard.Fault, match="not back yet, it is tried again: no wg"):
        guard.restore()
    failing[0] = False
    guard.restore()
    assert not guard.PENDING.exists()
