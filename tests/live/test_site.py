"""The main job on every Docker generation: provisioned once, closed for good."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab

ENGINES = {"20.10": "t-2010", "26.1": "t-261", "28.5": "t-285", "29": "t-29"}


@pytest.fixture(scope="module", params=ENGINES)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    yield from fresh(ENGINES[request.param], request.param)


# The tests of this file follow one host through its life, in order.


def test_a_fresh_host_is_provisioned_and_exactly_the_declared_traffic_passes(lab: Lab) -> None:
    assert lab.pyinfra().code == 0
    lab.must_verify()


def test_the_engine_is_the_one_this_test_is_about(lab: Lab) -> None:
    assert lab.ssh("docker version --format '{{.Server.Version}}'").startswith(lab.engine)


def test_the_checks_of_every_role_hold(lab: Lab) -> None:
    lab.must_pass_the_checks_of_the_roles()


def test_neither_a_plan_nor_a_second_run_changes_anything(lab: Lab) -> None:
    lab.must_be_converged()


def test_ansible_finds_nothing_to_change_after_pyinfra(lab: Lab) -> None:
    assert lab.ansible().changed == []


def test_restarting_docker_opens_and_closes_nothing(lab: Lab) -> None:
    lab.ssh("systemctl restart docker", timeout=180)
    # The policy goes ahead of Docker's chains again once Docker is up.
    lab.ssh("timeout 30 sh -c 'until systemctl is-active --quiet ringfence-policy-docker; do sleep 0.1; done'")
    lab.must_verify()


def test_after_a_reboot_everything_is_as_before_without_a_run(lab: Lab) -> None:
    lab.lab("reboot")
    lab.wait_for_ssh()
    lab.must_verify()
    lab.must_be_converged()
