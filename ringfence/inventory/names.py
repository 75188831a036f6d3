"""Variables that look like a role's and are none: nobody would read them, and the default would hold instead."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import yaml

from ringfence.model import Problem
from ringfence.model.problems import did_you_mean, listed
from ringfence.roles import ROLES

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def role_variables(root: Path) -> dict[str, frozenset[str]]:
    """Return the documented variables of every role: those of ``roles/<role>/defaults/main.yml``."""
    found = {}
    for role in ROLES:
        text = (root / "roles" / role / "defaults" / "main.yml").read_text(encoding="utf-8")
        found[role] = frozenset(yaml.load(text, Loader=_Loader) or {})  # noqa: S506 - the safe loader, in C
    return found


def unknown(given: Mapping[str, Collection[str]], known: Mapping[str, Collection[str]]) -> list[Problem]:
    """Name the variables that no role takes.

    Args:
        given: host → names of the variables that the inventory sets for it.
        known: role → names of its variables.
    """
    hosts: dict[str, list[str]] = {}
    for host, names in given.items():
        for name in names:
            hosts.setdefault(name, []).append(host)
    found = []
    for name in sorted(hosts):
        for message in _message(name, known):
            found.append(Problem(name, f"{message} (set for {listed(hosts[name])})"))
    return found


def _message(name: str, known: Mapping[str, Collection[str]]) -> Iterator[str]:
    prefix = name.partition("_")[0]
    if prefix in known:
        if name not in known[prefix]:
            fix = did_you_mean(name, known[prefix], "roles/" + prefix + "/README.md lists them")
            yield f"the role {prefix} has no such variable ({fix}; a variable of your own needs another prefix)"
        return
    near = [variable for role in difflib.get_close_matches(prefix, known, cutoff=0.7) for variable in known[role]]
    meant = difflib.get_close_matches(name, near, n=1, cutoff=0.85)
    if meant:
        yield f"no role has such a variable (did you mean '{meant[0]}'? a variable of your own needs another name)"
