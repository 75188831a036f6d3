"""What the compiler hands over is what the roles document."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ringfence.compile import compile_lab
from ringfence.role import Role

ROOT = Path(__file__).resolve().parents[2]
ROLES = {
    path.parents[1].name: Role(str(path.parents[1] / "deploy.py"))
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml"))
}
LABS = sorted((ROOT / "tests" / "fixtures" / "valid").glob("*.yml"))


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_every_compiled_variable_is_taken_by_its_role(path: Path) -> None:
    lab = yaml.safe_load(path.read_text(encoding="utf-8"))
    for host in lab["lab_hosts"]:
        variables = compile_lab(lab).hosts[host]
        for name in variables:
            role = name.partition("_")[0]
            assert role == "verify" or role not in ROLES or name in ROLES[role].defaults, name
        for role in ROLES.values():
            assert (
                role.variables(variables).items()
                >= {
                    name: value
                    for name, value in variables.items()
                    if name in role.defaults and not isinstance(value, list)
                }.items()
            )
