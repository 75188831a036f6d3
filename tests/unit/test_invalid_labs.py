"""Every fault in tests/fixtures/invalid is refused with a message that names the owner, the value and the fix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.compile import compile_lab
from ringfence.compile.book import Book, parse
from ringfence.model import LabError

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
INVALID = sorted(path.stem for path in (FIXTURES / "invalid").glob("*.yml"))


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def merge(base: Any, over: Any) -> Any:
    """Lay a fault over the valid lab, mapping by mapping."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}
    return over


def without_nothing(value: Any) -> Any:
    """A fault takes an entry of the valid lab away by writing null over it."""
    if isinstance(value, dict):
        return {key: without_nothing(inner) for key, inner in value.items() if inner is not None}
    return value


def problems_of(name: str) -> list[str]:
    fault = read(FIXTURES / "invalid" / f"{name}.yml")
    base = read(FIXTURES / "valid" / f"{fault.get('base', 'base')}.yml")
    lab = without_nothing(merge(base, {k: v for k, v in fault.items() if k.startswith("lab_")}))
    book = parse(yaml.safe_dump(fault["book"]), "addresses.yml") if "book" in fault else Book()
    with pytest.raises(LabError) as caught:
        compile_lab(lab, book, fault.get("inventory_hosts"))
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return [str(problem) for problem in caught.value.problems]


def test_there_are_enough_faults() -> None:
    assert len(INVALID) >= 30


@pytest.mark.parametrize("name", INVALID)
def test_a_fault_is_refused_with_owner_value_and_fix(name: str) -> None:
    problems = problems_of(name)
    expected = read(FIXTURES / "invalid" / f"{name}.yml")["expect"]
    text = "\n".join(problems)
    for fragment in expected:
        assert fragment in text
    for problem in problems:
        assert re.match(r"lab_\w+(\.\S+)?: ", problem), problem
        assert "(" in problem or "; expected: " in problem, f"no fix in: {problem}"
    assert "Traceback" not in text
    assert "hunter2" not in text


@pytest.mark.parametrize("name", sorted(set(INVALID) - {"several-at-once"}))
def test_a_fault_is_not_reported_as_many(name: str) -> None:
    assert len(problems_of(name)) <= 2, problems_of(name)


@pytest.mark.parametrize("path", sorted((FIXTURES / "valid").glob("*.yml")), ids=lambda path: path.stem)
def test_a_valid_lab_compiles(path: Path) -> None:
    lab = read(path)
    compiled = compile_lab(lab)
    assert set(compiled.hosts) >= set(lab["lab_hosts"])


@pytest.mark.parametrize(
    "services",
    [
        [{"app": {"secrets": {"password": "hunter2"}}}],
        {"app": [{"secrets": {"password": "hunter2"}}]},
        {"app": {"secrets": "hunter2"}},
        {"app": {"secrets": {"password": ["hunter2"]}}},
        {"app": {"environment": {"PASSWORD": ["hunter2"]}}},
        {"app": {"environment": "PASSWORD=hunter2"}},
    ],
)
def test_no_message_shows_a_secret(services: Any) -> None:
    with pytest.raises(LabError) as caught:
        compile_lab({**read(FIXTURES / "valid" / "base.yml"), "lab_services": services})
    assert "hunter2" not in str(caught.value)
