"""What gets through the real Caddy, and what does not: who, from where, by which name.

Each case says what it would win an attacker. The application behind is a stub that believes all it is told.
"""

from __future__ import annotations

import socket
import ssl
import time

import pytest

from tests.unit.caddy.client import WEBSOCKET, Answer, connect, read, request, send, send_h2
from tests.unit.caddy.conftest import World

OURS = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https", "X-Real-Ip": "127.0.0.1"}


def ask(world: World, site: str, path: str = "/", *lines: str, **more: str) -> Answer:
    name = f"{site}.lab.home"
    return send(world.proxy.https, name, request(path, *lines, host=more.pop("host", name), **more))  # type: ignore[arg-type]


def nothing_arrived(world: World) -> bool:
    return not world.app.seen


def plain(world: World, raw: bytes) -> Answer:
    """Send bytes to the port of plain HTTP."""
    with socket.create_connection(("127.0.0.1", world.proxy.http), timeout=30) as link:
        link.sendall(raw)
        return read(link)


# -- people


def test_nobody_in_particular_is_sent_to_the_portal(world: World) -> None:
    answer = ask(world, "app")
    assert (answer.status, answer.headers["location"]) == (302, "https://auth.lab.home/?rd=there")
    assert nothing_arrived(world)


def test_who_has_signed_in_is_told_to_the_application(world: World) -> None:
    assert ask(world, "app", "/a?b=c", cookie="alice").text == "application"
    (seen,) = world.app.seen
    assert seen.path == "/a?b=c"
    told = {name: seen.one(name) for name in ("Remote-User", "Remote-Groups", "Remote-Name", "Remote-Email", *OURS)}
    assert told == {
        "Remote-User": "alice", "Remote-Groups": "family", "Remote-Name": "A Person", "Remote-Email": "p@lab.home",
        **OURS,
    }  # fmt: skip
    (asked,) = world.auth.seen
    # Not the client's own query: Authelia's end point takes parameters.
    assert asked.line == "GET /api/authz/forward-auth HTTP/1.1"
    assert {name: asked.one(name) for name in OURS} == OURS
    assert asked.one("X-Forwarded-Uri") == "/a?b=c"
    assert asked.one("X-Forwarded-Host") == "app.lab.home"


def test_a_script_is_told_that_nobody_has_signed_in(world: World) -> None:
    assert ask(world, "app", cookie="script").status == 401
    assert nothing_arrived(world)


def test_a_person_whom_the_portal_refuses_sees_a_page_of_ours(world: World) -> None:
    answer = ask(world, "app", cookie="forbidden")
    assert answer.status == 403
    assert "Not you" in answer.text
    assert nothing_arrived(world)


@pytest.mark.parametrize("how", [
    "nobody",  # another program has taken Authelia's address: a page for everybody would let everybody in
    "empty",  # the same with an empty name
    "garbage", "vanishes",  # it dies while it answers
    "upgrade",  # a connection that is no longer HTTP
    "500", "503", "404", "418", "300", "307", "429",
])  # fmt: skip
def test_an_answer_that_is_none_lets_nobody_in(world: World, how: str) -> None:
    answer = ask(world, "app", cookie=how)
    assert answer.status == 502
    assert "Sign-in is unavailable" in answer.text
    assert "10.9.8.7" not in answer.text  # nothing of what it said
    assert nothing_arrived(world)


def test_a_redirect_to_elsewhere_is_no_admission(world: World) -> None:
    assert ask(world, "app", cookie="elsewhere").status == 302
    assert nothing_arrived(world)


# -- identities and addresses that a client claims

