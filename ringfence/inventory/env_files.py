"""``compose: {env_file: …}`` of a service: read here, on the controller, into its ``environment``.

The files lie below the inventory. What ``environment`` says itself wins, as with compose, and no value is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ringfence.importing.interpolate import Filled, read_env
from ringfence.importing.problems import ComposeError
from ringfence.model import Problem

_FORM = "write env_file: app.env, or [{path: app.env, required: false}]"


def with_env_files(variables: Mapping[str, Any], directory: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Put what files say into the environment of services.

    Args:
        variables: of a host.
        directory: the inventory's.

    Returns:
        The variables without ``env_file``, and what is wrong with the files.
    """
    services = variables.get("lab_services")
    if not isinstance(services, Mapping):
        return dict(variables), []
    problems: list[Problem] = []
    found = {name: _service(f"lab_services.{name}", one, directory, problems) for name, one in services.items()}
    return {**variables, "lab_services": found}, problems


def _service(owner: str, service: Any, directory: Path, problems: list[Problem]) -> Any:
    compose = service.get("compose") if isinstance(service, Mapping) else None
    if not isinstance(compose, Mapping) or "env_file" not in compose:
        return service
    own = service.get("environment")
    if not isinstance(own, Mapping | None):
        return service  # which is told, and wrong anyway
    given: dict[str, str] = {}
    for path in _paths(f"{owner}.compose.env_file", compose["env_file"], directory, problems):
        given |= _read(f"{owner}.compose.env_file", path, directory, {**given}, problems)
    rest = {key: value for key, value in compose.items() if key != "env_file"}
    return {**service, "compose": rest, "environment": {**given, **(own or {})}}


def _paths(owner: str, said: Any, directory: Path, problems: list[Problem]) -> Iterator[Path]:
    for entry in said if isinstance(said, list) else [said]:
        whole = entry if isinstance(entry, Mapping) else {"path": entry}
        text = whole.get("path")
        if not isinstance(text, str) or not text or set(whole) - {"path", "required"}:
            problems.append(Problem(owner, f"it is not as it is to be ({_FORM})"))
            continue
        path = (directory / text).resolve()
        if not path.is_relative_to(directory.resolve()):
            problems.append(Problem(owner, f"'{text}' is not below the inventory (put it there: {directory})"))
        elif path.is_file():
            yield path
        elif whole.get("required", True):
            fix = f"put it into {directory}, or say required: false"
            problems.append(Problem(owner, f"'{text}' is not there ({fix})"))


def _read(owner: str, path: Path, directory: Path, known: Mapping[str, str], problems: list[Problem]) -> dict[str, str]:
    shown = path.relative_to(directory.resolve())
    try:
        found = read_env(path, known)
    except ComposeError as error:
        problems.append(Problem(owner, f"{str(error).replace(str(path), str(shown))} (correct the file)"))
        return {}
    for name, value in found.items():
        if value is None:
            problems.append(Problem(owner, f"{shown}: {name} has no value (write {name}=…, or leave it out)"))
        elif isinstance(value, Filled) and value.unset:
            unset = ", ".join(value.unset)
            problems.append(
                Problem(owner, f"{shown}: {name} refers to {unset}, which nothing sets (set it above, or write $$)")
            )
    return {name: str(value) for name, value in found.items() if value is not None}
