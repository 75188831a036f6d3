"""What holds on a host after the role `caddy`, whichever engine applied it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

CONTAINER = "caddy-caddy-1"
CADDYFILE = "/etc/caddy/Caddyfile"


@pytest.fixture
def container(host: Any) -> dict[str, Any]:
    return dict(json.loads(host.check_output(f"docker inspect {CONTAINER}"))[0])


def test_it_is_healthy_and_has_one_capability(container: dict[str, Any]) -> None:
    assert container["State"]["Health"]["Status"] == "healthy"
    limits = container["HostConfig"]
    assert [name.removeprefix("CAP_") for name in limits["CapAdd"]] == ["NET_BIND_SERVICE"]
    assert limits["CapDrop"] == ["ALL"]
    assert limits["ReadonlyRootfs"]


def test_it_cannot_speak_to_docker(container: dict[str, Any]) -> None:
    assert not [mount["Source"] for mount in container["Mounts"] if "docker.sock" in mount["Source"]]


def test_its_admin_socket_is_no_port(host: Any) -> None:
    assert "admin unix//run/caddy/admin.sock|0600" in host.check_output(f"docker exec {CONTAINER} cat {CADDYFILE}")
    assert host.run(f"docker exec {CONTAINER} wget -q -O /dev/null http://127.0.0.1:2019/config/").rc != 0


def test_what_runs_is_a_configuration_that_it_accepts(host: Any) -> None:
    host.check_output(f"docker exec {CONTAINER} caddy validate --config {CADDYFILE} --adapter caddyfile")


def test_every_site_leads_from_http_to_https(host: Any) -> None:
    text = host.check_output(f"docker exec {CONTAINER} cat {CADDYFILE}")
    names = re.findall(r"^https://(\S+) \{$", text, re.M)
    assert names
    for name in names:
        # Within the container: whether the world may come in is for the firewall's tests.
        answer = host.run(f"docker exec {CONTAINER} wget -S -O /dev/null --header 'Host: {name}' http://127.0.0.1/")
        assert " 308 " in answer.stderr, answer.stderr
