"""The verb `remove`: what a role takes away, listed with ``--dry`` in the very words of the doing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ringfence.host.files import replace_file
from ringfence.host.program import KEPT
from ringfence.host.running import Fault, say

ARCHIVE = Path("/var/lib/ringfence/removed")  # what may be needed again, readable by root only


class Removal(NamedTuple):
    """One thing that goes: how it is listed, and what takes it away."""

    line: str
    do: Callable[[], object]


def remover(
    look: Callable[[], tuple[list[Removal], list[str]]],
) -> Callable[[list[str]], dict[str, list[str]]]:
    """Make a program's verb ``remove [--dry]``; it answers as a check does.

    Args:
        look: says what goes, in order, and what stays that the user should know of. Raises Fault where it cannot go.
    """

    def remove(words: list[str]) -> dict[str, list[str]]:
        if words not in ([], ["--dry"]):
            raise Fault(f"remove {' '.join(words)}: write `remove`, or `remove --dry`, which only lists")
        steps, notices = look()
        for step in [] if words else steps:
            say(step.line)
            step.do()
        return {"changes": [step.line for step in steps], "refusals": [], "notices": notices}

    return remove


def shelve(path: Path) -> None:
    """Move a file into the archive, if it is there; one that is there from an earlier removal is replaced."""
    if path.is_file():
        replace_file(ARCHIVE / path.relative_to("/"), path.read_bytes(), 0o600)
        path.unlink()


def unkept(role: str) -> list[Removal]:
    """The desired state that a role keeps on the host, where it does: nothing is to be put back any more."""
    path = KEPT / role / "desired.json"
    return [Removal(f"- {path}", path.unlink)] if path.exists() else []
