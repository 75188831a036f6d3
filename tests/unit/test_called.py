"""Messages name what the user has written: lab_segments, not the role variable that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.compile import compile_lab
from ringfence.compile.called import VARIABLE
from ringfence.inventory.assemble import merge
from ringfence.remote.role import renamed
from ringfence.roles import ROLES, role

VALID = Path(__file__).resolve().parents[1] / "fixtures" / "valid"


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    lab = yaml.safe_load((VALID / "three-hosts.yml").read_text(encoding="utf-8"))
    return {host: dict(variables) for host, variables in compile_lab(lab).hosts.items() if VARIABLE in variables}


def said(line: str, called: dict[str, str]) -> str:
    answer = {"changes": [line], "refusals": [line], "notices": [line], "packages": ["ufw_rules"]}
    found = renamed(answer, called)
    assert found["packages"] == ["ufw_rules"]
    assert found["changes"] == found["refusals"] == found["notices"]
    return str(found["refusals"][0])


def test_what_is_called_otherwise_is_a_variable_of_a_role(compiled: dict[str, Any]) -> None:
    known = {name for each in ROLES for name in role(each).defaults}
    for variables in compiled.values():
        assert {name.partition(".")[0] for name in variables[VARIABLE]} <= known
        assert all(name.startswith("lab_") for name in variables[VARIABLE].values())


def test_a_message_names_what_the_user_has_written(compiled: dict[str, Any]) -> None:
    host = sorted(compiled)[0]
    called = compiled[host][VARIABLE]
    assert said("segments_networks.frontend.subnet: 10.1.0.0/24 overlaps", called).startswith("lab_segments.frontend.")
    assert said("Declare it in ufw_rules (port 22)", called) == f"Declare it in lab_hosts.{host}.services (port 22)"
    assert said("but base_ssh_port says 22", called) == f"but lab_hosts.{host}.services.ssh.port says 22"
    assert said("pki_leaves.caddy.names: x", called) == "lab_proxy.names: x"
    assert said("pki_leaves.db.names: x", called) == "lab_services.db.names: x"
    for untouched in ("pki_root_key", "/etc/pki_root", "my_ufw_rules", "ufw_rules_of", "x.pki_root", "pki_roots"):
        assert said(untouched, called) == untouched


def test_a_role_that_stands_alone_names_its_own_variables() -> None:
    assert said("segments_networks.frontend.subnet: x", {}) == "segments_networks.frontend.subnet: x"


def test_what_the_user_sets_has_the_name_that_it_is_set_by(compiled: dict[str, Any]) -> None:
    variables = compiled[sorted(compiled)[0]]
    merged = merge(variables, {"segments_networks": [], "ufw_rules": []})
    assert "segments_networks" not in merged[VARIABLE]
    assert "policy_segments" in merged[VARIABLE]
    assert "ufw_rules" in merged[VARIABLE]  # entries of the user's own are added to those of the lab


def test_an_entry_that_the_user_added_is_not_the_labs(compiled: dict[str, Any]) -> None:
    variables = compiled[sorted(compiled)[0]]
    called = merge(variables, {"ufw_rules": [{"name": "print", "application": "CUPS"}]})[VARIABLE]
    assert said("ufw_rules.print: no such profile", called) == "ufw_rules.print: no such profile"
    assert said("ufw_rules.ssh: x", called) == "lab_hosts.atlas.services.ssh: x"
