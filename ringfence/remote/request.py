"""Commands for the text that is sent to hosts (`ringfence.remote.role`)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.remote.input import RemoteInput
from ringfence.remote.role import LOADER

# Isolated: what stands in the directory that a login begins in, or in its environment, is no module of this.
COMMAND = f"python3 -I -c {shlex.quote(LOADER)}"
_TEXT = Path(__file__).with_name("role.py").read_text(encoding="utf-8")


def request(verb: str, desired: Mapping[str, Any], program: str = _TEXT) -> RemoteInput:
    """Build what `COMMAND` reads on standard input.

    Args:
        verb: what is asked of the program.
        desired: what it needs to know; may hold secrets.
        program: the text that is run; by default the one that compares and places.
    """
    return RemoteInput({"program": program, "arguments": [verb], "desired": desired})
