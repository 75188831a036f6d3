"""What is sent to hosts, run here on a temporary directory."""

from __future__ import annotations

import getpass
import grp
import hashlib
import importlib
import inspect
import json
import marshal
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from ringfence.host import units
from ringfence.remote import role as remote
from ringfence.remote.input import RemoteInput
from ringfence.remote.request import request
from ringfence.remote.role import Fault, apply, bring, file_difference, missing_packages, place, survey

ANSWERS = """
import json
print(json.dumps({"changes": ["+ " + REQUEST["desired"]["value"]], "refusals": [], "notices": []}))
"""


def _want(path: Path, content: str = "hello", mode: str = "0644") -> dict[str, str]:
    return {
        "path": str(path),
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "mode": mode,
        "user": getpass.getuser(),
        "group": grp.getgrgid(os.getgid()).gr_name,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_text("hello", encoding="utf-8")
    path.chmod(0o644)
    return path


def test_a_file_as_wanted_has_no_difference(file: Path) -> None:
    assert file_difference(_want(file)) is None


def test_each_difference_of_a_file_is_named(file: Path, tmp_path: Path) -> None:
    assert file_difference(_want(tmp_path / "nowhere")) == "missing"
    assert file_difference(_want(file, content="other")) == "content"
    assert file_difference(_want(file, mode="0600")) == "mode"
    assert file_difference({**_want(file), "user": "nobody"}) == "owner"
    assert file_difference(_want(tmp_path)) == "not a regular file"


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert file_difference(_want(link)) == "not a regular file"


def test_only_missing_packages_are_named() -> None:
    assert missing_packages(["dpkg", "ringfence-no-such-package"]) == ["ringfence-no-such-package"]


def _wish(program: str, **desired: Any) -> dict[str, Any]:
    return {"packages": [], "files": [], "program": program, "desired": desired}


def test_packages_that_cannot_be_listed_are_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = subprocess.CompletedProcess([], 2, "", "dpkg-query: error: the database is locked")
    monkeypatch.setattr(remote, "run", lambda *_, **__: broken)
    wish = {**_wish(ANSWERS, value="x"), "packages": ["dpkg"]}
    with pytest.raises(Fault, match="the database is locked"):
        survey({"a": wish})
    with pytest.raises(Fault, match="the database is locked"):
        missing_packages(["dpkg"])


def test_programs_are_asked_with_their_desired_state() -> None:
    assert survey({"a": _wish(ANSWERS, value="x")})["a"]["changes"] == ["+ x"]


MEETS = """
import json, pathlib, sys, time

mine, other = pathlib.Path(REQUEST["desired"]["mine"]), pathlib.Path(REQUEST["desired"]["other"])
mine.touch()
deadline = time.monotonic() + 30
while not other.exists():
    if time.monotonic() > deadline:
        sys.exit("alone")
    time.sleep(0.01)
print(json.dumps({"changes": [], "refusals": [], "notices": ["met"]}))
"""


def test_all_programs_run_at_once(tmp_path: Path) -> None:
    one, two = str(tmp_path / "1"), str(tmp_path / "2")
    # More than a pipe holds: the second must not wait until the first has been served.
    padding = "x" * 200_000
    found = survey(
        {
            "a": _wish(MEETS, mine=one, other=two, padding=padding),
            "b": _wish(MEETS, mine=two, other=one, padding=padding),
        }
    )
    assert [found[role]["notices"] for role in ("a", "b")] == [["met"], ["met"]]
    assert [found[role]["refusals"] for role in ("a", "b")] == [[], []]


HANGS = """
import pathlib, subprocess

child = subprocess.Popen(["sleep", "600"])
pathlib.Path(REQUEST["desired"]["pid"]).write_text(str(child.pid))
child.wait()
"""


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _ends(pid: int, seconds: float = 10) -> bool:
    """Whether a process that has been sent its end is gone before the deadline."""
    deadline = time.monotonic() + seconds
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not _lives(pid)


def test_a_program_that_hangs_is_killed_with_its_children_and_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CHECK_SECONDS", 5)
    pid = tmp_path / "pid"
    found = survey({"a": _wish(HANGS, pid=str(pid)), "b": _wish(ANSWERS, value="x")})
    assert "the check of role a did not answer within 5 s" in found["a"]["refusals"][0]
    assert found["b"]["changes"] == ["+ x"]
    assert _ends(int(pid.read_text()))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise SystemExit('broken')", "broken"),
        ("raise SystemExit(3)", "exit code 3"),
        ("print('hello')", "no answer that can be read"),
        ("print('{}')", "no answer that can be read"),
        ("print('[]')", "no answer that can be read"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit code -9"),
    ],
)
def test_a_program_that_fails_or_answers_nonsense_is_a_refusal_not_a_silence(program: str, said: str) -> None:
    assert said in survey({"a": _wish(program)})["a"]["refusals"][0]


