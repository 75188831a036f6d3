"""Asking a host, and saying why it does not answer."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from typing import Any

from paramiko import SSHException
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host

from ringfence.remote.request import COMMAND, request

ALIVE, SILENT = 15, 75  # seconds: between two signs of life, and until nobody is there
NOTHING_SAID = "it said nothing: look whether it is up (ssh to it)"
# What shells and sudo say, and the fix.
_FIXES = (
    (r"python3: (command )?not found", "python3 is missing there: install it by hand (apt-get install python3)"),
    (r"sudo: (command )?not found", "sudo is missing there: install it as root, or come as root (ansible_user)"),
    (
        r"password is required|no password was provided|incorrect password|Sorry, try again|terminal is required",
        "sudo wants a password and does not get the right one: correct ansible_become_password",
    ),
    (
        r"not in the sudoers|may not run|not allowed to (execute|run)",
        "this user may not use sudo: allow it there as root (adduser USER sudo), or come as another one (ansible_user)",
    ),
)


class NoAnswerError(Exception):
    """A host did not do what it was asked; the message says why, and the fix."""


def end_if_silent(host: Host) -> None:
    """Have the connection to a host fail that nobody answers on any more, after `SILENT` seconds.

    TCP itself waits for a quarter of an hour. Through a jump host it is that one's connection, which pyinfra made.
    """
    client = getattr(getattr(host, "connector", None), "client", None)
    transport = client.get_transport() if client is not None else None
    if transport is None:
        return
    transport.set_keepalive(ALIVE)  # something has to be sent, to be answered or not
    if isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT * 1000)


def ask(host: Host, verb: str, desired: Mapping[str, Any]) -> Any:
    """Have `ringfence.remote.role` do something on a host, inside an operation; returns its answer.

    Raises:
        NoAnswerError: the host, sudo or python did not answer, or the answer is none.
    """
    arguments = {
        key: value
        for key, value in (host.current_op_global_arguments or {}).items()
        if key in CONNECTOR_ARGUMENT_KEYS and key != "_stdin"
    }
    end_if_silent(host)
    try:
        status, output = host.run_shell_command(
            StringCommand(COMMAND), **{**arguments, "_stdin": request(verb, desired)}
        )
    except (ConnectError, SSHException, OSError, EOFError) as error:
        raise NoAnswerError(no_answer(str(error))) from None
    if not status:
        raise NoAnswerError(no_answer(output.stderr))
    try:
        return json.loads(output.stdout)
    except ValueError as error:
        raise NoAnswerError(no_answer(f"its answer cannot be read: {error}")) from None


def no_answer(words: str) -> str:
    """Return why a host is left alone that said these words instead of an answer."""
    said = "\n".join(words.strip().splitlines()[-10:])
    fix = next((fix for pattern, fix in _FIXES if re.search(pattern, said)), "")
    return (
        f"the host did not answer, so nothing more is changed on it: {said or NOTHING_SAID}"
        f"{chr(10) + fix if fix else ''}\nthen run again: the next run goes on from what is there"
    )
