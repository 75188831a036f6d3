"""The base role's program: what sshd would do, who would be cut off, which kernel settings may be set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.programs import ROLES, load, path_of

ROLE = ROLES / "base"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = load("base")
    dropins = tmp_path / "sshd_config.d"
    dropins.mkdir()
    main = tmp_path / "sshd_config"
    main.write_text(f"Include {dropins}/*.conf\nUsePAM yes\n")
    monkeypatch.setattr(module, "SSH", tmp_path)
    monkeypatch.setattr(module, "MAIN", main)
    monkeypatch.setattr(module, "DROPINS", dropins)
    monkeypatch.setattr(module, "OURS", dropins / "00-ringfence.conf")
    monkeypatch.setattr(module, "INCLUDE", f"Include {dropins}/*.conf")
    monkeypatch.setattr(module, "SYSCTL", tmp_path / "60-ringfence.conf")
    monkeypatch.setattr(module, "UPDATES", tmp_path / "20auto-upgrades")
    monkeypatch.setattr(module, "ORIGINALS", tmp_path / "originals")
    return module


def wish(**more: Any) -> dict[str, Any]:
    desired = {key.removeprefix("base_"): value for key, value in DEFAULTS.items() if key != "base_packages"}
    return {**desired, **more}


def report() -> dict[str, list[str]]:
    return {"changes": [], "refusals": [], "notices": []}


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("prohibit-password", "without-password"),
        ("2m", "120"),
        ("1m30s", "90"),
        ("No", "no"),
        ("30", "30"),
        ("a  b", "a b"),
    ],
)
def test_values_are_compared_as_sshd_prints_them(base: Any, written: str, printed: str) -> None:
    assert base.plain(written) == printed


def test_a_line_that_wins_over_ours_is_found(base: Any) -> None:
    base.MAIN.write_text(f"# PasswordAuthentication yes\nPasswordAuthentication yes\n{base.INCLUDE}\n")
    assert base.culprit("passwordauthentication", base.MAIN.read_text()) == f"{base.MAIN}:2"


def test_an_earlier_drop_in_that_wins_over_ours_is_found(base: Any) -> None:
    (base.DROPINS / "00-a.conf").write_text("X11Forwarding yes\n")
    base.OURS.write_text("x\n")
    assert base.culprit("X11Forwarding", base.MAIN.read_text()) == f"{base.DROPINS}/00-a.conf:1"


def test_later_drop_ins_do_not_win(base: Any) -> None:
    (base.DROPINS / "50-cloud-init.conf").write_text("PasswordAuthentication yes\n")
    base.OURS.write_text("x\n")
    assert base.culprit("PasswordAuthentication", base.MAIN.read_text()) == ""


def test_missing_include_goes_first_once(base: Any) -> None:
    once = base.with_include("UsePAM yes\n")
    assert once.splitlines()[0] == base.INCLUDE
    assert base.with_include(once) == once


def test_match_blocks_that_loosen_are_reported(base: Any) -> None:
    base.MAIN.write_text("Match User git\n  PasswordAuthentication yes\nMatch all\n  X11Forwarding yes\n")
    [line] = base.loosened(wish())
    assert "sshd_config:2" in line
    assert "Match User git" in line


def test_the_copy_reads_the_copied_drop_ins(base: Any) -> None:
    (base.DROPINS / "50-x.conf").write_text("UseDNS no\n")
    with base.candidate("Banner none\n", base.MAIN.read_text()) as file:
        copy = Path(file)
        assert str(base.DROPINS) not in copy.read_text()
        assert sorted(path.name for path in (copy.parent / "sshd_config.d").iterdir()) == [
            "00-ringfence.conf",
            "50-x.conf",
        ]
    assert not copy.exists()


# -- the way in ------------------------------------------------------------------------------------------------------


@pytest.fixture
def user(base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    entry = base.pwd.struct_passwd(("ann", "x", 1000, 1000, "", str(home), "/bin/sh"))
    monkeypatch.setattr(base.pwd, "getpwnam", lambda name: entry)
    monkeypatch.setattr(base, "ssh_login", lambda: base.Login("10.0.0.5", 40000, "10.0.0.2", 22, "ann"))
    return home


def test_a_run_that_came_by_password_is_refused(base: Any, user: Path) -> None:
    result = report()
    base.refuse_password_login(wish(), {}, result)
    [line] = result["refusals"]
    assert "ann (10.0.0.5) has no authorized key" in line
    assert "ssh-copy-id ann@" in line


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n"])
def test_an_empty_key_file_is_no_key(base: Any, user: Path, text: str) -> None:
    (user / ".ssh/authorized_keys").write_text(text)
    assert not base.has_key("ann", {})


def test_a_key_lets_in(base: Any, user: Path) -> None:
    (user / ".ssh/authorized_keys").write_text("ssh-ed25519 AAAA ann\n")
    result = report()
    base.refuse_password_login(wish(), {}, result)
    assert result == report()


def test_key_files_elsewhere_are_found(base: Any, user: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "ann").write_text("ssh-ed25519 AAAA\n")
    assert base.has_key("ann", {"authorizedkeysfile": [f".ssh/none {tmp_path}/keys/%u"]})


def test_keys_from_a_command_or_a_certificate_are_believed(base: Any, user: Path) -> None:
    assert base.has_key("ann", {"trustedusercakeys": ["/etc/ssh/ca.pub"]})


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ("Accepted password for bob from 192.0.2.9 port 50000 ssh2", True),
        ("Accepted keyboard-interactive/pam for bob from 192.0.2.9 port 50000 ssh2", True),
        ("Accepted publickey for bob from 192.0.2.9 port 50000 ssh2: ED25519 SHA256:x", False),
        # An earlier one of that port, another's.
        ("Accepted publickey for bob from 192.0.2.9 port 50000 a\nAccepted password for bob from 192.0.2.9 port 50000",
         False),
        ("Accepted password for eve from 192.0.2.9 port 50000 ssh2", False),
        ("", False),
    ],
)  # fmt: skip
def test_a_run_that_came_by_password_is_refused_though_somebodys_key_is_there(
    base: Any, user: Path, monkeypatch: pytest.MonkeyPatch, said: str, refused: bool
) -> None:
    """The guard took the change back, after the run was cut off."""
    (user / ".ssh").mkdir(exist_ok=True)
    (user / ".ssh" / "authorized_keys").write_text("ssh-ed25519 AAAA somebody\n")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(base, "ssh_login", lambda: base.Login("192.0.2.9", 50000, "10.0.0.1", 22, "bob"))
    monkeypatch.setattr(
        base, "run", lambda *words, **_: asked.append(words) or subprocess.CompletedProcess(words, 0, said, "")
    )
    found = report()
    base.refuse_password_login(wish(), {}, found)
    assert bool(found["refusals"]) is refused
    if refused:
        assert "bob (192.0.2.9) came by password" in found["refusals"][0]
    # A host that has the setting already is not asked.
    asked.clear()
    base.OURS.write_text(base.dropin(wish()))
    found = report()
    base.refuse_password_login(wish(), {}, found)
    assert (found["refusals"], asked) == ([], [])


def test_force_says_what_it_overrides(base: Any, user: Path) -> None:
    result = report()
    base.refuse_password_login(wish(force=True), {}, result)
    assert result["refusals"] == []
    assert "because of base_force" in result["notices"][0]


def test_root_is_not_shut_out_by_its_own_run(base: Any, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (user / ".ssh/authorized_keys").write_text("ssh-ed25519 AAAA\n")
    monkeypatch.setattr(base, "ssh_login", lambda: base.Login("10.0.0.5", 40000, "10.0.0.2", 22, "root"))
    result = report()
    base.refuse_password_login(wish(sshd={**DEFAULTS["base_sshd"], "PermitRootLogin": "no"}), {}, result)
    assert "PermitRootLogin no" in result["refusals"][0]


# -- kernel settings -------------------------------------------------------------------------------------------------


@pytest.fixture
def proc(base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "proc"
    folder.mkdir()
    monkeypatch.setattr(base, "sysctl_path", lambda key: folder / key)
    monkeypatch.setattr(base, "in_container", lambda: False)
    return folder


def test_live_values_are_compared_and_set(base: Any, proc: Path) -> None:
    (proc / "net.a").write_text("0\n")
    (proc / "net.b").write_text("1\n")
    desired = wish(sysctls={"net.a": "1", "net.b": "1"})
    assert base.live_differences(desired) == ({"net.a": "0"}, [])
    base.apply_sysctls(desired)
    assert (proc / "net.a").read_text() == "1\n"
    assert base.SYSCTL.read_text().endswith("net.a = 1\nnet.b = 1\n")
    assert base.live_differences(desired) == ({}, [])


def test_what_cannot_be_set_is_a_notice_not_a_change_for_ever(base: Any, proc: Path) -> None:
    different, [line] = base.live_differences(wish(sysctls={"net.gone": "1"}))
    assert different == {}
    assert "this kernel does not have it" in line


def test_what_a_containers_kernel_does_not_allow_is_no_noise(
    base: Any, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them was a notice on every run."""
    (proc / "kernel.x").write_text("0\n")
    (proc / "net.a").write_text("0\n")
    monkeypatch.setattr(base, "in_container", lambda: True)
    desired = wish(sysctls={"kernel.x": "1", "net.gone": "1", "net.a": "1"})
    assert base.live_differences(desired) == ({"net.a": "0"}, [])


