"""Directories whose files change all at once for whoever has them mounted.

The files stand in a directory ``..<number>`` of their own, ``..data`` is a link to it, and each name that is seen is a
link through ``..data``: renaming that one link over itself changes all files in one step, and a mount stays valid. It
is how kubelet hands configuration to containers, so programs in images know it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from pathlib import Path
from typing import NamedTuple

from ringfence.host.files import sync_directory

DATA = "..data"


class File(NamedTuple):
    """A file as it is or must be; a secret one belongs to its owner's group as well, others to root's."""

    content: bytes
    mode: int
    owner: int
    secret: bool = False


class Seen(NamedTuple):
    """What is in such a directory.

    Attributes:
        generation: name of the directory with the files, "" where there is none.
        files: path below it → its file.
        since: time of the last swap, seconds since the epoch.
        whole: whether exactly the names of the files are seen.
        others: names of further generations.
    """

    generation: str
    files: dict[str, File]
    since: float
    whole: bool
    others: list[str]


def look_into(directory: Path) -> Seen:
    """Read such a directory; one that does not exist is empty. Raises OSError."""
    generation, since, names = "", 0.0, list[str]()
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = sorted(path.name for path in directory.iterdir())
    with contextlib.suppress(OSError):
        link = directory / DATA
        generation, since = str(link.readlink()), link.lstat().st_ctime
    if "/" in generation or not generation.startswith("..") or not (directory / generation).is_dir():
        generation = ""
    files = read_files(directory / generation) if generation else {}
    links = {name: _link(directory / name) for name in names if not name.startswith("..")}
    whole = links == {name: f"{DATA}/{name}" for name in {path.split("/")[0] for path in files}}
    others = [name for name in names if name.startswith("..") and name not in (DATA, generation)]
    return Seen(generation, files, since, whole, others)


def _link(path: Path) -> str:
    return str(path.readlink()) if path.is_symlink() else ""


def read_files(directory: Path) -> dict[str, File]:
    """Return every file below a directory by its path; what is no regular file has mode -1. Raises OSError."""
    found = {}
    for above, _, names in os.walk(directory):
        for name in names:
            path = Path(above) / name
            info = path.lstat()
            regular = stat.S_ISREG(info.st_mode)
            content, mode = (path.read_bytes(), stat.S_IMODE(info.st_mode)) if regular else (b"", -1)
            found[str(path.relative_to(directory))] = File(content, mode, info.st_uid)
    return found


def new_generation(directory: Path) -> Path:
    """Return a path for the next files, which does not exist."""
    return directory / f"..{time.time_ns()}"


def swap(directory: Path, generation: str) -> None:
    """Let the files of a generation be the ones that are seen, at once."""
    wanted = {path.name for path in (directory / generation).iterdir()}
    # A name before its file: whoever finds the new main file finds what it includes.
    for name in sorted(wanted):
        if _link(directory / name) != f"{DATA}/{name}":
            _put_link(directory / name, f"{DATA}/{name}")
    _put_link(directory / DATA, generation)
    for path in list(directory.iterdir()):
        if not path.name.startswith("..") and path.name not in wanted:
            discard(path)
    sync_directory(directory)


def _put_link(path: Path, target: str) -> None:
    if path.is_dir() and not path.is_symlink():
        discard(path)
    temporary = path.with_name("..link")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def discard(path: Path) -> None:
    """Remove a file or a directory with all that is in it, if it is there. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
