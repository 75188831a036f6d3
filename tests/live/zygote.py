"""Programs that are started already: importing pyinfra, or Ansible, costs as much as a run that changes nothing.

A zygote has imported a program's modules, and forks for each run. What runs is the program's own `main`, with the
arguments, environment and directory of that run; of the repository nothing is imported beforehand.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Program → the module that has its `main`, and what it imports later, each time.
PROGRAMS = {
    "pyinfra": ("pyinfra_cli.main", ("pyinfra.connectors.ssh", "pyinfra.operations.files", "jinja2", "yaml")),
    "ansible-playbook": ("ansible.cli.playbook", ("ansible.plugins.strategy.linear", "ansible.executor.task_executor")),
}
BIN = Path(sys.executable).parent


def run(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run one of the programs as `subprocess.run` does, with the text of its output and nothing to read.

    Args:
        command: the program's path in this virtual environment, and its arguments.
        seconds: after which it is killed.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    zygote = _zygote(Path(command[0]).name, str(cwd), _settings(environment))
    if zygote.busy.acquire(blocking=False):
        try:
            return zygote.run(command, environment, seconds)
        finally:
            zygote.busy.release()
    return subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
        check=False,
    )  # fmt: skip


def _settings(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What programs read while they are imported: one zygote is for those that agree on it."""
    return tuple(
        sorted((name, value) for name, value in environment.items() if not name.startswith(("RINGFENCE_", "PYTEST_")))
    )


@functools.cache
def _zygote(program: str, cwd: str, settings: tuple[tuple[str, str], ...]) -> _Zygote:
    return _Zygote(program, cwd, dict(settings))


class _Zygote:
    def __init__(self, program: str, cwd: str, settings: Mapping[str, str]) -> None:
        self.busy = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), program],
            cwd=cwd, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
            wanted = {"command": list(command), "environment": dict(environment)}
            self._say({**wanted, "output": output.name, "errors": errors.name})
            number = int(self._hear(60))
            try:
                code = int(self._hear(seconds))
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(number, signal.SIGKILL)
                self._hear(60)
                raise subprocess.TimeoutExpired(list(command), seconds, output.read(), errors.read()) from None
            return subprocess.CompletedProcess(list(command), code, output.read(), errors.read())

    def _say(self, wanted: Mapping[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(wanted).encode() + b"\n")

    def _hear(self, seconds: float) -> bytes:
        assert self._process.stdout
        deadline = time.monotonic() + seconds
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            more = os.read(self._process.stdout.fileno(), 99)
            if not more:
                raise RuntimeError(f"the zygote has ended with {self._process.wait()}")
            line += more
        return line


# -- the zygote's own side


def serve(program: str) -> Any:
    """Fork for each line of standard input; returns the program's `main`, in the process that is to run it."""
    name, further = PROGRAMS[program]
    main = importlib.import_module(name).main
    for module in further:
        importlib.import_module(module)
    fork = _unpatched("fork")
    waitpid = _unpatched("waitpid")
    for line in sys.stdin.buffer:
        wanted = json.loads(line)
        number = fork()
        if not number:
            _become(wanted)
            return main
        _tell(number)
        _tell(os.waitstatus_to_exitcode(waitpid(number, 0)[1]))
    raise SystemExit


def _unpatched(name: str) -> Any:
    """A function of os as it is without gevent, which has nothing to do in a process that only forks."""
    if "gevent.monkey" in sys.modules:
        return sys.modules["gevent.monkey"].get_original("os", name)
    return getattr(os, name)


def _tell(number: int) -> None:
    os.write(1, f"{number}\n".encode())


def _become(wanted: Mapping[str, Any]) -> None:
    os.setsid()
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY), (1, wanted["output"], os.O_WRONLY), (2, wanted["errors"], os.O_WRONLY),
    ):  # fmt: skip
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    sys.argv = wanted["command"]
    sys.path[0] = str(BIN)


if __name__ == "__main__":
    sys.path[0] = str(BIN)  # as in the program's own script: not this folder
    sys.exit(serve(sys.argv[1])())
