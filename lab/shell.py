"""Running commands on this machine and telling the user what happens."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence


class LabError(Exception):
    """Something the user can fix; the message says what it is and how to fix it."""


def say(text: str) -> None:
    """Print one progress line at once."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Announce a step that may take a while, and say how many seconds it took."""
    say(f"{text} …")
    began = time.monotonic()
    yield
    say(f"{text}: done in {time.monotonic() - began:.1f} s")


def run(
    command: Sequence[str],
    *,
    data: bytes | None = None,
    check: bool = True,
    timeout: float = 120,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with its output captured.

    Raises LabError with the command's own last words when it fails (unless `check` is false) or takes too long.
    """
    try:
        done = subprocess.run(list(command), input=data, capture_output=True, timeout=timeout, env=env, check=False)
    except FileNotFoundError:
        raise LabError(f"{command[0]}: not installed on this machine") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{shown(command)}` did not end within {timeout:.0f} s") from None
    if check and done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
        raise LabError(f"`{shown(command)}` failed ({done.returncode}): {tail(words)}")
    return done


def output(command: Sequence[str], **options: object) -> str:
    """Run a command and return what it printed, without the surrounding white space."""
    return run(command, **options).stdout.decode(errors="replace").strip()  # type: ignore[arg-type]


def shown(command: Sequence[str], length: int = 160) -> str:
    """A command as one short line for messages."""
    text = " ".join(command)
    return text if len(text) <= length else text[: length - 1] + "…"


def tail(text: str, lines: int = 12) -> str:
    """The last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])
