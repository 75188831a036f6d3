"""The main job on every Docker generation: provisioned once, closed for good; on one of them by Ansible."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.engines.conftest import BY_ANSIBLE, NFTABLES
from tests.live.labs import Lab, Run

MUTATE = Path(__file__).with_name("mutate.py")

ASK = (
    "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/docker.sock'); "
    "s.sendall(b'GET /info HTTP/1.0\\r\\n\\r\\n'); print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
)
# What the demo has no need of: calls between segments, to a service that is in one segment and to one that is in two,
# a port that the latter publishes, and a way into the LAN.
SENSORS: dict[str, Any] = {
    "host": "atlas",
    "image": "docker.io/library/busybox:1.37",
    "segments": ["iot"],
    "command": ["httpd", "-f", "-p", "8000", "-h", "/tmp"],
    "init": True,
    "calls": [{"service": "caddy", "port": 80}, {"service": "hall", "port": 8000}],
    "egress": [{"to": "lan", "port": 8123}],
}
HALL: dict[str, Any] = {
    "host": "atlas",
    "image": "docker.io/library/busybox:1.37",
    "segments": ["frontend", "hall"],
    "command": ["httpd", "-f", "-p", "8000", "-h", "/tmp"],
    "init": True,
    "publish": [{"port": 8000, "from": ["lan"]}],
}


@pytest.fixture(scope="module", autouse=True)
def declared(lab: Lab) -> None:
    declared = lab.variables()
    lab.declare(
        lab_segments={**declared["lab_segments"], "hall": {}},
        lab_services={**declared["lab_services"], "sensors": SENSORS, "hall": HALL},
    )


def _prove(lab: Lab) -> None:
    """Exactly the declared traffic passes, and what is declared across segments really does."""
    lab.must_verify()
    versions = (4,) if lab.engine in ("20.10", "26.1") else (4, 6)  # older ones do not filter IPv6: it is off there
    for version in versions:
        across = {("sensors", "caddy", 80), ("sensors", "hall", 8000), ("sensors", "lan", 8123), ("lan", "atlas", 8000)}
        assert {(source, name, "tcp", port, version) for source, name, port in across} <= lab.opened()


# The tests of this file follow one host through its life, in order.


@pytest.mark.engines(BY_ANSIBLE)
def test_a_check_on_the_bare_host_runs_through_and_predicts_changes(lab: Lab) -> None:
    assert lab.ansible("--check").changed


def test_a_fresh_host_is_provisioned_and_exactly_the_declared_traffic_passes(lab: Lab) -> None:
    assert (lab.ansible() if lab.engine == BY_ANSIBLE else lab.pyinfra()).changed
    _prove(lab)
    # By name, although Docker's resolver knows no names of other segments.
    ask = r"printf 'GET / HTTP/1.0\r\n\r\n' | docker exec -i sensors-sensors-1 nc -w 3 hall 8000 | head -1"
    assert lab.sh(ask).startswith("HTTP/1.")


def test_the_engine_is_the_one_this_test_is_about(lab: Lab, request: pytest.FixtureRequest) -> None:
    assert lab.sh("docker version --format '{{.Server.Version}}'").startswith(lab.engine)
    # Of the engine itself: an older client leaves out what it does not know.
    info = lab.sh(f'python3 -c "{ASK}"')
    assert "HTTP/1.0 200" in info
    assert ('"Driver":"nftables' in info) is ("nftables" in request.node.callspec.id)


@pytest.mark.engines(
    "20.10", "26.1", NFTABLES
)  # what a role leaves on a host is told by its program, not by the engine
def test_the_checks_of_every_role_hold(lab: Lab) -> None:
    lab.must_pass_the_checks_of_the_roles()


def test_neither_a_plan_nor_a_second_run_changes_anything(lab: Lab) -> None:
    assert lab.plan().changed == []
    lab.must_be_converged()


def test_neither_does_a_run_of_ansible(lab: Lab) -> None:
    assert lab.ansible().changed == []


# The rules of the other engines and of the other back end are among those of 29, and what compares them is the same.
@pytest.mark.engines("29")
def test_any_one_rule_that_is_deleted_is_named(lab: Lab) -> None:
    lab.unwatch()  # or what is deleted is put back before anybody is asked
    found = json.loads(lab.sh("python3 -", text=MUTATE.read_text(encoding="utf-8"), timeout=600))
    lab.sh("systemctl start ringfence-watch.timer")
    assert found["rules"] > 150
    assert found["unseen"] == []


# The ring has every engine restarted, and every host, under attack.
RESTARTED = pytest.mark.engines("20.10", NFTABLES)


@RESTARTED
def test_restarting_docker_opens_and_closes_nothing(lab: Lab) -> None:
    lab.sh("systemctl restart docker", timeout=180)
    # The policy goes ahead of Docker's chains again once Docker is up.
    lab.sh("timeout 30 sh -c 'until systemctl is-active --quiet ringfence-policy-docker; do sleep 0.1; done'")
    _prove(lab)


@RESTARTED
def test_after_a_reboot_everything_is_as_before_without_a_run(lab: Lab) -> None:
    lab.lab("reboot")
    lab.wait_for_ssh()
    _prove(lab)


APPLY: dict[str, Callable[[Lab], Run]] = {
    "pyinfra": lambda lab: lab.pyinfra("site", "-vvv", "--diff"),
    "ansible": lambda lab: lab.ansible("-vvv", "--diff"),
}
# Everything but the layers of images.
FILES = (
    "grep -rlsF --exclude-dir=overlay2 --exclude-dir=containerd -e {} /etc /home /opt /root /run /tmp /usr/local /var"
    " | xargs -r stat -c '%a %U %n'"
)


@pytest.mark.engines(BY_ANSIBLE)
@pytest.mark.parametrize("engine", APPLY)
def test_a_secret_is_in_no_output_and_in_no_file_that_others_read(lab: Lab, engine: str) -> None:
    declared = lab.variables()
    services = declared["lab_services"]
    secret = f"hush-{secrets.token_hex(8)}"
    lab.declare(
        lab_segments=declared["lab_segments"],
        lab_services={**services, "mosquitto": {**services["mosquitto"], "secrets": {"token": secret}}},
    )
    for run in (lab.plan("site", "-vvv", "--diff"), APPLY[engine](lab)):
        assert run.changed
        assert secret not in run.text
    assert lab.sh(FILES.format(secret)) == "400 root /opt/ringfence/stacks/mosquitto/secrets/token\n"
    assert secret not in lab.sh("journalctl -b --no-pager; docker inspect $(docker ps -aq); docker compose ls")
