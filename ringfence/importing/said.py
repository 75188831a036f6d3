"""What an import says: entries, questions, and remarks on what needs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ringfence.model.questions import QUESTION, QUESTIONS


class Prose(str):
    """A text for people."""

    __slots__ = ()


def question(text: str) -> dict[str, str]:
    """Return the question that stands in place of a value."""
    return {QUESTION: Prose(text)}


@dataclass
class Said:
    """What is said of one service, or of the whole project.

    Attributes:
        entry: settings in the lab's words.
        questions: subject → what to decide, where no single setting is the answer.
        remarks: what was left out because it says what holds anyway, or means nothing here.
    """

    entry: dict[str, Any] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def whole(self) -> dict[str, Any]:
        """The entry with its questions."""
        return {
            **self.entry,
            **({QUESTIONS: {key: Prose(text) for key, text in self.questions.items()}} if self.questions else {}),
        }
