"""Real requests to a small door on this machine: a right one makes no difference, and every wrong one is found."""

from __future__ import annotations

import datetime
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ringfence.remote.bundle import bundle
from ringfence.remote.request import request
from ringfence.remote.role import LOADER
from ringfence.verify import run
from ringfence.verify.remote import visiting
from ringfence.verify.remote.commands import ProbeFailedError

HOST, LAN, GUEST = "127.0.0.1", "127.0.0.2", "127.0.0.3"
NAMES = ("cloud.lab.home", "media.lab.home", "panel.lab.home")
NOW = 1_795_788_000.0  # Friday 2026-11-27 14:00 UTC
TEMPLATE = "HTTP/1.1 {} x\r\nLocation: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Asked:
    """What came in: `sni` None without TLS, "" without a name."""

    peer: str
    sni: str | None
    name: str
    path: str
    headers: Mapping[str, str]


Answer = tuple[int, str] | None  # status and Location; None says nothing
Door = Callable[[Asked], Answer]


def right(asked: Asked) -> Answer:
    """A door as declared: `cloud` for LAN but for /status.php, `media` at other hours, `panel` closed."""
    if asked.sni is None:
        return 308, f"https://{asked.name}{asked.path}"
    if asked.sni != asked.name:
        return 421, ""
    if any(sign in asked.path for sign in ("//", "..", "%", ";")):
        return 400, ""
    if asked.name == "cloud.lab.home" and asked.path == "/status.php":
        return 200, ""
    if asked.name != "cloud.lab.home" or asked.peer != LAN:
        return 403, ""
    return portal(asked)


def portal(asked: Asked) -> Answer:
    back = quote(f"https://{asked.name}{asked.path}", safe="")
    return 302, f"https://auth.lab.home/?rd={back}&rm=GET"


def authority(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    return certificate(name, key, None, key), key


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(
        issuer.subject if issuer else subject, subject, key.public_key(), x509.random_serial_number(),
        now - datetime.timedelta(hours=1), now + datetime.timedelta(hours=1),
    ).add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)  # fmt: skip
    made = made.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if issuer:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in NAMES]), critical=False)
    else:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "crl_sign", "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        made = made.add_extension(x509.KeyUsage(key_cert_sign=True, **usage), critical=True)
    return made.sign(signer, hashes.SHA256())


def pem(one: x509.Certificate) -> str:
    return one.public_bytes(serialization.Encoding.PEM).decode()


@dataclass
class House:
    """A server with TLS and one without, which answer as `door` says."""

    directory: Path
    door: Door = right
    any_name: bool = False
    raw: bytes | None = None
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        root, root_key = authority("lab root")
        stranger, _ = authority("another root")
        self.root, self.other_root = pem(root), pem(stranger)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certificate("caddy", key, root, root_key)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.directory / "both.pem").write_bytes(secret + pem(leaf).encode())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.directory / "both.pem")
        self.context.sni_callback = self._named
        self.sockets = [socket.create_server((HOST, 0), backlog=200) for _ in range(2)]
        self.port, self.plain_port = (one.getsockname()[1] for one in self.sockets)
        for one, tls in zip(self.sockets, (True, False), strict=True):
            threading.Thread(target=self._serve, args=(one, tls), daemon=True).start()

    def _named(self, sock: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        sock.sni = name or ""  # type: ignore[attr-defined]
        return None if name in NAMES or self.any_name else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    def _serve(self, listening: socket.socket, tls: bool) -> None:
        while True:
            try:
                one, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(one, tls), daemon=True).start()

    def _answer(self, one: socket.socket, tls: bool) -> None:
        try:
            one.settimeout(10)
            peer = one.getpeername()[0]
            one = self.context.wrap_socket(one, server_side=True) if tls else one
            seen = b""
            while b"\r\n\r\n" not in seen:
                more = one.recv(4096)
                if not more:
                    return
                seen += more
            first, *lines = seen.decode().split("\r\n\r\n")[0].split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            sni = getattr(one, "sni", "") if tls else None
            asked = Asked(peer, sni, headers["host"], first.split(" ")[1], headers)
            self.asked.append(asked)
            answer = self.door(asked)
            if answer:
                one.sendall(self.raw or TEMPLATE.format(*answer).encode())
        except OSError:
            pass
        finally:
            one.close()

    def close(self) -> None:
        for one in self.sockets:
            one.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    try:
        yield house
    finally:
        house.close()