SPOOFS = [
    # To be the administrator of any application that believes its proxy.
    "Remote-User: eve", "remote-user: eve", "REMOTE-USER: eve", "Remote-Groups: admins", "Remote-Name: Eve",
    "Remote-Email: eve@lab.home",
    # The same for applications that read CGI's names, in which a hyphen, an underscore and a dot are one: PHP, WSGI.
    "Remote_User: eve", "remote_groups: admins", "Remote.User: eve", "Remote.Groups: admins", "Remote~User: eve",
    "REMOTE!GROUPS: admins", "Remote'User: eve", "Remote|User: eve", "Remote`User: eve", "Remote*User: eve",
    "Remote+User: eve", "Remote$User: eve", "Remote%User: eve", "Remote#User: eve", "Remote^User: eve",
    "Remote&User: eve",
    # To be in the house, where rules, bans and logs go by address.
    "X-Forwarded-For: 192.168.10.5", "x-forwarded-for: 192.168.10.5", "X_Forwarded_For: 192.168.10.5",
    "X.Forwarded.For: 192.168.10.5", "X-Real-IP: 192.168.10.5", "X_Real_IP: 192.168.10.5", "X.Real.IP: 192.168.10.5",
    "Forwarded: for=192.168.10.5", "True-Client-IP: 192.168.10.5", "X-Client-IP: 192.168.10.5",
    "CF-Connecting-IP: 192.168.10.5", "X-Cluster-Client-IP: 192.168.10.5", "Client-IP: 192.168.10.5",
    # To be asked about another site, path, method or scheme than is served.
    "X-Forwarded-Host: open.lab.home", "X-Forwarded-Proto: http", "X-Forwarded-Uri: /public/",
    "X-Forwarded-Method: OPTIONS", "X-Forwarded-Port: 80", "X-Forwarded-Prefix: /public", "X-Original-URL: /admin",
    "X-Original-Method: OPTIONS", "X-Rewrite-URL: /admin", "X_Forwarded_Host: open.lab.home",
    # To have the application fetch by way of the attacker's proxy (httpoxy).
    "Proxy: http://192.168.10.5/",
    *(f"X{sign}Real{sign}IP: 192.168.10.5" for sign in "_.~!#$%&'+^`|*"),
]  # fmt: skip
CLAIMS = ("eve", "Eve", "admins", "192.168.10.5", "/public", "OPTIONS", "/admin", "open.lab.home")


def claimed(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in headers if any(claim in pair[1] for claim in CLAIMS) or pair[1] in ("http", "80")]


@pytest.mark.parametrize("spoof", SPOOFS)
def test_no_claim_reaches_the_application_or_the_portal(world: World, spoof: str) -> None:
    # `plain` is a person about whom the portal tells the name only: nothing else may be filled in by the client.
    assert ask(world, "app", "/", spoof, spoof, cookie="plain").status == 200
    (seen,), (asked,) = world.app.seen, world.auth.seen
    assert (claimed(seen.headers), claimed(asked.headers)) == ([], [])
    assert seen.one("Remote-User") == "alice"
    assert {name: seen.one(name) for name in OURS} == OURS == {name: asked.one(name) for name in OURS}
    world.forget()
    # Where nobody signs in there is nobody, and the portal's own site believes no client either.
    open_host = "open.lab.home"
    if spoof.partition(": ")[2] != open_host:
        assert ask(world, "open", "/", spoof).status == 200
        assert claimed([pair for pair in world.app.seen[0].headers if pair[1] != open_host]) == []
        assert not [name for name, _ in world.app.seen[0].headers if name.lower().startswith("remote")]
    ask(world, "auth", "/", spoof)
    assert claimed(world.auth.seen[-1].headers) == []


@pytest.mark.parametrize("spoof", [line for line in SPOOFS if line.split(":")[0].isascii()])
def test_http2_lets_no_claim_through(world: World, spoof: str) -> None:
    name, _, value = spoof.partition(": ")
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "app.lab.home"), (":path", "/")]
    send_h2(world.proxy.https, "app.lab.home", [*fields, (name.lower(), value), ("cookie", "as=plain")])
    for seen in (*world.app.seen, *world.auth.seen):
        assert claimed(seen.headers) == []


def test_connection_cannot_name_headers_that_get_lost(world: World) -> None:
    # An application without Remote-User may fall back to its own guest, or to an address it trusts.
    names = "Connection: close, Remote-User, Remote-Groups, X-Forwarded-For, X-Real-IP, Cookie, Host"
    assert ask(world, "app", "/", names, cookie="alice").status == 200
    assert world.app.seen[0].one("Remote-User") == "alice"
    assert world.app.seen[0].one("X-Real-Ip") == world.auth.seen[0].one("X-Real-Ip") == "127.0.0.1"


def test_a_trailer_is_no_header(world: World) -> None:
    # Some servers put trailers among the headers: to be somebody once the proxy has looked.
    raw = b"POST / HTTP/1.1\r\nHost: open.lab.home\r\nTransfer-Encoding: chunked\r\nTrailer: Remote-User\r\n\r\n"
    assert send(world.proxy.https, "open.lab.home", raw + b"2\r\nab\r\n0\r\nRemote-User: eve\r\n\r\n").status == 200
    assert b"eve" not in world.app.seen[0].body


