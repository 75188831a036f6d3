"""ufw's own commands, so that none of them undoes what a person does at the same moment."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from ringfence.host.running import must, search_path

# ufw reads its rules before it takes its lock, and copies its files in place: of two commands at once the second may
# bring back what the first has deleted, or read a file that is half written and keep nothing of it (/usr/sbin/ufw and
# ufw.util.close_files of 0.36.2, both seen). So here the lock comes first, and a file is put in place whole. The lock
# is the process's, so that ufw gets it once more.
_WHOLE = """
import fcntl, os, runpy, shutil, sys
import ufw.util

held = open("/run/ufw.lock", "w")
fcntl.lockf(held, fcntl.LOCK_EX)

def close_files(files, update=True):
    files["orig"].close()
    os.close(files["tmp"])
    if update:
        old = os.path.realpath(files["origname"])
        new = old + ".ringfence"
        shutil.copy(files["tmpname"], new)
        shutil.copystat(old, new)
        os.replace(new, old)
    os.unlink(files["tmpname"])

ufw.util.close_files = close_files
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def ufw_command() -> list[str]:
    """Return how ufw is called: its program is Python's, else it is called as it is."""
    found = shutil.which("ufw", path=search_path())
    if found:
        with Path(found).open("rb") as program:
            first = program.readline(200).decode("ascii", "replace").strip()
        interpreter = first.removeprefix("#!").strip()
        if first.startswith("#!") and Path(interpreter).name.startswith("python3"):
            return [interpreter, "-I", "-c", _WHOLE, found]
    return ["ufw"]


def tell_ufw(*words: str, timeout: float = 30) -> None:
    """Have ufw do something.

    Raises:
        Fault: it does not; with its own words.
    """
    must(*ufw_command(), *words, timeout=timeout, shown=shlex.join(["ufw", *words]))
