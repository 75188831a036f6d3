"""Every template of every role renders to the same bytes with both engines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ringfence.render import render
from ringfence.role import Role
from ringfence.roles import ROLES

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("roles/*/templates/*.j2"))
LABS = {"demo": "atlas", "example": "atlas"}


@cache
def hostvars(lab: str) -> dict[str, dict[str, object]]:
    answer = subprocess.run(
        [sys.executable, str(ROOT / "inventory.py"), "--list"],
        capture_output=True, text=True, check=True, env={**os.environ, "RINGFENCE_LAB": lab},
    )  # fmt: skip
    return dict(json.loads(answer.stdout)["_meta"]["hostvars"])


def variables(role: str, case: str) -> dict[str, object]:
    """The role's variables in a lab, or its bare defaults."""
    given = {} if case == "defaults" else hostvars(case)[LABS[case]]
    return Role(str(ROOT / "roles" / role / "deploy.py")).variables(given)


def render_with_ansible(template: Path, values: dict[str, object]) -> str:
    """What Ansible's template module and lookup produce."""
    templar = Templar(loader=DataLoader(), variables=values).copy_with_new_env(searchpath=[str(template.parent)])
    text = trust_as_template(template.read_text(encoding="utf-8"))
    return str(templar.template(text, escape_backslashes=False, convert_data=False, preserve_trailing_newlines=True))


@pytest.mark.parametrize("case", ["defaults", *LABS])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_renders_the_same_with_both_engines(template: str, case: str) -> None:
    path = ROOT / template
    values = variables(path.parents[1].name, case)
    if "{# partial" in path.read_text(encoding="utf-8"):
        return  # rendered through the template that includes it
    assert render(path, values) == render_with_ansible(path, values)


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_name_the_same_variables(role: str) -> None:
    folder = ROOT / "roles" / role
    defaults = yaml.safe_load((folder / "defaults/main.yml").read_text(encoding="utf-8"))
    options = yaml.safe_load((folder / "meta/argument_specs.yml").read_text(encoding="utf-8"))
    options = options["argument_specs"]["main"]["options"]
    assert set(defaults) == set(options)
    for name, spec in options.items():
        assert name.startswith(f"{role}_")
        assert spec["description"]
        assert spec.get("default") == defaults[name], f"{name}: argument_specs and defaults disagree"
