"""The real Caddy at work: reloads, what it logs, what it says when something behind it is down, TLS to applications."""

from __future__ import annotations

import itertools
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.unit.caddy import stubs
from tests.unit.caddy.client import Answer, connect, read, request, send, send_h2
from tests.unit.caddy.conftest import ANY, World
from tests.unit.caddy.proxy import Proxy, free_ports, issue, program, rendered

PERSON = {"login": True, **ANY}
OPEN = {"login": False, **ANY}


def ask(proxy: Proxy, site: str, path: str = "/", cookie: str = "", *lines: str) -> Answer:
    return send(proxy.https, f"{site}.lab.home", request(path, *lines, host=f"{site}.lab.home", cookie=cookie))


# -- headers and pages


def test_what_every_answer_carries(world: World) -> None:
    for answer in (ask(world.proxy, "open"), ask(world.proxy, "closed"), ask(world.proxy, "app")):
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "SAMEORIGIN"
        assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
        assert answer.headers["alt-svc"].startswith("h3=")
        assert not {"server", "via", "x-powered-by"} & set(answer.headers)


def test_what_an_application_sets_itself_is_left(world: World) -> None:
    headers = ask(world.proxy, "open", "/own-headers").headers
    assert (headers["x-frame-options"], headers["referrer-policy"]) == ("DENY", "no-referrer")
    assert headers["x-content-type-options"] == "custom"
    assert "server" not in headers


def test_a_page_of_ours_names_nothing_that_stands_behind(world: World) -> None:
    answer = ask(world.proxy, "dead")
    assert answer.status == 502
    assert "The application is unavailable" in answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    for word in ("127.0.0.1", "refused", "dial", "upstream", "Caddy"):
        assert word not in answer.text
    assert "{" not in answer.text.replace("body {", "")  # every placeholder has become a word


# -- what is behind is down


def test_without_the_portal_every_protected_site_is_closed(world: World, tmp_path: Path) -> None:
    up = f"127.0.0.1:{world.app.port}"
    sites = [
        {"name": f"{name}.lab.home", "upstream": up, "rules": [rule]}
        for name, rule in (("app", PERSON), ("open", OPEN))
    ]
    for portal in ({"name": "auth.lab.home", "upstream": f"127.0.0.1:{free_ports(1)[0]}", "networks": ["any"]}, {}):
        (tmp_path / str(bool(portal))).mkdir()
        proxy = Proxy(tmp_path / str(bool(portal)), {"portal": portal, "sites": sites})
        try:
            proxy.start()
            for cookie in ("", "alice"):
                answer = ask(proxy, "app", "/", cookie)
                assert answer.status == 502
                assert "Sign-in is unavailable" in answer.text
                assert not world.app.seen
            if portal:
                assert "Sign-in is unavailable" in ask(proxy, "auth").text
            assert ask(proxy, "open").status == 200
            world.forget()
        finally:
            proxy.stop()


# -- its log


def test_the_log_knows_who_and_tells_no_secret(world: World) -> None:
    before = len(world.proxy.log())
    path = "/log?api_key=s3cret&page=2&access_token=s3cret&code=s3cret&X-Plex-Token=s3cret"
    ask(world.proxy, "app", path, "alice", "Authorization: Bearer s3cret", "X-Emby-Token: s3cret")
    ask(world.proxy, "app", "/log", "forbidden", "Remote-User: mallory")
    ask(world.proxy, "dead", path, "s3cret", "Authorization: Bearer s3cret")
    lines = world.proxy.requests(before)
    assert [(line["status"], line.get("user")) for line in lines] == [(200, "alice"), (403, None), (502, None)]
    assert lines[0]["request"]["uri"].startswith("/log?api_key=REDACTED&page=2&")
    assert lines[0]["request"]["remote_ip"] == "127.0.0.1"
    text = world.proxy.log()[before:]
    assert "s3cret" not in text
    assert "mallory" not in text
    assert "as=" not in text


# -- reloads


def test_a_new_configuration_is_read_and_a_bad_one_is_not(world: World) -> None:
    try:
        world.proxy.write(sites=[{**site, "rules": []} for site in world.variables["sites"]])
        assert world.proxy.reload().returncode == 0
        assert ask(world.proxy, "app", "/", "alice").status == 403
        world.proxy.file.write_text("{\n\tnonsense\n}\n")
        assert world.proxy.reload().returncode != 0
        assert ask(world.proxy, "app", "/", "alice").status == 403
        world.proxy.write(pki="/nowhere")
        world.proxy.file.write_text(world.proxy.file.read_text().replace("/tls/current/", "/tls/none/"))
        assert world.proxy.call("validate").returncode != 0
        assert world.proxy.reload().returncode != 0
        assert ask(world.proxy, "app", "/", "alice").status == 403
    finally:
        world.proxy.write()
        assert world.proxy.reload().returncode == 0
    assert ask(world.proxy, "app", "/", "alice").status == 200


