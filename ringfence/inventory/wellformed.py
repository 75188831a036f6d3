"""What YAML reads otherwise than it was meant, and without a word: found in the text of a file, with its line.

YAML 1.1, which ansible-core reads, takes ``022`` for 18, ``33:33`` for 2013, ``1.10`` for 1.1, ``on`` for true; the
last of two equal keys wins; and what ``ansible-vault encrypt_string`` printed is plain text where its ``!vault`` was
lost.
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
# Below these a lab has texts alone; elsewhere yes and on switch something, as they do in all of Ansible.
_TEXTS = frozenset({
    "annotations", "command", "config", "entrypoint", "environment", "files", "health", "labels", "secrets", "sysctls",
    "validate",
})  # fmt: skip
# Below these stand names, which may be words of the above.
_NAMED = frozenset({"lab_devices", "lab_hosts", "lab_people", "lab_segments", "lab_services", "services"})
_FREE = "settings"  # another program's configuration, with switches of its own


def problems(text: str) -> list[str]:
    """Return what is wrong with a YAML or JSON text, one line each, with its line number.

    A text that cannot be read at all has no problems here: whoever reads it says so.
    """
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError:
        return []
    return [] if root is None else list(dict.fromkeys(_walk(root, (), [])))


def _walk(node: yaml.Node, path: tuple[str, ...], within: list[yaml.Node]) -> Iterator[str]:
    """Problems of a node and of all in it.

    Args:
        node: where it stands.
        path: the keys above it; the nearest one is for the message.
        within: the nodes that it is in.
    """
    line, key = node.start_mark.line + 1, path[-1] if path else ""
    if any(node is one for one in within):
        yield f"line {line}: '{key}' contains itself, by an alias (write out what is meant)"
    elif isinstance(node, yaml.MappingNode):
        names: dict[str, int] = {}
        for name, value in node.value:
            said = str(name.value) if isinstance(name, yaml.ScalarNode) else ""
            at = name.start_mark.line + 1
            if said in names and said != "<<":
                yield f"line {at}: the key '{said}' is there twice, first in line {names[said]} (keep one of them)"
            elif name.tag == f"{_TAG}bool" and _is_ringfences(path):
                yield f"line {at}: YAML reads the key '{said}' as {_as_read(name)} (put it in quotes)"
            names.setdefault(said, at)
            yield from _walk(value, (*path, said), [*within, node])
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _walk(item, path, [*within, node])
    elif isinstance(node, yaml.ScalarNode):
        yield from (f"line {line}: {key}: {what}" for what in _of_scalar(node))
        if node.tag == f"{_TAG}bool" and _is_text(path) and node.value.lower() not in ("true", "false"):
            yield f"line {line}: {key}: YAML reads it as {_as_read(node)}, and that would arrive (put it in quotes)"


def _is_ringfences(path: tuple[str, ...]) -> bool:
    return any(key.startswith(("lab_", "stack_")) for key in path)


def _is_text(path: tuple[str, ...]) -> bool:
    said = [key for above, key in zip(("", *path), path, strict=False) if above not in _NAMED]
    return _is_ringfences(path) and not _TEXTS.isdisjoint(said) and _FREE not in said


def _as_read(node: yaml.Node) -> str:
    return "true" if str(node.value).lower() in ("yes", "on", "true") else "false"


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
