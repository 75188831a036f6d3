"""What the compiler hands over is what the roles document."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ringfence.compile import compile_lab
from ringfence.roles import ROLES, role

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = {name: role(name) for name in ROLES}
LABS = sorted((ROOT / "tests" / "fixtures" / "valid").glob("*.yml"))


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_every_compiled_variable_is_taken_by_its_role(path: Path) -> None:
    lab = yaml.safe_load(path.read_text(encoding="utf-8"))
    for host in lab["lab_hosts"]:
        variables = compile_lab(lab).hosts[host]
        for name in variables:
            # No role's: they say which roles there are, and what their messages call their variables.
            if name in ("ringfence_skipped", "ringfence_called"):
                continue
            owner = name.partition("_")[0]
            # A misspelt prefix is nobody's: what no role takes would be ignored without a word.
            assert owner == "verify" or owner in BY_NAME, name
            assert owner == "verify" or name in BY_NAME[owner].defaults, name
        for each in BY_NAME.values():
            assert (
                each.variables(variables).items()
                >= {
                    name: value
                    for name, value in variables.items()
                    if name in each.defaults and not isinstance(value, list)
                }.items()
            )
