"""Asking a host, and saying why it does not answer."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Mapping
from typing import Any

from paramiko import SSHException, Transport
from pyinfra import logger
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host

from ringfence.remote.request import COMMAND, request

ALIVE, SILENT = 15, 75  # seconds: between two signs of life, and until nobody is there
# Seconds: until another run on the host is no longer waited for, and between two words about it. No pause between two
# questions: the host itself waits for the other run before it answers that there is one.
BUSY_SECONDS, BUSY_REMINDS = 3600.0, 10.0
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


# What a connection that breaks raises.
_BROKEN = (ConnectError, SSHException, OSError, EOFError)


class NoAnswerError(Exception):
    """A host did not do what it was asked; the message says why, and the fix."""


def end_if_silent(host: Host) -> None:
    """Have the connection to a host fail that nobody answers on any more, after `SILENT` seconds.

    TCP itself waits for a quarter of an hour. Through a jump host it is that one's connection, which pyinfra made.
    """
    transport = _transport(host)
    if transport is None:
        return
    transport.set_keepalive(ALIVE)  # something has to be sent, to be answered or not
    if isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT * 1000)


def _transport(host: Host) -> Transport | None:
    client = getattr(getattr(host, "connector", None), "client", None)
    return client.get_transport() if client is not None else None


def ask(host: Host, verb: str, desired: Mapping[str, Any]) -> Any:
    """Have `ringfence.remote.role` do something on a host, inside an operation; returns its answer.

    While another run is at work there, it says so and asks again.

    Raises:
        NoAnswerError: the host, sudo or python did not answer, or the answer is none, or the other run does not end.
    """
    begun, spoke = time.monotonic(), float("-inf")
    while True:
        answer = _ask(host, verb, desired)
        if not (isinstance(answer, dict) and isinstance(answer.get("busy"), str)):
            return answer
        waited = time.monotonic() - begun
        if waited > BUSY_SECONDS:
            raise NoAnswerError(no_answer(str(answer["busy"])))
        if time.monotonic() - spoke >= BUSY_REMINDS:
            spoke = time.monotonic()
            logger.info(f"{host.print_prefix}waits, for {waited:.0f} of at most {BUSY_SECONDS:.0f} s: {answer['busy']}")


def _ask(host: Host, verb: str, desired: Mapping[str, Any]) -> Any:
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
    except _BROKEN as error:
        raise NoAnswerError(no_answer(_words_of_the_shell(host, arguments) or str(error))) from None
    if not status:
        raise NoAnswerError(no_answer(output.stderr))
    try:
        return json.loads(output.stdout)
    except ValueError as error:
        raise NoAnswerError(no_answer(f"its answer cannot be read: {error}")) from None


def _words_of_the_shell(host: Host, arguments: Mapping[str, Any]) -> str:
    """What a host says that hears no question at all; "" where it is the connection that is broken.

    A shell that has no python3, or no sudo, ends before it has read what is sent. Now and then nothing is known of that
    but that sending failed.
    """
    if not _is_connected(host):
        return ""
    try:
        status, output = host.run_shell_command(StringCommand("python3 -I -c ''"), **arguments)
    except _BROKEN:
        return ""
    return "" if status else str(output.stderr)


def _is_connected(host: Host) -> bool:
    """Whether there is a connection that takes another command."""
    transport = _transport(host)
    return transport is not None and bool(transport.is_active())


def no_answer(words: str) -> str:
    """Return why a host is left alone that said these words instead of an answer."""
    said = "\n".join(words.strip().splitlines()[-10:])
    fix = next((fix for pattern, fix in _FIXES if re.search(pattern, said)), "")
    return (
        f"the host did not answer, so nothing more is changed on it: {said or NOTHING_SAID}"
        f"{chr(10) + fix if fix else ''}\nthen run again: the next run goes on from what is there"
    )
