"""The double of Authelia, or the real program, as a process of its own on loopback, and what asks it."""

from __future__ import annotations

import base64
import contextlib
import hmac
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.live.labs import waited_for
from tests.portal.policy import PLACES, access_control

HERE = Path(__file__).parent
DOUBLE = [sys.executable, str(HERE.parents[1] / "lab" / "authelia_double.py")]
PASSWORD = "correct horse battery"
# Of PASSWORD, and cheap: with the real cost every login would take a second of both processors.
HASH = "$argon2id$v=19$m=1024,t=1,p=1$Pt9pVJaBq5qamyVLu+UvGQ$p1GTwE2qfBc4OYy3RcppIXvADQGDcdVU3aGUyWItlR4"
CODE = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
GROUPS = {"owner": ["admins", "family"], "kid": ["family"], "ann": [], "guest": [], "gone": ["family"]}
# Every flow has people of its own, so that a ban or a used code in one of them is not seen in another.
GROUPS |= {f"t{number}": ["admins", "family"] for number in range(30)}


def people() -> dict[str, dict[str, Any]]:
    return {
        name: {
            "displayname": name.title(),
            "password": HASH,
            "email": f"{name}@lab.home",
            "groups": groups,
            "disabled": name == "gone",
        }
        for name, groups in GROUPS.items()
    }


def one_time_code(offset: int = 0) -> str:
    """The code of the current half minute, or of one before or after it."""
    step = int(time.time() // 30) + offset
    digest = hmac.digest(base64.b32decode(CODE), step.to_bytes(8, "big"), "sha1")
    return f"{(int.from_bytes(digest[digest[-1] & 15 :][:4], 'big') & 0x7FFFFFFF) % 10**6:06}"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def cookie(self) -> str | None:
        """The session's number, when the answer sets one."""
        kept = self.header("Set-Cookie")
        return kept.partition(";")[0].partition("=")[2] if kept else None

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Program:
    """One that runs: `real` says which of the two."""

    def __init__(self, command: list[str], folder: Path, port: int, *, real: bool) -> None:
        self.command, self.folder, self.port, self.real = command, folder, port, real
        self.environment = {name: value for name, value in os.environ.items() if "AUTHELIA" not in name} | {
            "X_AUTHELIA_CONFIG_FILTERS": "template",
            "AUTHELIA_STORAGE_ENCRYPTION_KEY_FILE": str(folder / "secrets/storage"),
            "AUTHELIA_SESSION_SECRET_FILE": str(folder / "secrets/session"),
            "AUTHELIA_IDENTITY_VALIDATION_RESET_PASSWORD_JWT_SECRET_FILE": str(folder / "secrets/reset"),
            "AUTHELIA_IDENTITY_PROVIDERS_OIDC_HMAC_SECRET_FILE": str(folder / "secrets/hmac"),
        }

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [*self.command, *words, "--config", str(self.folder / "configuration.yml")]
        environment = self.environment | more
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | list[tuple[str, str]] = (), body: bytes = b""
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items() if isinstance(headers, Mapping) else headers:
                connection.putheader(name, value.encode("latin-1", "surrogateescape"))
            if body or method == "POST":
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        except (http.client.HTTPException, OSError) as error:
            # It hung up: an answer as good as any other that is not 200.
            return Answer(0, [], repr(error).encode())
        finally:
            connection.close()

    def portal(
        self, path: str, body: Mapping[str, Any], cookie: str, address: str, host: str = "auth.lab.home"
    ) -> Answer:
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": host, "X-Forwarded-For": address}
        headers |= {"Cookie": f"authelia_session={cookie}"} if cookie else {}
        return self.ask("POST", path, headers, json.dumps(body).encode())

    def person(self, name: str, *, address: str, code: bool = False) -> str:
        """Sign in, with the second factor or without; the session's number."""
        answer = self.portal("/api/firstfactor", {"username": name, "password": PASSWORD}, "", address)
        assert answer.status == 200, answer
        assert answer.cookie
        if not code:
            return answer.cookie
        answer = self.portal("/api/secondfactor/totp", {"token": one_time_code()}, answer.cookie, address)
        assert answer.status == 200, answer
        assert answer.cookie
        return answer.cookie

    def set_people(self, users: Mapping[str, Any]) -> None:
        """Replace the users file as the role people does."""
        target = self.folder / "people/users.yml"
        part = target.with_suffix(".part")
        part.write_text(yaml.safe_dump({"users": dict(users)}))
        part.replace(target)


def configuration(folder: Path, port: int, changes: Mapping[str, Mapping[str, Any]]) -> str:
    text = (HERE / "configuration.yml").read_text().replace("FOLDER", str(folder)).replace("PORT", str(port))
    # The one line that is no YAML before Authelia's own filter has filled it in.
    key = next(line for line in text.splitlines() if "{{" in line)
    config = yaml.safe_load(text.replace(key, "      - key: FILLED"))
    config["definitions"]["network"] = {name: list(networks) for name, networks in PLACES.items()}
    config["access_control"] = access_control()
    for part, values in changes.items():
        config[part] |= values
    lines = yaml.safe_dump(config, sort_keys=False).splitlines()
    return "\n".join(key.replace("      - ", "    - ") if "FILLED" in line else line for line in lines) + "\n"


def prepare(folder: Path, port: int, changes: Mapping[str, Mapping[str, Any]]) -> None:
    for name in ("people", "data", "secrets"):
        (folder / name).mkdir(parents=True)
    for name in ("storage", "session", "reset", "hmac"):
        (folder / "secrets" / name).write_text(name * 16)
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "secrets/oidc_key").write_bytes(pem)
    (folder / "configuration.yml").write_text(configuration(folder, port, changes))


@contextlib.contextmanager
def running(folder: Path, *, real: bool, changes: Mapping[str, Mapping[str, Any]] = {}) -> Iterator[Program]:
    """Start one with its own data; everybody has a second factor."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    prepare(folder, port, changes)
    program = Program([os.environ["RINGFENCE_AUTHELIA"]] if real else DOUBLE, folder, port, real=real)
    program.set_people(people())
    with started(program):
        yield program


@contextlib.contextmanager
def started(program: Program) -> Iterator[Program]:
    """Start one whose folder is ready. Raises AssertionError with its words where it ends before it answers."""
    with (program.folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*program.command, "--config", str(program.folder / "configuration.yml")],
            env=program.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            up = waited_for(
                lambda: program.ask("GET", "/api/health").status == 200 or process.poll() is not None, 60, 0.1
            )
            assert up, (program.folder / "log").read_text()
            assert process.poll() is None, (program.folder / "log").read_text()
            yield program
        finally:
            process.terminate()
            process.wait(20)


def give_codes(program: Program, *names: str) -> None:
    for name in names:
        done = program.run("storage", "user", "totp", "generate", name, "--secret", CODE, "--force")
        assert done.returncode == 0, done.stdout + done.stderr
