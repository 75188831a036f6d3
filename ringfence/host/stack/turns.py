"""One run after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ringfence.host.files import make_directory
from ringfence.host.lock import lock
from ringfence.host.projects import ROOT
from ringfence.host.stack.telling import TELL

LOCK = ROOT / ".lock"
PASSAGE = 0o711  # mode of directories above files of projects
CLOSED = 0o700  # of the one above them all: files may be for every user of a container, and for none of the host
TURN = 3600.0  # seconds: another one may pull images and wait for health


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other apply runs here: roles hand over projects one after the other. Raises Fault."""
    make_directory(ROOT.parent, PASSAGE)
    make_directory(ROOT, CLOSED)
    with lock(LOCK, TURN, tell=TELL.say):
        yield
