"""The watch role's program: what it puts back, what it leaves, when it keeps its hands off, and what it says."""

from __future__ import annotations

import fcntl
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.programs import load

watch: Any = load("watch")


class Host:
    """A host of programs that say what they are told to.

    Attributes:
        drift: {role: what is otherwise than intended}; what is mended goes.
        stubborn: roles whose program cannot put anything back.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.drift: dict[str, list[str]] = {}
        self.refused: dict[str, list[str]] = {}
        self.broken: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.lines: list[tuple[str, str, list[str]]] = []
        for layer in watch.LAYERS:
            (path / f"ringfence-{layer.role}").touch()
            kept = path / layer.role / ("policy.json" if layer.role == "policy" else "desired.json")
            kept.parent.mkdir()
            kept.write_text(json.dumps({"wish": {"of": "policy"}} if layer.role == "policy" else {"of": layer.role}))
        for name, value in {
            "PROGRAMS": path, "KEPT": path, "LAST": path / "last.json", "TOLD": path / "told.json",
            "GUARD_PENDING": path / "pending.json", "LOCKS": (str(path / "*.lock")[1:],),
            "tell": lambda *line: self.lines.append(line),
        }.items():  # fmt: skip
            monkeypatch.setattr(watch, name, value)
        monkeypatch.setattr(watch.Layer, "ask", lambda layer, *words, **_: self.ask(layer.role, *words))

    def ask(self, role: str, verb: str, desired: dict[str, Any], *_: Any) -> dict[str, list[str]]:
        assert desired == {"of": role}
        self.asked.append((role, verb))
        if role in self.broken:
            raise watch.Fault("iptables-save hangs")
        found = self.drift.get(role, [])
        if verb in ("mend", "apply"):
            self.drift[role] = []
            return {"changes": found, "refusals": []}
        return {"changes": found, "refusals": self.refused.get(role, [])}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_where_all_is_as_intended_nothing_is_done_or_said(host: Host) -> None:
    watch.run_once()
    assert host.asked == [("base", "drift"), ("ufw", "drift"), ("policy", "check"), ("docker", "drift")]
    assert host.lines == []


@pytest.mark.parametrize("role", ["base", "ufw", "policy"])
def test_what_differs_is_put_back_and_told(host: Host, role: str) -> None:
    host.drift[role] = ["+ rule ssh"]
    watch.run_once()
    assert host.lines == [(role, "mended", ["+ rule ssh"])]
    assert json.loads((host.path / "last.json").read_text())["role"] == role
    watch.run_once()
    assert len(host.lines) == 1


def test_docker_is_not_restarted_but_told_once(host: Host) -> None:
    host.drift["docker"] = ["~ restart of docker needed"]
    watch.run_once()
    watch.run_once()
    assert host.lines == [("docker", "left", ["~ restart of docker needed"])]
    host.drift["docker"] = []
    watch.run_once()
    host.drift["docker"] = ["~ restart of docker needed"]
    watch.run_once()
    assert len(host.lines) == 2


def test_what_is_refused_does_not_keep_the_rest_from_being_put_back(host: Host) -> None:
    host.drift["ufw"], host.refused["ufw"] = ["~ kernel: loaded again"], ["a rule that nobody declared:\n  ufw allow 1"]
    watch.run_once()
    assert host.lines == [
        ("ufw", "mended", ["~ kernel: loaded again"]),
        ("ufw", "left", ["a rule that nobody declared:", "  ufw allow 1"]),
    ]


def test_a_program_that_fails_is_told_and_the_others_are_asked(host: Host) -> None:
    host.broken = {"ufw"}
    host.drift["policy"] = ["- rule x"]
    watch.run_once()
    assert host.lines == [("ufw", "left", ["iptables-save hangs"]), ("policy", "mended", ["- rule x"])]


def test_a_role_that_keeps_nothing_is_told(host: Host) -> None:
    (host.path / "ufw" / "desired.json").unlink()
    watch.run_once()
    assert [(role, result) for role, result, _ in host.lines] == [("ufw", "left")]
    assert ("ufw", "mend") not in host.asked


def test_a_role_that_is_not_here_is_not_asked(host: Host) -> None:
    (host.path / "ringfence-docker").unlink()
    watch.run_once()
    assert "docker" not in dict(host.asked)


def test_hands_off_while_the_guard_waits(host: Host) -> None:
    host.drift["ufw"] = ["~ kernel"]
    (host.path / "pending.json").touch()
    watch.run_once()
    assert (host.asked, host.lines) == ([], [])


def test_what_is_not_put_back_as_somebody_began_to_work_is_not_called_left(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That somebody came after the first question, and was gone before it was told: the next look puts it back."""
    answers = iter(["", "somebody is at work", "", "", "", ""])
    host.drift["ufw"] = ["~ kernel"]
    monkeypatch.setattr(watch, "busy", lambda: next(answers, ""))
    watch.run_once()
    assert (host.lines, ("ufw", "mend") in host.asked) == ([], False)
    watch.run_once()
    assert host.lines == [("ufw", "mended", ["~ kernel"])]


