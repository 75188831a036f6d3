"""The compose projects in tests/fixtures/compose, each with what becomes of it and the answers to its questions.

``reviewed.yml`` is the file as it is written, ``reviewed_vault.yml`` the plain text of its vault, and ``answers.yml``
has ``options`` (as on the command line), ``answers`` (place → value) and ``settled`` (questions that were looked at).
"""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from ringfence.importing.files import Project, read
from ringfence.importing.translate import Imported, Wishes, translate

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
SHAPES = sorted(path.name for path in (FIXTURES / "compose").iterdir() if path.is_dir())
FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.override.yml")


class Loader(yaml.SafeLoader):
    """Reads what is written as Ansible does: ``!unsafe`` is text."""


def _text(loader: Loader, node: Any) -> str:
    return str(loader.construct_scalar(node))


Loader.add_constructor("!unsafe", _text)


def load(text: str) -> Any:
    return yaml.load(text, Loader=Loader)


def answers(name: str) -> dict[str, Any]:
    path = FIXTURES / "compose" / name / "answers.yml"
    given = load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"options": {}, "answers": {}, "settled": [], **(given or {})}


def paths(name: str) -> list[Path]:
    return [path for file in FILES if (path := FIXTURES / "compose" / name / file).exists()]


def project(name: str) -> Project:
    return read(paths(name), profiles=answers(name)["options"].get("profiles", ()))


def imported(name: str) -> Imported:
    options = answers(name)["options"]
    wishes = Wishes(
        "atlas", tuple(options.get("from", ())), options.get("directory", ""), taken=frozenset({"atlas", "lan", "vpn"})
    )
    return translate(project(name), wishes)


def answered(part: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Write the answers where their questions stand, and take away what is settled."""
    part = deepcopy(part)
    for place, value in given["answers"].items():
        inner, key = _at(part, place)
        assert set(inner[key]) == {"question"}, place
        inner[key] = value
    for place in given["settled"]:
        inner, key = _at(part, place)
        del inner[key]
    return part


def _at(part: Any, place: str) -> tuple[Any, Any]:
    """Where a place is: names after dots, numbers in brackets; what follows ``questions.`` is one name."""
    head, sign, subject = place.partition("questions.")
    steps: list[Any] = [int(n) if n else key for key, n in re.findall(r"([^.\[\]]+)|\[([0-9]+)\]", head)]
    steps += ["questions", subject] if sign else []
    for step in steps[:-1]:
        part = part[step]
    return part, steps[-1]
