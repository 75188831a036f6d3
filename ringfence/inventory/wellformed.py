"""What YAML reads otherwise than it was meant, and without a word: found in the text of a file, with its line.

YAML 1.1, which ansible-core reads, takes ``022`` for 18, ``33:33`` for 2013, ``1.10`` for 1.1; the last of two equal
keys wins; and what ``ansible-vault encrypt_string`` printed is plain text where its ``!vault`` was lost.
No message shows a value, which may be secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

# The resolver is YAML 1.1's in both; libyaml is what ansible-core prefers as well.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_QUOTE = "put it in quotes if it is a text"
_VAULTED = "$ANSIBLE_VAULT;"


def problems(text: str) -> list[str]:
    """Return what is wrong with a YAML or JSON text, one line each, with its line number.

    A text that cannot be read at all has no problems here: whoever reads it says so.
    """
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError:
        return []
    return [] if root is None else list(dict.fromkeys(_walk(root, "", [])))


def _walk(node: yaml.Node, key: str, within: list[yaml.Node]) -> Iterator[str]:
    """Problems of a node and of all in it.

    Args:
        node: where it stands.
        key: the nearest key above it, for the message.
        within: the nodes that it is in.
    """
    line = node.start_mark.line + 1
    if any(node is one for one in within):
        yield f"line {line}: '{key}' contains itself, by an alias (write out what is meant)"
    elif isinstance(node, yaml.MappingNode):
        names: dict[str, int] = {}
        for name, value in node.value:
            said = str(name.value) if isinstance(name, yaml.ScalarNode) else ""
            at = name.start_mark.line + 1
            if said in names and said != "<<":
                yield f"line {at}: the key '{said}' is there twice, first in line {names[said]} (keep one of them)"
            names.setdefault(said, at)
            yield from _walk(value, said, [*within, node])
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _walk(item, key, [*within, node])
    elif isinstance(node, yaml.ScalarNode):
        yield from (f"line {line}: {key}: {what}" for what in _of_scalar(node))


def _of_scalar(node: yaml.ScalarNode) -> Iterator[str]:
    text = node.value
    if node.tag == f"{_TAG}str":
        if text.lstrip().startswith(_VAULTED):
            yield "it is encrypted, and would be taken as it stands (write !vault | in front of it)"
    elif node.style:  # in quotes, or a block: a tag of its own says what it is
        return
    elif node.tag == f"{_TAG}int":
        if ":" in text:
            yield f"YAML reads it as a number to the base of 60 ({_QUOTE})"
        elif re.fullmatch(r"[-+]?0[0-9_]+", text):
            yield f"YAML reads a number that begins with 0 as octal ({_QUOTE}, or write the number in decimals)"
        elif not re.fullmatch(r"-?(0|[1-9][0-9]*)", text):
            yield f"YAML reads it as another number than is written there ({_QUOTE}, or write the number in decimals)"
    elif node.tag == f"{_TAG}float":
        if not re.fullmatch(r"-?[0-9]+\.[0-9]+", text) or text != str(float(text)):
            yield f"YAML reads it as a number, and what was written is lost ({_QUOTE}, or write it as 0.5 or 1.25)"
    elif node.tag == f"{_TAG}timestamp" and not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        yield f"YAML reads it as a moment in time ({_QUOTE})"
