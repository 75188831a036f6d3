"""Ways around the door, each of which an attacker would win something by; none gets to an application."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.live.labs import Lab, waited_for
from tests.live.proxy.client import Answer, Session, ask, code, connect, raw, read

GUESS = Path(__file__).with_name("guess.py")
SPOOFED = {
    "Remote-User": "owner", "remote-user": "owner", "Remote.User": "owner", "Remote_User": "owner",
    "REMOTE_USER": "owner", "Remote-Groups": "admins", "Remote_Groups": "admins", "remote.groups": "admins",
    "Remote-Email": "owner@lab.home", "Remote-Name": "Owner",
}  # fmt: skip
FORWARDED = {
    "X-Forwarded-For": "10.99.0.7", "x-forwarded-for": "10.99.0.7", "X_Forwarded_For": "10.99.0.7",
    "X.Forwarded.For": "10.99.0.7", "X-Real-IP": "10.99.0.7", "Forwarded": "for=10.99.0.7",
    "X-Forwarded-Host": "media.demo.lab.home", "X-Forwarded-Uri": "/status.php", "X-Forwarded-Method": "OPTIONS",
    "X-Forwarded-Proto": "http",
}  # fmt: skip
# Forms of a path that a program behind the proxy might take for one of the paths that need no sign-in, or for `/`.
PATHS = (
    "//", "//headers", "/./headers", "/status.php/../headers", "/status.php/..%2fheaders", "/status.php%2f..%2fheaders",
    "/status.php/%2e%2e/headers", "/status.phpx", "/status.php/headers", "/STATUS.PHP", "/status.php;/headers",
    "/status.php%00", "/status%2ephp", "/remote.php/../headers", "/remote.php/%2e%2e/headers",
    "/remote.php/..%5cheaders",
    "/remote.php/..\\headers", "/remote.php/.%2e/headers", "/remote.phpx/headers", "/%72emote.php/x", "/remote.php%2fx",
    "/x?/status.php", "/x#/status.php", "/remote.php/..;/headers", "/remote.php//../headers", "/index.php/status.php",
)  # fmt: skip


DOORS = (80, 443, 8096, 9091)


def refused(answer: Answer) -> bool:
    return not answer.by_application and answer.status in (
        0,
        302,
        303,
        307,
        308,
        400,
        401,
        403,
        404,
        405,
        411,
        413,
        421,
        431,
        501,
        505,
    )


@pytest.mark.parametrize("name", [*SPOOFED, *FORWARDED])
def test_a_header_of_the_client_is_not_believed(nobody: Session, anna: Session, name: str) -> None:
    value = {**SPOOFED, **FORWARDED}[name]
    assert refused(nobody.ask("cloud", "/headers", headers={name: value}))
    seen = anna.ask("cloud", "/headers", headers={name: value}).seen
    assert seen["remote-user"] == "anna"
    assert seen["remote-groups"] == "family"
    assert value not in json.dumps({k: v for k, v in seen.items() if k not in ("x-forwarded-proto",)}), seen


@pytest.mark.parametrize("name", SPOOFED)
def test_where_nobody_signs_in_nobody_is_named(nobody: Session, name: str) -> None:
    """A path without sign-in: what the application is told there is what the client said."""
    seen = nobody.ask("cloud", "/remote.php/headers", headers={name: SPOOFED[name]})
    assert seen.by_application
    assert not re.search("owner|admins", seen.body), seen.body


@pytest.mark.parametrize("path", PATHS)
def test_another_spelling_of_a_path(nobody: Session, path: str) -> None:
    assert refused(nobody.ask("cloud", path)), nobody.ask("cloud", path)


@pytest.mark.parametrize(
    "path", ["//admin", "/ADMIN", "/%61dmin", "/admin;x", "/x/../admin", "/./admin", "/admin%2f", "/admin%20/"]
)
def test_another_spelling_of_a_path_for_admins(anna: Session, path: str) -> None:
    """Who may use the site, but not that part of it."""
    answer = anna.ask("vault", path)
    assert answer.status in (400, 403) or (path == "/admin%20/" and answer.by_application), (path, answer)


def test_the_name_in_the_request_is_the_one_in_the_handshake(nobody: Session, anna: Session, lab: Lab) -> None:
    for session in (nobody, anna):
        answer = ask(lab, session.site("cloud"), "/headers", cookie=session.cookie, sni=session.site("media"))
        assert answer.status == 421, answer


def test_no_name_in_the_handshake(lab: Lab, nobody: Session) -> None:
    assert refused(raw(lab, nobody.site("cloud"), b"GET /headers HTTP/1.1\r\nHost: x\r\n\r\n", sni=None))


def test_the_applications_own_doors_are_shut(lab: Lab) -> None:
    """The container's address by a route through the host, and ports that only the proxy is to reach."""
    for port in (8096, 9091, 9959, 2019, 5432, 1883):
        assert not lab.reaches(port), port
    for service in ("nextcloud", "vaultwarden", "jellyfin", "authelia"):
        ends = [e for e in lab.variables()["policy_endpoints"] if e["name"] == service]
        [address] = [end["address"] for end in ends if end["bridge"] == "rf-frontend"]
        way = f"ip route replace {address}/32 via {lab.address()}"
        tries = "; ".join(f"timeout 3 bash -c '</dev/tcp/{address}/{port}' && echo open &" for port in DOORS)
        tried = f"{way}; {tries} wait; ip route del {address}/32".replace("&;", "&")
        assert "open" not in lab.sh(tried, "outside", check=False), service


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "TRACE", "CONNECT", "FOO", "HEAD"])
def test_another_method(nobody: Session, method: str) -> None:
    assert refused(nobody.ask("cloud", "/headers", method=method))


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-Original-URL", "X-Rewrite-URL", "X-Original-Method"])
def test_a_header_that_rewrites_the_request(nobody: Session, name: str) -> None:
    assert refused(nobody.ask("cloud", "/headers", headers={name: "/status.php"}))


