"""Verify's comparison of roles: what cannot be worked out is said, and hides nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.facts.survey import Difference
from ringfence.roles import role
from ringfence.verify import run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is asked of the host, which answers that `docker` has drifted and has something to say."""
    monkeypatch.setattr(run, "_run", run.Run())
    found: dict[str, Any] = {}

    def survey(_host: Any, wishes: dict[str, Any], *, fresh: bool) -> dict[str, Difference]:
        assert fresh
        found.update(wishes)
        return {name: Difference(changes=["~ x"], notices=["a kernel\nof its own"]) for name in wishes}

    monkeypatch.setattr(run, "survey", survey)
    return found


class Data(dict[str, Any]):
    """A host's variables, as pyinfra has them."""

    def dict(self) -> dict[str, Any]:
        return self


def compare(names: list[str], **data: Any) -> run.Run:
    host: Any = SimpleNamespace(name="atlas", data=Data(data))
    state: Any = None
    assert run._compare(state, host, [role(name) for name in names])
    return run._run


def test_a_variable_that_needs_facts_is_not_taken_for_its_default(asked: dict[str, Any]) -> None:
    done = compare(["base", "docker"], ringfence_unresolved={"base_ssh_port": "'ansible_facts' is undefined"})
    assert list(asked) == ["docker"]
    assert done.troubles == [
        "atlas: role base: base_ssh_port cannot be worked out before the run: 'ansible_facts' is undefined; "
        "so it is not known whether it has drifted"
    ]
    assert done.drift == ["atlas: docker: ~ x"]


def test_a_role_with_a_wrong_variable_hides_no_other(asked: dict[str, Any]) -> None:
    done = compare(["base", "docker"], base_ssh_port="often")
    assert list(asked) == ["docker"]
    assert "base_ssh_port" in done.troubles[0]


def test_what_roles_say_is_no_drift_and_not_outside_the_fence(asked: dict[str, Any]) -> None:
    done = compare(["docker"])
    assert done.notices == ["atlas: docker: a kernel of its own"]
    assert asked
