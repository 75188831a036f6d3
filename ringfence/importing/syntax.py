"""YAML as compose reads it: its scalars, merge keys, and the tags ``!reset`` and ``!override``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml

from ringfence.importing.problems import ComposeError


@dataclass(frozen=True)
class Tagged:
    """A value that an overriding file marks: ``!reset`` takes away what stood there, ``!override`` stands instead."""

    tag: str
    value: Any


class _Loader(yaml.SafeLoader):
    """PyYAML speaks YAML 1.1, where ``22:22`` is a number and ``no`` is not text; compose reads as go-yaml does."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:[0-9][0-9_]*|0o[0-7_]+|0b[01_]+|0x[0-9a-fA-F_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+",
        "-+.0123456789",
    ),
    ("timestamp", r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ][0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z?)?", "0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    digits = text.lstrip("+-")
    old_octal = len(digits) > 1 and digits[0] == "0" and digits.isdecimal() and not set(digits) & {"8", "9"}
    return int(text, 8) if old_octal else int(text, 0 if digits[:1] == "0" and digits[1:2].isalpha() else 10)


def _timestamp(loader: _Loader, node: yaml.ScalarNode) -> str:
    """Return a time as compose hands it to a program: in the words of the language that it is written in."""
    plain = str(loader.construct_scalar(node)).removesuffix("Z").replace("T", " ").replace("t", " ")
    day, _, clock = plain.partition(" ")
    found = datetime.combine(date(*map(int, day.split("-"))), datetime.min.time(), UTC)
    return f"{found:%Y-%m-%d} {clock.zfill(8) if clock else '00:00:00'} +0000 UTC"


def _tagged(loader: _Loader, suffix: str, node: yaml.Node) -> Tagged:
    if suffix not in ("reset", "override"):
        raise yaml.constructor.ConstructorError(None, None, f"the tag !{suffix} is not compose's", node.start_mark)
    value: Any
    if isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_scalar(node)  # type: ignore[arg-type]
    return Tagged(suffix, value)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _timestamp)
_Loader.add_multi_constructor("!", _tagged)


def parse(text: str, path: Path) -> dict[str, Any]:
    """Return the content of one file.

    Raises:
        ComposeError: it is no YAML, or no mapping; the message does not show its values.
    """
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ComposeError(f"{path}{where}: this is not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ComposeError(f"{path}: this is not YAML ({type(error).__name__})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ComposeError(f"{path}: this is no compose file (it has to be a mapping with services:)")
    return {str(key): value for key, value in content.items()}