def rule(path: str = "", factor: str = "two", networks: tuple[str, ...] = (f"{LAN}/32",), **more: Any) -> Any:
    return {"path": path, "factor": factor, "people": [], "groups": ["family"], "places": ["lan"],
            "networks": list(networks), "hours": {}, "hours_name": "", **more}  # fmt: skip


def variables(house: House, root: str = "") -> dict[str, Any]:
    evening = {"zone": "Europe/Berlin", "windows": [{"days": ["fri"], "from": "17:00", "to": "24:00"}]}
    place = {"host": "atlas", "addresses": [HOST], "port": house.port, "plain_port": house.plain_port}
    everywhere = ("any",)
    ports = (house.port, house.plain_port)
    return {
        "verify_services": [
            {"name": "caddy", "host": "atlas", "project": "caddy", "ports": [],
             "networks": [{"network": "rf-front", "address": "172.20.0.2", "address6": ""}]},
        ],
        "verify_published": [
            {"service": "caddy", "host": "atlas", "proto": "tcp", "published": port, "port": port,
             "places": ["lan"], "sources": ["any"]} for port in ports
        ],
        "verify_hosts": [{"name": "atlas", "addresses": [HOST], "services": []}],
        "verify_vantages": [
            {"name": "lan", "host": "outside", "address": LAN}, {"name": "guest", "host": "outside", "address": GUEST},
        ],
        "verify_portal": "auth.lab.home",
        "verify_root": root or house.root,
        "verify_sites": [
            {"name": "cloud.lab.home", "service": "cloud", **place,
             "rules": [rule("/status.php", "none", everywhere), rule()]},
            {"name": "media.lab.home", "service": "media", **place,
             "rules": [rule("", "one", everywhere, hours=evening, hours_name="evening")]},
            {"name": "panel.lab.home", "service": "panel", **place, "rules": []},
        ],
    }  # fmt: skip


def prepared(host: str) -> dict[str, Any]:
    caddy = {"name": "caddy-caddy-1", "pid": 1, "space": 2, "project": "caddy", "service": "caddy", "published": [],
             "networks": {"rf-front": {"address": "172.20.0.2", "address6": ""}}}  # fmt: skip
    own = [HOST] if host == "atlas" else [LAN, GUEST]
    return {
        "time": NOW, "addresses": [{"device": "lo", "address": one, "prefix": 8} for one in own], "sockets": [],
        "containers": [caddy] if host == "atlas" else [], "networks": [], "ufw": [], "engine": "", "complaints": [],
        "routes": [],
    }  # fmt: skip


def differences(house: House, monkeypatch: pytest.MonkeyPatch, root: str = "") -> list[str]:
    """Run verify's own steps for two hosts; what they are asked is done here."""

    def ask(host: Any, verb: str, wanted: dict[str, Any]) -> Any:
        wanted = json.loads(json.dumps(wanted))
        return prepared(host.name) if verb == "prepare" else json.loads(json.dumps(visiting.visit(wanted)))

    monkeypatch.setattr(run, "_run", run.Run())
    monkeypatch.setattr(run, "_ask", ask)
    state: Any = None
    hosts: list[Any] = [
        SimpleNamespace(name=name, data=variables(house, root), print_prefix="") for name in ("atlas", "outside")
    ]
    for step in (run._listen, run._visit):
        assert all(step(state, host) for host in hosts)
    assert run._run.troubles == []
    report = run._sites([])
    assert len(report.visited) == len(run._run.visits.visits) > 40
    return list(report.differences)


