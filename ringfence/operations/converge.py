"""The operations of a role: packages, files, its program. Each compares first and changes only what differs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from pyinfra import logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.exceptions import OperationError
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import host as current_host
from pyinfra.context import state as current_state

from ringfence.facts.remote_survey import LOADER
from ringfence.facts.survey import Difference, forget, survey, wanted_of
from ringfence.operations.guarded import DEFAULT_SECONDS, LoudCommand, apply_command, confirm
from ringfence.role import Role, RoleError, Variables, Wanted

_PLACE = Path(__file__).with_name("remote_place.py").read_text(encoding="utf-8")

Wishes = Callable[[Variables], Wanted]
Commands = Generator[StringCommand | FunctionCommand, None, None]


def converge(role: Role, wanted: Wishes) -> None:
    """Add a role's operations for pyinfra's current host."""
    packages(name="packages", role=role, wanted=wanted)
    files(name="files", role=role, wanted=wanted)
    program(name="state", role=role, wanted=wanted)


@operation()
def preflight(roles: Sequence[tuple[Role, Wishes]]) -> Commands:
    """Compare the host with what all roles want, show what is pending and stop on any refusal.

    Runs before the first change, so that a refused site leaves the host exactly as it was.
    """
    host = _host()
    wishes = {role.name: _wanted(role, host, wanted) for role, wanted in roles}
    # Asked again when executing: between the plan and the user's yes the host may have changed.
    differences = survey(host, wishes, fresh=current_state.is_executing)
    if not current_state.is_executing or not _planned():
        _show(host, differences)
    yield from _refuse(host, differences)


@operation()
def packages(role: Role, wanted: Wishes) -> Commands:
    """Install the role's Debian packages that are missing."""
    host = _host()
    wishes, difference = _difference(role, host, wanted)
    yield from _refuse(host, {role.name: difference})
    missing = [name for name in wishes.packages if name in difference.packages]
    if not missing:
        host.noop("all packages are installed")
        return
    _about_to_change(host)
    yield StringCommand(install_command(missing))


@operation()
def files(role: Role, wanted: Wishes) -> Commands:
    """Put the role's files in place that differ."""
    host = _host()
    wishes, difference = _difference(role, host, wanted)
    yield from _refuse(host, {role.name: difference})
    different = [file for file in wishes.files if file.path in difference.files]
    if not different:
        host.noop("all files are in place")
        return
    _about_to_change(host)
    yield StringCommand("python3", "-c", shlex.quote(LOADER), _stdin=_place_request(different))


@operation()
def program(role: Role, wanted: Wishes) -> Commands:
    """Have the role's program bring about the desired state, inside the guard's window where that is needed."""
    host = _host()
    wishes, difference = _difference(role, host, wanted)
    yield from _refuse(host, {role.name: difference})
    if not difference.changes:
        host.noop("nothing to change")
        return
    _about_to_change(host)
    guarded = wishes.program.guarded
    seconds = int(host.data.get("guard_seconds") or DEFAULT_SECONDS) if guarded else None
    yield LoudCommand(apply_command(role.name, wishes.program.name, seconds), _stdin=json.dumps(wishes.program.desired))
    if guarded:
        yield FunctionCommand(confirm, (), {})


def install_command(names: Sequence[str]) -> str:
    """Build the shell command that installs Debian packages, also after an interrupted installation."""
    get = "apt-get -qq -y -o DPkg::Lock::Timeout=300"
    # A run that was killed inside dpkg leaves it asking for this; otherwise it does nothing.
    repair = "dpkg --configure -a"
    lists = "find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mtime -1 2>/dev/null | grep -q ."
    install = f"{get} install --no-install-recommends {' '.join(shlex.quote(name) for name in names)}"
    return (
        f"export DEBIAN_FRONTEND=noninteractive; {repair} && "
        f"{{ {lists} || {get} update; }} && {{ {install} || {{ {get} update && {install}; }}; }}"
    )


def _place_request(different: Sequence[Any]) -> str:
    return json.dumps({"program": _PLACE, "arguments": [], "desired": [vars(file) for file in different]})


def _planned() -> bool:
    """Whether this run made a plan first, which showed what is pending."""
    return bool(current_state.should_check_for_changes())  # type: ignore[no-untyped-call]


def _host() -> Host:
    host: Host = current_host
    return host


def _wanted(role: Role, host: Host, wanted: Wishes) -> Wanted:
    try:
        return wanted_of(role, host, wanted)
    except RoleError as error:
        raise OperationError(str(error)) from error


def _difference(role: Role, host: Host, wanted: Wishes) -> tuple[Wanted, Difference]:
    wishes = _wanted(role, host, wanted)
    return wishes, survey(host, {role.name: wishes})[role.name]


def _about_to_change(host: Host) -> None:
    # While planning, nothing is changed: what is known stays true, and the plan costs one round trip.
    if current_state.is_executing:
        forget(host)


def _show(host: Host, differences: dict[str, Difference]) -> None:
    for role, difference in differences.items():
        for line in difference.pending:
            logger.info(f"{host.print_prefix}{role}: {line}")
        for line in difference.notices:
            logger.warning(f"{host.print_prefix}{role}: {line}")


def _refuse(host: Host, differences: dict[str, Difference]) -> Commands:
    lines = [f"{role}: {line}" for role, difference in differences.items() for line in difference.refusals]
    if not lines:
        return
    if not current_state.is_executing:
        raise OperationError(f"nothing was changed on {host.name}:\n" + "\n".join(lines))
    yield FunctionCommand(_fail, (lines,), {})


def _fail(state: State, host: Host, lines: list[str]) -> bool:
    """Fail the operation on this host with messages instead of a traceback."""
    del state
    for line in lines:
        logger.error(f"{host.print_prefix}{line}")
    return False
