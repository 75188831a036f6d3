"""What stands behind the real Caddy: down, or not who it says it is."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

from tests.unit.caddy import stubs
from tests.unit.caddy.client import Answer, request, send
from tests.unit.caddy.conftest import ANY, World
from tests.unit.caddy.proxy import Proxy, free_ports, issue

PERSON = {"login": True, **ANY}
OPEN = {"login": False, **ANY}


def ask(proxy: Proxy, site: str, path: str = "/", cookie: str = "", *lines: str) -> Answer:
    return send(proxy.https, f"{site}.lab.home", request(path, *lines, host=f"{site}.lab.home", cookie=cookie))


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
