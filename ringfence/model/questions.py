"""Questions in a declared lab: what an import could not know, refused until somebody answers it.

``{question: "…"}`` stands where the answer belongs; ``questions: {subject: "…"}`` in a service, a segment or a part
of the lab asks for what has no single place, and a line of it is taken away once it is settled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ringfence.model.problems import Problem

QUESTION = "question"
QUESTIONS = "questions"


def asked(value: Any, owner: str) -> Iterator[Problem]:
    """Return the questions in a value, each with its place."""
    if isinstance(value, Mapping):
        if set(value) == {QUESTION}:
            yield Problem(owner, f"not answered yet: {value[QUESTION]} (write the answer in place of the question)")
            return
        for key, inner in value.items():
            if key == QUESTIONS and isinstance(inner, Mapping):
                for subject, text in inner.items():
                    yield Problem(f"{owner}.{QUESTIONS}.{subject}", f"not answered yet: {text} (then remove this line)")
            else:
                yield from asked(inner, f"{owner}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from asked(inner, f"{owner}[{index}]")


def _settled(entry: Any) -> Any:
    """Return an entry without the heading over questions that are all settled."""
    if isinstance(entry, Mapping) and QUESTIONS in entry and not entry[QUESTIONS]:
        return {key: value for key, value in entry.items() if key != QUESTIONS}
    return entry


def answered(given: Mapping[str, Any], named: Collection[str]) -> tuple[dict[str, Any], list[Problem]]:
    """Take what has open questions out of the ``lab_*`` variables.

    An entry with one is not read further: what is missing in it would only be said twice.

    Args:
        given: the variables.
        named: those of them that are mappings of named entries, which are taken out one by one.

    Returns:
        The variables without those entries, and the questions.
    """
    kept: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in given.items():
        open_here = list(asked(value, name))
        problems += open_here
        if name in named and isinstance(value, Mapping) and set(value) != {QUESTION}:
            kept[name] = {key: _settled(entry) for key, entry in value.items() if not any(asked({key: entry}, name))}
        elif not open_here:
            kept[name] = value
    return kept, problems
