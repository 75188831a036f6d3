"""A client that sends what it is told, byte by byte: no library would write what an attacker writes."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

WEBSOCKET = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)  # fmt: skip
LIMIT = 30.0  # seconds; nothing here takes one


@dataclass
class Answer:
    """What came back; `status` is 0 where the connection was closed without an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def connect(port: int, name: str | None, alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLSocket:
    """Open a TLS connection that names a site, or none.

    Raises:
        ssl.SSLError: the proxy has no certificate for that name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(alpn))
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=LIMIT), server_hostname=name)


def read(link: socket.socket) -> Answer:
    """Read one answer of HTTP/1.1."""
    reader = link.makefile("rb")
    try:
        first = reader.readline()
        if not first:
            return Answer(0, {}, b"")
        headers: dict[str, str] = {}
        while (line := reader.readline().rstrip(b"\r\n")) != b"":
            key, _, value = line.decode("latin-1").partition(":")
            headers[key.lower()] = value.strip()
        status = int(first.split()[1])
        if status == 101:
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(reader.readline().strip() or b"0", 16):
                body += reader.read(size)
                reader.readline()
            return Answer(status, headers, body)
        length = headers.get("content-length")
        return Answer(status, headers, reader.read(int(length)) if length is not None else reader.read())
    except ConnectionError:
        return Answer(0, {}, b"")


def send(port: int, name: str | None, raw: bytes) -> Answer:
    """Send bytes over TLS and read the answer."""
    with connect(port, name) as link:
        link.sendall(raw)
        return read(link)


def request(
    path: str = "/", *lines: str, host: str = "app.lab.home", method: str = "GET", cookie: str = "", body: bytes = b""
) -> bytes:
    """Return a request with further header lines exactly as given."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", *lines]
    head += [f"Cookie: as={cookie}"] if cookie else []
    head += [f"Content-Length: {len(body)}"] if body else []
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body


# -- HTTP/2, as much of it as one request takes: literals without compression, and the status out of the answer

_DIGITS = {"00000": "0", "00001": "1", "00010": "2"} | {f"{25 + n:06b}": str(3 + n) for n in range(7)}
_INDEXED = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _literal(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    rest, encoded = size - 127, b"\x7f"
    while rest >= 128:
        encoded, rest = encoded + bytes([rest % 128 + 128]), rest // 128
    return encoded + bytes([rest]) + text


def _status(block: bytes) -> int:
    if block[0] & 0x80:
        return _INDEXED[block[0] & 0x7F]
    text = block[2 : 2 + (block[1] & 0x7F)]
    if not block[1] & 0x80:
        return int(text)
    bits, found, word = "".join(f"{byte:08b}" for byte in text), "", ""
    for bit in bits:
        word += bit
        if word in _DIGITS:
            found, word = found + _DIGITS[word], ""
    return int(found[:3])


def send_h2(port: int, name: str, headers: list[tuple[str, str]]) -> int:
    """Send one request over HTTP/2 with exactly these fields. Returns its status; 0: it was reset or not answered."""
    block = b"".join(b"\x00" + _literal(k.encode("latin-1")) + _literal(v.encode("latin-1")) for k, v in headers)
    with connect(port, name, ("h2",)) as link:
        assert link.selected_alpn_protocol() == "h2"
        link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + _frame(1, 5, 1, block))
        reader = link.makefile("rb")
        try:
            while len(head := reader.read(9)) == 9:
                payload = reader.read(int.from_bytes(head[:3], "big"))
                kind, stream = head[3], int.from_bytes(head[5:], "big")
                if kind == 1 and stream == 1:
                    return _status(payload)
                ours_is_dropped = kind == 7 and int.from_bytes(payload[:4], "big") < 1  # GOAWAY: from which stream on
                if ours_is_dropped or (kind == 3 and stream == 1):  # RST_STREAM
                    return 0
        except ConnectionError:
            pass
    return 0
