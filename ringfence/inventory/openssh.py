"""The user's file of OpenSSH, as OpenSSH and so Ansible read it: what pyinfra reads otherwise is laid over.

Both engines have to come to a host by the same way. A test holds that the names are there.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

_PATIENCE = 20  # seconds that a command of `Match exec` may take


def install() -> None:
    """Lay it over. Where pyinfra is not at work, as when Ansible reads the inventory, nothing is done."""
    if "pyinfra_cli.cli" not in sys.modules:
        return
    import paramiko.config
    from paramiko.proxy import ProxyCommand
    from pyinfra.connectors.sshuserclient import config

    paramiko.config.invoke = SimpleNamespace(run=_matches)  # type: ignore[attr-defined]
    config.SSHConfig.lookup = _lookup(paramiko.config.SSHConfig.lookup)  # type: ignore[method-assign]
    if not getattr(ProxyCommand.close, "of_ringfence", False):
        ProxyCommand.close = _closing(ProxyCommand.close)  # type: ignore[method-assign]
    if "--debug-all" not in sys.argv:
        # What has failed is a line of its host; paramiko prints it before with a traceback.
        logging.getLogger("paramiko.transport").setLevel(logging.CRITICAL)


def _matches(command: str, *_: Any, **__: Any) -> Any:
    """Run a command of ``Match exec``. pyinfra takes it for the name of a shell's file, which no command is."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return SimpleNamespace(ok=False)
    return SimpleNamespace(ok=done.returncode == 0)


def _lookup(lookup: Any) -> Any:
    """``ProxyJump none`` is no jump; pyinfra looks for a host of that name."""

    def without_none(self: Any, hostname: str) -> Any:
        found = lookup(self, hostname)
        if str(found.get("proxyjump", "")).lower() == "none":
            del found["proxyjump"]
        return found

    return without_none


def _closing(close: Any) -> Any:
    """A command that has ended cannot be ended: a failing one left a traceback at the end of the run."""

    def closing(self: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            close(self)

    closing.of_ringfence = True  # type: ignore[attr-defined]
    return closing
