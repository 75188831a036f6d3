"""The commands that roles are applied with."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from pyinfra.connectors.util import write_stdin

from ringfence.facts.survey import NO_ANSWER, Difference, request, survey
from ringfence.operations.converge import install_command
from ringfence.operations.guarded import apply_command
from ringfence.operations.remote_place import place
from ringfence.remote_input import RemoteInput
from ringfence.role import File, Program, Wanted

SECRET = "correct horse battery staple"


def _wanted() -> Wanted:
    return Wanted(
        program=Program("/usr/local/sbin/ringfence-x", "program text", desired={"a": 1}),
        files=[File("/etc/x", SECRET)],
    )


def test_a_survey_sends_digests_not_contents() -> None:
    sent = json.dumps(request({"x": _wanted()}))
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
    """As much of a host as a survey uses."""

    name = "atlas"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def get_fact(self, *_: Any, **__: Any) -> Any:
        return self.answers.pop(0)


def test_a_host_that_went_down_is_refused_with_what_to_do_and_asked_again() -> None:
    fine = {"x": {"packages": [], "files": {}, "changes": ["+ a"], "refusals": [], "notices": []}}
    host: Any = Answering(fine, None, fine)
    assert survey(host, {"x": _wanted()})["x"].changes == ["+ a"]
    assert survey(host, {"x": _wanted()}, fresh=True)["x"].refusals == [NO_ANSWER]
    assert survey(host, {"x": _wanted()})["x"].changes == ["+ a"]


@pytest.mark.parametrize(
    "command", [install_command(["ufw", "a b"]), apply_command("x", "/usr/local/sbin/ringfence-x", 45)]
)
def test_commands_are_valid_shell(command: str) -> None:
    assert subprocess.run(["sh", "-n", "-c", command], check=False).returncode == 0


def test_a_guarded_change_without_the_guard_is_not_made() -> None:
    done = subprocess.run(
        ["sh", "-c", apply_command("x", "/usr/local/sbin/ringfence-x", 45).replace("/usr/local/sbin/", "/nowhere/")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "apply the role guard first" in done.stderr


def test_a_failed_guarded_change_is_taken_back(tmp_path: Path) -> None:
    for name, text in {
        "ringfence-guard": f'echo "$1" >> {tmp_path}/calls',
        "ringfence-x": f"echo apply >> {tmp_path}/calls; exit 1",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    command = apply_command("x", "/usr/local/sbin/ringfence-x", 45).replace("/usr/local/sbin", str(tmp_path))
    assert subprocess.run(["sh", "-c", command], check=False, stdin=subprocess.DEVNULL).returncode == 1
    assert (tmp_path / "calls").read_text().split() == ["arm", "apply", "restore"]


def test_a_file_is_placed_whole_with_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "new" / "f"
    place([{"path": str(target), "content": "x", "mode": "0400", "user": "root", "group": "root"}])
    assert target.read_text() == "x"
    assert target.stat().st_mode & 0o777 == 0o400
    assert list(target.parent.iterdir()) == [target]
