"""A role's program that asks something of the controller while it is applied (`ringfence.answering`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pyinfra import logger
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from ringfence.answering import AnswerError
from ringfence.remote.request import COMMAND, request


def apply_answering(
    state: State, host: Host, given: Mapping[str, Any], answers: Callable[[Any], dict[str, Any]]
) -> bool:
    """Have the program bring about the desired state; where it asks, answer, and have it go on.

    Args:
        given: what `ringfence.remote.role.apply` takes.
        answers: answers what is asked.

    Returns:
        Whether it has succeeded; why not has been said.
    """
    del state
    asked = _apply(host, given)
    if asked is None or not asked:
        return asked is not None
    try:
        desired = {**given["desired"], "answer": answers(asked)}
    except AnswerError as error:
        logger.error(f"{host.print_prefix}{error}")
        return False
    asked = _apply(host, {**given, "desired": desired})
    if asked:
        logger.error(f"{host.print_prefix}role {given['role']}: its program asks again for what it was told")
    return asked is not None and not asked


def _apply(host: Host, given: Mapping[str, Any]) -> Any:
    """Return what the program asks, {} for nothing, None where it failed; its words are shown."""
    arguments = {
        key: value
        for key, value in (host.current_op_global_arguments or {}).items()
        if key in CONNECTOR_ARGUMENT_KEYS and key != "_stdin"
    }
    status, output = host.run_shell_command(
        StringCommand(COMMAND), **{**arguments, "_stdin": request("apply", {**given, "hears": True})}
    )
    for line in output.stderr.splitlines():
        (logger.info if status else logger.error)(f"{host.print_prefix}{line}")
    if not status:
        return None
    try:
        return json.loads(output.stdout or "{}").get("asks") or {}
    except (ValueError, AttributeError) as error:
        logger.error(f"{host.print_prefix}role {given['role']}: what its program asks cannot be read: {error}")
        return None
