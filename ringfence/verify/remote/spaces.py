"""Network namespaces, and how many files may be open: every container has one of its own, and several sockets in it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from ringfence.verify.remote.commands import ProbeFailedError

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def namespace_number(pid: int) -> int:
    """Which network namespace a process lives in; 0 when it is gone."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


@contextlib.contextmanager
def inside(space: int | None) -> Iterator[None]:
    """Within, sockets are made in another namespace (an open descriptor); a socket stays where it was made."""
    if space is None:
        yield
        return
    enter(space)
    try:
        yield
    finally:
        enter(own_space())


_own: list[int] = []


def own_space() -> int:
    if not _own:
        _own.append(os.open("/proc/self/ns/net", os.O_RDONLY))
    return _own[0]


def enter(space: int) -> None:
    own_space()
    if LIBC.setns(space, CLONE_NEWNET) != 0:
        raise ProbeFailedError(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())} (is this root?)")


def open_space(pid: int, number: int) -> int:
    """A descriptor of a container's namespace, if it is still the one that was seen."""
    try:
        space = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    except OSError as error:
        raise ProbeFailedError(f"the container's process {pid} is gone ({error.strerror})") from error
    if number and os.fstat(space).st_ino != number:
        os.close(space)
        raise ProbeFailedError("the container was restarted meanwhile")
    return space


def open_all_files() -> None:
    """Raise this process's limit of open files as far as it goes."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