def test_an_upgrade_to_websockets_is_a_request(nobody: Session) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert refused(nobody.ask("cloud", "/headers", headers=upgrade))


POST = b"POST /status.php HTTP/1.1\r\nHost: {name}\r\n"
SMUGGLED = b"GET /headers HTTP/1.1\r\nHost: {name}\r\n\r\n"
FORMS = {
    "length and chunks": POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 50\r\n\r\n" + SMUGGLED,
    "two hosts": b"GET /headers HTTP/1.1\r\nHost: {name}\r\nHost: media\r\n\r\n",
    "another encoding": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + SMUGGLED,
    "a space before the colon": POST + b"Content-Length : 5\r\n\r\n" + SMUGGLED,
    "a folded header": b"GET /headers HTTP/1.1\r\nHost: {name}\r\nX: a\r\n Remote-User: owner\r\n\r\n",
    "bare line feeds": b"GET /headers HTTP/1.1\nHost: {name}\n\n",
    "a whole address": b"GET https://{name}/status.php/../headers HTTP/1.1\r\nHost: {name}\r\n\r\n",
    "another address": b"GET http://authelia:9091/api/state HTTP/1.1\r\nHost: {name}\r\n\r\n",
    "an old version": b"GET /headers HTTP/1.0\r\n\r\n",
    "a null in a header": b"GET /headers HTTP/1.1\r\nHost: {name}\r\nX: a\x00b\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_request_that_is_read_differently_by_two_programs(lab: Lab, nobody: Session, form: str) -> None:
    """Two requests where the proxy sees one: whatever comes back, no application says what it was sent at /headers."""
    name = nobody.site("cloud")
    with connect(lab, name) as connection:
        connection.sendall(FORMS[form].replace(b"{name}", name.encode()))
        connection.settimeout(3)
        answers = []
        for _ in range(3):
            answer = read(connection)
            if not answer.status:
                break
            answers.append(answer)
    assert not [a for a in answers if a.by_application and a.body.startswith("[[")], answers


def test_a_header_without_end(nobody: Session) -> None:
    assert refused(nobody.ask("cloud", "/headers", headers={"X": "a" * 200_000}))


def test_a_header_that_comes_slowly(lab: Lab, nobody: Session) -> None:
    began = time.monotonic()
    with connect(lab, nobody.site("cloud")) as connection:
        connection.sendall(b"GET /headers HTTP/1.1\r\n")
        connection.settimeout(40)
        answer = read(connection)
    assert refused(answer)
    assert time.monotonic() - began < 30


# -- the cookie


def test_a_cookie_that_was_changed_or_made_up(lab: Lab, anna: Session) -> None:
    name, _, value = anna.cookie.partition("=")
    for made in (
        value[:-1] + ("A" if value[-1] != "A" else "B"),
        value[::-1],
        "A" * len(value),
        "",
        "../../etc/passwd",
        value + "x",
    ):
        assert refused(ask(lab, anna.site("cloud"), "/headers", cookie=f"{name}={made}")), made


def test_a_cookie_under_another_name(lab: Lab, anna: Session) -> None:
    assert refused(ask(lab, anna.site("cloud"), "/headers", cookie=anna.cookie.replace("authelia_session", "session")))


def test_a_cookie_after_signing_out(lab: Lab) -> None:
    session = Session(lab, "anna")
    assert session.ask("media").by_application
    kept = session.cookie
    session.post("/api/logout", {})
    assert refused(ask(lab, session.site("media"), "/headers", cookie=kept))


def test_the_applications_do_not_get_the_portals_cookie_elsewhere(lab: Lab, anna: Session) -> None:
    """It is for the lab's domain only, and for no script."""
    answer = Session(lab).first("anna", "ringfence-anna")
    cookie = answer.headers["set-cookie"].lower()
    assert not [word for word in ("httponly", "secure", "samesite=lax") if word not in cookie]
    assert f"domain={anna.domain}" in cookie.replace("domain=.", "domain=")


# -- the portal


def test_a_code_is_taken_once(lab: Lab) -> None:
    session = Session(lab, "owner")
    second = session.second("owner")
    assert '"status":"OK"' in second.body.replace(" ", "")
    thief = Session(lab, "owner")
    replayed = thief.post("/api/secondfactor/totp", {"token": code(time.time())})
    assert '"status":"OK"' not in replayed.body.replace(" ", "")
    assert refused(thief.ask("cloud", "/headers"))


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example.org/", "http://cloud.{domain}/", "https://cloud.{domain}.evil.example.org/",
        "https://evil.example.org/.{domain}/", "https://evil.example.org#.{domain}", "//evil.example.org/",
        "https://cloud.{domain}@evil.example.org/", "javascript:alert(1)",
        "https://evil{domain}/", "\\\\evil.example.org",
    ],
)  # fmt: skip
def test_nobody_is_sent_elsewhere_after_signing_in(lab: Lab, target: str) -> None:
    session = Session(lab)
    answer = session.first("anna", "ringfence-anna", targetURL=target.replace("{domain}", session.domain))
    said = json.loads(answer.body).get("data") or {}
    assert "evil" not in json.dumps(said)
    assert not str(said.get("redirect", "")).startswith("http:")


