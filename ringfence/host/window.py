"""Installing packages inside the guard's window, which is not to pass meanwhile."""

from __future__ import annotations

from pathlib import Path

from ringfence.host.packages import install_packages
from ringfence.host.running import must

GUARD = "/usr/local/sbin/ringfence-guard"


def install_in_window(*names: str) -> None:
    """Install packages; the guard's window, where one is open, stays open as long as that may take.

    Another program that installs packages is waited for, too. Where no window is open, nobody would confirm: a run by
    hand is never given one that would take it back.

    Raises:
        Fault: apt cannot, or the guard does not.
    """
    _extend_window("--seconds", "900")
    try:
        install_packages(*names)
    finally:
        _extend_window()


def _extend_window(*words: str) -> None:
    if Path(GUARD).exists():
        must(GUARD, "extend", *words)
