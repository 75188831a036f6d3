"""Parts of a lab are added to the whole, and never take another's name."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.inventory.parts import joined
from ringfence.model.questions import answered

WHOLE: dict[str, Any] = {"lab_services": {"app": {"host": "atlas"}}, "lab_segments": {"front": {}}, "other": 1}


def test_a_part_joins_what_is_declared() -> None:
    part = {"segments": {"front": {}, "photos": {}}, "services": {"photos": {"host": "nas"}}, "questions": {}}
    found, problems = joined({**WHOLE, "lab_part_photos": part})
    assert problems == []
    assert found == {
        "lab_services": {"app": {"host": "atlas"}, "photos": {"host": "nas"}},
        "lab_segments": {"front": {}, "photos": {}},
        "other": 1,
    }
    assert WHOLE["lab_services"] == {"app": {"host": "atlas"}}


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"services": {"app": {}}}, "lab_part_b.services.app: 'app' is declared by lab_services too (rename one"),
        ({"services": {"mine": {}}}, "lab_part_b.services.mine: 'mine' is declared by lab_part_a too (rename one"),
        (
            {"segments": {"front": {"internet": False}}},
            "lab_part_b.segments.front: 'front' is declared by lab_segments",
        ),
        ({"sevices": {}}, "lab_part_b: 'sevices' is not a setting here (did you mean 'services'?)"),
        ({"services": []}, "lab_part_b.services: it is not a mapping (write services: {name: {…}})"),
        ([], "lab_part_b: it is not a mapping (write lab_part_b: {services: {…}})"),
        ({"questions": {"x": "what?"}}, "lab_part_b.questions.x: not answered yet: what? (then remove this line)"),
    ],
)
def test_what_is_wrong_with_a_part_is_named(part: Any, told: str) -> None:
    _, problems = joined({**WHOLE, "lab_part_a": {"services": {"mine": {}}}, "lab_part_b": part})
    assert [str(problem) for problem in problems if told in str(problem)], problems


def test_an_entry_with_an_open_question_is_not_read_and_one_that_is_settled_is() -> None:
    given = {
        "lab_services": {"a": {"image": {"question": "which?"}}, "b": {"host": "atlas", "questions": {}}},
        "lab_proxy": {"host": {"question": "where?"}},
    }
    kept, problems = answered(given, ["lab_services"])
    assert kept == {"lab_services": {"b": {"host": "atlas"}}}
    assert [problem.owner for problem in problems] == ["lab_services.a.image", "lab_proxy.host"]
