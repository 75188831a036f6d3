"""What is costly to find out and always comes out the same, kept until the host restarts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from ringfence.host.files import replace_file

MEMORY = Path("/run/ringfence/kept")
_RINGFENCE = Path("/etc/ringfence")


def recall(kind: str, key: str) -> bytes | None:
    """Return what was kept under a key, None where nothing was or somebody but root could have changed it.

    Nothing is kept for others than root, nor on a host without ringfence.
    """
    path = MEMORY / f"{kind}-{_name(key)}"
    with contextlib.suppress(OSError):
        if _may() and _own(MEMORY.parent) and _own(MEMORY) and _own(path):
            return path.read_bytes()
    return None


def keep(kind: str, key: str, data: bytes, most: int) -> None:
    """Keep something where only root can read and write; what was kept first goes when there is more of its kind.

    Args:
        key: all that it follows from.
        most: of its kind.
    """
    if not _may():
        return
    with contextlib.suppress(OSError):
        MEMORY.mkdir(0o700, parents=True, exist_ok=True)
        if _own(MEMORY.parent) and _own(MEMORY):
            replace_file(MEMORY / f"{kind}-{_name(key)}", data, 0o600)
            there = sorted(MEMORY.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime_ns)
            for path in there[:-most]:
                path.unlink(missing_ok=True)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _may() -> bool:
    return not os.geteuid() and _RINGFENCE.is_dir()


def _own(path: Path) -> bool:
    """Whether it is this user's and nobody else can have changed it. Raises OSError where it is not there."""
    status = path.lstat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)
