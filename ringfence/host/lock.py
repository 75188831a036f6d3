"""One at a time: an engine, a unit, a timer, a person."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ringfence.host.files import make_directory
from ringfence.host.running import Fault, say

LOCK_SECONDS = 600.0  # seconds that another one is waited for, where nothing else is said
LOCK_UNSAID, LOCK_REMINDS = 1.0, 10.0  # seconds of waiting that nobody is told of, and between two words about it


@contextlib.contextmanager
def lock(
    path: Path,
    seconds: float = LOCK_SECONDS,
    take: Callable[[Any, int], None] = fcntl.flock,
    shared: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lock in a file; it is let go of when the process ends, however it does.

    Args:
        seconds: that another process is waited for.
        take: `fcntl.lockf` where others take it in that way. That one knows no lock within a lock.
        shared: with all others that hold it so.
        tell: says that it waits, and for whom; `say` where it is not given.

    Raises:
        Fault: another process keeps it for longer than that.
    """
    make_directory(path.parent)
    with path.open("a+") as handle:
        begun = time.monotonic()
        speaks = begun + LOCK_UNSAID
        while True:
            try:
                take(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):  # lockf may say either
                now = time.monotonic()
                if now - begun > seconds:
                    raise Fault(f"{lock_holder(path)} is still at work (it holds {path}); try again") from None
                if now >= speaks:
                    speaks = now + LOCK_REMINDS
                    (tell or say)(
                        f"waits, for {now - begun:.0f} of at most {seconds:.0f} s: {lock_holder(path)} is at work"
                    )
                time.sleep(0.1)  # between two tries, as flock itself knows no deadline
        if not shared and take is fcntl.flock:  # a file of ringfence's own
            words = f"process {os.getpid()}, {' '.join([Path(sys.argv[0]).name, *sys.argv[1:2]])}\n"
            with contextlib.suppress(OSError):  # a full disk keeps nobody from working
                os.ftruncate(handle.fileno(), 0)
                os.write(handle.fileno(), words.encode())
        yield


def lock_holder(path: Path) -> str:
    """Say who holds a lock, as far as it is known."""
    with contextlib.suppress(OSError):
        if (said := path.read_text(encoding="utf-8", errors="replace").strip()) and "," in said:
            return f"another run ({said})"
    return "another run"


def held(path: Path) -> bool:
    """Whether any process holds a file for itself, by either kind of lock; asked without taking it, so that nobody is
    refused.

    Raises:
        OSError: the kernel does not tell.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with Path("/proc/locks").open(encoding="ascii") as lines:
        # "1: FLOCK  ADVISORY  WRITE 735 00:1a:1234 0 EOF"; one that waits has "->" in front.
        return any({wanted, "WRITE"} <= set(line.split()) and "->" not in line.split() for line in lines)
