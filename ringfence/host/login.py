"""The SSH connection by which a program was started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Login(NamedTuple):
    """The ends of an SSH connection, as the host sees them."""

    client: str
    client_port: int
    server: str
    server_port: int


def ssh_login() -> Login | None:
    """Return the SSH connection that this process came by; None at the console, or under systemd."""
    pid = os.getpid()
    for _ in range(64):
        try:
            # A file of the running kernel: sudo drops the variable, but not from the environment of its parent.
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            # Field 4, counted from the end of the name, which may itself contain spaces and parentheses.
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            parent = int([*text.rpartition(")")[2].split(), "", ""][1])
        except (OSError, ValueError):
            return None
        for item in environment.split(b"\0"):
            if item.startswith(b"SSH_CONNECTION="):
                words = item.partition(b"=")[2].decode(errors="replace").split()
                if len(words) == 4 and words[1].isdigit() and words[3].isdigit():
                    return Login(words[0], int(words[1]), words[2], int(words[3]))
        pid = parent
        if pid <= 1:
            return None
    return None
