"""The operations of a role: packages, files, its program. Each compares first and changes only what differs."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from pyinfra import logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.exceptions import DeployError, OperationError
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import host as current_host
from pyinfra.context import state as current_state

from ringfence.facts.survey import Difference, age, forget, survey, wanted_of
from ringfence.operations.asking import apply_answering
from ringfence.operations.guarded import LoudCommand, confirm, window
from ringfence.operations.sharing import awaited, shared
from ringfence.remote.request import COMMAND, request
from ringfence.render import RenderError
from ringfence.role import Role, RoleError, Wanted

GROUP = "docker_hosts"
STILL_TRUE = 15.0  # seconds that what a plan has seen holds for the run that follows it
Commands = Generator[StringCommand | FunctionCommand, None, None]


def converge(role: Role) -> None:
    """Add a role's operations for pyinfra's current host.

    Raises:
        DeployError: the host's variables do not fit the role.
    """
    wishes = _wanted(role)
    packages(name="packages", role=role.name, wanted=wishes)
    files(name="files", role=role.name, wanted=wishes)
    program(name="state", role=role.name, wanted=wishes, sharing=role if role.shares_on(_host().data) else None)


def preflight(roles: Sequence[Role]) -> None:
    """Add one operation that stops on any refusal of any role, before the first change.

    Raises:
        DeployError: the host's variables do not fit a role.
    """
    compare(name="preflight", wishes={role.name: _wanted(role) for role in roles})


def is_run_alone(role: Role) -> bool:
    """Whether pyinfra's command line executes the role's ``deploy.py`` now, on a host that roles are for.

    Raises:
        DeployError: the inventory has no group ``docker_hosts``: nothing would be done anywhere, and nothing said.
    """
    # The command line executes the file it was given; by an import it is another file that is executed meanwhile.
    executed = current_state.current_exec_filename
    if executed is None or Path(executed).resolve() != role.deploy_file:
        return False
    return is_for(_host(), f"role {role.name}: ", f", or call {role.name}() in a deploy of your own")


def is_for(host: Host, of: str = "", otherwise: str = "", also: str = "") -> bool:
    """Whether a host is one that roles are for.

    Args:
        host: of the inventory.
        of: what begins a message.
        otherwise: what else to do than to put hosts into the group.
        also: a group for whose hosts there is something to do as well.

    Raises:
        DeployError: the inventory has no group ``docker_hosts``, or none of the chosen hosts is in it: nothing would be
            done, and it would look well; or the host is in it, and the lab does not have it: all that runs there would
            be taken away.
    """
    if GROUP not in host.inventory.groups:
        raise DeployError(
            f"{of}the inventory has no group '{GROUP}' with a host in it, so nothing would be done "
            f"(put the hosts into it{otherwise})"
        )
    chosen = [one for one in host.inventory if current_state.is_host_in_limit(one)]
    if not any({GROUP, also} & set(one.groups) for one in chosen):
        known = {str(one.data.get("inventory_hostname") or one.name) for one in host.inventory.get_group(GROUP)}
        raise DeployError(
            f"{of}none of the hosts that --limit and --exclude leave is in the group '{GROUP}', so nothing would be "
            f"done (it has {', '.join(sorted(known))})"
        )
    if GROUP in host.groups and host.data.get("ringfence_undeclared"):
        raise DeployError(
            f"{of}{host.name} is in the group '{GROUP}', and lab_hosts does not have it: a run would take away all "
            f"that ringfence has made there (declare it in lab_hosts, or take it out of {GROUP}; docs/remove.md takes "
            "all off)"
        )
    return GROUP in host.groups


@operation()
def compare(wishes: Mapping[str, Wanted]) -> Commands:
    """Compare the host with what all roles want, show what is pending and stop on any refusal.

    A refused site leaves the host exactly as it was.
    """
    host = _host()
    # Asked again when executing where the user has thought about the plan: the host may have changed meanwhile.
    differences = survey(host, wishes, fresh=current_state.is_executing and age(host) > STILL_TRUE)
    _show(host, differences)
    yield from _refuse(host, differences)


@operation()
def packages(role: str, wanted: Wanted) -> Commands:
    """Install the role's Debian packages that are missing."""
    difference = _difference(role, wanted)
    yield from _refuse(_host(), {role: difference})
    if not difference.packages:
        _host().noop("all packages are installed")
        return
    _about_to_change(_host(), role, "packages")
    yield LoudCommand(COMMAND, _stdin=request("install", {"names": difference.packages}))


