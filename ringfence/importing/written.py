"""The files of an import: the part of the lab, with what was left out as comments, and the plain text of its vault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from ringfence.importing.confidential import Reference
from ringfence.importing.said import Prose
from ringfence.importing.translate import Imported
from ringfence.inventory.parts import PREFIX

WIDTH = 118
_STR = "tag:yaml.org,2002:str"
# What other readers of YAML may take for something else than a text.
_AMBIGUOUS = re.compile(r"[-+]?[0-9][0-9_:.eE+-]*|(?i:y|n|yes|no|on|off)")
_BREAKS = re.compile("[\x85\u2028\u2029]")  # that YAML takes for ends of lines
_TEMPLATE = re.compile(r"\{[{%#]")


class _Dumper(yaml.SafeDumper):
    """Lists inside of mappings are indented, short ones stand in one line, and nothing is taken for a template."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    plain = str(value)
    if isinstance(value, Reference):
        return dumper.represent_scalar(_STR, plain, style='"')
    tag = "!unsafe" if _TEMPLATE.search(plain) else _STR
    if isinstance(value, Prose):
        return dumper.represent_scalar(tag, plain, style=">")
    if _BREAKS.search(plain):
        return dumper.represent_scalar(tag, plain, style='"')
    if "\n" in plain:
        return dumper.represent_scalar(tag, plain, style="|")
    return dumper.represent_scalar(tag, plain, style='"' if tag != _STR or _AMBIGUOUS.fullmatch(plain) else None)


def _sequence(dumper: _Dumper, value: Any) -> yaml.SequenceNode:
    short = all(isinstance(one, str | int) for one in value) and sum(len(str(one)) + 2 for one in value) < 70
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=short)


_Dumper.add_representer(str, _text)
_Dumper.add_multi_representer(str, _text)
_Dumper.add_representer(list, _sequence)
_Dumper.add_multi_representer(
    dict, lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value.items())
)


def dump(value: Any) -> str:
    """Return a value as YAML."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
    return text


def variable(stack: str) -> str:
    """Return the name of the variable that a part is in."""
    return PREFIX + stack.replace("-", "_")


def part(imported: Imported, sources: str) -> str:
    """Return the text of a part's file.

    Args:
        imported: what was translated.
        sources: names of the files that it was made of, for its head.
    """
    lines = [
        "---",
        f"# Imported from {sources}.",
        "# A run refuses until each question is answered where it stands; docs/import.md says how.",
        *_comments(imported.remarks.get(""), ""),
        f"{variable(imported.stack)}:",
    ]
    if "questions" in imported.part:
        lines += _block({"questions": imported.part["questions"]}, 2)
    lines += _block({"segments": imported.part["segments"]}, 2)
    lines.append("  services:")
    for name, entry in imported.part["services"].items():
        lines += _comments(imported.remarks.get(name), "    ")
        lines += _block({name: entry}, 4)
    return "\n".join(lines) + "\n"


def _comments(remarks: list[str] | None, indent: str) -> list[str]:
    return [f"{indent}# {' '.join(remark.split())}" for remark in remarks or []]


def _block(value: Mapping[str, Any], indent: int) -> list[str]:
    return [(" " * indent + line).rstrip(" ") for line in dump(value).removesuffix("\n").split("\n")]


def vault(values: Mapping[str, str]) -> str:
    """Return the plain text of a vault file; its values are no templates."""
    lines = ["---"]
    for name, value in sorted(values.items()):
        quoted = yaml.dump(str(value), Dumper=yaml.SafeDumper, default_style='"', width=2**20, allow_unicode=False)
        lines.append(f"{name}: !unsafe {quoted.strip()}")
    return "\n".join(lines) + "\n"
