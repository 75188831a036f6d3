"""A run of the tests that was killed leaves its hosts behind; the next one begins by removing them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from lab import engine, hosts
from lab.cache import cache_dir
from lab.networks import existing

# Several runs can test on one machine side by side if the hosts of each have names of their own.
PREFIX = os.environ.get("RINGFENCE_LAB_PREFIX", "")
NAMES = f"{PREFIX}t-"


@contextlib.contextmanager
def removed() -> Iterator[None]:
    """While it is entered, the hosts whose names begin with `NAMES` are of this run and its workers.

    The first worker that comes removes what another run left; the others wait for that. While a run of the same prefix
    is on its way, nothing is removed.
    """
    with (cache_dir() / f"{NAMES}hosts.lock").open("w") as lock:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.environ.get("RINGFENCE_KEEP"):
                engine.ensure_running(cache_dir() / "dockerd.log")
                for name in existing():
                    if name.startswith(NAMES):
                        hosts.down(name, anybodys=True)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
