"""The address book: which segment has which subnet, which service which host number. Kept with the inventory.

Every name has a preferred place, derived from its hash, so that even without a book most names keep their numbers;
the book keeps them also where two names prefer the same place, whatever is added or removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

HEADER = """---
# The lab's address book, written by ringfence. Commit it: it keeps every segment and every service on its addresses
# when others come and go. To renumber one, delete its line.
"""


@dataclass(frozen=True)
class Book:
    """What has been handed out.

    Attributes:
        segments: segment → (IPv4 subnet, number of its /64 in lab_ula).
        services: service → segment → host number (the same in IPv4 and IPv6; 1 is the gateway).
    """

    segments: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    services: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


class BookError(Exception):
    """The address book cannot be read; the message names the entry and the fix."""


def parse(text: str, name: str) -> Book:
    """Read a book from its YAML text.

    Raises:
        BookError: it is not YAML, or an entry is not what `dump` writes.
    """
    fix = "correct the line, or delete it to get a new number"
    try:
        data: Any = yaml.safe_load(text) or {}
        segments = {str(k): (str(v["subnet"]), int(v["id"])) for k, v in (data.get("segments") or {}).items()}
        services = {
            str(k): {str(segment): int(number) for segment, number in v.items()}
            for k, v in (data.get("services") or {}).items()
        }
    except yaml.YAMLError as error:
        raise BookError(f"{name}: it is not YAML: {' '.join(str(error).split())} ({fix})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BookError(f"{name}: an entry is not readable: {error!r} ({fix})") from error
    return Book(segments, services)


def dump(book: Book) -> str:
    """Return the book's YAML text, sorted, one line per entry."""
    lines = ["segments:" if book.segments else "segments: {}"]
    lines += [f"  {name}: {{subnet: {s}, id: {i}}}" for name, (s, i) in sorted(book.segments.items())]
    lines += ["services:" if book.services else "services: {}"]
    for name, numbers in sorted(book.services.items()):
        inner = ", ".join(f"{segment}: {number}" for segment, number in sorted(numbers.items()))
        lines.append(f"  {name}: {{{inner}}}")
    return HEADER + "\n".join(lines) + "\n"
