"""The desired state that the stack role renders from the reviewed variables."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ringfence.role import Role
from tests.unit.stack.cases import GOLDEN, ROOT, program


@pytest.fixture
def desired() -> dict[str, Any]:
    role = Role(str(ROOT / "roles/stack/deploy.py"))
    given = yaml.safe_load((GOLDEN / "variables.yml").read_text(encoding="utf-8"))
    return dict(program.whole(role.render_json("desired.json.j2", role.variables(given))))
