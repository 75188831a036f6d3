"""Sent to a lab host: stops a role's program at work, as soon as it has changed something.

Arguments: the role, a shell command whose output tells whether something has changed, and a file: it is there, and
empty, as soon as changes are seen, and then holds the number of the stopped process. Ends when the program is stopped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PAUSE = 0.02  # seconds: a program reads itself, and compares, for much longer before it changes anything


def parent(number: int) -> int:
    """The parent of a process, 0 when it has ended."""
    try:
        return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def at_work(role: str) -> Iterator[int]:
    """Yield the processes of `ringfence-<role> apply`.

    A child of it that has not yet become the command that it is for is one as well, and its parent waits for that.
    """
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has just ended
            continue
        # Not the shell that started it: there the whole line is one word.
        if "apply" in words and any(word.endswith(f"/ringfence-{role}") for word in words):
            yield int(entry.name)


def look(command: str) -> bytes:
    """Return what the command says, whether or not it succeeds."""
    return subprocess.run(command, shell=True, capture_output=True, check=False).stdout


def catch(role: str, command: str, caught: Path) -> None:
    """Wait for the first change that is made while the program runs, and stop it."""
    caught.touch()
    while True:
        # Whoever looks all the time takes a processor from the run that is waited for, which may take a minute.
        while not any(at_work(role)):
            time.sleep(PAUSE)
        before = look(command)
        while any(at_work(role)):
            now = look(command)
            found = list(at_work(role)) if now != before else []
            numbers = [number for number in found if parent(number) not in found]
            before = now
            for number in numbers:
                os.kill(number, signal.SIGSTOP)
            if numbers:
                caught.write_text(f"{numbers[0]}\n", encoding="ascii")
                return


if __name__ == "__main__":
    catch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
