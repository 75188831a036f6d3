"""The live tests' reading of an engine's answer can fail: silence is not "nothing changed"."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.runs import RunError, ansible_run, pyinfra_run


def plan(*changing: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "hosts_with_change": ["atlas"] if name in changing else [],
            "hosts_with_conditional_change": [],
        }
        for name in ("base | state", "ufw | state")
    ]


def results(*changing: str) -> dict[str, Any]:
    return {
        "operations": [{"name": name, "success": ["atlas"] if name in changing else []} for name in ("base | state",)]
    }


def test_a_plan_and_a_run_name_what_changes() -> None:
    assert pyinfra_run(0, json.dumps({"plan": plan("ufw | state"), "results": None}), "").changed == ["ufw | state"]
    assert pyinfra_run(0, json.dumps({"plan": plan(), "results": None}), "").changed == []
    done = json.dumps({"plan": plan("ufw | state"), "results": results("base | state")})
    assert pyinfra_run(0, done, "").changed == ["base | state"]


@pytest.mark.parametrize("said", ["", "done", "null", "{}", '{"plan": []}', '{"plan": [], "results": null}', "[]"])
def test_an_answer_that_is_no_report_is_an_error(said: str) -> None:
    with pytest.raises(RunError):
        pyinfra_run(0, said, "")


def test_a_run_that_is_refused_before_it_begins_has_changed_nothing_and_one_that_breaks_off_says_nothing() -> None:
    assert pyinfra_run(1, "", "--> Connecting to hosts...\nnothing was changed on atlas").changed == []
    with pytest.raises(RunError):
        pyinfra_run(1, "", "--> Beginning operation run...\nTraceback")


RECAP = "PLAY RECAP ***\natlas                      : ok=3    changed={}    unreachable=0    failed=0\n"


def test_ansible_names_what_changes() -> None:
    text = "TASK [ufw : Apply] ***\nchanged: [atlas]\n\n" + RECAP.format(1)
    assert ansible_run(0, text, "").changed == ["ufw : Apply"]
    assert ansible_run(0, "TASK [ufw : Apply] ***\nok: [atlas]\n" + RECAP.format(0), "").changed == []


@pytest.mark.parametrize("said", ["", "PLAY RECAP ***\n", "TASK [x] ***\nok: [atlas]\n", RECAP.format(2)])
def test_an_ansible_run_without_a_recap_or_with_another_one_is_an_error(said: str) -> None:
    with pytest.raises(RunError):
        ansible_run(0, said, "")
