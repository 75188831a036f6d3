"""The stand-ins that speak: the application, and what is in Authelia's image."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab import applications, stand_ins
from lab.shell import LabError

APPLICATION = Path(stand_ins.__file__).parent / "images" / "application"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def make_leaf(folder: Path) -> int:
    """A certificate that signs itself; its serial number."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "application")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return made.serial_number


@contextlib.contextmanager
def running(**environment: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, APPLICATION],
        env=os.environ | {"PORT": str(port)} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port, process
    finally:
        process.terminate()
        process.communicate(timeout=10)


def get(port: int, path: str, headers: dict[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def served_serial(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain) as tls:
            der = tls.getpeercert(binary_form=True)
            assert der
            return x509.load_der_x509_certificate(der).serial_number


def test_the_application_says_who_asked_and_what_the_proxy_told_it() -> None:
    told = {
        "Remote-User": "kid",
        "Remote-Groups": "family",
        "X-Forwarded-For": "192.168.10.5",
        "X-Real-IP": "192.168.10.5",
    }
    with running(APPLICATION="jellyfin") as (port, _):
        status, text = get(port, "/", told)
        assert status == 200
        assert text.splitlines() == ["jellyfin: no database", *(f"{name}: {value}" for name, value in told.items())]
        status, text = get(port, "/headers?x", {"Remote.User": "spoofed"})
        assert status == 200
        assert ["Remote.User", "spoofed"] in json.loads(text)


def test_the_application_serves_another_certificate_when_it_is_told_to(tmp_path: Path) -> None:
    first, port = make_leaf(tmp_path / "1"), free_port()
    current = tmp_path / "current"
    current.symlink_to("1")
    with running(TLS_FOLDER=str(current), TLS_PORT=str(port)) as (_, process):
        assert served_serial(port) == first
        second = make_leaf(tmp_path / "2")
        (tmp_path / "next").symlink_to("2")
        (tmp_path / "next").replace(current)
        assert served_serial(port) == first
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while served_serial(port) != second:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # One that does not fit its key is not taken, not even by half.
        make_leaf(tmp_path / "3")
        (tmp_path / "3" / "key.pem").write_bytes((tmp_path / "2" / "key.pem").read_bytes())
        (tmp_path / "next").symlink_to("3")
        (tmp_path / "next").replace(current)
        process.send_signal(signal.SIGHUP)
        assert process.stdout
        assert any("the certificate before stays" in line for line in process.stdout)
        assert served_serial(port) == second
        # Who does not finish a handshake keeps nobody waiting.
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            assert served_serial(port) == second


def test_the_image_of_authelia_has_its_double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RINGFENCE_AUTHELIA", raising=False)
    entries = {entry.path: entry for entry in stand_ins.authelia_entries()}
    assert entries["usr/local/bin/authelia"].link == "/usr/local/lib/authelia-double/authelia_double.py"
    assert {path.name for path in stand_ins.DOUBLE_FILES} == {
        path.rpartition("/")[2] for path in entries if path.startswith("usr/local/lib/authelia-double/")
    }
    program = entries["usr/local/lib/authelia-double/authelia_double.py"]
    assert program.mode == 0o755
    assert program.content
    assert program.content.startswith(b"#!/usr/bin/python3\n")
    assert {"python3-argon2", "python3-yaml"} <= set(stand_ins.base_recipe().packages)


def test_the_real_authelia_takes_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RINGFENCE_AUTHELIA", raising=False)
    with_double = applications.key()
    real = tmp_path / "authelia"
    real.write_bytes(b"a program")
    monkeypatch.setenv("RINGFENCE_AUTHELIA", str(real))
    with pytest.raises(LabError, match=r"RINGFENCE_AUTHELIA=.*not a program"):
        applications.key()
    real.chmod(0o755)
    with_real = applications.key()
    assert with_real != with_double
    assert [entry.content for entry in stand_ins.authelia_entries() if entry.path == "usr/local/bin/authelia"] == [
        b"a program"
    ]
    real.write_bytes(b"another one")
    assert applications.key() not in (with_double, with_real)


def test_the_double_is_not_long() -> None:
    double = next(path for path in stand_ins.DOUBLE_FILES if path.name == "authelia_double.py")
    assert len(double.read_text().splitlines()) <= 300