@operation()
def files(role: str, wanted: Wanted) -> Commands:
    """Put the role's files in place that differ."""
    difference = _difference(role, wanted)
    yield from _refuse(_host(), {role: difference})
    different = [vars(file) for file in wanted.files if file.path in difference.files]
    if not different:
        _host().noop("all files are in place")
        return
    _about_to_change(_host(), role, "files")
    yield LoudCommand(COMMAND, _stdin=request("place", {"files": different}))


@operation()
def program(role: str, wanted: Wanted, sharing: Role | None = None) -> Commands:
    """Have the role's program bring about the desired state, inside the guard's window where that is needed.

    Args:
        sharing: the role, where its hosts tell one another something: by now they have it, or make it.
    """
    if sharing and current_state.is_executing and awaited(current_state, sharing, GROUP):
        wanted = _told(sharing, make=True)
        forget(_host())
    difference = _difference(role, wanted)
    yield from _refuse(_host(), {role: difference})
    if not difference.changes:
        _host().noop("nothing to change")
        return
    _about_to_change(_host(), role, "changes")
    opened = window(_host()) if wanted.program.guarded else None
    asked = {"role": role, "program": wanted.program.path, "desired": wanted.program.desired, "window": opened}
    if wanted.program.answers:
        yield FunctionCommand(apply_answering, (asked, wanted.program.answers), {})
    else:
        yield LoudCommand(COMMAND, _stdin=request("apply", asked))
    if opened:
        yield FunctionCommand(confirm, (opened,), {})


def _host() -> Host:
    host: Host = current_host
    return host


# What each role wants on each host: the preflight has worked it out before the role is applied.
_wishes: dict[tuple[str, str], Wanted] = {}


def _wanted(role: Role) -> Wanted:
    key = (_host().name, str(role.directory))
    if key not in _wishes:
        try:
            _wishes[key] = _told(role) if role.shares_on(_host().data) else wanted_of(role, _host())
        except (RoleError, RenderError) as error:
            raise DeployError(str(error)) from None
    return _wishes[key]


def _told(role: Role, *, make: bool = False) -> Wanted:
    """What a role wants on the current host, with what the other hosts share for it."""
    told = {**(_host().data.get(role.shares) or {}), **shared(current_state, role, GROUP, make=make)}
    return wanted_of(role, _host(), {role.shares: told})


def _about_to_change(host: Host, role: str, done: str) -> None:
    # While planning, nothing is changed: what is known stays true, and the plan costs one round trip.
    if current_state.is_executing:
        forget(host, role, done)


# What was said about each host, so that it is said once: by a plan or by the run, by the preflight or by the role.
_said: set[tuple[str, str, str]] = set()


def _show(host: Host, differences: Mapping[str, Difference]) -> None:
    for role, difference in differences.items():
        for say, lines in ((logger.info, difference.pending), (logger.warning, difference.notices)):
            for line in lines:
                if (host.name, role, line) not in _said:
                    _said.add((host.name, role, line))
                    say(f"{host.print_prefix}{role}: {line}")


def _difference(role: str, wanted: Wanted) -> Difference:
    """How the host differs from what one role wants; shown, unless it has been."""
    differences = survey(_host(), {role: wanted})
    _show(_host(), differences)
    return differences[role]


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