SHARES = """
import json
made = REQUEST["arguments"] == ["make"]
print(json.dumps({"shared": "key" if made else "?", "changes": ["+ key"]}))
"""


def test_what_a_program_shares_is_told_and_made_where_that_is_asked() -> None:
    assert remote.share("x", _wish(SHARES)) == {"shared": "?", "changes": ["+ key"]}
    assert remote.share("x", _wish(SHARES), make=True) == {"shared": "key", "changes": ["+ key"]}


@pytest.mark.parametrize(
    ("program", "said"), [("raise SystemExit('no')", "role x: no"), ("print('{}')", "cannot be read")]
)
def test_a_program_that_shares_nothing_that_can_be_read_has_failed(program: str, said: str) -> None:
    with pytest.raises(Fault, match=said):
        remote.share("x", _wish(program))


def test_only_what_everybody_may_read_is_answered_for_a_diff(file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush", encoding="utf-8")
    secret.chmod(0o600)
    wish = {**_wish(ANSWERS, value="x"), "files": [_want(file, "other"), _want(secret, "other", mode="0600")]}
    assert survey({"a": wish}, diff=True)["a"]["before"] == {str(file): "hello", str(secret): ""}
    assert "before" not in survey({"a": wish})["a"]


def test_a_file_is_placed_whole_with_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "new" / "f"
    place([{"path": str(target), "content": "x", "mode": "0400", **_owner()}])
    assert target.read_text() == "x"
    assert target.stat().st_mode & 0o777 == 0o400
    assert list(target.parent.iterdir()) == [target]


def _owner() -> dict[str, str]:
    return {"user": getpass.getuser(), "group": grp.getgrgid(os.getgid()).gr_name}


ASKS = """#!/usr/bin/python3
import json, sys
desired = json.load(sys.stdin)
print(json.dumps({"changes": []} if "answer" in desired else {"changes": [], "asks": {"sum": [6, 7]}}))
"""


def test_what_a_program_asks_is_handed_back_and_the_answer_ends_it(tmp_path: Path) -> None:
    program = tmp_path / "asks"
    program.write_text(ASKS, encoding="utf-8")
    program.chmod(0o755)
    found = bring("x", _wish(ANSWERS, value="x"), str(program), None)
    assert found == {"applied": True, "asks": {"sum": [6, 7]}}
    assert apply("x", str(program), {"answer": 42}, None, hears=True) is None
    with pytest.raises(Fault, match=r"role x: its program asks the controller something, and .* no answer\.py"):
        apply("x", str(program), {}, None)


WINDOW = {"name": "this-run", "seconds": 45, "limit": 300}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A guard that writes down what it is asked for, and a program `good` and one `bad`."""
    journal = tmp_path / "calls"
    for name, text in {
        "guard": f'echo "$1" >> {journal}',
        "good": f"echo apply >> {journal}; cat > {tmp_path}/read; echo working >&2",
        "bad": f"echo apply >> {journal}; exit 1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(remote, "GUARD", str(tmp_path / "guard"))
    return journal


def test_a_guarded_change_is_made_inside_the_guards_window(calls: Path, capfd: pytest.CaptureFixture[str]) -> None:
    apply("x", str(calls.with_name("good")), {"a": 1}, WINDOW)
    assert calls.read_text().split() == ["arm", "apply", "applied"]
    assert json.loads(calls.with_name("read").read_text()) == {"a": 1}
    assert "working" in capfd.readouterr().err


def test_a_failed_guarded_change_is_taken_back(calls: Path) -> None:
    with pytest.raises(Fault, match="bad apply failed"):
        apply("x", str(calls.with_name("bad")), {}, WINDOW)
    assert calls.read_text().split() == ["arm", "apply", "restore"]


def test_a_change_that_is_no_longer_waited_for_has_failed(calls: Path) -> None:
    guard = calls.with_name("guard")
    guard.write_text(
        f'{guard.read_text()}test "$1" != applied || {{ echo "too late" >&2; exit 1; }}\n', encoding="utf-8"
    )
    with pytest.raises(Fault, match="too late"):
        apply("x", str(calls.with_name("good")), {}, WINDOW)
    assert calls.read_text().split() == ["arm", "apply", "applied", "restore"]


def test_a_change_for_which_the_guard_cannot_be_armed_is_not_made(calls: Path) -> None:
    calls.with_name("guard").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    with pytest.raises(Fault, match="could not be armed, so nothing was changed"):
        apply("x", str(calls.with_name("good")), {}, WINDOW)
    assert not calls.exists()


def test_whoever_is_not_root_is_told_the_fix_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    wishes = {name: _wish("raise SystemExit('no permission')") for name in "abc"}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = survey(wishes)
    assert [line for one in found.values() for line in one["refusals"]] == found["a"]["refusals"]
    assert "not root: set `ansible_become: true`" in found["a"]["refusals"][0]
    assert not any(one["changes"] or one["files"] for one in found.values())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "ansible_become" not in str(survey(wishes))


def test_a_guarded_change_without_the_guard_is_not_made(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "GUARD", "/nowhere/ringfence-guard")
    with pytest.raises(Fault, match="apply the role guard first"):
        apply("x", str(calls.with_name("good")), {}, WINDOW)
    assert not calls.exists()


def test_a_change_that_cannot_cut_anybody_off_needs_no_guard(calls: Path) -> None:
    apply("x", str(calls.with_name("good")), {}, None)
    assert calls.read_text().split() == ["apply"]


STUBBORN = """
import json
refusals = ["not with this file"] if open(REQUEST["desired"]["file"]).read() == "new" else []
print(json.dumps({"changes": ["+ x"], "refusals": refusals, "notices": []}))
"""


def test_what_a_host_refuses_once_packages_and_files_are_there_is_not_applied(calls: Path, file: Path) -> None:
    wish = {**_wish(STUBBORN, file=str(file)), "files": [{**_want(file, "new"), "content": "new"}]}
    assert survey({"x": wish})["x"]["refusals"] == []
    with pytest.raises(Fault, match="not with this file"):
        bring("x", wish, str(calls.with_name("good")), None)
    assert not calls.exists()


def test_a_step_that_fails_is_a_message_and_an_exit_code(tmp_path: Path) -> None:
    text = inspect.getsource(remote).replace(str(remote.TURN), str(tmp_path / "lock"))
    asked = request("apply", {"role": "x", "program": "/nowhere/ringfence-x", "desired": {}, "window": None}, text)
    assert isinstance(asked, RemoteInput)
    done = subprocess.run(
        [sys.executable, "-c", remote.LOADER], input="".join(asked), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == "role x: /nowhere/ringfence-x cannot be run: No such file or directory (apply its role first)\n"
    )


def test_a_failure_is_told_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(**_: Any) -> None:
        raise OSError(28, "No space left on device", "/etc/x")

    monkeypatch.setattr(remote, "TURN", tmp_path / "run.lock")
    monkeypatch.setattr(sys, "argv", ["-c"])
    monkeypatch.setitem(remote.VERBS, "place", full)
    assert remote.main({"arguments": ["place"], "desired": {}}) == 1
    assert "a disk is full" in capsys.readouterr().err


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """Another run's step is at work on this host until the event is set; nobody's verb does anything else here."""
    monkeypatch.setattr(remote, "TURN", tmp_path / "run.lock")
    monkeypatch.setattr(remote, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(remote, "LOCK_UNSAID", 0.2)
    monkeypatch.setattr(remote.os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["-c"])
    begun, ends = Event(), Event()

    def step(**_: Any) -> None:
        begun.set()
        assert ends.wait(30)

    monkeypatch.setitem(remote.VERBS, "apply", step)
    for verb in ("place", "survey", "share"):
        monkeypatch.setitem(remote.VERBS, verb, lambda **_: {"done": ends.is_set()})
    other = Thread(target=remote.main, args=[{"arguments": ["apply"], "desired": {"role": "stack"}}])
    other.start()
    assert begun.wait(30)
    yield ends
    ends.set()
    other.join(30)


def test_a_step_waits_for_another_runs_and_says_so(
    at_work: Event, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        at_work.set()  # from here on it may end

    monkeypatch.setattr(remote, "say", say)
    assert remote.main({"arguments": ["place"], "desired": {}}) == 0
    assert json.loads(capsys.readouterr().out) == {"done": True}
    (line,) = said
    assert f"another run (process {os.getpid()}, ringfence apply stack) is at work" in line


def test_whoever_asks_meanwhile_is_told_at_once_and_asks_again(
    at_work: Event, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, given in (("survey", {}), ("share", {"make": True})):
        assert remote.main({"arguments": [verb], "desired": given}) == 0
        busy = json.loads(capsys.readouterr().out)["busy"]
        assert busy == f"another run (process {os.getpid()}, ringfence apply stack) is at work"


def test_a_step_that_waits_too_long_has_failed(
    at_work: Event, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TURN_SECONDS", 0.5)
    assert remote.main({"arguments": ["place"], "desired": {}}) == 1
    said = capsys.readouterr().err
    assert "ringfence: waits, for 0 of at most 0 s: another run" in said
    assert "is still at work" in said


def test_two_may_ask_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TURN", tmp_path / "run.lock")
    monkeypatch.setattr(remote.os, "geteuid", lambda: 0)
    with remote.in_turn("survey", {}):
        assert not remote.TURN.exists()  # a bare host is left as it was
    with remote.in_turn("place", {}):
        pass
    with remote.in_turn("survey", {}), remote.in_turn("survey", {}):
        assert remote.TURN.exists()


# -- what was made of a program before


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with ringfence, as root sees it: where code is kept."""
    tmp_path.chmod(0o755)
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(remote, "_RINGFENCE", tmp_path / "etc")
    monkeypatch.setattr(remote, "MEMORY", tmp_path / "run" / "code")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path / "run" / "code"


def _run(code: Any) -> Any:
    space: dict[str, Any] = {}
    exec(code, space)
    return space["x"]


def test_a_program_is_compiled_once(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run(remote.code_of("ringfence-tiny", "x = 1")) == 1
    (file,) = kept.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert kept.stat().st_mode & 0o777 == 0o700
    with monkeypatch.context() as patch:
        patch.setattr("builtins.compile", lambda *_: pytest.fail("it is compiled again"))
        assert _run(remote.code_of("ringfence-tiny", "x = 1")) == 1
    # Another text takes its place.
    assert _run(remote.code_of("ringfence-tiny", "x = 2")) == 2
    assert file not in kept.iterdir()
    assert len([*kept.iterdir()]) == 1


@pytest.mark.parametrize(
    "how", ["everybody may write", "a link", "the directory", "the one above", "garbage", "a number"]
)
def test_code_that_somebody_may_have_changed_is_not_run(kept: Path, tmp_path: Path, how: str) -> None:
    remote.code_of("ringfence-tiny", "x = 1")
    (file,) = kept.iterdir()
    other = marshal.dumps(compile("x = 'evil'", "", "exec"))
    if how == "a link":
        (tmp_path / "evil").write_bytes(other)
        file.unlink()
        file.symlink_to(tmp_path / "evil")
    else:
        file.write_bytes({"garbage": b"\0", "a number": marshal.dumps(1)}.get(how, other))
    if how == "everybody may write":
        file.chmod(0o666)
    if how == "the directory":
        kept.chmod(0o777)
    if how == "the one above":
        kept.parent.chmod(0o777)
    assert _run(remote.code_of("ringfence-tiny", "x = 1")) == 1


def test_nothing_is_kept_for_others_than_root_or_where_ringfence_is_not(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").rmdir()
    assert _run(remote.code_of("ringfence-tiny", "x = 1")) == 1
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _run(remote.code_of("ringfence-tiny", "x = 1")) == 1
    assert not kept.exists()


# -- what all programs ask systemd for


def test_systemd_is_asked_once_for_all_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def answer(*argv: str, **_: Any) -> str:
        asked.append(argv)
        return "\n\n".join(f"Id={name}\nActiveState=active" for name in argv[argv.index("--") + 1 :])

    monkeypatch.setattr(remote, "booted", lambda: True)
    monkeypatch.setattr(remote, "must", answer)
    text = f"""
{inspect.getsource(importlib.import_module("ringfence.host.units"))}
import json
said = unit_states(REQUEST["desired"]["names"], ["ActiveState"])
print(json.dumps({{"changes": sorted(said), "refusals": [], "notices": []}}))
"""
    wishes = {
        role: {"packages": [], "files": [], "program": text, "desired": {"names": names}}
        for role, names in {"one": ["docker.service"], "two": ["ssh.service", "ufw.service"]}.items()
    }
    found = remote.survey(wishes)
    assert found["one"]["changes"] == ["docker.service"], found
    assert found["two"]["changes"] == ["ssh.service", "ufw.service"]
    assert len(asked) == 1


@pytest.mark.parametrize(("name", "property"), [("docker.service", "Job"), ("other.service", "ActiveState")])
def test_what_was_not_asked_for_all_is_asked_by_the_program(
    name: str, property: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def answer(*argv: str) -> str:
        asked.append(argv)
        return f"Id={name}\n{property}=now"

    monkeypatch.setattr(units, "must", answer)
    told = {"docker.service": {"ActiveState": "before"}}
    monkeypatch.setattr(units, "REQUEST", {"units": (told, time.monotonic())}, raising=False)
    assert units.unit_states([name], [property]) == {name: {"Id": name, property: "now"}}
    assert units.unit_states(["docker.service"], ["ActiveState"])["docker.service"] == {"ActiveState": "before"}
    assert len(asked) == 1
    units.unit_states(["docker.service"], ["ActiveState"], now=True)
    assert len(asked) == 2
    # What was so before somebody waited is not so now.
    monkeypatch.setattr(units, "REQUEST", {"units": (told, time.monotonic() - 1.1)})
    units.unit_states(["docker.service"], ["ActiveState"])
    assert len(asked) == 3