def test_a_door_as_declared_makes_no_difference(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    assert differences(house, monkeypatch) == []
    assert {asked.peer for asked in house.asked} == {LAN, GUEST}
    assert any("%2e%2e" in asked.path for asked in house.asked), "a path arrives as it was written"
    assert {asked.headers.get("accept") for asked in house.asked} == {"text/html"}


def wrong(when: Callable[[Asked], bool], answer: Answer = (200, "")) -> Door:
    """A door that answers so where it should not."""
    return lambda asked: answer if when(asked) and asked.sni == asked.name else right(asked)


def cloud(asked: Asked) -> bool:
    return asked.name == "cloud.lab.home"


WRONG: dict[str, tuple[Door, str]] = {
    "Remote-User is believed": (
        wrong(lambda a: cloud(a) and "remote-user" in a.headers),
        r"(lan|guest) → cloud.lab.home/ \(Remote-User: ringfence-verify\) .* got 200: the application's answer",
    ),
    "Remote.User is believed": (
        wrong(lambda a: cloud(a) and "remote.user" in a.headers),
        r"(lan|guest) → cloud.lab.home/ \(remote_user, Remote.User: ",
    ),
    "X-Forwarded-For is believed": (
        lambda a: portal(a) if a.headers.get("x-forwarded-for") == LAN and a.sni == a.name else right(a),
        r"guest → cloud.lab.home/ \(X-Forwarded-For: 127.0.0.2\) .*: expected 403 or 400 ",
    ),
    "the place is not asked": (
        wrong(lambda a: cloud(a) and a.path == "/" and a.peer == GUEST, (302, "https://auth.lab.home/?rd=https://cloud.lab.home/")),
        r"guest → cloud.lab.home/ .*; not from there\), got 302",
    ),
    "no login at all": (wrong(lambda a: cloud(a) and a.path == "/"), r"(lan|guest) → cloud.lab.home/ "),
    "a bypass by its beginning": (
        wrong(lambda a: cloud(a) and a.path.startswith("/status.php")),
        r"(lan|guest) → cloud.lab.home/status.php.+ \(looks like /status.php\) ",
    ),
    "a bypass in capitals": (
        wrong(lambda a: cloud(a) and a.path.lower() == "/status.php"),
        r"(lan|guest) → cloud.lab.home/STATUS.PHP \(looks like /status.php\) ",
    ),
    "two slashes": (
        wrong(lambda a: cloud(a) and a.path == "//"),
        r"(lan|guest) → cloud.lab.home// \(another spelling\) ",
    ),
    "a path that climbs": (
        wrong(lambda a: cloud(a) and "/.." in a.path),
        r"(lan|guest) → cloud.lab.home(/status.php/../|/ringfence-verify/../)",
    ),
    "a bypass that needs a login": (
        wrong(lambda a: cloud(a) and a.path == "/status.php", (403, "")),
        r"(lan|guest) → cloud.lab.home/status.php \(127.*: expected an answer of the application \(anybody, no login",
    ),
    "the hours are not asked": (
        wrong(lambda a: a.name == "media.lab.home", (302, "https://auth.lab.home/?rd=https%3A%2F%2Fmedia.lab.home")),
        r"(lan|guest) → media.lab.home/.*: expected 403 .*evening: fri 17:00-24:00 Europe/Berlin; not now\), got 302",
    ),
    "a closed site": (
        wrong(lambda a: a.name == "panel.lab.home"),
        r"(lan|guest) → panel.lab.home/ .*: expected 403 \(closed to everybody\), got 200",
    ),
    "back to somewhere else": (
        wrong(lambda a: cloud(a) and a.path == "/" and a.peer == LAN, (302, "https://auth.lab.home/?rd=https://evil.example/")),
        r"lan → cloud.lab.home/ .*not the way back to the site",
    ),
    "a name that is another's door": (
        lambda a: portal(a) if a.sni not in (a.name, None) else right(a),
        r"(lan|guest) → [a-z.]+/ \(by the door of [a-z.]+\) .*expected no answer or 400 or 403 or 421",
    ),
    "an application without TLS": (
        lambda a: (200, "") if a.sni is None else right(a),
        r"(lan|guest) → http://[a-z0-9.-]+/ .*expected (301 or 308 to https or no answer|no answer or .* to https) ",
    ),
    "sent from plain HTTP to another": (
        lambda a: (308, "https://evil.example/") if a.sni is None else right(a),
        r"(lan|guest) → http://[a-z0-9.-]+/ .*got 308 to https://evil.example/",
    ),
    "a portal that is down": (
        wrong(lambda a: cloud(a) and a.path == "/" and a.peer == LAN, (502, "")),
        r"lan → cloud.lab.home/ .*got 502: the application or the portal does not answer the proxy",
    ),
    "nothing is said": (
        lambda a: None if cloud(a) and a.path == "/" else right(a),
        r"(lan|guest) → cloud.lab.home/ .*got closed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_every_wrong_door_is_found_and_nothing_else_is_blamed(
    name: str, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.door, pattern = WRONG[name]
    found = differences(house, monkeypatch)
    assert found
    for line in found:
        assert re.match(pattern, line), line


def test_a_name_that_is_not_served_is_answered_by_no_application(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.any_name = True
    house.door = lambda asked: (200, "") if asked.name not in NAMES else right(asked)
    found = differences(house, monkeypatch)
    whats = {re.search(r"\((the bare address|a name that is not served)\) ", line) for line in found}
    assert len(found) == 8, "by two vantages, and without TLS as well"
    assert None not in whats


def test_a_certificate_of_another_root_is_a_difference(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    found = differences(house, monkeypatch, root=house.other_root)
    assert found
    assert all("the certificate is not trusted" in line for line in found), found


def visit_of(house: House, **changes: Any) -> dict[str, Any]:
    asked = "GET / HTTP/1.1\r\nHost: cloud.lab.home\r\n\r\n"
    one = {"number": 0, "own": LAN, "address": HOST, "port": house.port, "tls": True, "sni": "cloud.lab.home",
           "trust": True, "must": False, "request": asked, **changes}  # fmt: skip
    return {"root": house.root, "connect": 1.0, "seconds": 0.5, "visits": [one]}


def outcome(wanted: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = visiting.visit(wanted)["results"]["0"]
    return found


def test_the_program_as_it_is_sent_to_a_host(house: House) -> None:
    text = "".join(request("visit", visit_of(house), bundle("ringfence.verify.remote")))
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADER], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"]["0"]["status"] == 302
    assert house.asked[0].peer == LAN


def test_answers_are_told_apart(house: House) -> None:
    with socket.create_server((HOST, 0)) as closed:
        free = closed.getsockname()[1]
    assert outcome(visit_of(house, port=free))["outcome"] == "refused"
    assert outcome(visit_of(house, own="192.0.2.7"))["outcome"] == "no address of that family"
    assert outcome(visit_of(house, sni="other.lab.home"))["outcome"] == "tls"
    house.any_name = True
    assert outcome(visit_of(house, sni="other.lab.home"))["outcome"] == "untrusted"
    assert outcome(visit_of(house, sni="other.lab.home", trust=False))["status"] == 421
    assert outcome(visit_of(house, request="GET"))["outcome"] == "silent", "a server that waits is not waited for"
    house.raw = b"HTTP/1.1 103 Early\r\nLocation: /no\r\n\r\nHTTP/1.1 403 No\r\n\r\n"
    assert outcome(visit_of(house)) == {"outcome": "answered", "status": 403, "location": "", "why": ""}
    house.raw = b"SSH-2.0-OpenSSH_9.2\r\n"
    assert outcome(visit_of(house))["status"] == 0
    house.raw = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000
    assert outcome(visit_of(house))["status"] == 200


def test_what_must_be_open_is_asked_again_where_nothing_came(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(
        [{"outcome": "timeout"}, {"outcome": "failed: no buffer space"}, {"outcome": "answered", "status": 200}]
    )
    monkeypatch.setattr(visiting, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(visiting, "visit_once", lambda *_: next(said))
    assert outcome(visit_of(house, must=True))["status"] == 200
    said = iter([{"outcome": "timeout"}])
    assert outcome(visit_of(house, must=False))["outcome"] == "timeout"


def test_roots_that_are_no_certificates_are_an_error_of_the_caller(house: House) -> None:
    with pytest.raises(ProbeFailedError, match="verify_root: not a certificate in PEM"):
        visiting.visit({**visit_of(house), "root": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"})
