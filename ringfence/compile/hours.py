"""Hours as windows of single days: what the proxy evaluates, what verify prints, and what alerts will follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ringfence.model.identity import DAYS, Hours

BEGIN, END = "00:00", "24:00"


def windows(hours: Mapping[str, Hours], names: Iterable[str]) -> dict[str, Any]:
    """Return named hours as ``{zone, windows: [{days, from, to}]}``; {} for no names, which is always.

    No window crosses midnight: what lasts into the next day is a second one. The union of all names.
    """
    chosen = [hours[name] for name in names]
    if not chosen:
        return {}
    found: list[dict[str, Any]] = []
    for one in chosen:
        days = [day for day in DAYS if day in one.days]
        if one.end > one.start:
            found.append({"days": days, "from": one.start, "to": one.end})
            continue
        found.append({"days": days, "from": one.start, "to": END})
        if one.end != BEGIN:
            after = {DAYS[(DAYS.index(day) + 1) % len(DAYS)] for day in days}
            found.append({"days": [day for day in DAYS if day in after], "from": BEGIN, "to": one.end})
    return {"zone": chosen[0].zone, "windows": found}
