"""What is asked of hosts, and what is known of them."""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pyinfra.connectors.util import write_stdin

from ringfence.facts import answer as answering
from ringfence.facts.answer import NoAnswerError, ask
from ringfence.facts.survey import Difference, age, forget, survey, wish
from ringfence.operations import converge
from ringfence.remote.input import RemoteInput
from ringfence.role import File, Program, Wanted

SECRET = "correct horse battery staple"


def _wanted() -> Wanted:
    return Wanted(
        program=Program("/usr/local/sbin/ringfence-x", "program text", desired={"a": 1}),
        files=[File("/etc/x", SECRET)],
    )


def test_a_survey_sends_digests_not_contents() -> None:
    sent = json.dumps(wish(_wanted()))
    assert SECRET not in sent
    assert "program text" in sent


def test_what_a_remote_command_reads_is_not_shown() -> None:
    sent = RemoteInput({"password": SECRET})
    for shown in (str(sent), repr(sent), f"{sent}", f"{[sent]}"):
        assert SECRET not in shown
    for _ in range(2):
        with tempfile.NamedTemporaryFile() as file:
            write_stdin(sent, file.file)
            assert json.loads(Path(file.name).read_text()) == {"password": SECRET}


def test_pending_changes_are_lines() -> None:
    difference = Difference(packages=["ufw"], files={"/etc/x": "missing", "/etc/y": "content"}, changes=["+ rule ssh"])
    assert difference.pending == ["+ package ufw", "+ file /etc/x (missing)", "~ file /etc/y (content)", "+ rule ssh"]


class Answering:
    """As much of a host as is asked: each answer is a JSON object, the words of a failure, or an error."""

    name = "atlas"
    data: ClassVar[dict[str, Any]] = {"ringfence_called": {"ufw_rules": "lab_hosts.atlas.services"}}
    current_op_global_arguments: ClassVar[dict[str, Any]] = {"_sudo": True, "_stdin": "no", "_serial": True}

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.arguments: dict[str, Any] = {}

    def run_shell_command(self, _: Any, **arguments: Any) -> Any:
        self.arguments = arguments
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        failed = isinstance(answer, str)
        return not failed, SimpleNamespace(stdout="" if failed else json.dumps(answer), stderr=answer if failed else "")


FINE = {"x": {"packages": [], "files": {}, "changes": ["+ a"], "refusals": [], "notices": []}}


def test_a_host_that_went_down_is_refused_with_what_to_do_and_asked_again() -> None:
    host: Any = Answering(FINE, ConnectionResetError("reset by peer"), FINE)
    assert survey(host, {"x": _wanted()})["x"].changes == ["+ a"]
    assert host.arguments.keys() == {"_sudo", "_stdin"}
    found = survey(host, {"x": _wanted(), "y": _wanted()}, fresh=True)
    assert "reset by peer" in found["x"].refusals[0]
    assert "run again" in found["x"].refusals[0]
    assert found["y"].refusals == []  # said once
    assert survey(host, {"x": _wanted()})["x"].changes == ["+ a"]


def test_a_host_where_another_run_is_at_work_is_asked_again_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    busy = {"busy": "another run (process 7, ringfence apply stack) is at work"}
    host: Any = Answering(busy, busy, FINE)
    host.print_prefix = "[atlas] "
    with caplog.at_level("INFO", logger="pyinfra"):
        assert ask(host, "survey", {}) == FINE
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"[atlas] waits, for 0 of at most 3600 s: {busy['busy']}"
    monkeypatch.setattr(answering, "BUSY_SECONDS", -1)
    host = Answering(busy)
    with pytest.raises(NoAnswerError, match="another run"):
        ask(host, "survey", {})


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("sh: 1: python3: not found", "apt-get install python3"),
        ("sudo: a password is required", "ansible_become_password"),
        ("Sorry, try again.\nsudo: 1 incorrect password attempt", "ansible_become_password"),
        ("ops is not in the sudoers file.", "adduser USER sudo"),
        ("sh: 1: sudo: not found", "sudo is missing"),
        ("", "ssh to it"),
    ],
)
def test_why_a_host_does_not_answer_is_said_with_the_fix(words: str, fix: str) -> None:
    host: Any = Answering(words)
    with pytest.raises(NoAnswerError, match=re.escape(fix)) as raised:
        ask(host, "survey", {})
    assert words in str(raised.value)


class Connected(Answering):
    """The same with a connection that is active, or is not any more."""

    def __init__(self, *answers: Any, active: bool = True) -> None:
        super().__init__(*answers)
        transport = SimpleNamespace(is_active=lambda: active, set_keepalive=lambda _: None, sock=None)
        self.connector = SimpleNamespace(client=SimpleNamespace(get_transport=lambda: transport))


def test_a_shell_that_ended_before_it_heard_the_question_is_asked_why() -> None:
    host: Any = Connected(OSError("Socket is closed"), "sh: 1: python3: not found")
    with pytest.raises(NoAnswerError, match="apt-get install python3"):
        ask(host, "survey", {})
    assert host.arguments == {"_sudo": True}


