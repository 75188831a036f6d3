"""What ``inventory.py`` does for both engines. Standard library only, so that it can say what is missing."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from ringfence.inventory import chosen, openssh, unattended
from ringfence.inventory.connection import connection, with_file
from ringfence.inventory.kept import kept
from ringfence.roles import ROLES

ROOT = Path(__file__).resolve().parents[2]
SETTING = "RINGFENCE_LAB"
DEFAULT_LAB = "demo"

_NEEDED = ("ansible", "pydantic", "yaml")


class InventoryError(Exception):
    """The inventory or the lab cannot be used; the message says why and what to do."""


def lab_directory(root: Path = ROOT) -> Path:
    """Return the inventory directory that RINGFENCE_LAB chooses: a name in ``inventories/``, or a path.

    Raises:
        InventoryError: there is no such directory.
    """
    setting = os.environ.get(SETTING, "")
    if not setting:
        # Nobody's own lab is meant by saying nothing, and the demo's hosts are only there while it is up.
        if not (root / ".lab" / DEFAULT_LAB).is_dir():
            raise InventoryError(
                f"{SETTING} is not set, and the demo is not up (write export {SETTING}=NAME, your lab's directory in "
                f"inventories/; `python -m ringfence new` makes one, ./run {DEFAULT_LAB} the demo)"
            )
        setting = DEFAULT_LAB
    named = root / "inventories" / setting
    path = Path(setting).expanduser()
    directory = path if "/" in setting or not named.is_dir() else named
    if directory.is_dir():
        return directory.resolve()
    names = sorted(p.name for p in (root / "inventories").glob("*") if p.is_dir())
    raise InventoryError(
        f"{SETTING}: '{setting}' is neither a directory nor one of inventories/: {', '.join(names) or 'none'} "
        f"(write {SETTING}={names[0] if names else 'NAME'})"
    )


def called(directory: Path, root: Path = ROOT) -> str:
    """Return what a lab is called to the user, as RINGFENCE_LAB says it: a name in ``inventories/``, else its path."""
    return directory.name if directory.parent == (root / "inventories").resolve() else str(directory)


def load(directory: Path, root: Path = ROOT) -> dict[str, Any]:
    """Read an inventory and compile its lab, in a process of its own; an unchanged one is not read again.

    Returns:
        ``groups``, ``hosts``, ``lazy`` and ``errors`` as `ringfence.inventory.__main__` prints them; ``notices``: what
        the user is told besides, a line each.

    Raises:
        InventoryError: it failed; its message is the process's own.
    """
    keeping = kept(directory, root)
    found = keeping.load() if keeping else None
    if found is not None:
        return {**found, "notices": []}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    # ansible-core refuses to start in a locale that is not UTF-8.
    environment["LC_ALL"] = "C.UTF-8"
    configuration = root / "ansible.cfg"
    if "ANSIBLE_CONFIG" not in environment and not Path("ansible.cfg").exists() and configuration.exists():
        environment["ANSIBLE_CONFIG"] = str(configuration)
    result = subprocess.run(
        [sys.executable, "-m", "ringfence.inventory", str(directory)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise InventoryError(result.stderr.strip() or f"{directory}: reading it failed without a message")
    data: dict[str, Any] = json.loads(result.stdout)
    notices = result.stderr.splitlines()
    # A warning has to be seen each time.
    if keeping and data["pure"] and not notices:
        keeping.save(data)
    return {**data, "notices": notices}


def pyinfra_groups(data: Mapping[str, Any]) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return pyinfra's groups: name → [(host, data)], with Ansible's connection variables in pyinfra's words."""
    hosts = {name: _pyinfra_host(name, data) for name in data["hosts"]}
    groups = {"all": list(hosts.values())}
    for name in data["groups"]:
        members = _members(data["groups"], name)
        if members and name not in ("all", "ungrouped"):
            groups[name] = [hosts[member] for member in members]
    return groups


def _members(groups: Mapping[str, Any], name: str) -> list[str]:
    found = list(groups[name]["hosts"])
    for child in groups[name]["children"]:
        found += [host for host in _members(groups, child) if host not in found]
    return found


