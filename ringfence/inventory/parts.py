"""Parts of a lab in files of their own: ``lab_part_photos: {segments: …, services: …}`` joins what is declared.

Ansible lays one file's ``lab_services`` over another's; a part is added to it, and never takes another's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.model import Problem
from ringfence.model.problems import did_you_mean
from ringfence.model.questions import QUESTIONS, asked

PREFIX = "lab_part_"
JOINED = ("segments", "services")


def joined(variables: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Add the parts among a host's variables to ``lab_segments`` and ``lab_services``.

    A segment may be in several parts, as long as they say the same of it.

    Returns:
        The variables without the parts, and what is wrong with these, open questions included.
    """
    parts = {name: value for name, value in variables.items() if name.startswith(PREFIX)}
    if not parts:
        return dict(variables), []
    found = {name: value for name, value in variables.items() if name not in parts}
    problems: list[Problem] = []
    owners: dict[tuple[str, str], str] = {}
    for part, value in sorted(parts.items()):
        if not isinstance(value, Mapping):
            problems.append(Problem(part, f"it is not a mapping (write {part}: {{services: {{…}}}})"))
            continue
        for key in value:
            if key not in (*JOINED, QUESTIONS):
                fix = did_you_mean(key, JOINED, f"a part of a lab has {' and '.join(JOINED)}")
                problems.append(Problem(part, f"'{key}' is not a setting here ({fix})"))
        problems += asked({QUESTIONS: value.get(QUESTIONS)}, part)
        for kind in JOINED:
            entries = value.get(kind)
            if entries is not None and not isinstance(entries, Mapping):
                problems.append(Problem(f"{part}.{kind}", f"it is not a mapping (write {kind}: {{name: {{…}}}})"))
                continue
            known = found.get(f"lab_{kind}")
            if not entries or not isinstance(known, Mapping | None):
                continue
            for name, entry in entries.items():
                there = known is not None and name in known
                if there and (kind == "services" or (known or {})[name] != entry):
                    other = owners.get((kind, name), f"lab_{kind}")
                    problems.append(
                        Problem(f"{part}.{kind}.{name}", f"'{name}' is declared by {other} too (rename one of the two)")
                    )
                    continue
                owners[kind, name] = part
                known = {**(known or {}), name: entry}
            found[f"lab_{kind}"] = known
    return found, problems
