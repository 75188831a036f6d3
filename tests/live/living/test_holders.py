"""Containers of somebody's that are stopped, or write to a directory: nothing is taken from them without a word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.labs import Lab

pytestmark = pytest.mark.engines("28.5")
IMAGE = "docker.io/library/busybox:1.37"
KEPT = {"ufw_foreign": "keep", "ufw_unmanaged": "keep"}
STATE = "docker ps -a --format '{{.Names}} {{.State}}' | sort; iptables-save | grep -c RF-; ufw status | sort"
RECORDS = ("/etc/ringfence/docker/desired.json", "/var/lib/ringfence/docker.json")


@pytest.fixture(scope="module", autouse=True)
def theirs(lab: Lab) -> Iterator[None]:
    run = f"docker run -d --init {{}} {IMAGE} sleep 1000000"
    lab.sh(
        "mkdir -p /srv/db /srv/media/films;"
        + run.format("--name olddb --restart always -v /srv/db:/data")
        + "; "
        + run.format("--name player -v /srv/media:/media")
        + "; "
        + run.format("--name stp --restart always -p 8075:80")
        + "; "
        + run.format("--name onf --restart on-failure -p 8077:80")
        + "; "
        + run.format("--name byhand --restart unless-stopped -p 8076:80")
        + "; docker stop -t 1 stp onf byhand",
        timeout=120,
    )
    yield
    lab.sh("docker rm -f olddb player stp onf byhand; rm -rf /srv/db /srv/media")


def app(**more: Any) -> dict[str, Any]:
    service = {"host": "atlas", "image": IMAGE, "segments": ["frontend"], "command": ["sleep", "1000000"], "init": True}
    return {"app": {**service, **more}}


def published(*ports: int) -> list[dict[str, Any]]:
    return [{"port": 80 + number, "published": port, "from": ["lan"]} for number, port in enumerate(ports)]


def refused(lab: Lab, **more: Any) -> str:
    before = lab.sh(STATE, check=False)
    lab.declare(lab_services=app(**more), **KEPT)
    run = lab.pyinfra(check=False)
    assert run.code != 0
    assert run.changed == []
    by_ansible = lab.ansible(check=False)
    assert by_ansible.code != 0
    assert by_ansible.changed == []
    assert lab.sh(STATE, check=False) == before
    return " ".join((run.text + by_ansible.text).split())


def test_a_stopped_engine_is_not_taken_for_an_empty_one(lab: Lab) -> None:
    # As on a host on which no run has begun.
    for path in RECORDS:
        lab.sh(f"[ ! -e {path} ] || mv {path} {path}.away")
    lab.sh("systemctl stop docker docker.socket", timeout=90)
    try:
        told = refused(lab)
        assert lab.sh("systemctl is-active docker", check=False).strip() == "inactive"
    finally:
        lab.sh(
            "systemctl reset-failed docker; systemctl start docker; docker start player; docker stop -t 1 stp onf",
            timeout=120,
        )
        for path in RECORDS:
            lab.sh(f"[ ! -e {path}.away ] || mv {path}.away {path}")
    words = "docker: docker.service is not running, and has containers (byhand; olddb; onf; and"
    assert told.count(words) > 1, told
    assert "systemctl start docker" in told


def test_what_comes_back_with_docker_holds_its_port(lab: Lab) -> None:
    told = refused(lab, publish=published(8075, 8076, 8077))
    for name, port in (("stp", 8075), ("onf", 8077)):
        assert f"{port}/tcp, which app publishes, is held by the container {name}, which is stopped, but" in told, told
        assert f"docker update --restart=no {name}" in told
    assert "8076/tcp, which app publishes" not in told


def test_two_never_write_to_one_directory(lab: Lab) -> None:
    told = refused(lab, volumes=["/srv/db:/db", "/srv/media/films:/films"])
    for words in (
        "the container olddb writes to /srv/db; two would spoil it. End it first: docker rm -f olddb",
        "the container player writes to /srv/media, which meets /srv/media/films; two would spoil it",
        "add shared: true",
    ):
        assert words in told, told
    lab.sh("docker stop -t 1 olddb")
    assert "olddb is stopped, but starts again with Docker, and writes to /srv/db" in refused(
        lab, volumes=["/srv/db:/db"]
    )


def test_what_is_ended_or_shared_or_only_read_is_nobody_elses(lab: Lab) -> None:
    lab.sh("docker update --restart=no stp olddb")
    shared = {"source": "/srv/media/films", "target": "/films", "shared": True}
    services = app(publish=published(8075, 8076), volumes=["/srv/db:/db", shared, "/srv/media:/media:ro"])
    lab.declare(lab_services=services, **KEPT)
    lab.pyinfra()
    assert lab.ansible().changed == []
    assert "app-app-1 running" in lab.sh(STATE)
    lab.declare(lab_services={}, **KEPT)
    lab.pyinfra()
