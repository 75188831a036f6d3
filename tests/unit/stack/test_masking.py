"""What is said when something fails: however a container has printed a secret, no telling part of it is shown."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from tests.programs import load

stack: Any = load("stack")

TOKEN = 'pa"ss&w/o\\rd +é1'
BODY = [base64.b64encode(bytes(range(n, n + 48))).decode() for n in range(0, 180, 10)]
KEY = "\n".join(["-----BEGIN PRIVATE KEY-----", *BODY, "Qw==", "-----END PRIVATE KEY-----"]) + "\n"


def teller(**values: str) -> Any:
    tell = stack.Teller()
    tell.learn({"shop": values})
    return tell


def shown_of(secret: str, text: str, telling: int = 6) -> list[str]:
    """The parts of a secret, as long as would tell something, that a text still shows."""
    words = [word for word in secret.split() if len(word) >= telling]
    parts = {word[at : at + telling] for word in words for at in range(len(word) - telling + 1)}
    return sorted(part for part in parts if part in text)


@pytest.mark.parametrize(
    "printed",
    [
        KEY,
        KEY.replace("\n", "\r\n"),
        "".join(f"  key | {line}\n" for line in KEY.splitlines()),
        json.dumps({"key": KEY}),
        json.dumps(json.dumps({"key": KEY})),
        repr(KEY),
        KEY.replace("\n", " "),
        quote(KEY),
        base64.b64encode(KEY.encode()).decode(),
        base64.encodebytes(KEY.encode()).decode(),
        base64.urlsafe_b64encode(b"user:" + KEY.encode()).decode(),
        "\n".join(KEY[at : at + 50] for at in range(0, len(KEY), 50)),
    ],
    ids=["as it is", "crlf", "prefixed", "json", "json in json", "repr", "folded", "url", "base64", "base64 lines",
         "base64 behind a name", "wrapped"],
)  # fmt: skip
@pytest.mark.parametrize("given", [KEY, KEY.replace("\n", "\r\n"), f"\n  {KEY}\n"], ids=["lf", "crlf", "spaced"])
def test_no_line_of_a_key_is_shown(printed: str, given: str) -> None:
    said = teller(key=given).clean(f"it does not start:\n{printed}\nbecause of the key")
    assert shown_of(KEY, said.replace("PRIVATE KEY", "")) == []
    assert shown_of(base64.b64encode(KEY.encode()).decode(), said, 12) == []
    assert "Qw==" not in said
    assert said.startswith("it does not start:\n")
    assert said.endswith("\nbecause of the key")


@pytest.mark.parametrize(
    "as_printed",
    [
        lambda value: json.dumps(value),
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: json.dumps(value).replace("&", "\\u0026"),
        lambda value: json.dumps(value).replace("/", "\\/"),
        repr,
        shlex.quote,
        lambda value: quote(value, safe=""),
        lambda value: quote_plus(value),
        lambda value: quote_plus(value).lower(),
        lambda value: value.replace("&", "&amp;").replace('"', "&quot;"),
        lambda value: base64.b64encode(value.encode()).decode(),
        lambda value: base64.b64encode(b"admin:" + value.encode()).decode(),
        lambda value: base64.urlsafe_b64encode(b"ab:" + value.encode()).decode(),
        lambda value: value.encode().hex(),
    ],
    ids=["json", "json utf-8", "json of go", "json of php", "repr", "shell", "url", "form", "form in lower case",
         "html", "base64", "basic auth", "base64 of the url kind", "hex"],
)  # fmt: skip
def test_a_password_is_not_shown_in_another_spelling(as_printed: Callable[[str], str]) -> None:
    printed = as_printed(TOKEN)
    said = teller(token=f"{TOKEN}\n").clean(f"login with {printed} refused")
    assert shown_of(printed.removeprefix("YWRtaW46"), said) == []  # which is the name
    assert said.startswith("login with ")
    assert said.endswith(" refused")


def test_what_is_no_secret_is_shown() -> None:
    tell = teller(url="postgresql://shop:hunter22@db:5432/shop", settings="log: debug\nport: 8080\nuser: shop\n")
    text = "shop-db-1 listens on port 5432 as user shop: postgresql is up, debug is on"
    assert tell.clean(text) == text
    assert teller(empty="", one="a", spaces=" \n ").clean("a b") == "a b"


class Engine:
    """A container that failed, and has printed something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tell: Any, health: str = "", log: str = "") -> None:
        state = {"Health": {"Log": [{"ExitCode": 1, "Output": health}]}} if health else {}
        monkeypatch.setattr(stack, "TELL", tell)
        monkeypatch.setattr(stack, "there", lambda _: {"State": state})
        monkeypatch.setattr(stack, "docker", lambda *_: subprocess.CompletedProcess([], 0, log, ""))

    def said(self) -> str:
        container = {"id": "1", "name": "web", "status": "Up (unhealthy)", "state": "running"}
        return str(stack.TELL.clean(stack.explain("web", container, 60)))


KEPT = 4096  # bytes that Docker keeps of what a health check prints


@pytest.mark.parametrize("visible", [4, 9, 15, 16, 40])
@pytest.mark.parametrize("secret", ["correct-horse-battery-staple-0123456789abcdef", KEY], ids=["line", "key"])
def test_a_secret_that_docker_cuts_is_not_shown(monkeypatch: pytest.MonkeyPatch, visible: int, secret: str) -> None:
    # All of the output is shown, so that the end of it is.
    monkeypatch.setattr(stack, "SHOWN", KEPT)
    output = f"{'x ' * KEPT}"[: KEPT - visible] + secret[:visible] + "..."
    said = Engine(monkeypatch, teller(token=secret), health=output).said()
    assert shown_of(secret[:visible], said, 4) == []


@pytest.mark.parametrize("visible", range(4, 40, 5))
def test_a_secret_that_is_cut_to_be_shown_is_not_shown(monkeypatch: pytest.MonkeyPatch, visible: int) -> None:
    secret = "correct-horse-battery-staple-0123456789abcdef"
    output = "y" * (stack.SHOWN - visible) + secret + " is wrong"
    said = Engine(monkeypatch, teller(token=secret), health=output).said()
    assert shown_of(secret, said, 4) == []


@pytest.mark.parametrize("visible", [4, 15, 60])
def test_a_log_that_begins_within_a_secret_shows_nothing_of_it(monkeypatch: pytest.MonkeyPatch, visible: int) -> None:
    """Docker's log has pieces of 16 KiB: what is asked for by lines may begin within one."""
    secret = "correct-horse-battery-staple-0123456789abcdef-correct-horse-battery-staple"
    said = Engine(monkeypatch, teller(token=secret), log=f"{secret[-visible:]} is wrong\nbye\n").said()
    assert shown_of(secret, said, 4) == []
    assert "is wrong" in said
    assert "bye" in said


def test_the_last_lines_of_a_log_show_no_line_of_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    log = "".join(f"{line}\n" for line in ["starting", *KEY.splitlines(), "cannot use the key"])
    said = Engine(monkeypatch, teller(key=KEY), log=log).said()
    assert shown_of(KEY, said.replace("the key", "")) == []
    assert "Qw==" not in said
    assert "    cannot use the key" in said.splitlines()