@pytest.mark.parametrize("site", ["app", "open"])
def test_no_application_is_given_the_key_to_all_others(world: World, site: str) -> None:
    # The portal's cookie is for the whole domain: who has taken one application over would be everybody who visits it.
    ask(world, site, "/", "Cookie: as=alice; authelia_session=key; b=2; my_authelia_session=mine")
    assert world.app.seen[0].one("Cookie") == "as=alice; b=2; my_authelia_session=mine"
    ask(world, "auth", "/", "Cookie: authelia_session=key")
    assert world.auth.seen[-1].one("Cookie") == "authelia_session=key"
    ask(world, "app", "/", "Cookie: authelia_session=key; as=alice")
    assert world.auth.seen[-1].one("Cookie") == "authelia_session=key; as=alice"


# -- places


@pytest.mark.parametrize("site", ["lan", "nobody"])
@pytest.mark.parametrize("cookie", ["", "alice"])
def test_from_elsewhere_nobody_gets_in(world: World, site: str, cookie: str) -> None:
    answer = ask(world, site, "/", "X-Forwarded-For: 192.168.10.5", cookie=cookie)
    assert answer.status == 403
    assert "Not from here" in answer.text
    assert nothing_arrived(world)
    assert not world.auth.seen  # nor is it asked: a login page that cannot be used is none to be shown


def test_a_site_without_rules_is_closed(world: World) -> None:
    answer = ask(world, "closed", cookie="alice")
    assert answer.status == 403
    assert "Closed" in answer.text
    assert nothing_arrived(world)


# -- names


@pytest.mark.parametrize("site", ["other", "open", "auth", "unknown"])
def test_a_host_that_is_not_the_connections_name_is_refused(world: World, site: str) -> None:
    # To come in by the certificate (and rules of a client's certificate) of one site, and be served another.
    assert ask(world, "app", host=f"{site}.lab.home", cookie="alice").status == 421
    assert nothing_arrived(world)


@pytest.mark.parametrize("fields", [
    [(":authority", "open.lab.home"), (":path", "/")],
    [(":authority", "app.lab.home"), (":path", "/"), ("host", "open.lab.home")],
    [(":authority", "app.lab.home"), (":path", "/"), ("transfer-encoding", "chunked")],  # h2 to h1 smuggling
    [(":authority", "app.lab.home"), (":path", "/"), ("x", "a\r\nRemote-User: eve")],
    [(":authority", "app.lab.home"), (":path", "/ HTTP/1.1\r\nRemote-User: eve\r\nX: ")],
    [(":authority", "app.lab.home"), (":path", "/"), ("Remote-User", "eve")],  # capitals are none in HTTP/2
    [(":authority", "app.lab.home"), (":path", "/"), ("remote-user: eve\r\nx", "y")],
])  # fmt: skip
def test_http2_opens_no_other_way(world: World, fields: list[tuple[str, str]]) -> None:
    head = [(":method", "GET"), (":scheme", "https")]
    status = send_h2(world.proxy.https, "app.lab.home", [*head, *fields])
    assert status in (0, 400, 421, 302)
    assert nothing_arrived(world)
    for asked in world.auth.seen:
        assert claimed(asked.headers) == []


@pytest.mark.parametrize("name", ["unknown.lab.home", "lab.home", "x.app.lab.home", "localhost", None])
def test_there_is_no_certificate_for_other_names(world: World, name: str | None) -> None:
    # To learn which sites there are, or reach one by address.
    with pytest.raises(ssl.SSLError, match="ALERT"):
        connect(world.proxy.https, name)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "", "app.lab.home.evil.example", "app.lab.home@open.lab.home"]
)
def test_another_host_on_a_known_connection_is_refused(world: World, host: str) -> None:
    assert ask(world, "app", host=host, cookie="alice").status in (400, 421)
    assert nothing_arrived(world)


def test_plain_http_leads_to_https_and_nowhere_else(world: World) -> None:
    answer = plain(world, request("/a?b=c", cookie="alice"))
    assert answer.status == 308
    # The port is the one that is published, not the one that is listened at.
    assert answer.headers["location"] == "https://app.lab.home/a?b=c"
    assert nothing_arrived(world)
    assert not world.auth.seen


@pytest.mark.parametrize("host", ["unknown.lab.home", "127.0.0.1", "evil.example", ""])
def test_plain_http_for_other_names_is_closed(world: World, host: str) -> None:
    # No redirect that is the attacker's choice, no word about who listens here.
    assert plain(world, request(host=host)).status in (0, 400)
    assert nothing_arrived(world)


