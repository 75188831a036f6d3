"""The real Caddy at work: what every answer carries, its log, its sockets."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import time
from pathlib import Path

from tests.unit.caddy.client import Answer, read, request, send
from tests.unit.caddy.conftest import ANY, World
from tests.unit.caddy.proxy import Proxy, free_ports, program

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


# -- its log


def test_the_log_knows_who_and_tells_no_secret(world: World) -> None:
    before = len(world.proxy.log())
    path = "/log?api_key=s3cret&page=2&access_token=s3cret&code=s3cret&X-Plex-Token=s3cret&client_secret=s3cret"
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


def test_the_log_is_json(world: World) -> None:
    assert all(json.loads(line) for line in world.proxy.log().splitlines())


# -- the container's own


def test_the_admin_socket_is_its_owners_alone(world: World) -> None:
    mode = (world.proxy.folder / "run" / "admin.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_it_listens_where_it_is_told_only(world: World) -> None:
    """Ports of TCP for HTTP, HTTPS and the health check; HTTP/3 on the same port of UDP; no admin port."""
    assert world.proxy.process
    inodes = {
        name.removeprefix("socket:[")[:-1]
        for link in Path(f"/proc/{world.proxy.process.pid}/fd").iterdir()
        if (name := str(link.readlink())).startswith("socket:")
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


def test_http3_is_spoken_and_asked_about_like_the_others(world: World, tmp_path: Path) -> None:
    """A second Caddy is the client: nothing else here speaks HTTP/3."""
    (port,) = free_ports(1)
    (tmp_path / "Caddyfile").write_text(
        f"""{{
	admin off
	auto_https off
}}
http://:{port} {{
	bind 127.0.0.1
	reverse_proxy https://127.0.0.1:{world.proxy.https} {{
		header_up Host app.lab.home
		transport http {{
			versions 3
			tls_server_name app.lab.home
			tls_insecure_skip_verify
		}}
	}}
}}
""",
        encoding="utf-8",
    )
    with (tmp_path / "log").open("w") as log:
        client = subprocess.Popen(
            [program(), "run", "--config", tmp_path / "Caddyfile", "--adapter", "caddyfile"],
            stdout=log, stderr=log, env=world.proxy.environment,
        )  # fmt: skip
    try:
        for cookie, status in (("", 302), ("forbidden", 403), ("alice", 200)):
            assert over(port, request("/", "Remote-User: eve", cookie=cookie)).status == status
            assert bool(world.app.seen) == (status == 200)
        assert world.app.seen[0].one("Remote-User") == "alice"
        assert world.app.seen[0].all("Via") == ["1.1 Caddy", "3.0 Caddy"]  # the client, and the version it spoke
    finally:
        client.kill()
        client.wait()


def over(port: int, raw: bytes) -> Answer:
    """Send bytes to a port of plain HTTP, once somebody listens there."""
    end = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
                link.sendall(raw)
                return read(link)
        except ConnectionRefusedError:
            assert time.monotonic() < end
            time.sleep(0.05)  # there is nothing to wait at until it listens
