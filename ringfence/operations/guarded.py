"""Applying a change that could cut the controller off, and confirming it over a connection made after it."""

from __future__ import annotations

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
DEFAULT_SECONDS = 45
PORT_TIMEOUT_SECONDS = 5


class LoudCommand(StringCommand):
    """A command whose output is shown while it runs: the host-side programs report progress."""

    def execute(self, state: State, host: Host, connector_arguments: Any) -> Any:
        connector_arguments.update(self.connector_arguments)
        return host.run_shell_command(self, print_output=True, print_input=state.print_input, **connector_arguments)


def confirm(state: State, host: Host) -> bool:
    """Disarm the guard over a new connection, or have it restore the old state at once.

    The connection that made the change proves nothing: firewalls let established connections live.
    """
    arguments = {
        key: value
        for key, value in (host.current_op_global_arguments or {}).items()
        if key in CONNECTOR_ARGUMENT_KEYS and key != "_stdin"
    }
    try:
        _confirm_over_new_connection(state, host, arguments)
    except (ConnectError, OSError, EOFError, RuntimeError) as error:
        _error(host, f"the change would have locked you out, so it is taken back: {error}")
        restored, _ = host.run_shell_command(StringCommand(GUARD, "restore"), **arguments)
        if restored:
            _error(host, "the old state is back")
        else:
            seconds = host.data.get("guard_seconds") or DEFAULT_SECONDS
            _error(host, f"the host itself restores the old state within {seconds} s of the change")
        return False
    return True


def _confirm_over_new_connection(state: State, host: Host, arguments: dict[str, Any]) -> None:
    """Raises RuntimeError, OSError or ConnectError when the host cannot be reached as before."""
    if not isinstance(host.connector, SSHConnector):
        status, output = host.run_shell_command(StringCommand(GUARD, "confirm"), **arguments)
    else:
        connector = SSHConnector(state, host)
        connector.connect()
        try:
            proved = int(connector.data["ssh_port"] or 22)
            for port in map(int, host.data.get("guard_ports") or []):
                # The new connection has proved its own port, perhaps by a way that only SSH knows (a jump host).
                if port != proved:
                    _must_answer(str(connector.data["ssh_hostname"] or host.name), port)
            status, output = connector.run_shell_command(StringCommand(GUARD, "confirm"), **arguments)
        finally:
            if connector.client is not None:
                connector.client.close()
    if not status:
        raise RuntimeError(output.stderr.strip() or "the guard did not confirm")


def _must_answer(address: str, port: int) -> None:
    try:
        socket.create_connection((address, port), timeout=PORT_TIMEOUT_SECONDS).close()
    except OSError as error:
        raise RuntimeError(f"port {port} of {address}, which must stay open, does not answer: {error}") from error


def _error(host: Host, message: str) -> None:
    logger.error(f"{host.print_prefix}{message}")
