"""What is wrong with a lab: one line each, naming the owner, the value and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        owner: path of the value in the declared lab, such as ``lab_services.nextcloud.calls``.
        message: what is wrong with which value, and what to do about it.
    """

    owner: str
    message: str

    def __str__(self) -> str:
        return " ".join(f"{self.owner}: {self.message}".split())


class LabError(Exception):
    """The declared lab cannot be used. ``problems`` holds every problem that was found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def did_you_mean(value: object, candidates: Iterable[str], otherwise: str) -> str:
    """Return the fix for a misspelt name: the nearest candidate, or else the given advice."""
    near = difflib.get_close_matches(str(value), sorted(candidates), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else otherwise


def listed(names: Iterable[str], *, none: str = "none") -> str:
    """Return names for a message: sorted, comma-separated, cut after twelve."""
    ordered = sorted(names)
    shown = ", ".join(ordered[:12]) + (", …" if len(ordered) > 12 else "")
    return shown or none
