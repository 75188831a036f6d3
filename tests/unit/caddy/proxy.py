"""The real Caddy with the role's own Caddyfile, as an ordinary process on loopback."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.cache import alone, cache_dir
from lab.wheels import CADDY
from ringfence.role import Role

ROLE = Role(str(Path(__file__).resolve().parents[3] / "roles" / "caddy" / "deploy.py"))


def program() -> Path:
    """Return Caddy, downloaded once."""
    with alone("caddy"):
        return CADDY.program(cache_dir())


def caddyfile(**given: Any) -> str:
    """Return the Caddyfile of the given variables."""
    return rendered(**given)["services"][0]["config"]["/etc/caddy"]["Caddyfile"]  # type: ignore[no-any-return]


def rendered(**given: Any) -> dict[str, Any]:
    """Return the role's project of the given variables."""
    desired = ROLE.render_json("desired.json.j2", ROLE.variables({f"caddy_{name}": v for name, v in given.items()}))
    project: dict[str, Any] = desired["projects"][0]
    return project


def free_ports(count: int) -> list[int]:
    """Return ports at which nobody listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def listens(port: int) -> bool:
    """Whether somebody listens at a port of loopback."""
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


def issue(folder: Path, names: list[str], addresses: tuple[str, ...] = ()) -> None:
    """Write ca.pem, and cert.pem and key.pem for the names below `current`, as the role `pki` leaves them."""
    now = datetime.datetime.now(datetime.UTC)

    def certificate(
        subject: str, issuer: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey,
        extensions: list[x509.ExtensionType],
    ) -> bytes:  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=8))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    alternative = x509.SubjectAlternativeName(
        [x509.DNSName(name) for name in names] + [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
    )
    current = folder / "current"
    current.mkdir(parents=True, exist_ok=True)
    (folder / "ca.pem").write_bytes(
        certificate("root", "root", root, root, [x509.BasicConstraints(ca=True, path_length=None)])
    )
    (current / "cert.pem").write_bytes(certificate(names[0], "root", leaf, root, [alternative]))
    (current / "key.pem").write_bytes(
        leaf.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip


@dataclass
class Proxy:
    """A Caddy that runs, with the ports it listens on.

    Its paths in the container are replaced by some below `folder`; nothing else of the Caddyfile is.
    """

    folder: Path
    variables: Mapping[str, Any]
    http: int = 0
    https: int = 0
    health: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def file(self) -> Path:
        return self.folder / "Caddyfile"

    @property
    def admin(self) -> str:
        return f"unix/{self.folder}/run/admin.sock"

    def write(self, **changed: Any) -> None:
        """Render the Caddyfile."""
        listen = {
            "listen_http": self.http, "listen_https": self.https, "listen_health": self.health,
            "listen_addresses": ["127.0.0.1"],
        }  # fmt: skip
        text = caddyfile(**{**self.variables, **listen, **changed})
        for there, here in (("/run/tls/", f"{self.folder}/tls/"), ("unix//run/caddy/", f"unix/{self.folder}/run/")):
            text = text.replace(there, here)
        self.file.write_text(text, encoding="utf-8")

    def start(self) -> Proxy:
        """Start it and wait until its health check succeeds."""
        (self.folder / "run").mkdir(parents=True, exist_ok=True)
        issue(self.folder / "tls", [site["name"] for site in self.variables["sites"]] + ["auth.lab.home"])
        self.http, self.https, self.health = free_ports(3)
        self.write()
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [program(), "run", "--config", self.file, "--adapter", "caddyfile"],
                stdout=log, stderr=subprocess.STDOUT, env=self.environment,
            )  # fmt: skip
        end = time.monotonic() + 60
        while self.healthy() != 200 or not (listens(self.http) and listens(self.https)):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)  # there is nothing to wait at until it listens
        return self

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)}

    def healthy(self) -> int:
        """Return the status of the health check; 0 while nobody listens."""
        try:
            with socket.create_connection(("127.0.0.1", self.health), timeout=10) as link:
                link.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{self.health}\r\nConnection: close\r\n\r\n".encode())
                return int(link.makefile("rb").readline().split()[1])
        except (ConnectionError, IndexError):
            return 0

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Caddy's with its configuration."""
        return subprocess.run(
            [program(), *words, "--config", self.file, "--adapter", "caddyfile"],
            capture_output=True, text=True, check=False, env=self.environment, timeout=60,
        )  # fmt: skip

    def reload(self) -> subprocess.CompletedProcess[str]:
        """Have it read its configuration again, by the very command that the container is told."""
        words = rendered(**self.variables)["services"][0]["reload"]["command"]
        here = {
            "caddy": str(program()),
            "/etc/caddy/Caddyfile": str(self.file),
            "unix//run/caddy/admin.sock": self.admin,
        }
        return subprocess.run(
            [here.get(word, word) for word in words],
            capture_output=True, text=True, check=False, env=self.environment, timeout=60,
        )  # fmt: skip

    def log(self) -> str:
        """Return everything that it has printed."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def requests(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the lines of its access log from a length of it on."""
        lines = [json.loads(line) for line in self.log()[since:].splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("logger", "").startswith("http.log.access")]

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
