"""The real Caddy reads its configuration again: what it refuses, and what it does not let fall."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.unit.caddy import stubs
from tests.unit.caddy.client import WEBSOCKET, Answer, connect, read, request, send, send_h2
from tests.unit.caddy.conftest import ANY, World
from tests.unit.caddy.proxy import Proxy, free_ports, issue, program, rendered

PERSON = {"login": True, **ANY}
OPEN = {"login": False, **ANY}


def ask(proxy: Proxy, site: str, path: str = "/", cookie: str = "", *lines: str) -> Answer:
    return send(proxy.https, f"{site}.lab.home", request(path, *lines, host=f"{site}.lab.home", cookie=cookie))


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
    moved = [dict(site) for site in world.variables["sites"]]
    for site in moved:
        if site["name"] == "open.lab.home":
            site["upstream"] = f"127.0.0.1:{app.port}"
    host = "open.lab.home"
    try:
        world.proxy.write(sites=moved)
        assert world.proxy.reload().returncode == 0
        with contextlib.ExitStack() as open_links:
            answer, upload, web = (open_links.enter_context(connect(world.proxy.https, host)) for _ in range(3))
            answer.sendall(request(host=host))
            upload.sendall(f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\n12345".encode())
            web.sendall(request("/", *WEBSOCKET, host=host))
            assert read(web).status == 101

            def finish() -> None:
                release.wait(30)
                upload.sendall(b"67890")

            reader = threading.Thread(target=finish)
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
    done, many = threading.Event(), threading.Event()
    answered: set[str] = set()
    turned_away: set[str] = set()
    numbers = itertools.count()

    def visit() -> None:
        while not done.is_set():
            number = next(numbers)
            (answered if knock(world, "open.lab.home", number, http2) else turned_away).add(f"/{number}")
            if len(answered) > 20:
                many.set()

    visitors = [threading.Thread(target=visit) for _ in range(2)]
    for each in visitors:
        each.start()
    try:
        for size in range(5):
            world.proxy.write(max_body=f"{90 + size}MB")
            assert world.proxy.reload().returncode == 0
        assert many.wait(60)
    finally:
        done.set()
        for each in visitors:
            each.join()
        world.proxy.write()
        world.proxy.reload()
    assert len(answered) > 20
    assert {seen.path for seen in world.app.seen} == answered
    assert len(turned_away) <= 5 * len(visitors)  # at each reload no more than were being opened


@pytest.mark.parametrize(("zone", "accepted"), [("Europe/Berlin", True), ("Mars/Phobos", False)])
def test_a_time_zone_that_there_is_not_is_refused_before_it_is_used(zone: str, accepted: bool, tmp_path: Path) -> None:
    hours = {"zone": zone, "windows": [{"days": ["mon"], "from": "00:00", "to": "24:00"}]}
    site = {"name": "app.lab.home", "upstream": "127.0.0.1:1", "rules": [{**OPEN, "hours": hours}]}
    proxy = Proxy(tmp_path, {"portal": {}, "sites": [site]})
    proxy.http, proxy.https, proxy.health = free_ports(3)
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
