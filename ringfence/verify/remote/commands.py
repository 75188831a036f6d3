"""Commands of the host."""

from __future__ import annotations

import subprocess
from typing import Any

Json = dict[str, Any]


class ProbeFailedError(Exception):
    """Something the caller has to know, in one sentence."""


def run(*argv: str, text: str | None = None, seconds: float = 20) -> str | None:
    """Standard output of a command, or None when it is missing, fails or hangs."""
    try:
        return asked(*argv, text=text, seconds=seconds)
    except ProbeFailedError:
        return None


def asked(*argv: str, text: str | None = None, seconds: float = 20) -> str:
    """Standard output of a command. What it cannot tell must not look like "there is nothing"."""
    what = " ".join(argv[:4])
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise ProbeFailedError(f"{what}: no answer within {seconds:.0f} s") from error
    except OSError as error:
        raise ProbeFailedError(f"{what}: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it failed without a message"]
        raise ProbeFailedError(f"{what}: {said[-1]}")
    return done.stdout
