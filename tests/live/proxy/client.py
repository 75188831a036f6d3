"""A client of the lab's sites that sends exactly the bytes that it is given."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.live.labs import Lab

SECONDS = 15.0
TOTP_SECONDS = 30


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 where nothing did, and why."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    why: str = ""

    @property
    def location(self) -> str:
        return self.headers.get("location", "")

    @property
    def by_application(self) -> bool:
        """Whether an application of the lab wrote it, whatever its status."""
        return "x-application" in self.headers

    @property
    def seen(self) -> dict[str, str]:
        """The headers that reached the application, as its page /headers shows them (names in lower case)."""
        return {name.lower(): value for name, value in json.loads(self.body)}


def root_of(lab: Lab) -> str:
    return str(lab.variables()["verify_root"])


def connect(
    lab: Lab, sni: str | None, *, port: int = 443, address: str = "", source: str = "", alpn: str = "http/1.1"
) -> ssl.SSLSocket:
    """Open TLS to the proxy; the certificate must be the lab's for the name (without one, none is checked)."""
    context = ssl.create_default_context(cadata=root_of(lab))
    context.set_alpn_protocols([alpn])
    if sni is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    bound = (source, 0) if source else None
    plain = socket.create_connection(
        (address or lab.address(lab.variables()["lab_proxy"]["host"]), port), timeout=SECONDS, source_address=bound
    )
    try:
        return context.wrap_socket(plain, server_hostname=sni)
    except BaseException:
        plain.close()
        raise


def read(connection: socket.socket) -> Answer:
    """Read one answer and no more than it has."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(65536)):
                return Answer(0, why="closed without an answer")
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        length = int(headers.get("content-length", "0"))
        while len(body) < length or (headers.get("transfer-encoding") == "chunked" and not body.endswith(b"0\r\n\r\n")):
            if not (more := connection.recv(65536)):
                break
            body += more
    except OSError as error:
        return Answer(0, why=str(error))
    return Answer(int(lines[0].split()[1]), headers, body.decode("utf-8", "replace"))


def raw(lab: Lab, name: str, data: bytes, *, sni: str | None = "", **how: Any) -> Answer:
    """Send bytes to the proxy over TLS and read the answer. `sni`: another name than the host's, or None for none."""
    try:
        with connect(lab, name if sni == "" else sni, **how) as connection:
            connection.sendall(data)
            return read(connection)
    except OSError as error:
        return Answer(0, why=str(error))


def ask(
    lab: Lab,
    name: str,
    target: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    cookie: str = "",
    body: str = "",
    **how: Any,
) -> Answer:
    """Send one request to a site; the target goes out as it is."""
    # As a browser does: others are told 401 instead of being sent to the portal.
    given = {
        "Host": name,
        "Accept": "text/html",
        "Connection": "close",
        **({"Cookie": cookie} if cookie else {}),
        **(headers or {}),
    }
    if body:
        given |= {"Content-Type": "application/json", "Content-Length": str(len(body.encode()))}
    head = "".join(f"{key}: {value}\r\n" for key, value in given.items())
    return raw(lab, name, f"{method} {target} HTTP/1.1\r\n{head}\r\n{body}".encode(), **how)


# -- signing in

SECRET = base64.b32encode(b"ringfence-throwaway2").decode()


def code(moment: float, secret: str = SECRET) -> str:
    """The one-time code of a moment (RFC 6238)."""
    padded = secret + "=" * (-len(secret) % 8)
    digest = hmac.digest(base64.b32decode(padded), struct.pack(">Q", int(moment) // TOTP_SECONDS), hashlib.sha1)
    offset = digest[-1] & 15
    number = struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


def register(lab: Lab, person: str) -> None:
    """Give a person a second factor, as the portal's own command line does."""
    lab.sh(
        f"docker exec authelia-authelia-1 authelia storage user totp generate {person} --force --secret {SECRET}"
        " --config /etc/authelia/configuration.yml"
    )


_used: dict[tuple[str, str], int] = {}


def next_code(lab: Lab, person: str) -> str:
    """Return a one-time code that has not been used: each is taken once, and holds for half a minute."""
    while int(time.time()) // TOTP_SECONDS <= _used.get((lab.name, person), 0):
        time.sleep(0.5)  # the code of the next half minute: nothing else brings it about
    _used[lab.name, person] = int(time.time()) // TOTP_SECONDS
    return code(time.time())


class Session:
    """A person's browser: one cookie of the portal."""

    def __init__(self, lab: Lab, person: str = "", password: str = "", *, second: bool = False) -> None:
        self.lab = lab
        self.domain = str(lab.variables()["lab_domain"])
        self.portal = f"auth.{self.domain}"
        self.cookie = ""
        if person:
            first = self.first(person, password or f"ringfence-{person}")
            assert first.status == 200, (person, first)
            assert '"status":"OK"' in first.body.replace(" ", ""), (person, first)
        if second:
            answer = self.second(person)
            assert '"status":"OK"' in answer.body.replace(" ", ""), (person, answer)

    def site(self, label: str) -> str:
        return f"{label}.{self.domain}"

    def ask(self, label: str, target: str = "/", **how: Any) -> Answer:
        return ask(self.lab, self.site(label), target, cookie=self.cookie, **how)

    def post(self, path: str, data: Mapping[str, Any], **how: Any) -> Answer:
        answer = ask(self.lab, self.portal, path, method="POST", body=json.dumps(data), cookie=self.cookie, **how)
        if found := re.search(r"(authelia_session=[^;]+)", answer.headers.get("set-cookie", "")):
            self.cookie = found[1]
        return answer

    def first(self, person: str, password: str, **more: Any) -> Answer:
        return self.post(
            "/api/firstfactor", {"username": person, "password": password, "keepMeLoggedIn": False, **more}
        )

    def second(self, person: str) -> Answer:
        """Give the one-time code; each is taken once, so the next one's time is waited for where it was used."""
        return self.post("/api/secondfactor/totp", {"token": next_code(self.lab, person)})
