"""Ansible provisions a fresh host; pyinfra then finds nothing to change."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab, Run


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from fresh("t-ansible", "28.5", preinstalled=False)


def test_a_check_on_the_bare_host_runs_through_and_predicts_changes(lab: Lab) -> None:
    assert lab.ansible("--check").changed


def test_ansible_provisions_the_host_and_exactly_the_declared_traffic_passes(lab: Lab) -> None:
    assert lab.ansible().changed
    lab.must_verify()


def test_the_checks_of_every_role_hold(lab: Lab) -> None:
    lab.must_pass_the_checks_of_the_roles()


def test_pyinfra_finds_nothing_to_change(lab: Lab) -> None:
    lab.must_be_converged()


def test_ansible_finds_nothing_to_change(lab: Lab) -> None:
    assert lab.ansible().changed == []


APPLY: dict[str, Callable[[Lab], Run]] = {
    "pyinfra": lambda lab: lab.pyinfra("site", "-vvv", "--diff"),
    "ansible": lambda lab: lab.ansible("-vvv", "--diff"),
}
# Everything but the layers of images.
FILES = (
    "grep -rlsF --exclude-dir=overlay2 --exclude-dir=containerd -e {} /etc /home /opt /root /run /tmp /usr/local /var"
    " | xargs -r stat -c '%a %U %n'"
)


@pytest.mark.parametrize("engine", APPLY)
def test_a_secret_is_in_no_output_and_in_no_file_that_others_read(lab: Lab, engine: str) -> None:
    lab.undeclare()
    services = dict(lab.variables()["lab_services"])
    secret = f"hush-{secrets.token_hex(8)}"
    lab.declare(lab_services={**services, "mosquitto": {**services["mosquitto"], "secrets": {"token": secret}}})
    for run in (lab.plan("site", "-vvv", "--diff"), APPLY[engine](lab)):
        assert run.changed
        assert secret not in run.text
    assert lab.sh(FILES.format(secret)) == "400 root /opt/ringfence/stacks/mosquitto/secrets/token\n"
    assert secret not in lab.sh("journalctl -b --no-pager; docker inspect $(docker ps -aq); docker compose ls")
