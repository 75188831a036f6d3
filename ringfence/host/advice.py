"""What to do about a failure whose own words do not say it."""

from __future__ import annotations

import re
import time

# How programs word it, and the fix. The first that fits counts.
_FIXES = (
    (
        r"No space left on device|enough free space|Disk quota exceeded",
        "a disk is full: `df -h` and `df -i` say which; make room (apt-get clean, docker system df), then run again",
    ),
    (r"Read-only file system", "a file system is read-only: `dmesg` says why; mend it, then run again"),
    (
        r"Could not get lock|Unable to acquire the dpkg|lock was locked by another process",
        "another program is installing packages: wait until it has ended, then run again",
    ),
    (
        r"is not valid yet|is not yet valid|Release file .* is expired|certificate has expired",
        "this host's clock says {now}: if that is wrong, set it (timedatectl set-ntp true), then run again",
    ),
    (
        r"Temporary failure resolving|Could not resolve|Could not connect|Failed to fetch|Unable to connect"
        r"|Unable to locate package|Connection timed out \[IP",
        "this host does not get what it asks of its package mirror: check its resolv.conf, its way out and "
        "/etc/apt/sources.list*, then run again",
    ),
)


def with_advice(words: str) -> str:
    """Return a message with what to do about it on a line of its own, where that is known and not said."""
    for pattern, fix in _FIXES:
        if re.search(pattern, words):
            return f"{words}\n{fix.format(now=time.strftime('%Y-%m-%d %H:%M %Z'))}"
    return words
