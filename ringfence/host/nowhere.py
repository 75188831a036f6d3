"""Rules tried where nobody is: in a network namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ringfence.host.kept import keep, recall
from ringfence.host.running import run, search_path

TRIALS = 16  # that are kept: what a host's files and rules came to lately


def tried_nowhere(script: str, tools: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a line of shell in an empty network namespace; what succeeded there once is not run again.

    A namespace costs more than what is tried in it. What succeeds in an empty one follows from the text, the programs
    and the kernel alone; what fails may do so for want of something that comes later, and is tried each time.

    Args:
        script: which reads `text`.
        tools: the programs that it calls.
    """
    key = repr((script, text, os.uname().release, [_identity(tool) for tool in tools]))
    said = recall("tried", key)
    if said is not None:
        return subprocess.CompletedProcess(script, 0, said.decode(), "")
    done = run("unshare", "--net", "sh", "-c", script, text=text)
    if not done.returncode:
        keep("tried", key, done.stdout.encode(), TRIALS)
    return done


def _identity(tool: str) -> tuple[object, ...]:
    path = Path(shutil.which(tool, path=search_path()) or "/").resolve()
    try:
        status = path.stat()
    except OSError:
        return (tool,)
    return str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
