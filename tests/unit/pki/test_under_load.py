"""Real TLS on loopback: nobody notices a renewal, and a server that wants a client's certificate gets one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from typing import Any

import pytest

from tests.unit.pki.conftest import Host, leaf

SECONDS = 1 / 3600  # of pki_leaf_hours


class Server:
    """A TLS server on loopback that reads its certificate again when it is told."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.read()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def read(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.host.cert("caddy"), self.host.key("caddy"))
        self.context = context

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            try:
                with self.context.wrap_socket(connection, server_side=True) as talk:
                    talk.sendall(b"hello")
            except OSError:
                connection.close()


def test_certificates_with_a_short_life_are_renewed_without_a_failed_request(host: Host) -> None:
    """A life of nine seconds, renewed every six, while a client that trusts the root alone asks again and again."""
    host.variables |= {"pki_leaf_hours": 9 * SECONDS, "pki_leaves": [leaf("caddy", "caddy.lab.home")]}
    host.apply()
    server = Server(host)
    client = ssl.create_default_context(cafile=str(host.ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    seen, faults, over = set[str](), list[str](), threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            try:
                with (
                    socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain,
                    client.wrap_socket(plain, server_hostname="caddy.lab.home") as talk,
                ):
                    seen.add(str((talk.getpeercert() or {})["serialNumber"]))
                    assert talk.recv(5) == b"hello"
            except (OSError, AssertionError) as error:
                faults.append(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    deadline, current = time.monotonic() + 60, host.cert("caddy").resolve()
    while len(seen) < 3 and time.monotonic() < deadline and not faults:
        host.module.renew([])
        if host.cert("caddy").resolve() != current:
            current = host.cert("caddy").resolve()
            server.read()
        over.wait(0.2)
    over.set()
    asking.join()
    server.listening.close()
    assert faults == []
    assert len(seen) >= 3


@pytest.mark.parametrize(("name", "passes"), [("app", True), ("db", False)])
def test_a_server_that_wants_a_clients_certificate_takes_clients_only(host: Host, name: str, passes: bool) -> None:
    """As Postgres and the MQTT broker use them: whose certificate it is stands in the common name."""
    host.variables["pki_leaves"] = [leaf("db"), leaf("app", usage=["client"])]
    host.apply()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(host.cert("db"), host.key("db"))
    server.load_verify_locations(str(host.directory / "leaves" / "db" / "ca.pem"))
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(host.ca))
    client.load_cert_chain(host.cert(name), host.key(name))
    one, other = socket.socketpair()
    found: list[Any] = []

    def accept() -> None:
        try:
            with server.wrap_socket(other, server_side=True) as talk:
                found.append(talk.getpeercert())
                talk.sendall(b"x")
        except ssl.SSLError as error:
            found.append(error)
            other.close()

    accepting = threading.Thread(target=accept)
    accepting.start()
    with one, contextlib.suppress(OSError), client.wrap_socket(one, server_hostname="db.lab.home") as talk:
        talk.recv(1)
    accepting.join()
    if passes:
        assert (("commonName", "app"),) in found[0]["subject"]
    else:
        assert isinstance(found[0], ssl.SSLError), "a server's certificate must not pass for a client's"
