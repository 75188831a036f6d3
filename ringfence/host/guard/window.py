"""When a window has passed, and why: it counts from the end of applying."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

# A window: {"boot", "armed", "seconds", "deadline", "reasons", …}; that of an engine also {"window": its name, "limit",
# "give_up"} and, until its change is made, {"holder"}. Moments are seconds since boot.
Window = dict[str, Any]


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def now() -> float:
    """Seconds since boot, time asleep included; the wall clock may jump when time sync starts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def process(pid: int) -> str:
    """Name a process so that no later one with its number is taken for it; "" where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # Behind the name, which may contain anything: the state, and as the twentieth word the moment when it began.
    words = text.rpartition(")")[2].split()
    return "" if words[0] in "ZX" else f"{pid} {words[19]}"


def is_held(window: Window) -> bool:
    """Whether the change is still being made: its clock has not begun to run."""
    holder = window.get("holder", "")
    return bool(holder) and window["boot"] == boot_id() and process(int(holder.split()[0])) == holder


def left(window: Window) -> float:
    """Seconds until a window passes unless something happens; 0 when it has.

    Whoever makes a change may take until its limit. If it dies without a word, the clock has run since it began.
    """
    if window["boot"] != boot_id():
        return 0.0
    end: float = window["give_up"] if is_held(window) else window["deadline"]
    return max(0.0, end - now())


def why_passed(window: Window) -> str:
    """Say what took so long, or what ended, that a window passed."""
    if window["boot"] != boot_id():
        return "the host was restarted before anybody confirmed"
    spent = now() - window.get("armed", now())
    if is_held(window):
        return (
            f"applying it was not done after {spent:.0f} s (guard_apply_seconds is {window['limit']}: raise it if this "
            "host is slow, or see in the journal what hung)"
        )
    if window.get("holder"):
        return f"what applied it ended on the way, in the last {spent:.0f} s"
    took = window.get("took")
    applied = f" after it was applied, which took {took:.0f} s" if took is not None else ""
    return (
        f"nobody confirmed within {window['seconds']} s{applied} (a way in that is merely slow needs a larger "
        "guard_seconds)"
    )
