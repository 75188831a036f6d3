"""The flows of flows.py: what one answer gives, the next one is asked with."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.portal.cases import LAN, Ask
from tests.portal.flows import FLOWS, Do
from tests.portal.program import Answer, Program, one_time_code, people


def early() -> None:
    """Wait for a half minute that has some way to go: a flow's codes are of one."""
    while time.time() % 30 > 22:
        time.sleep(0.5)


def rewrite(program: Program, change: str) -> None:
    # The real program misses what changes within half a second of the change before.
    time.sleep(0.6)
    person, _, how = change.partition(" ")
    users = people()
    if person == "damaged":
        (program.folder / "people/users.yml").write_text("users: [")
        return
    if how == "removed":
        del users[person]
    elif how != "back":
        users[person] |= {"disabled": {"disabled": True}, "groups": {"groups": []}}[how]
    program.set_people(users)


def do(program: Program, step: Do, jar: list[str]) -> Answer:
    cookie = jar[step.use] if jar else ""
    target = {"targetURL": step.target, "requestMethod": "GET"}
    if step.what == "sign":
        body = {"username": step.value, "password": step.password, "keepMeLoggedIn": False, **target}
        return program.portal("/api/firstfactor", body, "", step.address)
    if step.what == "code":
        token = one_time_code(int(step.value)) if len(step.value) < 3 else step.value
        return program.portal("/api/secondfactor/totp", {"token": token, **target}, cookie, step.address)
    if step.what == "out":
        return program.portal("/api/logout", {}, cookie, step.address)
    if step.what == "see":
        host, slash, path = step.value.partition("/")
        headers = Ask("", "", host, slash + path, step.address, 0).headers(cookie)
        return program.ask("GET", "/api/authz/forward-auth", headers)
    assert step.what == "state"
    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "auth.lab.home",
        "Cookie": f"authelia_session={cookie}",
    }
    answer = program.ask("GET", "/api/state", headers)
    assert answer.json["data"]["username"] == step.value
    return answer


def differs(answer: Answer, expect: Mapping[str, Any]) -> str:
    """What is not as expected."""
    body = answer.json if isinstance(answer.json, dict) else {}
    data = body.get("data") or {}
    seen = {
        "status": answer.status,
        "redirect": data.get("redirect"),
        "words": body.get("message"),
        "level": data.get("authentication_level"),
    }
    return "".join(
        f"{name}: {seen[name]!r} and not {value!r}\n" for name, value in expect.items() if seen[name] != value
    )


@pytest.mark.parametrize("name", FLOWS)
def test_flow(program: Program, name: str) -> None:
    if any(step.what == "code" for step in FLOWS[name]):
        early()
    jar: list[str] = []
    changed, own = False, f"192.0.2.{100 + list(FLOWS).index(name)}"
    for number, step in enumerate(FLOWS[name]):
        if step.what == "rewrite":
            rewrite(program, step.value)
            changed = True
            continue
        deadline = time.monotonic() + 10
        while True:
            answer = do(program, replace(step, address=step.address or own), jar)
            fault = differs(answer, step.expect)
            # What is in the users file is seen a moment later; the real program is told by the kernel.
            if not fault or not changed or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert not fault, f"step {number} {step}: {fault}"
        if step.what in ("sign", "code") and answer.cookie:
            jar.append(answer.cookie)


def test_a_session_ends_when_nothing_is_done(brief: Program) -> None:
    number = brief.person("kid", address=LAN)
    site = Ask("", "", "media.lab.home", "/", LAN, 0).headers(number)

    def see() -> int:
        return brief.ask("GET", "/api/authz/forward-auth", site).status

    end = time.monotonic() + 3
    while time.monotonic() < end:  # longer than it may be idle, but it never is
        assert see() == 200
        time.sleep(0.3)
    time.sleep(3.2)  # asking would keep it alive
    assert see() == 302
    assert see() == 302


def test_a_ban_ends(brief: Program) -> None:
    for _ in range(3):
        assert brief.portal("/api/firstfactor", {"username": "kid", "password": "x"}, "", LAN).status == 401
    body = {"username": "kid", "password": "correct horse battery"}
    assert brief.portal("/api/firstfactor", body, "", LAN).status == 401
    deadline = time.monotonic() + 15
    while (answer := brief.portal("/api/firstfactor", body, "", LAN)).status != 200:
        assert time.monotonic() < deadline, answer
        time.sleep(0.5)
