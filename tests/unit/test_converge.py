"""What is asked of hosts, and what is known of them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from pyinfra.connectors.util import write_stdin

from ringfence.facts.survey import NO_ANSWER, Difference, survey, wish
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
