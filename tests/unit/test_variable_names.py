"""A misspelt variable of a role is refused: it would be ignored without a word."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from ringfence.inventory.names import role_variables, unknown
from ringfence.roles import ROLES
from tests.unit.test_front import DEMO, ask, refused

ROOT = Path(__file__).resolve().parents[2]
FAULTS = sorted((ROOT / "tests" / "fixtures" / "invalid-variables").glob("*.yml"))
KNOWN = role_variables(ROOT)


def test_there_are_faults() -> None:
    assert len(FAULTS) >= 5


@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_a_misspelt_variable_is_refused_with_the_fix(path: Path) -> None:
    fault = yaml.safe_load(path.read_text(encoding="utf-8"))
    text = "\n".join(str(problem) for problem in unknown({"atlas": list(fault["variables"])}, KNOWN))
    for fragment in fault["expect"]:
        assert fragment in text


def test_both_engines_are_told(tmp_path: Path) -> None:
    lab = Path(shutil.copytree(DEMO, tmp_path / "demo"))
    (lab / "group_vars" / "demo" / "zz.yml").write_text("---\nufw_rulez: '{{ ansible_facts.rules }}'\n")
    for who in ("pyinfra", "ansible", "module"):
        refused(ask(who, lab), "ufw_rulez: the role ufw has no such variable (did you mean 'ufw_rules'?")


def test_every_documented_variable_and_other_peoples_pass() -> None:
    documented = [name for names in KNOWN.values() for name in names]
    assert set(KNOWN) == set(ROLES)
    assert len(documented) > 40
    others = [
        "ansible_host",
        "lab_services",
        "vault_password",
        "demo_state",
        "policies",
        "stackable_things",
        "nginx_port",
    ]
    assert unknown({"atlas": [*documented, *others]}, KNOWN) == []