@pytest.mark.parametrize("key", ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"])
def test_forwarding_is_never_switched_off(base: Any, proc: Path, key: str) -> None:
    result = report()
    base.compare_sysctls(wish(sysctls={key: "0"}), result)
    assert "cuts every container off" in result["refusals"][0]
    assert key not in DEFAULTS["base_sysctls"]


def test_reverse_path_filter_is_loose_for_wireguard_and_two_uplinks() -> None:
    assert DEFAULTS["base_sysctls"]["net.ipv4.conf.all.rp_filter"] == "2"


def test_nothing_that_ufw_sets_otherwise_is_set(base: Any) -> None:
    text = "net/ipv4/conf/all/log_martians=0\nnet/ipv4/conf/all/accept_redirects=0\n"
    for line in text.splitlines():
        key, value = line.replace("/", ".").split("=")
        assert str(DEFAULTS["base_sysctls"].get(key, value)) == value


# -- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("sshd", {"Banner": "none\nPermitRootLogin yes"}),
        ("sshd", {"Banner none\nPermitRootLogin": "yes"}),
        ("sysctls", {"net.a": "1\rkernel.b = 1"}),
        ("sysctls", {"net.a": "1\x00"}),
    ],
)
def test_a_setting_that_would_be_two_lines_is_refused(base: Any, kind: str, setting: dict[str, str]) -> None:
    found = base.compare(wish(**{kind: setting}))
    assert found["changes"] == []
    assert len(found["refusals"]) == 1
    assert found["refusals"][0].startswith(f"base_{kind}: ")
    assert "is not one line" in found["refusals"][0]


