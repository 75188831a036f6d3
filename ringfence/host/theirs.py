"""Files of others that a role would have otherwise: what differs is shown, and their owner decides."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import NamedTuple

from ringfence.host.files import read, replace_file

ORIGINALS = Path("/var/lib/ringfence")
LEAVE, REPLACE = "leave", "replace"


class Wish(NamedTuple):
    """What a role wants in a file that may be somebody else's.

    Attributes:
        path: of the file.
        text: as the role would write it; a comment with ``mark`` says whose it is.
        mark: what tells the role's own file from another's.
        variable: of the role, in which the user says what becomes of a file of theirs.
        answer: what they said: `LEAVE`, `REPLACE`, or "".
    """

    path: Path
    text: str
    mark: str
    variable: str
    answer: str

    @property
    def original(self) -> Path:
        """Where what was there first is kept."""
        return ORIGINALS / f"{self.path.name}.before-ringfence"


def statements(text: str) -> list[str]:
    """What a file of settings says, without comments, empty lines and the space between words."""
    bare = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    lines = (re.sub(r"^\s*(//|#).*", "", line) for line in bare.splitlines())
    return [" ".join(line.split()) for line in lines if line.strip()]


def pending(wish: Wish) -> tuple[str, str]:
    """What is to be done about a file, as (change, refusal); both "" where it is as it should be, or is to be left."""
    there = read(wish.path)
    if there == wish.text or wish.answer == LEAVE:
        return "", ""
    if not wish.path.exists():
        return f"+ {wish.path}", ""
    old, new = statements(there), statements(wish.text)
    if wish.mark not in there and set(new) <= set(old):
        return "", ""  # it says the same, in the words of its owner
    lines = [line for line in difflib.ndiff(old, new) if line[:2] in ("- ", "+ ")]
    if wish.mark in there:
        return f"~ {wish.path}: {'; '.join(lines) or 'restored'}", ""
    if wish.answer == REPLACE:
        return f"~ {wish.path}: {'; '.join(lines)} (the original is kept as {wish.original})", ""
    shown = "\n".join(f"  {line}" for line in lines)
    return "", (
        f"{wish.path} is not ringfence's, and says otherwise:\n{shown}\n"
        f"say {wish.variable}: {{{wish.path}: {LEAVE}}} to have it stay as it is, or {{{wish.path}: {REPLACE}}} (the "
        f"original is kept as {wish.original})"
    )


def bring_about(wish: Wish) -> None:
    """Write the file where that is pending; what somebody else had there is kept."""
    if not pending(wish)[0]:
        return
    there = read(wish.path)
    if wish.path.exists() and wish.mark not in there and not wish.original.exists():
        replace_file(wish.original, there, 0o600)
    replace_file(wish.path, wish.text)


def gone_back(wish: Wish) -> bool:
    """Whether the original of a file can take its place again: the role's own is there."""
    return wish.original.is_file() and wish.mark in read(wish.path)


def put_back(wish: Wish) -> None:
    """Put the original of a file back."""
    replace_file(wish.path, wish.original.read_bytes())
    wish.original.unlink()
