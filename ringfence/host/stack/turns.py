"""One run after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ringfence.host.files import make_directory
from ringfence.host.lock import lock
from ringfence.host.projects import ROOT
from ringfence.host.stack.telling import TELL

LOCK = ROOT / ".lock"
PASSAGE = 0o711  # mode of directories that containers' users pass through


TURN = 3600.0  # seconds: another one may pull images and wait for health


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other apply runs here: roles hand over projects one after the other. Raises Fault."""
    make_directory(ROOT, 0o700)
    ROOT.chmod(0o700)  # containers have what is in it mounted; nobody else of the host has to read any of it
    with lock(LOCK, TURN, tell=TELL.say):
        yield
