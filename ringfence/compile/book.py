"""The address book: which segment has which subnet on which host, which service which host number.

Kept with the inventory. Every name has a preferred place, derived from its hash, so that even without a book most
names keep their numbers; the book keeps them also where two names prefer the same place, whatever is added or removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

HEADER = """---
# The lab's address book, written by ringfence. Commit it: it keeps every segment of every host and every service on
# its addresses when others come and go. To renumber one, delete its line.
"""
# What needs no quotes as a YAML key, whatever it looks like otherwise.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9-]*(@[A-Za-z0-9._-]+)?")
_KEYWORDS = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null"})


class Place(NamedTuple):
    """A segment on a host. ``host`` is "" for one that no host uses yet."""

    host: str
    segment: str


@dataclass(frozen=True)
class Book:
    """What has been handed out.

    Attributes:
        segments: place → (IPv4 subnet, number of its /64 in lab_ula).
        services: service → segment → host number (the same in IPv4 and IPv6; 1 is the gateway).
        vpn: host or device → its number in the VPN's networks (the same in IPv4 and IPv6).
    """

    segments: Mapping[Place, tuple[str, int]] = field(default_factory=dict)
    services: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    vpn: Mapping[str, int] = field(default_factory=dict)


class BookError(Exception):
    """The address book cannot be read; the message names the entry and the fix."""


def parse(text: str, name: str) -> Book:
    """Read a book from its YAML text. ``frontend@atlas`` is the segment on that host; ``frontend`` alone is of
    whichever host uses the segment (as books were written before segments could be on several hosts).

    Raises:
        BookError: it is not YAML, or an entry is not what `dump` writes.
    """
    fix = "correct the line, or delete it to get a new number"
    try:
        data: Any = yaml.safe_load(text) or {}
        segments = {_place(str(k)): (str(v["subnet"]), int(v["id"])) for k, v in (data.get("segments") or {}).items()}
        services = {
            str(k): {str(segment): int(number) for segment, number in v.items()}
            for k, v in (data.get("services") or {}).items()
        }
        vpn = {str(k): int(v) for k, v in (data.get("vpn") or {}).items()}
    except yaml.YAMLError as error:
        raise BookError(f"{name}: it is not YAML: {' '.join(str(error).split())} ({fix})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BookError(f"{name}: an entry is not readable: {error!r} ({fix})") from error
    return Book(segments, services, vpn)


def _place(key: str) -> Place:
    segment, _, host = key.partition("@")  # a segment's name has no @
    return Place(host, segment)


def dump(book: Book) -> str:
    """Return the book's YAML text, sorted, one line per entry."""
    lines = ["segments:" if book.segments else "segments: {}"]
    entries = {_key(place): entry for place, entry in book.segments.items()}
    lines += [f"  {key}: {{subnet: {subnet}, id: {number}}}" for key, (subnet, number) in sorted(entries.items())]
    lines += ["services:" if book.services else "services: {}"]
    for name, numbers in sorted(book.services.items()):
        inner = ", ".join(f"{_quoted(segment)}: {number}" for segment, number in sorted(numbers.items()))
        lines.append(f"  {_quoted(name)}: {{{inner}}}")
    if book.vpn:
        lines += ["vpn:", *(f"  {_quoted(name)}: {number}" for name, number in sorted(book.vpn.items()))]
    return HEADER + "\n".join(lines) + "\n"


def _key(place: Place) -> str:
    return _quoted(f"{place.segment}@{place.host}" if place.host else place.segment)


def _quoted(key: str) -> str:
    """A JSON string is a YAML one; quoted only where YAML would read something else (a segment called `on`, say)."""
    return key if _PLAIN.fullmatch(key) and key.lower() not in _KEYWORDS else json.dumps(key)
