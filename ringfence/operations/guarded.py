"""Applying a change that could cut the controller off, and confirming it over a connection made after it."""

from __future__ import annotations

import secrets
import socket
from typing import Any

from pyinfra import logger
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.command import StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.ssh import SSHConnector

GUARD = "/usr/local/sbin/ringfence-guard"
DEFAULT_SECONDS = {"seconds": 45, "apply_seconds": 300}
PORT_TIMEOUT_SECONDS = 5


class LoudCommand(StringCommand):
    """A command whose output is shown while it runs: the host-side programs report progress."""

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        connector_arguments.update(self.connector_arguments)
        return host.run_shell_command(self, print_output=True, print_input=state.print_input, **connector_arguments)


def window(host: Host) -> dict[str, Any]:
    """Return a window of this run alone, as `ringfence.remote.role.apply` takes it: its name, and its times."""
    given = {name: int(host.data.get(f"guard_{name}") or default) for name, default in DEFAULT_SECONDS.items()}
    return {"name": secrets.token_hex(8), "seconds": given["seconds"], "limit": given["apply_seconds"]}


def confirm(state: State, host: Host, window: dict[str, Any]) -> bool:
    """Disarm the guard over a new connection, or have it restore the old state at once.

    The connection that made the change proves nothing: firewalls let established connections live.
    """
    arguments = {
        key: value
        for key, value in (host.current_op_global_arguments or {}).items()
        if key in CONNECTOR_ARGUMENT_KEYS and key != "_stdin"
    }
    name = ("--window", window["name"])
    try:
        _confirm_over_new_connection(state, host, arguments, StringCommand(GUARD, "confirm", *name))
    except (ConnectError, OSError, EOFError, RuntimeError) as error:
        # Whoever answers has not locked anybody out.
        locked = "" if isinstance(error, NotConfirmedError) else " would have locked you out, so it"
        _error(host, f"the change{locked} is taken back: {error}")
        restored, _ = host.run_shell_command(StringCommand(GUARD, "restore", *name), **arguments)
        if restored:
            _error(host, "the old state is back")
        else:
            _error(host, f"the host itself restores the old state within {window['seconds']} s of the change")
        return False
    return True


class NotConfirmedError(RuntimeError):
    """The guard answers over a new connection, and does not keep the change; the message is its own."""


def _confirm_over_new_connection(state: State, host: Host, arguments: dict[str, Any], command: StringCommand) -> None:
    """Raises NotConfirmedError, OSError or ConnectError when the host cannot be reached as before."""
    if not isinstance(host.connector, SSHConnector):
        status, output = host.run_shell_command(command, **arguments)
    else:
        connector = SSHConnector(state, host)
        connector.connect()
        try:
            _must_answer(host, connector)
            status, output = connector.run_shell_command(command, **arguments)
        finally:
            if connector.client is not None:
                connector.client.close()
    if not status:
        raise NotConfirmedError(output.stderr.strip() or "the guard did not confirm")


def _must_answer(host: Host, connector: SSHConnector) -> None:
    """Raises OSError unless every port that must stay open answers this machine.

    The new connection has proved the port that it dialled and, where that is forwarded, the one of the host at which
    it arrived.
    """
    transport = connector.client.get_transport() if connector.client else None
    wire = transport.sock if transport else None
    # Through a jump host or a command it is no socket of this machine.
    address, dialled = wire.getpeername()[:2] if isinstance(wire, socket.socket) else ("", 0)
    left = [port for port in map(int, host.data.get("guard_ports") or []) if port != dialled]
    if left:
        _, output = connector.run_shell_command(StringCommand("echo", "$SSH_CONNECTION"))
        left = [port for port in left if output.stdout.split()[-1:] != [str(port)]]
    if left and not address:
        logger.warning(
            f"{host.print_prefix}guard_ports: {', '.join(map(str, left))} cannot be tried: this machine comes in "
            "through a jump host or a command, which leads to SSH only"
        )
        return
    for port in left:
        try:
            socket.create_connection((address, port), timeout=PORT_TIMEOUT_SECONDS).close()
        except OSError as error:
            raise OSError(
                f"port {port} of {address}, which must stay open (guard_ports), does not answer: {error}"
            ) from error


def _error(host: Host, message: str) -> None:
    logger.error(f"{host.print_prefix}{message}")
