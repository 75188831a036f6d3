"""Containers are told of a new certificate: once, and again where that failed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.pki.conftest import Host, leaf


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
