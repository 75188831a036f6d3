"""What happened at one place, as lines of JSON: {"t": seconds since 1970, kind: {name: how often}, …}."""

from __future__ import annotations

import json
import time
from pathlib import Path

TICK = 0.1  # seconds


class Ledger:
    """Counts, of which every TICK one line is written: what a reboot cuts off is one line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._counts: dict[str, dict[str, int]] = {}
        self._due = time.monotonic() + TICK

    def count(self, kind: str, name: str, times: int = 1) -> None:
        counts = self._counts.setdefault(kind, {})
        counts[name] = counts.get(name, 0) + times

    def turn(self, here: bool) -> None:
        """Write a line if it is time; `here` says whether the place exists now."""
        now = time.monotonic()
        if now < self._due:
            return
        if here:
            # Thousandths of a second: a tick that was late counts for as long as it took.
            self.count("here", "ms", round((now - self._due + TICK) * 1000))
        self._due = now + TICK
        if self._counts:
            self._file.write(json.dumps({"t": round(time.time(), 3), **self._counts}, separators=(",", ":")) + "\n")
            self._counts = {}
