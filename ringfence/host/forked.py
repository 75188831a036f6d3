"""A program of ringfence, run in a process that is forked and not started: the interpreter is there already.

Starting one, with its modules, costs more than most of what the programs are asked.
"""

from __future__ import annotations

import contextlib
import importlib
import marshal
import os
import select
import signal
import sys
import time
import traceback
from types import CodeType
from typing import Any, BinaryIO, NoReturn

from ringfence.host.kept import keep, recall


class Forked:
    """A program in a process of its own, which reads nothing and writes to memory: it waits for nobody.

    Args:
        request: ``{name, program: its text, arguments: [verb], desired, …}``, as `ringfence.host.program` takes it.

    Attributes:
        out, err: what it writes (`text_of`).
        code: exit code, None as long as it runs.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.out, self.err = memory(), memory()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        self.code: int | None = None
        if self.pid == 0:
            _become(request, self.out, self.err)
        # Here too: whoever comes first, it is a group that can be killed with all that it starts.
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)

    def ended(self, deadline: float) -> bool:
        """Wait for it to end; False where it did not before the deadline, in seconds of `time.monotonic`."""
        if self.code is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            finally:
                os.close(descriptor)
            if not readable:
                return False
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return True

    def kill(self) -> None:
        """Kill it with all that it started, unless it has ended."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def load() -> None:
    """Import modules that several programs use, before they are forked."""
    for name in (
        "dataclasses", "difflib", "http.client", "ipaddress", "secrets", "shutil", "socket", "urllib.parse",
    ):  # fmt: skip
        importlib.import_module(name)


def code_of(name: str, text: str) -> CodeType:
    """Compile a program, or take what was made of the same text before: compiling takes longer than most checks."""
    key = f"{sys.version}{text}"
    known = recall(name, key)
    if known is not None:
        with contextlib.suppress(ValueError, EOFError, TypeError):
            code = marshal.loads(known)  # noqa: S302 - from root's own files alone: recall
            if isinstance(code, CodeType):
                return code
    code = compile(text, "ringfence", "exec")
    keep(name, key, marshal.dumps(code), most=1)
    return code


def memory(content: bytes = b"") -> BinaryIO:
    """A file that is on no disk, with its position at the start."""
    file = os.fdopen(os.memfd_create("ringfence"), "w+b")
    file.write(content)
    file.seek(0)
    return file


def text_of(file: BinaryIO) -> str:
    """All that such a file holds."""
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _become(request: dict[str, Any], out: BinaryIO, err: BinaryIO) -> NoReturn:
    """Turn this forked process into a program that reads nothing and writes to memory."""
    code: object = 70
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        # They stay open as long as this process lives, which is the program's own.
        sys.argv, sys.stdin = ["-c"], os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        # A role's program, which the engine sent, or which root installed: running it is what is asked for.
        exec(code_of(request["name"], request["program"]), {"__name__": "__main__", "REQUEST": request})  # noqa: S102
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
