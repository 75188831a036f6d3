"""The second reading of sites and their access, which shares no code with the model and the compiler.

Each rule becomes facts in plain words; hours become the minutes of the week that they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

LAB_VARIABLES = ("lab_devices", "lab_domain", "lab_hours", "lab_portal", "lab_proxy", "lab_services")
_Fact = tuple[str, ...]
_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60


def declared(lab: Mapping[str, Any], networks: Callable[[list[str]], list[str]]) -> Iterator[_Fact]:
    """Yield what the lab says of its sites.

    Args:
        lab: the `LAB_VARIABLES` as the user wrote them.
        networks: follows names of places and devices to their networks.
    """
    if not (proxy := lab.get("lab_proxy")):
        return
    domain = lab.get("lab_domain") or "lab.home"
    for service, entry in (lab.get("lab_services") or {}).items():
        if not (site := entry.get("site")):
            continue
        name = f"{site['name'] if isinstance(site, Mapping) else site}.{domain}"
        yield ("site", name, service)
        if access := entry.get("access"):
            whole = {"factor": "two", "from": proxy["from"], **access}
            paths = {path: {**whole, **_said(rule, whole)} for path, rule in (access.get("paths") or {}).items()}
            paths |= {path: {**whole, "factor": "none"} for path in access.get("bypass") or ()}
            for path, rule in {**paths, "": whole}.items():
                yield from _rule(name, path, rule, networks, lab.get("lab_hours") or {})


def _said(rule: Mapping[str, Any] | None, whole: Mapping[str, Any]) -> dict[str, Any]:
    """What a path's rule changes; people and groups are one answer to one question."""
    rule = rule or {}
    named = rule.get("people") or rule.get("groups")
    who = {key: rule.get(key) for key in ("people", "groups")} if named else {}
    return {**{key: rule[key] for key in ("factor", "from", "hours") if rule.get(key)}, **who}


def _rule(
    site: str, path: str, rule: Mapping[str, Any], networks: Callable[[list[str]], list[str]], hours: Mapping[str, Any]
) -> Iterator[_Fact]:
    where = f"{site}{path}"
    groups, people = _list(rule.get("groups")), _list(rule.get("people"))
    anybody = rule["factor"] == "none" or "everyone" in groups
    yield ("rule", where, rule["factor"])
    yield from (("may", where, f"group {group}") for group in groups if not anybody)
    yield from (("may", where, f"person {person}") for person in people if not anybody)
    yield ("from", where, *networks(_list(rule["from"])))
    named = _list(rule.get("hours"))
    if named:
        minutes = {m for name in named for m in _minutes(hours[name])}
        yield ("when", where, hours[named[0]]["zone"], _spans(minutes))


def _minutes(hours: Mapping[str, Any]) -> Iterator[int]:
    start, end = _clock(hours["from"]), _clock(hours["to"])
    length = end - start if end > start else end - start + _DAY
    for day in hours.get("days") or _WEEK:
        first = _WEEK.index(day) * _DAY + start
        yield from ((first + minute) % (7 * _DAY) for minute in range(length))


def told(sites: Iterable[Mapping[str, Any]]) -> Iterator[_Fact]:
    """Yield the same facts from what the compiler wrote (``verify_sites``)."""
    for site in sites:
        yield ("site", site["name"], site["service"])
        for rule in site["rules"]:
            where = f"{site['name']}{rule['path']}"
            yield ("rule", where, rule["factor"])
            yield from (("may", where, f"group {group}") for group in rule["groups"])
            yield from (("may", where, f"person {person}") for person in rule["people"])
            yield ("from", where, *sorted(rule["networks"]))
            if when := rule["hours"]:
                minutes = {
                    _WEEK.index(day) * _DAY + minute
                    for window in when["windows"]
                    for day in window["days"]
                    for minute in range(_clock(window["from"]), _clock(window["to"]))
                }
                yield ("when", where, when["zone"], _spans(minutes))


def _clock(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)


def _spans(minutes: set[int]) -> str:
    """Return minutes of the week as text: where each span begins and ends."""
    edges = [m for m in sorted(minutes) if m - 1 not in minutes]
    ends = [m + 1 for m in sorted(minutes) if m + 1 not in minutes]
    return ", ".join(f"{_told(a)}-{_told(b)}" for a, b in zip(edges, ends, strict=True))


def _told(minute: int) -> str:
    return f"{_WEEK[minute // _DAY % 7]} {minute % _DAY // 60:02}:{minute % 60:02}"


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
