"""Whatever stands in a lab, the answer is role variables or problems, never another exception."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.compile import compile_lab
from ringfence.model import LabError

VALID = Path(__file__).resolve().parents[1] / "fixtures" / "valid"
LABS = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(VALID.glob("*.yml"))]

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70000),
    st.floats(allow_nan=True),
    st.sampled_from(
        ["", "lan", "app", "internet", "anywhere", "53/udp", "10.0.0.0/8", "::/0", "fd00::1", "/", "a:b", "x:1"]
    ),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=5,
)


def paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a lab."""
    found = [prefix] if prefix else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += paths(inner, (*prefix, key))
    return found


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_is_compiled_or_refused(data: st.DataObject) -> None:
    lab = copy.deepcopy(data.draw(st.sampled_from(LABS)))
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(paths(lab)))
        owner = lab
        for step in way:
            owner = owner[step]
        owner[last] = data.draw(VALUES)
    with contextlib.suppress(LabError):
        compile_lab(lab)


@pytest.mark.parametrize("name", ["lab_services", "lab_segments", "lab_hosts", "lab_places", "lab_vantages"])
@pytest.mark.parametrize("value", [None, 1, "text", [], ["x"], {"x": None}, {"x": 1}, {1: {}}, {None: {}}])
def test_any_variable_may_be_anything(name: str, value: Any) -> None:
    with contextlib.suppress(LabError):
        compile_lab({**LABS[0], name: value})