def _pyinfra_host(name: str, data: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    values = dict(data["hosts"][name])
    values["inventory_hostname"] = name
    # Roles must not fall back to a default where the user's own value could not be worked out.
    values["ringfence_unresolved"] = dict(data["errors"].get(name, {}))
    found = connection(name, values)
    if found.problems:
        raise InventoryError("\n".join(found.problems))
    try:
        way = with_file(name, found)
    except OSError as error:
        raise InventoryError(
            f"{name}: how pyinfra comes to it cannot be written to {error.filename}: {error.strerror}"
        ) from error
    local = str(values.get("ansible_connection") or "").rpartition(".")[2] == "local"
    return "@local" if local else name, {**values, **way}


def ansible_list(data: Mapping[str, Any], lab: str) -> dict[str, Any]:
    """Return what a dynamic inventory answers to ``--list``: the same final values that pyinfra gets.

    Args:
        data: as `load` returns it.
        lab: what it is called to the user.
    """
    hostvars = {name: ansible_host(data, name) for name in data["hosts"]}
    groups: dict[str, dict[str, Any]] = {name: dict(group) for name, group in data["groups"].items()}
    # Not a host's own variables: what the playbooks say and do. The notices are shown by the first role, for what an
    # inventory prints is an error to Ansible.
    told = {"ringfence_roles": list(ROLES), "ringfence_lab": lab, "ringfence_notices": list(data["notices"])}
    groups.setdefault("all", {})["vars"] = {name: _unsafe(value) for name, value in told.items()}
    return {"_meta": {"hostvars": hostvars}, **groups}


def ansible_host(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return one host's variables for Ansible; those that need facts as they were written."""
    final = {key: _unsafe(value) for key, value in data["hosts"].get(name, {}).items()}
    return {**data["lazy"].get(name, {}), **final}


def _unsafe(value: Any) -> Any:
    """Mark text that only looks like a template: it is final, Ansible must not evaluate it again."""
    if isinstance(value, Mapping):
        return {key: _unsafe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unsafe(item) for item in value]
    if isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#")):
        return {"__ansible_unsafe": value}
    return value


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Answer Ansible: ``--list`` or ``--host NAME``. Returns the exit status."""
    _with_dependencies(root)
    if arguments not in ([], ["--list"]) and not (len(arguments) == 2 and arguments[0] == "--host"):
        return _fail(["inventory.py: write inventory.py --list, or inventory.py --host NAME"])
    try:
        directory = lab_directory(root)
        data = load(directory, root)
    except InventoryError as error:
        return _fail([str(error)])
    lab = called(directory, root)
    answer = ansible_host(data, arguments[1]) if arguments[:1] == ["--host"] else ansible_list(data, lab)
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")
    return 0


def for_pyinfra(root: Path = ROOT) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return the chosen lab's groups; on an error print it and end the program, without a traceback."""
    unattended.install()
    chosen.install()
    openssh.install()
    _seldom_collected()
    try:
        directory = lab_directory(root)
        data = load(directory, root)
        groups = pyinfra_groups(data)
    except InventoryError as error:
        sys.exit(_fail([str(error)]))
    for line in (f"lab {called(directory, root)}", *data["notices"]):
        sys.stderr.write(f"    {line}\n")
    return groups


def _seldom_collected() -> None:
    """Have Python look for garbage less often: a run lasts for seconds, and that was a third of pyinfra's own work.

    What pyinfra has loaded by now stays until the end, and is not looked at again.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def _fail(lines: Iterable[str]) -> int:
    sys.stderr.write("\n".join(lines) + "\n")
    return 1


def _with_dependencies(root: Path) -> None:
    """Ansible runs inventory.py with the PATH's python3, which may lack ringfence's packages: take .venv's then."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if not missing:
        return
    python = root / ".venv" / "bin" / "python"
    if python.exists() and not os.environ.get("RINGFENCE_REEXEC"):
        _reexec(python)
    sys.exit(
        _fail(
            [
                f"inventory.py: {sys.executable} lacks {', '.join(missing)} "
                f"(activate the environment that has ringfence's dependencies; ./run makes one in {root / '.venv'})"
            ]
        )
    )


def _reexec(python: Path) -> NoReturn:
    os.environ["RINGFENCE_REEXEC"] = "1"
    os.execv(str(python), [str(python), *sys.argv])  # noqa: S606 - the same program, with the other interpreter