def test_what_is_found_while_somebody_is_at_work_is_told_by_the_next_look(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An `ufw allow` holds its lock for a while after the rule is there: what is found then may be half a change."""
    answers = iter(["", "ufw is at work"])
    host.drift["docker"] = ["~ restart of docker needed"]
    monkeypatch.setattr(watch, "busy", lambda: next(answers, ""))
    watch.run_once()
    assert host.lines == []
    watch.run_once()
    watch.run_once()
    assert host.lines == [("docker", "left", ["~ restart of docker needed"])]


@pytest.mark.parametrize("take", [fcntl.flock, fcntl.lockf])
def test_hands_off_while_somebody_holds_a_lock(host: Host, take: Any) -> None:
    host.drift["ufw"] = ["~ kernel"]
    with (host.path / "ufw.lock").open("w") as handle:
        take(handle, fcntl.LOCK_EX)
        watch.run_once()
        assert (host.asked, host.lines) == ([], [])
    watch.run_once()
    assert host.lines == [("ufw", "mended", ["~ kernel"])]


def test_a_line_of_the_journal_is_structured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "JOURNAL", str(tmp_path / "journal"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        watch.tell("ufw", "mended", ["+ rule ssh: `ufw allow 22`", "+ rule web", "- rule x", "~ kernel: y"])
        data = journal.recv(1 << 16)
    fields = {}
    while data:
        key, _, data = data.partition(b"\n")
        size = int.from_bytes(data[:8], "little")
        fields[key.decode()], data = data[8 : 8 + size].decode(), data[9 + size :]
    assert fields["RINGFENCE_ROLE"] == "ufw"
    assert fields["RINGFENCE_RESULT"] == "mended"
    assert fields["RINGFENCE_MISSING"] == "+ rule ssh: `ufw allow 22`\n+ rule web"
    assert fields["RINGFENCE_ADDED"] == "- rule x"
    assert fields["RINGFENCE_CHANGED"] == "~ kernel: y"
    assert fields["MESSAGE"].startswith("ufw was put back: + rule ssh")


@pytest.mark.parametrize(("drift", "code", "last"), [([], 0, "as intended"), (["~ kernel: x"], 1, "not as intended")])
def test_status_says_how_every_layer_is(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    drift: list[str], code: int, last: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(watch, "unit_states", lambda *_: {watch.TIMER: {"ActiveState": "active"}})
    host.drift["ufw"] = drift
    with pytest.raises(SystemExit) as end:
        watch.status([])
    lines = capsys.readouterr().out.splitlines()
    assert (end.value.code, lines[-1]) == (code, last)
    assert f"ufw     {drift[0] if drift else 'as intended'}" in lines
    assert "policy  as intended" in lines
    assert "mend" not in dict(host.asked).values()


ANSWERS = """
import json, sys
print(json.dumps({"changes": [REQUEST["arguments"][0], REQUEST["desired"]["of"]], "notices": ["n"]}))
"""


def test_a_program_is_asked_as_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PROGRAMS", tmp_path)
    layer = watch.Layer("ufw", "drift", "mend")
    (tmp_path / "ringfence-ufw").write_text(ANSWERS)
    assert layer.ask("drift", {"of": "ufw"}) == {"changes": ["drift", "ufw"], "refusals": []}


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import sys; sys.exit('ufw hangs')", "ringfence-ufw drift` failed: ufw hangs"),
        ("import time; time.sleep(60)", "ringfence-ufw drift` took longer than 0 s"),
        ("print('{}x')", "ringfence-ufw drift says nothing that can be read"),
        ("print([])", "ringfence-ufw drift says nothing that can be read"),
        ("import os; os.kill(os.getpid(), 9)", "ringfence-ufw drift` failed: exit code -9"),
        ("", "ringfence-ufw drift`: the program is not there any more: apply the role ufw again"),
    ],
)
def test_a_program_that_fails_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, says: str
) -> None:
    monkeypatch.setattr(watch, "PROGRAMS", tmp_path)
    (tmp_path / "ringfence-ufw").write_text(program)
    with pytest.raises(watch.Fault, match=re.escape(says)):
        watch.Layer("ufw", "drift", "mend").ask("drift", {}, 0.4 if "sleep" in program else 20)
