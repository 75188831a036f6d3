"""Ansible provisions a fresh host; pyinfra then finds nothing to change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from fresh("t-ansible", "28.5")


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