def test_unknown_time_zone_is_refused(base: Any) -> None:
    result = report()
    base.compare_timezone(wish(timezone="Mars/Olympus"), result)
    assert "Mars/Olympus" in result["refusals"][0]


@pytest.fixture
def commands(base: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, ...]]:
    """The commands that are run, none of which does anything."""
    found: list[tuple[str, ...]] = []

    def run(*argv: str, **options: Any) -> Any:
        found.append(argv)
        return base.subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(base, "run", run)
    (tmp_path / "guard").touch()
    monkeypatch.setattr(base, "GUARD", str(tmp_path / "guard"))
    return found


def test_a_run_by_hand_is_never_given_a_window_that_nobody_confirms(base: Any, commands: list[tuple[str, ...]]) -> None:
    """It armed the guard where no window was open: what a person applied was taken back after 45 s."""
    base.install_in_window("chrony")
    assert [argv[1:] for argv in commands if argv[0] == base.GUARD] == [("extend", "--seconds", "900"), ("extend",)]


def test_a_guard_that_fails_stops_the_installation(
    base: Any, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "run", lambda *argv, **_: base.subprocess.CompletedProcess(argv, 1, "", "locked"))
    with pytest.raises(base.Fault, match="extend --seconds 900` failed: locked"):
        base.install_in_window("chrony")
    assert commands == []