def test_plain_http_at_the_port_of_https_is_refused(world: World) -> None:
    with socket.create_connection(("127.0.0.1", world.proxy.https), timeout=30) as link:
        link.sendall(request(cookie="alice"))
        assert read(link).status in (0, 400)
    assert nothing_arrived(world)


# -- methods and protocols


@pytest.mark.parametrize(
    "override", ["X-HTTP-Method-Override: GET", "X-HTTP-Method: OPTIONS", "X-Method-Override: HEAD"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "PROPFIND", "BREW"])
def test_every_method_is_asked_about(world: World, method: str, override: str) -> None:
    # A method that is let through unasked is a way to every path.
    with connect(world.proxy.https, "app.lab.home") as link:
        link.sendall(request("/", override, method=method))
        assert link.makefile("rb").readline().split()[1] == b"302"
    assert world.auth.seen[0].one("X-Forwarded-Method") == method
    assert nothing_arrived(world)


@pytest.mark.parametrize("raw", [
    b"TRACE / HTTP/1.1\r\nHost: open.lab.home\r\n\r\n",  # to be shown the cookie and headers that scripts may not see
    b"CONNECT open.lab.home:443 HTTP/1.1\r\nHost: open.lab.home\r\n\r\n",  # a tunnel to anywhere
    b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: open.lab.home\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: open.lab.home\r\n\r\n",  # a path on which no rule is written
])  # fmt: skip
def test_no_tunnel_and_no_echo(world: World, raw: bytes) -> None:
    send(world.proxy.https, "open.lab.home", raw)
    assert nothing_arrived(world)


def test_a_websocket_is_asked_about_like_anything_else(world: World) -> None:
    assert ask(world, "app", "/", *WEBSOCKET).status == 302
    assert nothing_arrived(world)
    with connect(world.proxy.https, "app.lab.home") as link:
        link.sendall(request("/", *WEBSOCKET, "Remote-User: eve", cookie="alice"))
        assert read(link).status == 101
        link.sendall(b"\x81\x02hi")
        assert link.recv(16) == b"\x81\x02hi"
    assert world.app.seen[0].one("Remote-User") == "alice"


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.0", "websocket, h2c", "connect-ip"])
def test_nothing_but_a_websocket_takes_a_connection_over(world: World, protocol: str) -> None:
    # h2c smuggling: once the application has taken over, whatever is sent reaches it unasked and unstripped.
    lines = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABkAAQAAP__")
    assert ask(world, "open", "/", *lines).status == 200
    assert world.app.seen[0].one("Upgrade") == world.app.seen[0].one("Connection") == ""


# -- what is too much, or too slow


def test_a_huge_header_is_refused(world: World) -> None:
    assert ask(world, "open", "/", "X-Filler: " + "a" * 40000).status == 431
    assert nothing_arrived(world)


@pytest.mark.parametrize("size", [1001, 50000])
def test_a_huge_body_is_refused_before_it_is_sent_on(world: World, size: int) -> None:
    answer = send(
        world.proxy.https, "small.lab.home", request(host="small.lab.home", method="POST", body=b"x" * size)
    )  # fmt: skip
    assert answer.status == 413
    assert "Too large" in answer.text
    assert not world.small.seen


def test_a_huge_body_of_unknown_length_does_not_arrive_as_a_whole(world: World) -> None:
    raw = b"POST / HTTP/1.1\r\nHost: small.lab.home\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = send(world.proxy.https, "small.lab.home", raw + b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n")
    assert answer.status == 413
    assert not any(seen.body for seen in world.small.seen)


def test_a_body_within_the_limit_arrives(world: World) -> None:
    send(world.proxy.https, "small.lab.home", request(host="small.lab.home", method="POST", body=b"x" * 1000))
    assert b"x" * 1000 in [seen.body for seen in world.small.seen]


def test_a_slow_header_is_not_waited_for(world: World) -> None:
    # A handful of such connections for each process of a server, and nobody else is served.
    with connect(world.proxy.https, "open.lab.home") as link:
        begun = time.monotonic()
        link.sendall(b"GET / HTTP/1.1\r\nHost: open.lab.home\r\nX-")
        assert read(link).status in (0, 400, 408)
        assert 5 < time.monotonic() - begun < 20
    assert nothing_arrived(world)
