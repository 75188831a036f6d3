"""Where built things are kept between runs, and locks so that two runs do not build the same thing at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def cache_dir() -> Path:
    """The folder of built things: content-addressed, safe to delete at any time."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "ringfence"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def alone(what: str) -> Iterator[None]:
    """Wait until no other run does the same thing, and keep others waiting meanwhile."""
    with (cache_dir() / f"{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
