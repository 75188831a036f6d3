"""What stands behind the proxy in its tests: an application that tells what it was sent, and a sign-in that is played.

Both speak plain sockets, so that what the proxy really writes is seen: names as they are spelt, twice where they are
twice.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

PORTAL = "https://auth.lab.home/"


@dataclass
class Seen:
    """One request as it arrived."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    def all(self, name: str) -> list[str]:
        """Return every value of a header, whatever the case of its name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        """Return the value of a header that is there once; "" where it is not."""
        found = self.all(name)
        assert len(found) < 2, f"{name} is there {len(found)} times: {found}"
        return found[0] if found else ""


@dataclass
class Stub:
    """A server on loopback that keeps what it was sent."""

    answer: Callable[[Seen, socket.socket], bool]
    seen: list[Seen] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            buffer = b""
            try:
                while True:
                    while b"\r\n\r\n" not in buffer:
                        if not (more := client.recv(65536)):
                            return
                        buffer += more
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    request = parsed(head)
                    self.seen.append(request)  # before its body: an application acts on the first line it gets
                    request.body, buffer = read_body(request, client, buffer)
                    if not self.answer(request, client):
                        return
            except OSError:
                return


def parsed(head: bytes) -> Seen:
    """Read the head of a request."""
    line, *rest = head.decode("latin-1").split("\r\n")
    return Seen(line, [(key, value.strip()) for key, _, value in (each.partition(":") for each in rest)])


def read_body(request: Seen, client: socket.socket, buffer: bytes) -> tuple[bytes, bytes]:
    """Return a request's body, and what was read behind it. Chunks are kept with their sizes and trailers."""
    if "chunked" in request.one("Transfer-Encoding").lower():
        while not (b"0\r\n" in buffer and buffer.endswith(b"\r\n\r\n")):
            if not (more := client.recv(65536)):
                raise OSError("it ended in its body")
            buffer += more
        return buffer, b""
    length = int(request.one("Content-Length") or 0)
    while len(buffer) < length:
        if not (more := client.recv(65536)):
            raise OSError("it ended in its body")
        buffer += more
    return buffer[:length], buffer[length:]


def reply(client: socket.socket, status: str, body: bytes = b"", **headers: str) -> bool:
    """Answer; a name's underscores are hyphens. Returns True: the connection stays."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return True


def application(request: Seen, client: socket.socket) -> bool:
    """An application that believes whatever it is told, and speaks WebSocket (and h2c) to anyone who asks."""
    upgrade = request.one("Upgrade").lower()
    if upgrade == "websocket":
        digest = hashlib.sha1((request.one("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode())
        accept = base64.b64encode(digest.digest()).decode()
        reply(client, "101 Switching Protocols", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Accept=accept)
        while more := client.recv(65536):
            client.sendall(more)
        return False
    if upgrade:
        return reply(client, "101 Switching Protocols", Upgrade=upgrade, Connection="Upgrade")
    if "own-headers" in request.path:
        return reply(
            client, "200 OK", b"application", X_Frame_Options="DENY", Referrer_Policy="no-referrer",
            Server="secret-app/1.2", X_Content_Type_Options="custom",
        )  # fmt: skip
    return reply(client, "200 OK", b"application", Server="secret-app/1.2")


def sign_in(request: Seen, client: socket.socket) -> bool:
    """A sign-in whose answer is chosen by the cookie `as`."""
    who = request.one("Cookie").partition("as=")[2].partition(";")[0]
    if who == "":
        return reply(client, "302 Found", Location=f"{PORTAL}?rd=there")
    if who == "script":
        return reply(client, "401 Unauthorized", Location=PORTAL)
    if who == "forbidden":
        return reply(client, "403 Forbidden", b"Authelia's own words")
    if who == "nobody":  # answered by something that is no sign-in: a page that anybody may see
        return reply(client, "200 OK", b"welcome")
    if who == "empty":
        return reply(client, "200 OK", Remote_User="")
    if who == "garbage":
        client.sendall(b"\x15\x03\x01 this is no HTTP\r\n\r\n")
        return False
    if who == "vanishes":
        return False
    if who == "upgrade":
        return reply(client, "101 Switching Protocols", Upgrade="websocket", Connection="Upgrade", Remote_User="eve")
    if who == "elsewhere":
        return reply(client, "302 Found", Location="https://evil.example/")
    if who.isdigit():
        return reply(client, f"{who} Whatever", b"its inner words: 10.9.8.7", Remote_User="eve")
    if who == "plain":  # no groups, no name: what a client claims must not fill the gap
        return reply(client, "200 OK", Remote_User="alice")
    return reply(
        client, "200 OK", Remote_User=who, Remote_Groups="family", Remote_Name="A Person", Remote_Email="p@lab.home"
    )
