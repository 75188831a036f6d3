"""Leaves are renewed on the host alone, containers read them, and nobody notices."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.render import render
from tests.programs import ROLES
from tests.unit.pki.conftest import Host, leaf

SECONDS = 1 / 3600  # of pki_leaf_hours


def age(host: Host, monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    """Let the program's clock go ahead."""
    real = time.time

    class Clock:
        def __getattr__(self, name: str) -> Any:
            return getattr(time, name)

        def time(self) -> float:
            return real() + hours * 3600

    monkeypatch.setattr(host.module, "time", Clock())


def test_a_leaf_is_renewed_at_two_thirds_of_its_life_without_the_controller(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.apply()
    sent, first = len(host.sent), host.cert("caddy").resolve()
    age(host, monkeypatch, 111.5)
    host.module.renew([])
    assert host.cert("caddy").resolve() == first
    age(host, monkeypatch, 112.5)
    host.settled()  # this is the timer's business
    host.module.renew([])
    second = host.cert("caddy").resolve()
    assert second != first
    assert first.exists(), "who reads it now must be able to end"
    host.module.renew([])
    assert host.cert("caddy").resolve() == second
    age(host, monkeypatch, 2 * 112.5)
    host.module.renew([])
    assert not first.exists()
    assert len(host.sent) == sent
    host.settled()


def test_a_timer_that_does_not_do_its_work_is_seen_by_the_next_run(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.apply()
    age(host, monkeypatch, 141)
    assert "and the timer has not renewed it" in host.check()["changes"][0]
    age(host, monkeypatch, 170)
    host.apply()
    host.settled()


def test_a_timer_that_was_stopped_is_started_again(host: Host) -> None:
    host.apply()
    (host.directory / "units" / "active").unlink()
    assert host.check()["changes"] == ["+ ringfence-pki.timer started"]
    host.apply()
    host.settled()


def test_an_ageing_intermediate_is_pending_and_warned_of_once_a_day(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.variables["pki_intermediate_days"] = 10
    host.apply()
    key, old = host.module.SIGNER_KEY.read_text(), host.module.SIGNER.read_text()
    age(host, monkeypatch, 7 * 24)
    assert host.check()["changes"][0].startswith("~ intermediate of atlas, signed by the root: it ends on ")
    capsys.readouterr()
    host.module.renew([])
    host.module.renew([])
    assert capsys.readouterr().err.count("has to be signed again") == 1
    host.apply()
    assert host.module.SIGNER_KEY.read_text() == key
    assert host.module.SIGNER.read_text() != old


def test_near_the_intermediates_end_leaves_are_not_made_anew_for_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.variables |= {"pki_intermediate_days": 5, "pki_leaf_hours": 168.0}
    host.apply()
    assert host.module.pair("caddy").until == host.module.signer().until
    before = host.cert("caddy").resolve()
    age(host, monkeypatch, 4 * 24)
    host.module.renew([])
    assert host.cert("caddy").resolve() == before
    age(host, monkeypatch, 6 * 24)
    with pytest.raises(host.module.Fault, match="this host's intermediate cannot sign: it ended on"):
        host.module.renew([])
    assert 'renewal_failed{name="intermediate"} 1' in Path(host.variables["pki_metrics"]).read_text()


def test_a_clock_that_is_wrong_signs_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.apply()
    host.key("caddy").unlink()
    age(host, monkeypatch, -24 * 365)
    with pytest.raises(host.module.Fault, match=r"this host's clock says .*timedatectl"):
        host.module.renew([])
    monkeypatch.undo()


def test_the_end_of_each_certificate_is_a_metric(host: Host) -> None:
    host.apply()
    metrics = Path(host.variables["pki_metrics"])
    lines = metrics.read_text().splitlines()
    until = host.module.pair("caddy").until
    assert f'ringfence_certificate_expiry_timestamp_seconds{{name="caddy"}} {until:.0f}' in lines
    assert 'ringfence_certificate_renewal_failed{name="caddy"} 0' in lines
    for name in ("root", "intermediate"):
        assert any(
            line.startswith(f'ringfence_certificate_expiry_timestamp_seconds{{name="{name}"}}') for line in lines
        )
    assert "# TYPE ringfence_certificate_expiry_timestamp_seconds gauge" in lines
    host.variables["pki_metrics"] = str(host.directory / "elsewhere" / "pki.prom")
    host.apply()
    assert not metrics.exists()
    assert (host.directory / "elsewhere" / "pki.prom").exists()


@pytest.mark.parametrize(("hours", "seconds"), [(168.0, 600), (24, 600), (1, 150), (0.1, 15), (0.001, 2), ("168", 600)])
def test_the_timer_looks_often_enough(hours: Any, seconds: int) -> None:
    said = render(ROLES / "pki" / "templates" / "ringfence-pki.timer.j2", {"pki_leaf_hours": hours})
    assert f"OnUnitInactiveSec={seconds}\n" in said


# -- containers


class Docker:
    """An engine with one container, and a `docker` that executes commands in it by noting them."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state: dict[str, Any] = {"Running": True, "StartedAt": "2020-01-01T00:00:00.5Z", "Pid": 0}
        self.there, self.runs, self.asked = True, True, list[tuple[str, str]]()
        self.log = host.directory / "exec"
        command = host.directory / "units" / "bin" / "docker"
        command.write_text(
            f'#!/bin/sh\necho "$@" >> {self.log}\n[ ! -e {self.log}.fails ] || {{ echo no >&2; exit 3; }}\n'
        )
        command.chmod(0o755)
        monkeypatch.setattr(host.module, "engine", self.engine)
        monkeypatch.setattr(host.module, "docker_runs", lambda: self.runs)
        monkeypatch.setattr(host.module.shutil, "which", lambda name, **_: f"/usr/bin/{name}")
        self.module = host.module

    def engine(self, method: str, path: str, *_: Any) -> Any:
        self.asked.append((method, path))
        if not self.there:
            raise self.module.NotThereError("no such container")
        return {"Id": "0123", "State": dict(self.state)}

    def executed(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def docker(host: Host, monkeypatch: pytest.MonkeyPatch) -> Docker:
    return Docker(host, monkeypatch)


RELOAD = {"container": "caddy-caddy-1", "command": ["caddy", "reload"]}


def test_a_running_container_reads_a_new_certificate_once(host: Host, docker: Docker) -> None:
    host.variables["pki_leaves"] = [leaf("caddy", reload=RELOAD)]
    host.apply()
    host.module.renew([])
    assert docker.executed() == ["exec 0123 caddy reload"]
    host.settled()
    host.key("caddy").unlink()
    host.module.renew([])
    assert docker.executed() == ["exec 0123 caddy reload"] * 2


def test_a_failed_reload_is_an_error_that_names_the_container_and_is_made_up_for(host: Host, docker: Docker) -> None:
    host.variables["pki_leaves"] = [leaf("caddy", reload=RELOAD), leaf("db")]
    fails = docker.log.with_name("exec.fails")
    fails.touch()
    words = r"container caddy-caddy-1 has not taken over its new certificate \(caddy\): `caddy reload` ends with 3: no"
    for run in (host.apply, lambda: host.module.renew([])):
        with pytest.raises(host.module.Fault, match=words):
            run()
    assert host.cert("db").exists(), "one that fails keeps nobody else waiting"
    assert host.check()["changes"] == ["~ container caddy-caddy-1: reads its new certificate (caddy)"]
    assert 'renewal_failed{name="caddy"} 1' in Path(host.variables["pki_metrics"]).read_text()
    fails.unlink()
    host.module.renew([])
    assert len(docker.executed()) == 3
    assert 'renewal_failed{name="caddy"} 0' in Path(host.variables["pki_metrics"]).read_text()
    host.settled()


@pytest.mark.parametrize("why", ["not there", "stopped", "started later"])
def test_a_container_that_reads_it_at_its_start_is_left_alone(host: Host, docker: Docker, why: str) -> None:
    if why == "not there":
        docker.there = False
    elif why == "stopped":
        docker.state["Running"] = False
    else:
        docker.state["StartedAt"] = "2099-01-01T00:00:00.5Z"
    host.variables["pki_leaves"] = [leaf("caddy", reload=RELOAD)]
    host.apply()
    host.settled()
    assert docker.executed() == []
    docker.there, docker.state["Running"] = True, True
    host.module.renew([])
    assert docker.executed() == []


def test_containers_that_outlive_a_stopped_daemon_are_told_later(host: Host, docker: Docker) -> None:
    docker.runs = False
    host.variables["pki_leaves"] = [leaf("caddy", reload=RELOAD)]
    host.apply()
    host.settled()
    assert docker.executed() == []
    docker.runs = True
    assert host.check()["changes"] == ["~ container caddy-caddy-1: reads its new certificate (caddy)"]
    host.module.renew([])
    assert docker.executed() == ["exec 0123 caddy reload"]


def test_a_container_without_a_way_to_read_again_is_restarted(host: Host, docker: Docker) -> None:
    host.variables["pki_leaves"] = [leaf("authelia", reload={"container": "authelia-authelia-1"})]
    host.apply()
    assert ("POST", "/containers/0123/restart?t=30") in docker.asked


PROCESS = "import signal,sys\nsignal.signal(signal.SIGHUP, {})\nprint('on', flush=True)\nwhile True: signal.pause()"


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS.format(request.param)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        child.stdout.readline()
        yield child
        child.kill()


@pytest.mark.parametrize("process", ["lambda *_: print('read', flush=True)"], indirect=True)
def test_a_signal_reaches_the_containers_process(host: Host, docker: Docker, process: subprocess.Popen[str]) -> None:
    docker.state["Pid"] = process.pid
    host.variables["pki_leaves"] = [leaf("db", reload={"container": "db", "signal": "SIGHUP"})]
    host.apply()
    assert process.stdout
    assert process.stdout.readline() == "read\n"
    host.settled()


@pytest.mark.parametrize("process", ["signal.SIG_DFL"], indirect=True)
def test_a_signal_that_ends_the_container_is_an_error(
    host: Host, docker: Docker, process: subprocess.Popen[str]
) -> None:
    docker.state["Pid"] = process.pid
    host.variables["pki_leaves"] = [leaf("db", reload={"container": "db", "signal": "SIGHUP"})]
    with pytest.raises(host.module.Fault, match=r"container db .*SIGHUP ended it"):
        host.apply()
    assert process.wait(10) == -signal.SIGHUP


# -- under load


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
    """A life of six seconds, renewed every four, while a client that trusts the root alone asks without a pause."""
    host.variables |= {"pki_leaf_hours": 6 * SECONDS, "pki_leaves": [leaf("caddy", "caddy.lab.home")]}
    host.apply()
    server = Server(host)
    client = ssl.create_default_context(cafile=str(host.ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    seen, faults, over = set[str](), list[str](), threading.Event()

    def ask() -> None:
        while not over.is_set():
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


def test_what_is_there_can_be_asked_for(host: Host) -> None:
    host.apply()
    lines = host.module.status([]).splitlines()
    assert [line.split()[0] for line in lines] == ["root", "intermediate", "caddy"]
    assert lines[2].endswith("caddy.lab.home")


def test_what_is_kept_for_the_timer_holds_nothing_of_a_single_run(host: Host) -> None:
    host.apply()
    kept = json.loads(host.module.DESIRED.read_text())
    assert not {"answer", "can_sign"} & set(kept)
    assert host.module.DESIRED.stat().st_mode & 0o077 == 0