@pytest.mark.parametrize(
    "host",
    [
        Connected(OSError("Socket is closed"), active=False),
        Connected(OSError("Socket is closed"), {}),
        Connected(OSError("Socket is closed"), EOFError()),
    ],
    ids=["no connection", "it works now", "it breaks again"],
)
def test_a_connection_that_breaks_is_what_is_told(host: Any) -> None:
    with pytest.raises(NoAnswerError, match="Socket is closed"):
        ask(host, "survey", {})


def test_an_answer_that_is_none_is_an_error() -> None:
    host: Any = Answering({})
    host.run_shell_command = lambda *_, **__: (True, SimpleNamespace(stdout="motd: welcome", stderr=""))
    with pytest.raises(NoAnswerError, match="cannot be read"):
        ask(host, "survey", {})


def test_what_is_known_is_as_old_as_the_oldest_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    host: Any = Answering(FINE, {"y": FINE["x"]}, FINE)
    host.name = "borea"
    assert age(host) == float("inf")
    survey(host, {"x": _wanted()})
    now += 20
    survey(host, {"x": _wanted(), "y": _wanted()})  # of x it is known
    assert age(host) == 20
    forget(host)
    survey(host, {"x": _wanted()})
    assert age(host) == 0


@pytest.mark.parametrize(("executing", "seconds", "asks"), [(False, 0, False), (True, 3, False), (True, 60, True)])
def test_a_run_asks_again_where_its_plan_has_been_thought_about(
    monkeypatch: pytest.MonkeyPatch, executing: bool, seconds: float, asks: bool
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(converge, "_host", lambda: SimpleNamespace(name="atlas"))
    monkeypatch.setattr(converge, "current_state", SimpleNamespace(is_executing=executing))
    monkeypatch.setattr(converge, "survey", lambda _host, _wishes, fresh: asked.append(fresh) or {})
    monkeypatch.setattr(converge, "age", lambda _host: seconds)
    assert [*converge.compare._inner({})] == []
    assert asked == [asks]


class Changing:
    """A host that answers for each role as it is told, and writes down which roles it was asked about together."""

    current_op_global_arguments: ClassVar[dict[str, Any]] = {}
    data: ClassVar[dict[str, Any]] = {}

    def __init__(self, name: str, **changes: list[str]) -> None:
        self.name = name
        self.changes = changes
        self.asked: list[list[str]] = []

    def run_shell_command(self, _: Any, **arguments: Any) -> Any:
        wishes = json.loads("".join(arguments["_stdin"]))["desired"]["wishes"]
        self.asked.append(sorted(wishes))
        answer = {role: {**FINE["x"], "changes": self.changes.get(role, [])} for role in wishes}
        return True, SimpleNamespace(stdout=json.dumps(answer), stderr="")

    def meets(self, *roles: str, missed: tuple[str, ...] = ()) -> None:
        """Go through roles as a run does: what is pending is done, and all that was known is forgotten."""
        # This object stands in for pyinfra's host, which types know by its class alone.
        for role in roles:
            if survey(self, {role: _wanted()})[role].changes and role not in missed:  # type: ignore[arg-type]
                self.changes[role] = []
                forget(self, role, "changes")  # type: ignore[arg-type]


def test_roles_with_nothing_to_do_are_asked_about_together() -> None:
    host: Any = Changing("few", b=["+ b"], d=["+ d"])
    survey(host, {role: _wanted() for role in "abcdef"})
    host.meets(*"abcdef")
    # After b its followers up to the next that changes something, after that one the rest.
    assert host.asked == [[*"abcdef"], ["c", "d"], ["e", "f"]]


def test_on_a_fresh_host_no_role_is_asked_about_for_nothing() -> None:
    host: Any = Changing("all", **{role: ["+ it"] for role in "abcd"})
    survey(host, {role: _wanted() for role in "abcd"})
    host.meets(*"abcd")
    assert host.asked == [[*"abcd"], ["b"], ["c"], ["d"]]


def test_what_changes_unexpectedly_makes_what_is_known_stale() -> None:
    host: Any = Changing("odd", a=["+ a"])
    survey(host, {role: _wanted() for role in "abcd"})
    survey(host, {"a": _wanted()})
    host.changes = {"a": [], "b": ["+ b"], "c": ["+ c"]}
    forget(host, "a", "changes")
    host.meets(*"bcd")
    # What c would do is done though nobody expected it, and d is asked about after that.
    assert host.asked == [[*"abcd"], [*"bcd"], ["c"], ["d"]]
    assert host.changes["c"] == []


def test_of_a_role_that_has_more_to_do_only_that_is_asked() -> None:
    host: Any = Changing("more", a=["+ a"], b=[])
    survey(host, {role: _wanted() for role in "ab"})
    forget(host, "a", "files")  # its files are in place now, its state is not
    host.meets(*"ab")
    assert host.asked == [["a", "b"], ["a"], ["b"]]
