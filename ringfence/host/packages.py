"""Debian's packages."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from ringfence.host.running import Fault, must, say


def package_states(names: Iterable[str]) -> dict[str, str]:
    """Return dpkg's status of those of the packages that it knows: {package: "installed", "half-configured", …}.

    Raises:
        Fault: dpkg does not answer.
    """
    # It ends with 1 when it does not know one of them.
    out = must("dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\\n", *names, codes=(0, 1))
    return dict(line.split(" ", 1) for line in out.splitlines() if " " in line)


LOCKED = 300.0  # seconds that another program is given to end its own work with packages
LOCKED_PAUSE, LOCKED_SPEAKS = 2.0, 10.0  # seconds between two attempts, and between two words about them
# How apt and dpkg word it. apt itself waits for dpkg's lock only, up to its release 3.0 at least, and tells nobody; the
# locks of its lists and of its archives it asks for once.
_AT_WORK = re.compile(r"(Could not get lock|Unable to acquire the dpkg|.*lock was locked by another process)[^\n]*")
# An answer takes a moment or does not come; apt itself would wait for minutes, many times.
_GET = (
    "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=1", "-o", "Acquire::Retries=1",
    "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20",
)  # fmt: skip


def update_lists() -> None:
    """Fetch apt's lists of packages. Raises Fault with apt's own words."""
    _once_free(*_GET, "update", timeout=600)


def install_packages(*names: str) -> None:
    """Install packages without what they merely recommend, keeping configuration files that were changed.

    Raises:
        Fault: apt cannot; with its own words.
    """
    # What would have to go is the user's decision: apt refuses, and says what it is.
    options = ("--no-install-recommends", "--no-remove", "-o", "Dpkg::Options::=--force-confold")
    install = ("install", *options, *names)
    try:
        _once_free(*_GET, *install, timeout=1800)
        return
    except Fault as fault:
        if _AT_WORK.search(str(fault)):
            raise
        if "dpkg --configure -a" in str(fault):  # a run was killed inside dpkg
            _once_free("dpkg", "--configure", "-a", "--force-confold", timeout=600)
    update_lists()  # they may be old, or missing
    _once_free(*_GET, *install, timeout=1800)


def _once_free(*command: str, timeout: float) -> None:
    """Run a command of apt or dpkg, again while another program is at work with packages, and say so.

    Raises:
        Fault: it fails, or the other one is at work for longer than `LOCKED`.
    """
    begun, spoke = time.monotonic(), float("-inf")
    while True:
        try:
            must(*command, timeout=timeout)
            return
        except Fault as fault:
            held, waited = _AT_WORK.search(str(fault)), time.monotonic() - begun
            if not held or waited >= LOCKED:
                raise
            if time.monotonic() - spoke >= LOCKED_SPEAKS:
                spoke = time.monotonic()
                say(f"waits, for {waited:.0f} of at most {LOCKED:.0f} s, to install packages: {held[0]}")
        time.sleep(LOCKED_PAUSE)  # whether the lock is free is told by trying: apt cannot be made to wait for all three
