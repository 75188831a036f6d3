"""The table of cases.py, held to the double of Authelia and, where there is one, to the real program."""

from __future__ import annotations

import pytest

from tests.portal.cases import ASKS, GARBAGE, LAN, TARGETS, Ask
from tests.portal.program import GROUPS, Answer, Program

AUTHZ = "/api/authz/forward-auth"
# On one worker, which starts the program and signs everybody in once.
pytestmark = pytest.mark.xdist_group("portal-table")


@pytest.fixture(scope="module")
def numbers(program: Program) -> dict[str, str]:
    """The sessions of those who ask."""
    signed_in = {name: program.person(name, address="192.0.2.1") for name in ("owner", "kid", "ann", "guest")}
    return signed_in | {"owner+code": program.person("owner", address="192.0.2.1", code=True), "": ""}


@pytest.mark.parametrize("case", ASKS, ids=lambda case: case.name)
def test_ask(program: Program, numbers: dict[str, str], case: Ask) -> None:
    answer = program.ask("GET", AUTHZ, case.headers(numbers[case.who]))
    assert (answer.status, answer.header("Location"), answer.header("Remote-User")) == (
        case.status,
        case.location,
        case.user,
    )
    # Only who has to sign in gets a cookie: otherwise every answer of the proxy would carry one.
    assert bool(answer.cookie) == (case.location is not None)
    groups = GROUPS.get(case.who.partition("+")[0], []) if case.user else None
    assert answer.header("Remote-Groups") == (None if groups is None else ",".join(groups))
    assert answer.header("Remote-Email") == (f"{case.user}@lab.home" if case.user else None)
    assert answer.header("Remote-Name") == (case.user.title() if case.user else None)
    head = program.ask("HEAD", AUTHZ, case.headers(numbers[case.who]))
    assert head.status == answer.status
    assert head.header("Remote-User") == answer.header("Remote-User")


@pytest.mark.parametrize(("target", "safe"), TARGETS)
def test_target(program: Program, numbers: dict[str, str], target: str, safe: bool | None) -> None:
    answer = program.portal("/api/checks/safe-redirection", {"uri": target}, numbers["kid"], LAN)
    assert answer.status == 200
    assert answer.json.get("data", {}).get("ok") is safe


@pytest.mark.parametrize(("method", "path", "headers", "body", "status"), GARBAGE)
def test_garbage(program: Program, method: str, path: str, headers: dict[str, str], body: bytes, status: int) -> None:
    # From an address of its own, so that the tries do not ban anybody else.
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.1", **headers}
    host = {} if path.startswith("/api/authz") else {"X-Forwarded-Host": "auth.lab.home"}
    answer = program.ask(method, path, headers | host, body)
    assert answer.status == status
    assert not answer.cookie


def test_health(program: Program) -> None:
    assert program.ask("GET", "/api/health").json == {"status": "OK"}
    assert program.ask("HEAD", "/api/health").status == 200


def test_the_cookie_is_for_the_proxy_only(program: Program) -> None:
    answer = program.portal("/api/firstfactor", {"username": "kid", "password": "correct horse battery"}, "", LAN)
    kept = (answer.header("Set-Cookie") or "").lower().split("; ")
    assert kept[0].startswith("authelia_session=")
    assert {"httponly", "secure", "samesite=lax", "domain=lab.home", "path=/"} <= set(kept)


def test_a_login_at_a_foreign_name_sets_no_cookie(program: Program) -> None:
    body = {"username": "kid", "password": "correct horse battery"}
    answer: Answer = program.portal("/api/firstfactor", body, "", LAN, host="evil.test")
    assert answer.status == 401
    assert not answer.cookie
