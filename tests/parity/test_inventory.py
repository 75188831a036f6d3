"""The contract of the front door: pyinfra and Ansible see the same value for every variable of every host."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ringfence.roles import ROLES

ROOT = Path(__file__).resolve().parents[2]
FIXTURE = ROOT / "tests" / "fixtures" / "inventory"
LABS = {"demo": ROOT / "inventories" / "demo", "example": ROOT / "inventories" / "example", "fixture": FIXTURE}
BIN = Path(sys.executable).parent

PYINFRA = """
import json, sys
from pyinfra.api import State
from pyinfra.context import ctx_state
from pyinfra_cli.inventory import make_inventory_from_files
ctx_state.set(State())
inventory = make_inventory_from_files("inventory.py")
json.dump({host.name: host.data.dict() for host in inventory}, sys.stdout)
"""
# pyinfra's own names for the connection, and what ringfence adds for pyinfra alone.
ONLY_PYINFRA = re.compile(r"ssh_\w+|_sudo\w*|inventory_hostname|ringfence_unresolved")
# What an inventory plugin or Ansible itself adds, and what differs because the two read different files.
ONLY_ANSIBLE = {
    "inventory_dir", "inventory_file", "ansible_group_priority", "_meta",
    "ringfence_roles", "ringfence_lab", "ringfence_notices",
}  # fmt: skip


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Copies, because reading a lab may write its address book."""
    base = tmp_path_factory.mktemp("labs")
    return {name: Path(shutil.copytree(path, base / name)) for name, path in LABS.items()}


@cache
def environment(lab: Path) -> dict[str, str]:
    variables = {**os.environ, "RINGFENCE_LAB": str(lab), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    variables["ANSIBLE_VARS_ENABLED"] = "host_group_vars"
    if (lab / ".vault-password").exists():  # ringfence finds it by itself, plain Ansible has to be told
        variables["ANSIBLE_VAULT_PASSWORD_FILE"] = str(lab / ".vault-password")
    return variables


def run(lab: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment(lab), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cache
def pyinfra(lab: Path) -> dict[str, dict[str, Any]]:
    """What `host.data` holds, by host."""
    return dict(json.loads(run(lab, sys.executable, "-c", PYINFRA)))


@cache
def names(lab: Path, inventory: str) -> dict[str, set[str]]:
    """The variables that Ansible knows of each host."""
    listed = run(lab, str(BIN / "ansible-inventory"), "-i", inventory, "--playbook-dir", str(ROOT), "--list")
    return {host: set(values) for host, values in json.loads(listed)["_meta"]["hostvars"].items()}


def ansible(lab: Path, inventory: str, host: str, wanted: set[str]) -> dict[str, Any]:
    """The final values that a task on the host gets."""
    arguments = json.dumps({"msg": {name: f"{{{{ {name} }}}}" for name in sorted(wanted)}})
    command = [str(BIN / "ansible"), host, "-i", inventory, "--playbook-dir", str(ROOT), "-o", "-m", "debug"]
    output = run(lab, *command, "-a", arguments)
    answer = output.partition(" | SUCCESS => ")[2]
    return dict(json.loads(answer)["msg"])


def compiled(names: set[str]) -> set[str]:
    return {n for n in names if re.match(rf"({'|'.join(ROLES)}|verify)_|ringfence_(skipped|called|undeclared)$", n)}


HOSTS = [("demo", "atlas"), ("demo", "outside"), ("example", "atlas")] + [
    ("fixture", h) for h in ("one", "two", "three")
]


@pytest.mark.parametrize(("lab", "host"), HOSTS)
def test_the_yaml_files_mean_the_same_to_pyinfra_and_to_ansible(labs: dict[str, Path], lab: str, host: str) -> None:
    path = labs[lab]
    hosts_file = str(path / "hosts.yml")
    seen = {name: value for name, value in pyinfra(path)[host].items() if not ONLY_PYINFRA.fullmatch(name)}
    unresolved = set(pyinfra(path)[host]["ringfence_unresolved"])
    known = names(path, hosts_file)[host] - ONLY_ANSIBLE - unresolved
    assert set(seen) - compiled(set(seen)) - ONLY_ANSIBLE == known
    values = ansible(path, hosts_file, host, known)
    for name in sorted(known):
        assert same(seen[name], values[name]), name


@pytest.mark.parametrize(("lab", "host"), HOSTS)
def test_ansible_sees_through_inventory_py_what_pyinfra_sees(labs: dict[str, Path], lab: str, host: str) -> None:
    path = labs[lab]
    script = str(ROOT / "inventory.py")
    seen = {name: value for name, value in pyinfra(path)[host].items() if not ONLY_PYINFRA.fullmatch(name)}
    known = names(path, script)[host] - ONLY_ANSIBLE
    assert set(seen) - ONLY_ANSIBLE == known - set(pyinfra(path)[host]["ringfence_unresolved"])
    values = ansible(path, script, host, set(seen) - ONLY_ANSIBLE)
    for name in sorted(set(seen) - ONLY_ANSIBLE):
        assert same(seen[name], values[name]), name


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type: 1, "1" and True are three things."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def test_values_that_need_facts_are_left_to_ansible_and_named_for_pyinfra(labs: dict[str, Path]) -> None:
    data = pyinfra(labs["fixture"])["one"]
    assert "needs_facts" not in data
    assert "ansible_facts" in data["ringfence_unresolved"]["needs_facts"]
    listed = json.loads(run(labs["fixture"], str(ROOT / "inventory.py"), "--list"))
    assert listed["_meta"]["hostvars"]["one"]["needs_facts"] == "{{ ansible_facts.hostname }}"


def test_precedence_vault_and_braces_are_what_the_fixture_says(labs: dict[str, Path]) -> None:
    one, two, three = (pyinfra(labs["fixture"])[host] for host in ("one", "two", "three"))
    assert (one["level"], two["level"], three["level"]) == ("east", "west", "west")
    assert (one["shadowed"], two["shadowed"]) == ("host", "group")
    assert one["inline_secret"] == "in{{line}} s3cret"
    assert one["file_secret_map"] == {"inner": [1, "two"]}
    assert one["literal_braces_inside"] == {"format": "{{.Name}}", "list": ["{% raw %}"]}
    assert one["raw_braces"] == "{{ kept }}"
    assert one["addresses"] == ["10.1.0.1", "10.1.0.2", "10.1.0.3"]


def test_connection_variables_are_translated(labs: dict[str, Path]) -> None:
    one = pyinfra(labs["fixture"])["one"]
    assert {key: one[key] for key in one if key.startswith(("ssh_", "_sudo"))} == {
        "ssh_hostname": "10.1.0.1",
        "ssh_user": "admin",
        "ssh_port": 2222,
        "_sudo": True,
        "ssh_known_hosts_file": "/tmp/known",
        "ssh_strict_host_key_checking": "accept-new",
    }


def test_one_host_is_answered_as_in_the_list(labs: dict[str, Path]) -> None:
    script = str(ROOT / "inventory.py")
    listed = json.loads(run(labs["demo"], script, "--list"))["_meta"]["hostvars"]["atlas"]
    assert json.loads(run(labs["demo"], script, "--host", "atlas")) == listed


@pytest.mark.parametrize("lab", ["demo", "example"])
def test_the_committed_address_book_is_up_to_date(labs: dict[str, Path], lab: str) -> None:
    pyinfra(labs[lab])
    assert (labs[lab] / "addresses.yml").read_text() == (LABS[lab] / "addresses.yml").read_text()
