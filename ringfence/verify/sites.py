"""The declared sites as verify reads them: who may reach what, from where, when."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from ringfence.verify.declared import ANY, matches

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FACTORS = {"none": "no login", "one": "password", "two": "two factors", "closed": "nobody"}
STEP = 30.0  # seconds between the moments at which hours are looked at: no window is shorter than a minute


@dataclass(frozen=True)
class Window:
    """Some days, from a minute of the day until before another (24:00 is 1440). Never over midnight."""

    days: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Hours:
    """When: windows in the local time of a zone."""

    name: str
    zone: str
    windows: tuple[Window, ...]

    def open_at(self, epoch: float) -> bool:
        """Whether a moment is in one of the windows."""
        local = datetime.fromtimestamp(epoch, ZoneInfo(self.zone))
        day, minute = DAYS[local.weekday()], local.hour * 60 + local.minute
        return any(day in window.days and window.start <= minute < window.end for window in self.windows)


@dataclass(frozen=True)
class Rule:
    """Who may reach a path of a site. ``path``: "" for all that no other rule names, "/exact", or
    "/prefix/*", which is /prefix and all below it."""

    path: str
    factor: str
    people: tuple[str, ...]
    groups: tuple[str, ...]
    places: tuple[str, ...]
    networks: tuple[str, ...]
    hours: Hours | None

    @property
    def login(self) -> bool:
        """Whether one must sign in."""
        return self.factor in ("one", "two")

    @property
    def bypass(self) -> bool:
        """Whether the application is reached without a login."""
        return self.factor == "none"

    def covers(self, path: str) -> bool:
        """Whether a request's raw path is this rule's, as the proxy matches it: what needs no login, to the letter."""
        if not self.path:
            return True
        mine, asked = (self.path, path) if self.bypass else (self.path.lower(), path.lower())
        if mine.endswith("/*"):
            return asked == mine[:-2] or asked.startswith(mine[:-1])
        return asked == mine

    def allows(self, address: str, moments: tuple[float, float] | None) -> bool | None:
        """Whether an address may come in at any moment of a span; None where the hours change within it.

        Args:
            moments: first and last second, None where the proxy's clock is not known.
        """
        if self.factor == "closed" or not matches(self.networks, address):
            return False
        if self.hours is None:
            return True
        if moments is None:
            return None
        found = {self.hours.open_at(moment) for moment in _steps(*moments)}
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Site:
    """A name that the proxy serves. ``host`` and ``addresses`` are the proxy's; no rules: closed to everybody."""

    name: str
    service: str
    host: str
    addresses: tuple[str, ...]
    rules: tuple[Rule, ...]
    port: int = 443
    plain_port: int = 80

    @property
    def closed(self) -> bool:
        """Whether nobody may reach any of it."""
        return all(rule.factor == "closed" for rule in self.rules)

    def rule_of(self, path: str) -> Rule | None:
        """Return the rule that a request's raw path comes under: the first that covers it."""
        return next((rule for rule in self.rules if rule.covers(path)), None)


@dataclass(frozen=True)
class Sites:
    """All sites. ``portal``: where one signs in; ``root``: PEM certificates to trust, "" for those of the system."""

    sites: tuple[Site, ...] = ()
    portal: str = ""
    root: str = ""


