"""Both engines ask the same of a host: packages, files, program and desired state of every role, byte for byte."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from ringfence.facts.survey import wish
from ringfence.role import Role
from ringfence.roles import ROLES
from tests.parity.test_templates import LABS, hostvars

ROOT = Path(__file__).resolve().parents[2]


def asked_by_ansible(role: str, given: dict[str, Any]) -> dict[str, Any]:
    """What the action of a role puts together, without a host."""
    folder = ROOT / "roles" / role
    spec = importlib.util.spec_from_file_location("action", folder / "action_plugins" / "ringfence_role.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    action = module.ActionModule.__new__(module.ActionModule)
    action._loader = DataLoader()
    action._templar = Templar(loader=action._loader, variables=given)
    action._vars = given
    found: dict[str, Any] = action._wish(module.RoleFolder(folder))
    return found


@pytest.mark.parametrize("case", ["defaults", *LABS])
@pytest.mark.parametrize("role", ROLES)
def test_both_engines_ask_the_same_of_a_host(role: str, case: str) -> None:
    given = {} if case == "defaults" else hostvars(case)[LABS[case]]
    by_pyinfra = Role(str(ROOT / "roles" / role / "deploy.py"))
    wanted = by_pyinfra.wanted(by_pyinfra.variables(given))
    asked = asked_by_ansible(role, given)
    contents = {file["path"]: file.pop("content") for file in asked["files"]}
    assert asked == wish(wanted)
    assert contents == {file.path: file.content for file in wanted.files}
    for file in asked["files"]:
        assert file["sha256"] == hashlib.sha256(contents[file["path"]].encode()).hexdigest()
