"""Hours on the real Caddy. Its clock cannot be set, so the windows are laid around now, and not around now."""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.caddy import stubs
from tests.unit.caddy.client import Answer, request, send
from tests.unit.caddy.proxy import Proxy

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
# East and west of the date line (there it is another day), half an hour and three quarters beside the others, with and
# without summer time.
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Pacific/Kiritimati",
    "Pacific/Pago_Pago", "Australia/Lord_Howe",
]  # fmt: skip
Window = dict[str, Any]


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def cases(now: datetime.datetime) -> dict[str, tuple[list[Window], bool]]:
    """Windows by what they are, each with whether it is open; their edges are five minutes away, or the day's.

    Args:
        now: the local time of a zone.
    """
    today, minute = DAYS[now.weekday()], now.hour * 60 + now.minute
    yesterday, tomorrow = DAYS[now.weekday() - 1], DAYS[(now.weekday() + 1) % 7]
    start, end = max(minute - 5, 0), min(minute + 5, 1440)

    def window(days: list[str], first: int, last: int) -> Window:
        return {"days": days, "from": clock(first), "to": clock(last)}

    found = {
        "around": ([window([today], start, end)], True),
        "all-day": ([window([today], 0, 1440)], True),
        "week": ([window(DAYS, 0, 1440)], True),
        "second": ([window([tomorrow], 0, 1440), window([today], start, end)], True),
        "none": ([], False),
        "yesterday": ([window([yesterday], start, end)], False),
        "tomorrow": ([window([tomorrow], start, end)], False),
        "other-days": ([window([day for day in DAYS if day != today], 0, 1440)], False),
        "empty": ([window([today], minute, minute)], False),
    }
    if minute > 10:
        found["before"] = ([window(DAYS, 0, minute - 5)], False)
    if minute < 1430:
        found["after"] = ([window(DAYS, minute + 5, 1440)], False)
    return found


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, stubs.Stub, stubs.Stub, dict[str, bool]]]:
    app, auth = stubs.Stub(stubs.application), stubs.Stub(stubs.sign_in)
    sites, wanted = [], {}
    for number, zone in enumerate(ZONES):
        now = datetime.datetime.now(zoneinfo.ZoneInfo(zone))
        if (now.hour, now.minute) >= (23, 56):
            continue  # its day ends while the test runs; where the others are it does not
        for what, (windows, opened) in cases(now).items():
            wanted[name := f"{what}-{number}.lab.home"] = opened
            rule = {"path": "", "login": True, "networks": ["any"], "hours": {"zone": zone, "windows": windows}}
            sites.append({"name": name, "upstream": f"127.0.0.1:{app.port}", "rules": [rule]})
    portal = {"name": "auth.lab.home", "upstream": f"127.0.0.1:{auth.port}", "networks": ["any"]}
    proxy = Proxy(tmp_path_factory.mktemp("hours"), {"portal": portal, "sites": sites})
    try:
        yield proxy.start(), app, auth, wanted
    finally:
        proxy.stop()


def ask(proxy: Proxy, name: str) -> Answer:
    return send(proxy.https, name, request(host=name, cookie="alice"))


def test_a_site_is_open_in_its_windows_and_at_no_other_time(
    hours: tuple[Proxy, stubs.Stub, stubs.Stub, dict[str, bool]],
) -> None:
    proxy, app, auth, wanted = hours
    assert len(wanted) > 60
    for name, opened in wanted.items():
        app.seen.clear()
        auth.seen.clear()
        answer = ask(proxy, name)
        assert answer.status == (200 if opened else 403), name
        assert bool(app.seen) == opened, name
        if not opened:
            assert "Not now" in answer.text
            assert not auth.seen, f"{name}: a login page that leads nowhere"


def test_the_days_of_the_week_are_those_of_the_zone() -> None:
    """On the two sides of the date line it is never the same day: the cases above hold both."""
    now = datetime.datetime.now(datetime.UTC)
    days = {now.astimezone(zoneinfo.ZoneInfo(zone)).date() for zone in ZONES}
    assert len(days) > 1
