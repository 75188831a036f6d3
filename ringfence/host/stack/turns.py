"""One run after the other."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from ringfence.host.files import make_directory
from ringfence.host.projects import ROOT
from ringfence.host.stack.telling import TELL

LOCK = ROOT / ".lock"
PASSAGE = 0o711  # mode of directories that containers' users pass through


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other apply runs here: roles hand over projects one after the other."""
    make_directory(ROOT, 0o700)
    ROOT.chmod(0o700)  # containers have what is in it mounted; nobody else of the host has to read any of it
    with LOCK.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            TELL.say("waiting for another run of ringfence-stack to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
