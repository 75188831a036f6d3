"""A project's directory, put back to what a copy holds while containers have it mounted."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from ringfence.host.files import replace_file, sync_directory
from ringfence.host.running import must
from ringfence.host.swapping import DATA, discard, look_into, swap


def copy_tree(directory: Path, copy: Path) -> None:
    """Copy a directory with owners, modes, times and links."""
    must("cp", "--archive", "--no-target-directory", str(directory), str(copy), timeout=600)


def put_back(copy: Path, live: Path) -> None:
    """Make a directory what its copy is, file by file; what is as it was is not touched. It may be called again.

    A directory that is mounted in a container stays that directory: it would not see another one of that name.
    """
    if (copy / DATA).is_symlink():
        _put_generation_back(copy, live)
        return
    for old in sorted(copy.iterdir()):
        now = live / old.name
        if old.is_dir() and not old.is_symlink():
            if not now.is_dir() or now.is_symlink():
                discard(now)
                now.mkdir()
            info = old.stat()
            os.chown(now, info.st_uid, info.st_gid)
            now.chmod(stat.S_IMODE(info.st_mode))
            put_back(old, now)
        elif not _same(old, now):
            if now.is_dir() and not now.is_symlink():
                discard(now)
            info = old.stat()
            replace_file(now, old.read_bytes(), stat.S_IMODE(info.st_mode), (info.st_uid, info.st_gid))
            os.utime(now, ns=(info.st_atime_ns, info.st_mtime_ns))  # a container that had it is no older than it
    for now in list(live.iterdir()):
        if not os.path.lexists(copy / now.name):
            discard(now)
    sync_directory(live)


def _same(old: Path, now: Path) -> bool:
    if not now.is_file() or now.is_symlink():
        return False
    was, info = old.stat(), now.stat()
    return (was.st_uid, was.st_gid, was.st_mode, was.st_mtime_ns) == (
        info.st_uid, info.st_gid, info.st_mode, info.st_mtime_ns
    ) and old.read_bytes() == now.read_bytes()  # fmt: skip


def _put_generation_back(copy: Path, live: Path) -> None:
    generation = look_into(copy).generation
    if not generation:  # it was not as it was made, and no container has files of it
        return
    if not (live / generation).is_dir():
        temporary = live / "..copy"
        discard(temporary)
        copy_tree(copy / generation, temporary)
        temporary.rename(live / generation)
    swap(live, generation)
    for now in list(live.iterdir()):
        if now.name.startswith("..") and now.name != DATA and not os.path.lexists(copy / now.name):
            shutil.rmtree(now)
