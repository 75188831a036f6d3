"""A role's program that asks something of the controller is answered there, with one more round trip."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyinfra.api.host import Host as PyinfraHost

from ringfence.answering import AnswerError
from ringfence.facts.answer import end_if_silent
from ringfence.operations.asking import apply_answering

GIVEN = {"role": "tiny", "program": "/x", "desired": {"value": 1}, "window": None}


class Host:
    """A host that gives prepared answers to `apply`, and notes what it was sent."""

    print_prefix = "[atlas] "
    current_op_global_arguments: Any = None

    def __init__(self, *answers: Any) -> None:
        self.answers, self.sent = list(answers), list[dict[str, Any]]()

    def run_shell_command(self, _: Any, **arguments: Any) -> Any:
        self.sent.append(json.loads(arguments["_stdin"][0])["desired"])
        answer = self.answers.pop(0)
        if answer is None:
            return False, SimpleNamespace(stdout="", stderr="it is broken")
        return True, SimpleNamespace(stdout=answer, stderr="working")


def run(host: Any, answers: Any = lambda asked: {"said": asked["n"] * 2}) -> bool:
    state: Any = None
    return apply_answering(state, host, GIVEN, answers)


def test_where_nothing_is_asked_there_is_one_round_trip() -> None:
    host = Host("")
    assert run(host)
    assert [sent["desired"] for sent in host.sent] == [{"value": 1}]


def test_the_answer_goes_with_a_second_call() -> None:
    host = Host('{"asks": {"n": 21}}', "")
    assert run(host)
    assert [sent["desired"] for sent in host.sent] == [{"value": 1}, {"value": 1, "answer": {"said": 42}}]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([None], "it is broken"),
        (['{"asks": {"n": 1}}', None], "it is broken"),
        (['{"asks": {"n": 1}}', '{"asks": {"n": 1}}'], "role tiny: its program asks again"),
        (["motd: welcome"], "cannot be read"),
        (["[1]"], "cannot be read"),
    ],
)
def test_what_fails_fails_with_its_words(answers: list[Any], said: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not run(Host(*answers))
    assert said in caplog.text


def test_what_cannot_be_answered_is_said_and_nothing_more_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    def cannot(_: Any) -> dict[str, Any]:
        raise AnswerError("role tiny: tiny_key is empty (give it)")

    host = Host('{"asks": {"n": 1}}')
    assert not run(host, cannot)
    assert "tiny_key is empty" in caplog.text
    assert len(host.sent) == 1


def test_a_connection_that_nobody_answers_on_ends() -> None:
    with socket.socket() as plain:
        said: list[int] = []
        transport = SimpleNamespace(sock=plain, set_keepalive=said.append)
        host = SimpleNamespace(connector=SimpleNamespace(client=SimpleNamespace(get_transport=lambda: transport)))
        end_if_silent(cast(PyinfraHost, host))
        milliseconds = plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert said == [15]
        assert 60_000 <= milliseconds <= 90_000
    # A host of another kind, this machine, has none.
    end_if_silent(cast(PyinfraHost, SimpleNamespace(connector=SimpleNamespace())))