def test_a_renewed_certificate_is_served_after_a_reload(world: World) -> None:
    def served() -> bytes:
        with connect(world.proxy.https, "app.lab.home") as link:
            return link.getpeercert(binary_form=True) or b""

    before = served()
    issue(world.proxy.folder / "tls", [site["name"] for site in world.variables["sites"]] + ["auth.lab.home"])
    assert served() == before
    assert world.proxy.reload().returncode == 0
    # The text is the same: without --force that would be no reload.
    assert served() != before


def test_no_request_that_has_begun_is_lost_by_a_reload(world: World) -> None:
    """A slow answer, a slow upload, a WebSocket, a connection that is kept: all begun before, all end well."""
    release = threading.Event()

    def slow(seen: stubs.Seen, client: socket.socket) -> bool:
        if seen.one("Upgrade"):
            return stubs.application(seen, client)
        release.wait(30)
        return stubs.reply(client, "200 OK", b"late")

    app = stubs.Stub(slow)
    moved = [
        {**site, "upstream": f"127.0.0.1:{app.port}"} if site["name"] == "open.lab.home" else site
        for site in world.variables["sites"]
    ]
    host = "open.lab.home"
    try:
        world.proxy.write(sites=moved)
        assert world.proxy.reload().returncode == 0
        with connect(world.proxy.https, host) as answer, connect(world.proxy.https, host) as upload, connect(world.proxy.https, host) as web:  # fmt: skip
            answer.sendall(request(host=host))
            upload.sendall(f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\n12345".encode())
            web.sendall(request("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", host=host))  # fmt: skip
            assert read(web).status == 101
            reader = threading.Thread(target=lambda: (release.wait(30), upload.sendall(b"67890")))
            reader.start()
            threading.Timer(1, release.set).start()
            world.proxy.write(sites=moved, max_body="99MB")
            assert world.proxy.reload().returncode == 0
            reader.join()
            assert read(answer).text == read(upload).text == "late"
            web.sendall(b"x")
            assert web.recv(1) == b"x"
        assert [seen.body for seen in app.seen if seen.body] == [b"1234567890"]
    finally:
        app.close()
        world.proxy.write()
        world.proxy.reload()


def knock(world: World, name: str, number: int, http2: bool) -> bool:
    """Whether a request with a number on a new connection is answered; what is not answered is closed or reset."""
    try:
        if http2:
            fields = [(":method", "GET"), (":scheme", "https"), (":authority", name), (":path", f"/{number}")]
            status = send_h2(world.proxy.https, name, fields)
        else:
            status = send(world.proxy.https, name, request(f"/{number}", host=name)).status
    except OSError:
        return False
    assert status in (0, 200)
    return status == 200


@pytest.mark.parametrize("http2", [False, True])
def test_what_a_reload_turns_away_has_not_been_begun(world: World, http2: bool) -> None:
    """A connection that is being opened at the very moment may be closed: the same request can be sent again."""
    done, answered, turned_away = threading.Event(), set(), set()
    numbers = itertools.count()

    def visit() -> None:
        while not done.is_set():
            number = next(numbers)
            (answered if knock(world, "open.lab.home", number, http2) else turned_away).add(f"/{number}")

    visitors = [threading.Thread(target=visit) for _ in range(2)]
    for each in visitors:
        each.start()
    try:
        for size in range(5):
            world.proxy.write(max_body=f"{90 + size}MB")
            assert world.proxy.reload().returncode == 0
    finally:
        done.set()
        for each in visitors:
            each.join()
        world.proxy.write()
        world.proxy.reload()
    assert len(answered) > 20
    assert {seen.path for seen in world.app.seen} == answered
    assert len(turned_away) <= 5 * len(visitors)  # at each reload no more than were being opened


# -- the container's own


def test_the_admin_socket_is_its_owners_alone(world: World) -> None:
    mode = (world.proxy.folder / "run" / "admin.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_it_listens_where_it_is_told_only(world: World) -> None:
    """Ports of TCP for HTTP, HTTPS and the health check; HTTP/3 on the same port of UDP; no admin port."""
    assert world.proxy.process
    inodes = {
        os.readlink(link)[8:-1]
        for link in Path(f"/proc/{world.proxy.process.pid}/fd").iterdir()
        if os.readlink(link).startswith("socket:")
    }

    def ports(kind: str, state: str) -> set[int]:
        rows = [
            line.split()
            for name in (kind, f"{kind}6")
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        ]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if row[9] in inodes and row[3] == state}

    proxy = world.proxy
    assert ports("tcp", "0A") == {proxy.http, proxy.https, proxy.health}
    assert ports("udp", "07") == {proxy.https}


def test_tls_to_the_application_is_checked(world: World, tmp_path: Path) -> None:
    issue(tmp_path / "inner", ["inner.lab.home"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "inner/current/cert.pem", tmp_path / "inner/current/key.pem")
    seen: list[str] = []

    def serve(client: socket.socket) -> None:
        try:
            with context.wrap_socket(client, server_side=True) as link:
                seen.append(link.recv(65536).decode())
                stubs.reply(link, "200 OK", b"over TLS")
        except OSError:
            client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        up = f"127.0.0.1:{listener.getsockname()[1]}"
        sites = [
            {"name": f"{name}.lab.home", "upstream": up, "tls": True, "tls_name": f"{theirs}.lab.home", "rules": [OPEN]}
            for name, theirs in (("right", "inner"), ("wrong", "outer"))
        ]
        proxy = Proxy(tmp_path, {"portal": {}, "sites": sites})
        try:
            proxy.start()
            foreign = ask(proxy, "right")
            assert foreign.status == 502, "a certificate of another authority"
            (tmp_path / "tls/ca.pem").write_bytes((tmp_path / "inner/ca.pem").read_bytes())
            proxy.write(max_body="99MB")
            assert proxy.reload().returncode == 0
            assert ask(proxy, "wrong").status == 502, "a certificate for another name"
            assert not seen
            assert ask(proxy, "right").text == "over TLS"
            assert "\r\nHost: right.lab.home\r\n" in seen[0], "the name that the user asked for"
        finally:
            proxy.stop()


@pytest.mark.parametrize(("zone", "accepted"), [("Europe/Berlin", True), ("Mars/Phobos", False)])
def test_a_time_zone_that_there_is_not_is_refused_before_it_is_used(zone: str, accepted: bool, tmp_path: Path) -> None:
    hours = {"zone": zone, "windows": [{"days": ["mon"], "from": "00:00", "to": "24:00"}]}
    site = {"name": "app.lab.home", "upstream": "127.0.0.1:1", "rules": [{**OPEN, "hours": hours}]}
    proxy = Proxy(tmp_path, {"portal": {}, "sites": [site]}, *free_ports(3))
    (tmp_path / "run").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "caddy").symlink_to(program())
    wget = tmp_path / "bin" / "wget"  # the image's is BusyBox', and this machine may have none
    wget.write_text(f"#!{sys.executable}\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[-1])\n")
    wget.chmod(0o755)
    issue(tmp_path / "tls", ["app.lab.home"])
    proxy.write()
    shell, option, line = rendered(**proxy.variables, listen_health=proxy.health)["services"][0]["validate"]
    try:
        with (tmp_path / "words").open("w") as words:  # a pipe would be held open by what it leaves running
            done = subprocess.run(
                [shell, option, line.replace("/etc/caddy/Caddyfile", str(proxy.file))], stdout=words, stderr=words,
                env={**proxy.environment, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}, check=False, timeout=60,
            )  # fmt: skip
    finally:
        proxy.call("stop", "--address", proxy.admin)  # in the container it ends with the shell
    said = (tmp_path / "words").read_text(encoding="utf-8")
    assert (done.returncode == 0) == accepted, said
    assert ("time zone of caddy_sites is unknown" in said) != accepted


def test_a_time_zone_that_there_is_not_lets_nobody_in(world: World) -> None:
    hours = {"zone": "Mars/Phobos", "windows": [{"days": ["mon"], "from": "00:00", "to": "24:00"}]}
    first, *others = world.variables["sites"]
    try:
        world.proxy.write(sites=[{**first, "rules": [{**OPEN, "hours": hours}]}, *others])
        assert world.proxy.reload().returncode == 0
        assert ask(world.proxy, "app").status == 500
        assert world.proxy.healthy() == 500
        assert not world.app.seen
    finally:
        world.proxy.write()
        world.proxy.reload()


def test_the_log_is_json(world: World) -> None:
    assert all(json.loads(line) for line in world.proxy.log().splitlines())
