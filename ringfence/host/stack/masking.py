"""Secrets in what others have printed: whole, in lines, escaped, encoded, or cut off."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MASK = "********"
SHORTEST = 4  # characters of a value; what is shorter stands in every other word
LINE = 8  # characters of a line of a value that has several: many of them are common words
PIECE = 16  # characters of any part of a value
EDGE = 3  # characters of a part where a text was cut, so that there is no more of it
_ESCAPED = re.compile("%[0-9A-F]{2}")
_WORD = re.compile(rf"\S{{{SHORTEST},}}")
Span = tuple[int, int]


class Masker:
    """Keeps values out of texts.

    Args:
        values: the secrets; the space around them does not matter, nor how their lines end.
    """

    def __init__(self, values: Iterable[str]) -> None:
        short, long = set[str](), set[str]()
        for spelling in {spelling for value in values for spelling in _spellings(value)}:
            (short if len(spelling) < PIECE else long).add(spelling)
        self._spellings = short | long
        self._whole = re.compile("|".join(re.escape(one) for one in sorted(short, key=len, reverse=True)) or r"(?!)")
        self._pieces = {one[at : at + PIECE] for one in long for at in range(len(one) - PIECE + 1)}

    def masked(self, text: str, cut_before: bool = False, cut_behind: bool = False) -> str:
        """Return a text without the values.

        Args:
            text: what somebody has printed.
            cut_before, cut_behind: whether it may begin or end in the middle of a value.
        """
        spans = [found.span() for found in self._whole.finditer(text)]
        spans += [(at, at + PIECE) for at in range(len(text) - PIECE + 1) if text[at : at + PIECE] in self._pieces]
        if cut_before:
            spans += self._edge(text, begins=True)
        if cut_behind:
            spans += self._edge(text, begins=False)
        spans = _joined(spans)
        spans = _joined([*spans, *self._rests(text, spans)])
        said, at = "", 0
        for begin, end in spans:
            # The space around it stays: what comes next may be another line.
            end = begin + len(text[begin:end].rstrip())
            said, at = f"{said}{text[at:begin]}{MASK}", end
        return said + text[at:]

    def _edge(self, text: str, begins: bool) -> list[Span]:
        """Return the rest of a value with which a text begins, or what of one it ends with."""
        for length in range(min(PIECE, len(text)), EDGE - 1, -1):
            part = text[:length] if begins else text[-length:]
            if any(one.endswith(part) if begins else one.startswith(part) for one in self._spellings):
                return [(0, length) if begins else (len(text) - length, len(text))]
        return []

    def _rests(self, text: str, spans: list[Span]) -> Iterator[Span]:
        """Yield the short ends of lines: words of a value that stand in a line with, or next to, what is masked."""
        for (_, begin), (end, _) in zip([(0, 0), *spans], [*spans, (len(text), 0)], strict=True):
            between = text[begin:end]
            lines = between.split("\n")
            behind, before = len("\n".join(lines[:2])), len(between) - len("\n".join(lines[-2:]))
            for found in _WORD.finditer(between):
                near = (begin and found.start() < behind) or (end < len(text) and found.end() > before)
                if near and any(found[0] in one for one in self._spellings):
                    yield begin + found.start(), begin + found.end()


def _joined(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def _spellings(value: str) -> Iterator[str]:
    """Yield the texts in which a value may be printed, and those of its lines."""
    lines = [line.strip() for line in value.strip().splitlines()]
    whole = {"\n".join(lines), "\r\n".join(lines)}
    for text in whole if len(value.strip()) >= SHORTEST else ():
        yield from _written(text)
    for line in lines if len(lines) > 1 else ():
        if len(line) >= LINE:
            yield from _written(line)


def _written(text: str) -> Iterator[str]:
    escaped = [json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]]
    go = re.sub("[&<>]", lambda found: f"\\u{ord(found[0]):04x}", escaped[1])  # as Go's encoder has it
    twice = [json.dumps(one)[1:-1] for one in escaped]
    urls = [quote(text), quote(text, safe=""), quote_plus(text)]
    yield from (text, repr(text)[1:-1], shlex.quote(text), html.escape(text), text.encode().hex())
    yield from (*escaped, go, escaped[0].replace("/", "\\/"), *twice, *urls)
    yield from (_ESCAPED.sub(lambda found: found[0].lower(), one) for one in urls)
    yield from _base64(text.encode())


def _base64(data: bytes) -> Iterator[str]:
    """Yield what base64 makes of it whatever stands before and behind: it takes three bytes at a time."""
    for before in range(3):
        padded = bytes(before) + data
        text = base64.b64encode(padded).decode()
        # A digit is this data's alone where all of its six bits are.
        sure = text[-(-before * 8 // 6) : len(padded) * 8 // 6]
        if len(sure) >= LINE:
            yield sure
            yield sure.translate(str.maketrans("+/", "-_"))
