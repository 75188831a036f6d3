"""Taking roles off a host: listed first, done when the user has said so, inside the guard's window."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from pyinfra import logger
from pyinfra.api.command import FunctionCommand, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import host as current_host
from pyinfra.context import state as current_state

from ringfence.facts.answer import NoAnswerError, ask
from ringfence.operations.guarded import LoudCommand, confirm, window
from ringfence.remote.request import COMMAND, request
from ringfence.role import Role

CONFIRMATION = "ringfence_remove"
HOW_TO_GO_ON = (
    f"nothing was changed: this is what would go. To take it off, run again with --data {CONFIRMATION}=yes "
    "(docs/remove.md says what stays)"
)


def is_confirmed(said: object) -> bool:
    """Whether the user has said that ringfence is to go."""
    return str(said).strip().lower() in ("yes", "true")


def lines(found: dict[str, dict[str, list[str]]]) -> list[str]:
    """Return everything that goes, a line each, in order."""
    return [
        f"{role}: {line}"
        for role, each in found.items()
        for line in [*each["changes"], *(f"- file {path}" for path in each["files"])]
    ]


@operation()
def remove(roles: Sequence[Role]) -> Generator[StringCommand | FunctionCommand, None, None]:
    """List what would go; if the host's data say so, take it off and confirm over a new connection.

    Args:
        roles: in the order in which they leave.
    """
    host: Host = current_host
    leaving = [role.leaving() for role in roles]
    try:
        found = ask(host, "removal", {"roles": leaving})
    except NoAnswerError as error:
        yield FunctionCommand(_fail, ([str(error)],), {})
        return
    for role, each in found.items():
        for line in each["notices"]:
            logger.warning(f"{host.print_prefix}{role}: {line}")
    refusals = [f"{role}: {line}" for role, each in found.items() for line in each["refusals"]]
    for line in lines(found):
        logger.info(f"{host.print_prefix}{line}")
    if refusals:
        yield FunctionCommand(_fail, (refusals,), {})
        return
    if not lines(found):
        host.noop("nothing of ringfence is on this host")
        return
    if not is_confirmed(host.data.get(CONFIRMATION)):
        if not current_state.is_executing:
            logger.warning(f"{host.print_prefix}{HOW_TO_GO_ON}")
        yield FunctionCommand(_fail, ([HOW_TO_GO_ON],), {})
        return
    guarded = any(each["guarded"] and found[each["role"]]["changes"] for each in leaving)
    opened = window(host) if guarded else None
    yield LoudCommand(COMMAND, _stdin=request("remove", {"roles": leaving, "window": opened}))
    if opened:
        yield FunctionCommand(confirm, (opened,), {})
    yield LoudCommand(COMMAND, _stdin=request("clear", {"roles": leaving}))


def _fail(state: State, host: Host, messages: list[str]) -> bool:
    """Fail the operation on this host with messages instead of a traceback."""
    del state
    for message in messages:
        logger.error(f"{host.print_prefix}{message}")
    return False
