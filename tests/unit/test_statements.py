"""What is said in several places is the same everywhere: licence, releases, engines, how to install."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.plan import SUITES
from ringfence.roles import ROLES

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "roles").glob("*/README.md")])
# Debian's releases as the live tests' hosts have them, and as people say them.
SAID = {"bookworm": "12", "trixie": "13", "sid": "sid"}


def read(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8").split())


def galaxy(role: str) -> dict[str, Any]:
    return dict(
        yaml.safe_load((ROOT / "roles" / role / "meta" / "main.yml").read_text(encoding="utf-8"))["galaxy_info"]
    )


def test_the_licence_is_the_one_of_the_file() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    assert read(ROOT / "LICENSE").startswith("Apache License Version 2.0")
    assert "License: Apache-2.0." in read(ROOT / "README.md")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_the_projects_licence_and_the_releases_that_are_tested(role: str) -> None:
    said = galaxy(role)
    assert said["license"] == PROJECT["license"]
    assert said["platforms"] == [{"name": "Debian", "versions": list(SAID)}]


def test_the_releases_are_those_of_the_live_tests() -> None:
    assert set(SUITES.values()) == set(SAID)
    assert "Debian 12, 13 or sid" in read(ROOT / "README.md")
    assert "a Debian host (12, 13 or sid)" in read(ROOT / "docs" / "first-lab.md")


def test_the_engines_are_those_of_the_live_tests() -> None:
    engines = [engine for engine in SUITES if re.fullmatch(r"[0-9.]+", engine)]
    assert engines == sorted(engines, key=float)
    assert f"Docker {', '.join(engines[:-1])} or {engines[-1]}" in read(ROOT / "README.md")


def test_nobody_is_told_to_install_what_no_index_has() -> None:
    assert len(PAGES) > len(ROLES)
    told = [str(page.relative_to(ROOT)) for page in PAGES if "pip install ringfence" in read(page)]
    assert told == []
