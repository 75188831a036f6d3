"""One at a time: an engine, a unit, a timer, a person."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ringfence.host.files import make_directory
from ringfence.host.running import Fault


@contextlib.contextmanager
def lock(path: Path, seconds: float = 60, take: Callable[[Any, int], None] = fcntl.flock) -> Iterator[None]:
    """Hold the lock in a file; it is let go of when the process ends, however it does.

    Args:
        take: `fcntl.lockf` where others take it in that way. That one knows no lock within a lock.

    Raises:
        Fault: another process keeps it for longer than that.
    """
    make_directory(path.parent)
    with path.open("w") as handle:
        deadline = time.monotonic() + seconds
        while True:
            try:
                take(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):  # lockf may say either
                if time.monotonic() > deadline:
                    raise Fault(f"another run is still at work (it holds {path}); try again") from None
                time.sleep(0.1)
        yield


def held(path: Path) -> bool:
    """Whether any process holds a lock on a file, of either kind; asked without taking it, so that nobody is refused.

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
        return any(wanted in line.split() and "->" not in line.split() for line in lines)
