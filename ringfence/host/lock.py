"""One at a time: an engine, a unit, a timer, a person."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from ringfence.host.files import make_directory
from ringfence.host.running import Fault


@contextlib.contextmanager
def lock(path: Path, seconds: float = 60) -> Iterator[None]:
    """Hold the lock in a file; it is let go of when the process ends, however it does.

    Raises:
        Fault: another process keeps it for longer than that.
    """
    make_directory(path.parent)
    with path.open("w") as handle:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Fault(f"another run is still at work (it holds {path}); try again") from None
                time.sleep(0.1)
        yield
