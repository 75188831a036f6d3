"""Commands of the host: what is missing, hangs or fails means the same in every program."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

MISSING = 127  # exit code of a program that is not installed, as a shell has it
HUNG = 124  # exit code of a program that took too long, as timeout(1) has it
SPEAKS = 10.0  # seconds of waiting without a word
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Fault(Exception):  # noqa: N818 - it tells the user what is wrong, which is not always an error of ours
    """Something that ends the program and that the user has to know: whose it is, what, and the fix."""


def say(text: str) -> None:
    """Say what happens on standard error, which is the journal when systemd runs this."""
    for line in text.splitlines():
        print(f"{Path(sys.argv[0] or 'ringfence').name}: {line}", file=sys.stderr, flush=True)


def search_path() -> str:
    """Where programs are looked for: they live in sbin, which the PATH of a non-interactive login may lack."""
    return f"{os.environ.get('PATH', '')}:{SEARCH}".lstrip(":")


def run(
    *argv: str, text: str | None = None, timeout: float = 30, extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail: its exit code, `MISSING` when it is not there, `HUNG` when it took too long.

    A caller that takes any output for an answer must look at the exit code first, or use `must`.

    Args:
        text: standard input; without it a program that asks a question reads the end of the file at once.
        timeout: seconds; then the command and all that it started are killed. A long wait is said.
        extra: further environment variables.
    """
    environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"} | (
        extra or {}
    )
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,  # so that what it started can be killed with it
            umask=0o022,  # files that others write are theirs: apt's keys, ufw's rules, units are read by other users
        )
    except OSError as error:
        why = "is not installed" if isinstance(error, FileNotFoundError) else f"cannot be run: {error.strerror}"
        return subprocess.CompletedProcess(argv, MISSING, "", f"{argv[0]} {why}")
    try:
        with _spoken_of(argv[0], timeout):
            out, err = child.communicate(text, timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(child)
        return subprocess.CompletedProcess(argv, HUNG, "", f"{argv[0]} took longer than {timeout:.0f} s")
    except BaseException:
        _end(child)
        raise
    return subprocess.CompletedProcess(argv, child.returncode, out, err)


@contextlib.contextmanager
def _spoken_of(command: str, timeout: float) -> Iterator[None]:
    """Say every `SPEAKS` that a command is waited for; of one that has not much time, its end says enough."""
    if timeout < 6 * SPEAKS:
        yield
        return
    over, begun = threading.Event(), time.monotonic()

    def speak() -> None:
        while not over.wait(SPEAKS):
            say(f"waiting for {command}: {time.monotonic() - begun:.0f} of at most {timeout:.0f} s")

    threading.Thread(target=speak, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _end(child: subprocess.Popen[str]) -> None:
    """Kill a command and what it started, and let go of its pipes, which a daemon of its own may still hold."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()
    child.wait()


def must(
    *argv: str,
    text: str | None = None,
    timeout: float = 30,
    extra: dict[str, str] | None = None,
    codes: Collection[int] = (0,),
    shown: str = "",
) -> str:
    """Run a command that has to succeed and return its standard output.

    Args:
        codes: exit codes that are an answer; those of a query that found nothing, for instance.
        shown: the command as people know it, for the message, where it is called in another way.

    Raises:
        Fault: it is missing, took too long or failed; with its own words.
    """
    result = run(*argv, text=text, timeout=timeout, extra=extra)
    if result.returncode not in codes:
        said = "\n".join((result.stderr.strip() or result.stdout.strip()).splitlines()[-15:])
        raise Fault(f"`{shown or shlex.join(argv)}` failed: {said or f'exit code {result.returncode}'}")
    return result.stdout
