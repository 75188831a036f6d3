"""An inventory plus its compiled lab: the variables that both engines get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ringfence.compile import Compiled, compile_lab
from ringfence.compile.called import VARIABLE as CALLED
from ringfence.inventory.env_files import with_env_files
from ringfence.inventory.front import ROOT, InventoryError
from ringfence.inventory.labs import hosts_file, load_book, save_book
from ringfence.inventory.names import role_variables, unknown
from ringfence.inventory.parts import joined
from ringfence.inventory.source import Source, SourceError, read
from ringfence.model import LabError, Problem

# Set for a host that lab_hosts does not have: roles that are applied to it would take everything away there.
UNDECLARED = "ringfence_undeclared"
# Here the user's own entries are added to what follows from the lab; every other variable of theirs replaces it.
_JOINED = ("ufw_rules", "guard_ports", "policy_private")


def assemble(directory: Path, root: Path = ROOT) -> tuple[dict[str, Any], list[str]]:
    """Read an inventory directory, compile its lab, keep its address book.

    Returns:
        The object that `ringfence.inventory` prints, and notices for the user.

    Raises:
        InventoryError, LabError: with everything that is wrong.
    """
    try:
        source = read(directory, hosts_file(directory), root)
    except SourceError as error:
        raise InventoryError(str(error)) from error
    problems = unknown(_names(source), role_variables(ROOT))
    if problems:
        raise LabError(problems)
    source, parts = _whole(source, directory)
    hosts = {name: dict(values) for name, values in source.hosts.items()}
    notices: list[str] = []
    try:
        compiled = _compile(source, directory)
    except LabError as error:
        raise LabError([*parts, *error.problems]) from None
    if parts:
        raise LabError(parts)
    if compiled is not None:
        notice = save_book(directory, compiled.book)
        notices += [notice] if notice else []
        for name, variables in compiled.hosts.items():
            merged = merge(variables, hosts[name])
            # The user's own value wins also where it cannot be worked out yet.
            hosts[name] = {key: merged[key] for key in merged if key not in source.errors.get(name, {})}
        for name in hosts.keys() - compiled.plan.lab.hosts.keys():
            hosts[name][UNDECLARED] = True
    return {
        "groups": {name: dict(group) for name, group in source.groups.items()},
        "hosts": hosts,
        "lazy": {name: dict(values) for name, values in source.lazy.items()},
        "errors": {name: dict(values) for name, values in source.errors.items()},
        "pure": source.pure,
    }, notices


def _whole(source: Source, directory: Path) -> tuple[Source, list[Problem]]:
    """Return the inventory with the parts of its lab in one and what services read from files, and what is wrong."""
    hosts: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for name, values in source.hosts.items():
        whole, of_parts = joined(values)
        hosts[name], of_files = with_env_files(whole, directory)
        problems += [*of_parts, *of_files]
    return replace(source, hosts=hosts), list(dict.fromkeys(problems))


def _names(source: Source) -> dict[str, list[str]]:
    """Names of the variables that the inventory sets, of every host; also of those that need facts."""
    return {host: [*values, *source.lazy.get(host, {})] for host, values in source.hosts.items()}


def merge(compiled: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the user's own variables over the compiled ones."""
    merged = {**compiled, **own}
    for name in _JOINED:
        if name in compiled and isinstance(own.get(name), list):
            merged[name] = [*compiled[name], *(item for item in own[name] if item not in compiled[name])]
    if CALLED in compiled:  # what the user sets has the name that it is set by
        said = {
            name: lab for name, lab in compiled[CALLED].items() if name.partition(".")[0] not in set(own) - set(_JOINED)
        }
        added = [(name, item) for name in _JOINED if isinstance(own.get(name), list) for item in own[name]]
        entries = [f"{name}.{item['name']}" for name, item in added if isinstance(item, dict) and "name" in item]
        merged[CALLED] = {**said, **{entry: entry for entry in entries}, **own.get(CALLED, {})}
    return merged


def _compile(source: Source, directory: Path) -> Compiled | None:
    """Compile the lab, if the inventory declares one."""
    lab = _declared(source)
    if lab is None:
        return None
    pools = [
        pool
        for name in lab.get("lab_hosts") or {}
        for pool in source.hosts.get(str(name), {}).get("docker_address_pools") or []
    ]
    backends = {
        name: str(values["docker_firewall_backend"])
        for name, values in source.hosts.items()
        if values.get("docker_firewall_backend")
    }
    return compile_lab(lab, load_book(directory), set(source.hosts), pools or None, backends)


def _declared(source: Source) -> dict[str, Any] | None:
    """Return the ``lab_*`` variables: one lab, so the same for every host that sees one."""
    labs = {
        host: {name: value for name, value in values.items() if name.startswith("lab_")}
        for host, values in source.hosts.items()
    }
    problems = [
        Problem(name, f"it cannot be worked out: {message} (a lab may use any variable, but no facts of a host)")
        for errors in source.errors.values()
        for name, message in errors.items()
        if name.startswith("lab_")
    ]
    if problems:
        raise LabError(problems)
    # Those that the lab provisions decide; hosts of other groups may see no lab at all.
    members = {host: lab for host, lab in labs.items() if host in (lab.get("lab_hosts") or {})} or {
        host: lab for host, lab in labs.items() if lab
    }
    if not members:
        return None
    first = min(members)
    lab = members[first]
    for host, other in sorted(members.items(), key=lambda item: item[0]):
        for name in sorted(set(lab) | set(other)):
            if lab.get(name) != other.get(name):
                problems.append(
                    Problem(name, f"'{host}' sees another value than '{first}' (declare it once, in group_vars/all)")
                )
    if problems:
        raise LabError(problems)
    return lab
