"""The SSH connection by which a program was started."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import NamedTuple


class Login(NamedTuple):
    """The ends of an SSH connection, as the host sees them; addresses without scope, IPv4 never as a part of IPv6."""

    client: str
    client_port: int
    server: str
    server_port: int
    user: str = ""  # who logged in, before sudo made another of them; "" where that is unknown


def ssh_login() -> Login | None:
    """Return the SSH connection that this process came by; None at the console, or under systemd."""
    pid, found = os.getpid(), None
    for _ in range(64):
        try:
            # A file of the running kernel: sudo drops the variable, but not from the environment of its parent.
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            # Field 4, counted from the end of the name, which may itself contain spaces and parentheses.
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            parent = int([*text.rpartition(")")[2].split(), "", ""][1])
            owner = Path(f"/proc/{pid}").stat().st_uid
        except (OSError, ValueError):
            break
        login = _login(environment, owner)
        # The innermost is the connection; the outermost process of the same one is the login's.
        if login and (found is None or found[:4] == login[:4]):
            found = login
        pid = parent
        if pid <= 1:
            break
    return found


def _login(environment: bytes, owner: int) -> Login | None:
    for item in environment.split(b"\0"):
        words = item.partition(b"=")[2].decode(errors="replace").split()
        if item.startswith(b"SSH_CONNECTION=") and len(words) == 4 and words[1].isdigit() and words[3].isdigit():
            client, server = (word.partition("%")[0].removeprefix("::ffff:") for word in (words[0], words[2]))
            return Login(client, int(words[1]), server, int(words[3]), _user(environment, owner))
    return None


def _user(environment: bytes, owner: int) -> str:
    """Return whose process the login's is. A shell that only runs sudo becomes sudo, which is root's from then on, with
    the environment of whoever has logged in."""
    named = [item[8:].decode(errors="replace") for item in environment.split(b"\0") if item.startswith(b"LOGNAME=")]
    try:
        return pwd.getpwnam(named[0]).pw_name if named and owner == 0 else pwd.getpwuid(owner).pw_name
    except KeyError:
        return ""