def test_the_portal_answers_no_forward_auth_from_outside(lab: Lab, anna: Session) -> None:
    """Whoever asks it himself says which address and site he asks for."""
    lies = {
        "X-Forwarded-Method": "GET",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": anna.site("cloud"),
        "X-Forwarded-Uri": "/",
        "X-Forwarded-For": "10.99.0.7",
    }
    answer = ask(lab, anna.portal, "/api/authz/forward-auth", headers=lies, cookie=anna.cookie)
    assert "remote-user" not in answer.headers or answer.status != 200, answer


def banned(lab: Lab, person: str) -> bool:
    body = Session(lab).first(person, f"ringfence-{person}").body.replace(" ", "")
    return '"status":"OK"' not in body


def test_who_guesses_is_banned_by_the_real_address(lab: Lab) -> None:
    """Three wrong passwords: the person is banned, and so is the address, which is the client's, not the proxy's."""
    portal = Session(lab).portal

    def there(person: str, password: str) -> str:
        said = lab.sh(f"python3 - {lab.address()} {portal} {person} {password}", "outside", text=GUESS.read_text())
        return said.replace(" ", "")

    assert '"status":"OK"' in there("guest", "ringfence-guest")
    for _ in range(3):
        assert '"status":"OK"' not in there("guest", "wrong")
    assert '"status":"OK"' not in there("guest", "ringfence-guest")  # the person
    assert '"status":"OK"' not in there("anna", "ringfence-anna")  # the address
    assert banned(lab, "guest")  # the person, from here
    assert not banned(lab, "anna")  # not this address


# -- when the portal is not there


@pytest.mark.parametrize("how", ["stop", "pause"])
def test_without_the_portal_nobody_gets_in(lab: Lab, anna: Session, nobody: Session, how: str) -> None:
    undo: dict[str, str] = {"stop": "start", "pause": "unpause"}
    lab.sh(f"docker {how} authelia-authelia-1")
    try:
        for session in (anna, nobody):
            for label in ("cloud", "media", "vault") if how == "stop" else ("cloud",):  # each takes ten seconds
                answer = session.ask(label, "/headers")
                assert not answer.by_application
                assert answer.status in (502, 503, 504), answer
                assert "sign" in answer.body.lower(), answer.body
        assert nobody.ask("vault", "/alive").by_application  # programs that sign in to the application itself go on
    finally:
        lab.sh(f"docker {undo[how]} authelia-authelia-1")
    assert waited_for(lambda: anna_again(lab).by_application, 60, 1)
    # Docker calls what was paused unhealthy until it is checked again, and a run would start it anew.
    health = "docker inspect -f '{{.State.Health.Status}}' authelia-authelia-1"
    assert waited_for(lambda: lab.sh(health).strip() == "healthy", 60, 1)


def anna_again(lab: Lab) -> Answer:
    try:
        return Session(lab, "anna").ask("media")
    except (AssertionError, OSError):
        return Answer(0)
