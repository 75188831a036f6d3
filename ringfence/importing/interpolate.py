"""Variables in a compose file, as the Compose Specification has them, and the ``.env`` files that give them.

A text that was filled in remembers what it looked like and which variables nobody had set: what compose would take as
empty, without more than a warning, becomes a question here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.importing.problems import ComposeError
from ringfence.importing.syntax import Tagged

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_START = re.compile(rf"\$(?:(?P<dollar>\$)|(?P<plain>{_NAME})|\{{(?P<braced>{_NAME})(?P<operator>:?[-?+])?)")
_LINE = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)\s*(?:[=:]\s*(?P<value>.*))?", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$$"}


class Filled(str):
    """A text with its variables filled in.

    Attributes:
        raw: as it was written.
        unset: variables without a value and without a default.
        used: every variable that was asked for.
    """

    __slots__ = ("raw", "unset", "used")
    raw: str
    unset: tuple[str, ...]
    used: tuple[str, ...]


def filled(text: str, raw: str, unset: tuple[str, ...] = (), used: tuple[str, ...] = ()) -> Filled:
    """Return a text that remembers where it is from."""
    one = Filled(text)
    one.raw, one.unset, one.used = raw, unset, used
    return one


def fill(text: str, variables: Mapping[str, str], where: str = "") -> str:
    """Fill in ``$NAME``, ``${NAME}``, ``${NAME:-default}`` and their kin; ``$$`` is one dollar.

    A ``$`` that begins nothing of it is a dollar, as compose takes it.

    Raises:
        ComposeError: a ``${`` that is no variable, or is not closed.
    """
    if "$" not in text:
        return text
    unset: list[str] = []
    used: list[str] = []
    value, _ = _fill(text, 0, variables, unset, used, where, nested=False)
    return filled(value, text, tuple(dict.fromkeys(unset)), tuple(dict.fromkeys(used)))


def _fill(
    text: str, at: int, variables: Mapping[str, str], unset: list[str], used: list[str], where: str, *, nested: bool
) -> tuple[str, int]:
    """Fill in a text from a place on: to its end, or to the brace that closes it."""
    out = ""
    while at < len(text):
        if nested and text[at] == "}":
            return out, at + 1
        if text[at] != "$":
            out, at = out + text[at], at + 1
            continue
        found = _START.match(text, at)
        if found is None:
            if text[at + 1 : at + 2] == "{":
                raise ComposeError(f"{where}: a '${{' in it begins no variable (write $${{ for the text)")
            out, at = out + "$", at + 1
            continue
        at = found.end()
        if found["dollar"]:
            out += "$"
        elif found["plain"]:
            out += _value(found["plain"], variables, unset, used)
        elif found["operator"]:
            rest_unset: list[str] = []
            rest, at = _fill(text, at, variables, rest_unset, used, where, nested=True)
            out += _operated(found["braced"], found["operator"], rest, rest_unset, variables, unset, used)
        elif text[at : at + 1] == "}":
            out, at = out + _value(found["braced"], variables, unset, used), at + 1
        else:
            raise ComposeError(f"{where}: '${{{found['braced']}…' is not closed (write ${{NAME}}, or $$ for a dollar)")
    if nested:
        raise ComposeError(f"{where}: a variable is not closed (write ${{NAME:-default}}, or $$ for a dollar)")
    return out, at


def _value(name: str, variables: Mapping[str, str], unset: list[str], used: list[str]) -> str:
    used.append(name)
    value = variables.get(name)
    if value is None:
        unset.append(name)
    elif isinstance(value, Filled):  # a line of .env that was made of others
        unset += value.unset
        used += value.used
    return value or ""


def _operated(
    name: str,
    operator: str,
    rest: str,
    rest_unset: list[str],
    variables: Mapping[str, str],
    unset: list[str],
    used: list[str],
) -> str:
    used.append(name)
    given = variables.get(name)
    there = bool(given) if operator[0] == ":" else given is not None
    if operator[-1] == "+":
        if there:
            unset += rest_unset
        return rest if there else ""
    if there:
        if isinstance(given, Filled):
            unset += given.unset
            used += given.used
        return given or ""
    if operator[-1] == "?":
        unset.append(name)
        return ""
    unset += rest_unset
    return rest


def unset_in(value: Any) -> tuple[str, ...]:
    """Return the variables of a tree that nobody has set, in order."""
    if isinstance(value, Filled):
        return value.unset
    parts = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return tuple(dict.fromkeys(name for part in parts for name in unset_in(part)))


def raw_of(value: Any) -> str:
    """Return a text as it was written."""
    return value.raw if isinstance(value, Filled) else str(value)


def fill_all(value: Any, variables: Mapping[str, str], where: str) -> Any:
    """Fill in every text of a tree; keys stay as they are."""
    if isinstance(value, str):
        return fill(value, variables, where)
    if isinstance(value, dict):
        return {key: fill_all(item, variables, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [fill_all(item, variables, where) for item in value]
    if isinstance(value, Tagged):
        return Tagged(value.tag, fill_all(value.value, variables, where))
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ComposeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from None


def read_env(path: Path, known: Mapping[str, str]) -> dict[str, str | None]:
    """Read a ``.env`` file; a name without ``=`` is None.

    Raises:
        ComposeError: it cannot be read, or a line is none of its kind. The message does not show the line.
    """
    found: dict[str, str | None] = {}
    lines = _text(path).split("\n")
    number = 0
    while number < len(lines):
        line = lines[number].rstrip("\r")
        number += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ComposeError(f"{path}, line {number}: this is not NAME=value")
        value = match["value"]
        begun = number
        if value is not None and value[:1] in "\"'" and value[:1]:
            while not _closed(value):
                if number >= len(lines):
                    raise ComposeError(f"{path}, line {begun}: the quote is not closed")
                value += "\n" + lines[number].rstrip("\r")
                number += 1
        before = {**{name: one for name, one in found.items() if one is not None}, **known}
        if value is not None and value[:1] in ("'", '"'):
            after = value[(_closing(value) or 0) + 1 :]
            if after.strip() and not re.match(r"\s+#", after):
                raise ComposeError(
                    f"{path}, line {begun}: something follows the closing quote (write a quote in the value in the"
                    ' other kind of quotes, or as \\" in double ones)'
                )
        found[match["name"]] = None if value is None else _env_value(value, before, f"{path}, line {begun}")
    return found


def read_raw(path: Path) -> dict[str, str | None]:
    """Read an ``env_file`` of ``format: raw``: every value as it stands, its quotes and dollars included.

    Raises:
        ComposeError: it cannot be read.
    """
    found: dict[str, str | None] = {}
    for line in _text(path).split("\n"):
        name, sign, value = line.rstrip("\r").lstrip().partition("=")
        if name and not name.startswith("#"):
            found[name] = value if sign else None
    return found


def _closed(value: str) -> bool:
    return _closing(value) is not None


def _closing(value: str) -> int | None:
    """Where the quote closes that a value begins with."""
    quote, at = value[0], 1
    while at < len(value):
        if value[at] == "\\" and (quote == '"' or value[at + 1 : at + 2] == "'"):
            at += 1
        elif value[at] == quote:
            return at
        at += 1
    return None


def _env_value(value: str, before: Mapping[str, str], where: str) -> str:
    if value[:1] == "'":
        return value[1 : _closing(value)].replace("\\'", "'")
    if value[:1] == '"':
        inner = value[1 : _closing(value)]
        inner = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), inner, flags=re.DOTALL)
        return _lenient(inner, before, where)
    return _lenient(re.sub(r"\s+#.*$", "", value).strip(), before, where)


def _lenient(text: str, before: Mapping[str, str], where: str) -> str:
    """A dollar that begins no variable is a dollar in these files: passwords have them."""
    text = re.sub(rf"\$\$|\$(?!{_NAME}|\{{{_NAME})", "$$", text)
    return fill(text, before, where)
