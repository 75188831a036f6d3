"""pyinfra where nobody sits at the terminal: it asks nobody, and what fails is a line, not a traceback.

pyinfra has no settings for this, so the names by which its modules ask are laid over; a test holds that they are there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

YES = "without a terminal say it beforehand: `pyinfra --yes …` goes on, `pyinfra --dry …` only looks (cron, CI)"


def install() -> None:
    """Lay it over. Where pyinfra is not at work, as when Ansible reads the inventory, nothing is done."""
    if "pyinfra_cli.cli" not in sys.modules:
        return
    from pyinfra.connectors import ssh

    loads = ssh.get_private_key  # type: ignore[attr-defined]
    if not getattr(loads, "of_ringfence", False):
        ssh.get_private_key = _failing_on_its_host(loads)  # type: ignore[attr-defined]
    if sys.stdin is None or not sys.stdin.isatty():
        _ask_nobody()
    if _only_looks(sys.argv[1:]):
        _go_on_without()


def go_on() -> None:
    """Have pyinfra begin without a question and without a list of changes: for a deploy that makes none."""
    cli: Any = sys.modules.get("pyinfra_cli.cli")
    if cli is not None:
        cli._do_confirm = _does_not_ask
        cli.print_meta = _makes_no_changes


def _only_looks(words: Iterable[str]) -> bool:
    """Whether pyinfra was given ``deploys/verify.py``. It fails hosts before it reads a deploy."""
    return any(Path(word).parts[-2:] == ("deploys", "verify.py") for word in words)


def _go_on_without() -> None:
    """Have what looks at the others go on without a host that fails; its end tells of it, by its exit code as well."""
    from pyinfra.context import state

    state.should_raise_failed_hosts = _goes_on


def _goes_on(*_: Any) -> bool:
    return False


def _does_not_ask(*_: Any) -> bool:
    return True


def _makes_no_changes(*_: Any) -> None:
    print("    None will be made: this looks at the hosts, probes them, and says what it found.", file=sys.stderr)


def _ask_nobody() -> None:
    from pyinfra.connectors import ssh_util, util
    from pyinfra.connectors.sshuserclient import client

    # Their own module's name comes before the builtin one.
    sys.modules["pyinfra_cli.cli"].input = _confirm  # type: ignore[attr-defined]
    client.input = _host_key  # type: ignore[attr-defined]
    util.getpass = _sudo  # type: ignore[assignment,attr-defined]
    ssh_util.getpass = _passphrase  # type: ignore[assignment,attr-defined]


def _confirm(*_: Any) -> NoReturn:
    from pyinfra.api.state import StateStage
    from pyinfra.context import state

    at_work = state.current_stage >= StateStage.Execute
    print(f"\n    {'nothing more' if at_work else 'nothing'} was changed: {YES}", file=sys.stderr)
    raise SystemExit(1)


def _host_key(question: str = "") -> NoReturn:
    from paramiko import SSHException

    raise SSHException(f"{question.partition(',')[0]}, and there is no terminal to ask: add it (ssh-keyscan), or say "
                       "StrictHostKeyChecking accept-new")  # fmt: skip


def _sudo(*_: Any) -> NoReturn:
    raise OSError("sudo: a password is required, and none is given (ansible_become_password)")


def _passphrase(question: str = "", *_: Any) -> NoReturn:
    from pyinfra.api.exceptions import PyinfraError

    key = question.strip().rstrip(":").rpartition(": ")[2]
    raise PyinfraError(
        f"the private key {key} has a password, and there is no terminal to ask for it: say "
        "ansible_private_key_passphrase, or take a key without one, or an agent"
    )


def _failing_on_its_host(loads: Any) -> Any:
    """A key that cannot be read concerns its host: pyinfra ended with a traceback."""

    def get_private_key(state: Any, key_filename: str, key_password: str) -> Any:
        from paramiko import SSHException
        from pyinfra.api.exceptions import ConnectError, PyinfraError

        try:
            return loads(state, key_filename=key_filename, key_password=key_password)
        except ConnectError:
            raise
        except (PyinfraError, SSHException, OSError, ValueError) as error:
            raise ConnectError(f"{error or type(error).__name__} (ansible_private_key_file)") from None

    get_private_key.of_ringfence = True  # type: ignore[attr-defined]
    return get_private_key
