"""Docker's engine, asked over its socket: a client of another version would answer in other words."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
from email.message import Message
from pathlib import Path
from typing import Any

from ringfence.host.files import read_json
from ringfence.host.running import Fault, search_path
from ringfence.host.units import unit_states

SOCKET = "/run/docker.sock"
DAEMON_CONFIG = "/etc/docker/daemon.json"
ASKED, WORKING = 20, 120  # seconds
WITH_NFTABLES = 29  # the first release that has another firewall back end than iptables


class NotThereError(Fault):
    """The engine has no such container, network or image."""


class _UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def engine(method: str, path: str, body: Any = None, timeout: float = 0) -> Any:
    """Make one request of the engine and return its answer, decoded; None where it answers without a body.

    Args:
        timeout: seconds; a question is answered within `ASKED`, work done within `WORKING`, where none is given.

    Raises:
        NotThereError: what the path names does not exist.
        Fault: the engine does not answer in time, refuses, or answers something that is not JSON.
    """
    text = _answered(method, path, body, timeout)[0]
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise Fault(f"docker answers {method} {path} with something that is not JSON: {error}") from None


def engine_version() -> str:
    """Return the running engine's version, such as "26.1.5+dfsg1", as it stands above each of its answers.

    To answer ``/version`` or ``/info`` it starts runc and docker-init, to ask for theirs.

    Raises:
        Fault: it does not answer, or in another way.
    """
    said = str(_answered("GET", "/_ping")[1].get("Server") or "")
    found = re.fullmatch(r"Docker/(\d+\.\S+) \(.*\)", said)
    if not found:
        raise Fault(f"docker does not say which version it is: its answers come from {said or 'nobody'!r}")
    return found[1]


def _answered(method: str, path: str, body: Any = None, timeout: float = 0) -> tuple[str, Message]:
    """An answer's text, and what stands above it."""
    connection = _UnixConnection("docker", timeout=timeout or (ASKED if method == "GET" else WORKING))
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise Fault(f"docker does not answer at {SOCKET} ({method} {path}): {error}") from None
    finally:
        connection.close()
    if answer.status >= 400:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["message"]
        kind = NotThereError if answer.status == 404 else Fault
        raise kind(f"docker refuses {method} {path}: {text.strip() or answer.reason}")
    return text, answer.headers


def docker_runs() -> bool:
    """Whether the engine runs; asking its socket would start it where only docker.socket is active."""
    return unit_states(["docker.service"], ["ActiveState"])["docker.service"].get("ActiveState") == "active"


def keeps_something() -> bool:
    """Whether the engine runs, so that what it keeps can be taken away; False where there is none.

    Raises:
        Fault: it is installed and does not run: its containers and networks would come back with it.
    """
    runs = docker_runs()
    if not runs and shutil.which("dockerd", path=search_path()):
        raise Fault(
            "docker does not run, so what it keeps cannot be taken away: systemctl start docker, then run again"
        )
    return runs


def daemon_config(path: str = DAEMON_CONFIG) -> dict[str, Any] | None:
    """Return dockerd's configuration file; None where there is none. An empty file is an empty one to dockerd, too.

    Raises:
        Fault: it cannot be read, or is no JSON object.
    """
    return read_json(Path(path), empty=True)


def bridge_of(network: dict[str, Any]) -> str:
    """Return the name of the bridge of a network, as the engine tells of it."""
    return str((network.get("Options") or {}).get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}")


def firewall_backend(info: dict[str, Any]) -> str:
    """Return the back end that a running engine's ``/info`` names: "iptables" or "nftables"."""
    driver = str((info.get("FirewallBackend") or {}).get("Driver") or "")
    return "nftables" if driver.startswith("nftables") else "iptables"  # "…+firewalld"; engines before 29 say nothing


def running_backend() -> str:
    """Return the firewall back end of the running engine: "iptables" or "nftables".

    Raises:
        Fault: it does not answer.
    """
    if int(engine_version().split(".")[0]) < WITH_NFTABLES:
        return "iptables"
    return firewall_backend(engine("GET", "/info"))