def test_units_are_enabled_and_started_as_planned(
    base: Any, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {
        "chrony.service": {"LoadState": "loaded", "UnitFileState": "enabled", "ActiveState": "inactive"},
        "apt-daily.timer": {"LoadState": "loaded", "UnitFileState": "disabled", "ActiveState": "inactive"},
        "apt-daily-upgrade.timer": {"LoadState": "masked"},
    }
    monkeypatch.setattr(base, "booted", lambda: True)
    monkeypatch.setattr(base, "in_container", lambda: False)
    monkeypatch.setattr(base, "package_states", lambda names: {"chrony": "installed"})
    monkeypatch.setattr(base, "unit_states", lambda names, properties: states)
    plan = base.plan_units(wish())
    assert plan.changes == ["+ apt-daily.timer enabled", "~ chrony.service started", "~ apt-daily.timer started"]
    assert plan.notices == ["apt-daily-upgrade.timer is masked: systemctl unmask apt-daily-upgrade.timer"]
    base.apply_units(wish())
    assert [argv[1:] for argv in commands] == [
        ("enable", "apt-daily.timer"),
        ("start", "chrony.service"),
        ("start", "apt-daily.timer"),
    ]


@pytest.mark.parametrize("code", [124, 127, 1])
def test_an_sshd_that_does_not_tell_is_an_error(base: Any, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A hanging `sshd -T` counted as an sshd about which nothing is known, so that nothing was refused."""
    monkeypatch.setattr(base, "RUN", base.SSH)
    monkeypatch.setattr(base.shutil, "which", lambda name, path: name)
    run = lambda *argv, **_: base.subprocess.CompletedProcess(argv, code if "-T" in argv else 0, "", "no answer")  # noqa: E731
    monkeypatch.setattr(base, "run", run)
    with pytest.raises(base.Fault, match="sshd -T"):
        base.compare_sshd(wish(), report())


def test_nonsense_on_standard_input_is_a_message() -> None:
    result = subprocess.run(
        [sys.executable, str(path_of("base")), "check"],
        input="",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ,
    )
    assert result.returncode == 1
    assert "standard input is not JSON" in result.stderr
    assert "Traceback" not in result.stderr


# -- files of others ---------------------------------------------------------------------------------------------------

OFF = '// I update by hand\nAPT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "0";\n'


def found_of(base: Any, **answer: str) -> tuple[str, str]:
    given = {str(base.UPDATES): answer["answer"]} if answer else {}
    change, refusal = base.pending(base.updates(wish(theirs=given)))
    return change, refusal


def test_updates_that_are_off_on_purpose_are_shown_and_asked_about(base: Any) -> None:
    """The file was overwritten, with "(content)" in the plan and no way to leave it."""
    base.UPDATES.write_text(OFF)
    change, refusal = found_of(base)
    assert change == ""
    assert '- APT::Periodic::Unattended-Upgrade "0";' in refusal
    assert '+ APT::Periodic::Unattended-Upgrade "1";' in refusal
    assert "Update-Package-Lists" not in refusal, "only what differs is shown"
    for answer in ("leave", "replace"):
        assert f"base_theirs: {{{base.UPDATES}: {answer}}}" in refusal or f"{{{base.UPDATES}: {answer}}}" in refusal
    assert refusal in base.compare(wish())["refusals"]


def test_what_is_left_stays_with_the_timers_of_updates(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    base.UPDATES.write_text(OFF)
    assert found_of(base, answer="leave") == ("", "")
    asked: list[str] = []
    monkeypatch.setattr(base, "booted", lambda: True)
    monkeypatch.setattr(base, "time_daemon", lambda: "chrony")
    monkeypatch.setattr(base, "unit_states", lambda names, _: asked.extend(names) or {})
    base.plan_units(wish(theirs={str(base.UPDATES): "leave"}))
    assert asked == ["chrony.service"]
    base.bring_about(base.updates(wish(theirs={str(base.UPDATES): "leave"})))
    assert base.UPDATES.read_text() == OFF


def test_what_is_replaced_is_kept_and_comes_back(base: Any) -> None:
    base.UPDATES.write_text(OFF)
    change, refusal = found_of(base, answer="replace")
    assert refusal == ""
    assert 'Unattended-Upgrade "0"' in change
    base.bring_about(base.updates(wish(theirs={str(base.UPDATES): "replace"})))
    assert base.UPDATES.read_text() == base.UPDATES_TEXT
    assert found_of(base) == ("", "")
    [back] = [step for step in base.going()[0] if "original" in step.line]
    back.do()
    assert base.UPDATES.read_text() == OFF
    assert [step for step in base.going()[0] if "original" in step.line] == []


@pytest.mark.parametrize(
    ("there", "change"),
    [
        (None, "+ "),
        ('APT::Periodic::Unattended-Upgrade "1";\nAPT::Periodic::Update-Package-Lists   "1";\n/* a\nb */\n', ""),
        ('APT::Periodic::Update-Package-Lists "1";\nAPT::Periodic::Unattended-Upgrade "1";\nAPT::X "7";\n', ""),
        ("// Managed by ringfence. Changes made by hand are undone by the next run.\n", "~ "),
    ],
)
def test_the_same_in_other_words_is_left_and_ones_own_is_mended(base: Any, there: str | None, change: str) -> None:
    if there is not None:
        base.UPDATES.write_text(there)
    found, refusal = found_of(base)
    assert refusal == ""
    assert found[:2] == change


def test_an_answer_about_another_file_is_refused(base: Any) -> None:
    for path, answer in (("/etc/other", "leave"), (str(base.UPDATES), "keep")):
        [line] = base.compare(wish(theirs={path: answer}))["refusals"]
        assert f"base_theirs: {path}: {answer}" in line
