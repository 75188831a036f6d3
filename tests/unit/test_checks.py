"""The linters and the type checker, and what no linter knows of this repository."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ringfence
from ringfence.host import embed
from ringfence.roles import ROLES, role

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

LINTERS = {
    "ruff check": [BIN / "ruff", "check", "--no-cache", "."],
    "ruff format": [BIN / "ruff", "format", "--no-cache", "--check", "."],
    "mypy --strict": [BIN / "mypy", "--no-incremental"],
    "mypy --strict, programs": [
        BIN / "mypy",
        "--no-incremental",
        "--strict",
        "--scripts-are-modules",
        *(str(path.relative_to(ROOT)) for path in embed.programs(ROOT)),
    ],
    "yamllint": [BIN / "yamllint", "--strict", "."],
    "ansible-lint": [BIN / "ansible-lint", "--offline", "--strict", "-q"],
}


@pytest.mark.parametrize("name", LINTERS)
def test_linter(name: str) -> None:
    command = [str(word) for word in LINTERS[name]]
    if not Path(command[0]).exists():
        pytest.fail(f"{command[0]} is missing: install requirements-dev.lock")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_version_rules_all() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert version == ringfence.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert newest
    assert newest[1] == version


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_pin_by_hash_and_name_no_registry(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    pinned = [line for line in text.splitlines() if re.match(r"[a-z]", line)]
    assert pinned
    assert all("==" in line and line.endswith("\\") for line in pinned)


def test_every_role_has_its_whole_anatomy() -> None:
    parts = [
        "README.md", "defaults/main.yml", "vars/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml",
        "templates/desired.json.j2", "deploy.py", "tests/test_{role}.py",
    ]  # fmt: skip
    roles = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
    missing = [f"{role}/{part.format(role=role)}" for role in roles for part in parts
               if not (ROOT / "roles" / role / part.format(role=role)).exists()]  # fmt: skip
    # What is a container with configuration has its project brought about by the program of another role.
    missing += [
        f"{name}/files/ringfence-{name}"
        for name in roles
        if f"{name}_program" not in role(name).constants and not role(name).file(f"ringfence-{name}")
    ]
    assert roles == sorted(ROLES)
    assert missing == []


def test_links_of_the_documentation_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "roles").glob("*/README.md")]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    ]
    assert len(pages) > len(ROLES)
    assert len(links) > 10
    broken = [f"{page.relative_to(ROOT)}: {target}" for page, target in links if not (page.parent / target).exists()]
    assert broken == []