def read(data: Mapping[str, Any]) -> Sites:
    """Read ``verify_sites``, ``verify_portal`` and ``verify_root`` of any host; they are the same on all of them.

    Raises:
        ValueError: a variable does not have the documented shape; names it.
    """
    found = []
    for entry in data.get("verify_sites") or ():
        try:
            found.append(
                Site(
                    entry["name"], entry["service"], entry["host"],
                    tuple(str(ipaddress.ip_address(address)) for address in entry["addresses"]),
                    tuple(map(_rule, entry["rules"])),
                    int(entry.get("port") or 443), int(entry.get("plain_port") or 80),
                )
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            name = entry.get("name") if isinstance(entry, Mapping) else entry
            raise ValueError(f"verify_sites: {name}: not the shape that docs/verify.md describes: {error!r}") from None
    sites = Sites(tuple(found), str(data.get("verify_portal") or ""), str(data.get("verify_root") or ""))
    if not sites.portal and any(rule.login for site in sites.sites for rule in site.rules):
        raise ValueError("verify_portal: is empty, and there are sites that need a login: say the portal's name")
    return sites


def _rule(entry: Mapping[str, Any]) -> Rule:
    if entry["factor"] not in FACTORS:
        raise ValueError(f"factor {entry['factor']!r} is none of {', '.join(FACTORS)}")
    networks = tuple(str(network) for network in entry["networks"])
    matches(networks, "192.0.2.1")  # what is no network says so here, not while visits are judged
    return Rule(
        entry.get("path") or "", entry["factor"],
        tuple(entry.get("people") or ()), tuple(entry.get("groups") or ()), tuple(entry.get("places") or ()),
        networks, _hours(entry.get("hours") or {}, entry.get("hours_name") or ""),
    )  # fmt: skip


def _hours(entry: Mapping[str, Any], name: str) -> Hours | None:
    if not entry:
        return None
    ZoneInfo(entry["zone"])
    windows = []
    for one in entry["windows"]:
        strange = set(one["days"]) - set(DAYS)
        if strange:
            raise ValueError(f"hours: {', '.join(sorted(strange))}: none of {', '.join(DAYS)}")
        windows.append(Window(tuple(d for d in DAYS if d in one["days"]), _minute(one["from"]), _minute(one["to"])))
    return Hours(name, entry["zone"], tuple(windows))


def _minute(text: str) -> int:
    """``"17:05"`` as a minute of the day, up to ``"24:00"``."""
    hour, minute = map(int, text.split(":"))
    if not (0 <= hour < 24 and 0 <= minute < 60) and (hour, minute) != (24, 0):
        raise ValueError(f"hours: {text!r} is no time of day")
    return hour * 60 + minute


def _steps(first: float, last: float) -> Iterator[float]:
    moment = first
    while moment < last:
        yield moment
        moment += STEP
    yield last


def listing(sites: Sites) -> list[str]:
    """Say who may reach what, from where, when: a line per rule, and what is reached without a login once more."""
    if not sites.sites:
        return []
    lines = ["who may reach what, from where, when:"]
    for site in sites.sites:
        if site.closed:
            lines.append(f"  {site.name} ({site.service}): CLOSED to everybody")
            continue
        lines.append(f"  {site.name} ({site.service})")
        rows = [_row(site, rule) for rule in site.rules]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines += [
            "    " + "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]])
            for row in rows
        ]
    bypassed = [f"{site.name}{rule.path or '/*'}" for site in sites.sites for rule in site.rules if rule.bypass]
    lines.append(f"  reached without a login (bypass): {', '.join(bypassed) or 'nothing'}")
    return lines


def _row(site: Site, rule: Rule) -> list[str]:
    path = rule.path or ("everything else" if len(site.rules) > 1 else "everything")
    if rule.factor == "closed":
        return [path, "CLOSED", "", "", ""]
    factor = "BYPASS: no login" if rule.bypass else FACTORS[rule.factor]
    hours = "always" if rule.hours is None else when(rule.hours)
    return [path, who(rule), factor, f"from {where(rule)}", hours]


def who(rule: Rule) -> str:
    """Name the people of a rule."""
    if rule.bypass:
        return "anybody"
    named = [*rule.people, *(f"group {group}" for group in rule.groups)]
    return ", ".join(named) or "whoever signs in"


def where(rule: Rule) -> str:
    """Name the places of a rule."""
    return "anywhere" if ANY in rule.networks else ", ".join(rule.places or rule.networks) or "nowhere"


def when(hours: Hours, *, named: bool = True) -> str:
    """Spell out hours: name, days, times and zone."""
    windows = [f"{_days(w.days)} {_clock(w.start)}-{_clock(w.end)}" for w in hours.windows]
    text = f"{', '.join(windows) or 'never'} {hours.zone}"
    return f"{hours.name}: {text}" if hours.name and named else text


def _days(days: tuple[str, ...]) -> str:
    """``mon-fri``, ``sat, sun``, ``daily``."""
    if len(days) == len(DAYS):
        return "daily"
    runs: list[list[str]] = []
    for day in days:
        if runs and DAYS.index(day) == DAYS.index(runs[-1][-1]) + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
