"""Who may reach which site, from where, when: how verify reads it, whom it sends there, and what it expects."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest

from ringfence.verify import declared as declaration
from ringfence.verify.cells import Matrix
from ringfence.verify.expected import Rules
from ringfence.verify.report import Answers, as_json, judge, junit, text, with_sites
from ringfence.verify.seen import Container, Seen
from ringfence.verify.sites import Sites, listing, read
from ringfence.verify.visited import SiteReport, answer_of, expectation, moments
from ringfence.verify.visited import judge as judge_visits
from ringfence.verify.visits import Plan, Visit, path_of, plan, request

LAN, GUEST = "10.213.0.0/24", "10.213.5.0/24"
EVENING = {
    "zone": "Europe/Berlin",
    "windows": [
        {"days": ["fri", "sat"], "from": "17:00", "to": "24:00"},
        {"days": ["sat", "sun"], "from": "00:00", "to": "01:00"},
    ],
}


def rule(path: str = "", factor: str = "two", **more: Any) -> dict[str, Any]:
    given = {"people": [], "groups": ["family"], "places": ["lan"], "networks": [LAN], "hours": {}, "hours_name": ""}
    return {"path": path, "factor": factor, **given, **more}


def site(name: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {"service": name, "host": "atlas", "addresses": ["10.213.0.10", "fd52:4600::10"]}
    return {"name": f"{name}.lab.home", **given, "rules": list(rules), **more}


VARIABLES: dict[str, Any] = {
    "verify_portal": "auth.lab.home",
    "verify_root": "PEM",
    "verify_sites": [
        site("cloud", rule("/status.php", "none", networks=["any"]), rule("/dav/*", "none"), rule()),
        site("media", rule(factor="one", people=["owner"], hours=EVENING, hours_name="weekend")),
        site("panel"),
    ],
}
SITES = read(VARIABLES)
CLOUD, MEDIA, PANEL = SITES.sites


def epoch(text: str, zone: str = "Europe/Berlin") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def test_without_sites_everything_is_as_before() -> None:
    assert read({"verify_sites": None}) == Sites()
    empty = judge(Matrix({}, ()), Answers({}, {}, {}))
    assert text(with_sites(empty, SiteReport())) == "\n0 cells: 0 open, 0 closed, 0 differences"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"verify_portal": ""}, "verify_portal: is empty"),
        ({"verify_sites": [{"name": "cloud.lab.home"}]}, "cloud.lab.home: not the shape"),
        ({"verify_sites": [site("cloud", rule(factor="three"))]}, "factor 'three' is none of"),
        ({"verify_sites": [site("cloud", rule(networks=["lan"]))]}, "'lan'"),
        ({"verify_sites": [site("cloud", rule(hours={"zone": "Moon/Base", "windows": []}))]}, "Moon/Base"),
        (
            {"verify_sites": [site("a", rule(hours={**EVENING, "windows": [{"days": ["mo"], "from": "", "to": ""}]}))]},
            "hours: mo: none of",
        ),
        (
            {
                "verify_sites": [
                    site("a", rule(hours={**EVENING, "windows": [{"days": [], "from": "24:01", "to": "24:00"}]}))
                ]
            },
            "'24:01' is no time of day",
        ),
    ],
)
def test_what_has_not_the_documented_shape_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match="verify_") as failure:
        read({**VARIABLES, **change})
    assert named in str(failure.value)


@pytest.mark.parametrize(
    ("moment", "open_now"),
    [
        ("2026-11-27 16:59:59", False),  # a Friday
        ("2026-11-27 17:00:00", True),
        ("2026-11-27 23:59:59", True),
        ("2026-11-28 00:59:59", True),  # Saturday: what the compiler split off the window over midnight
        ("2026-11-28 01:00:00", False),
        ("2026-11-26 18:00:00", False),
        ("2026-07-03 17:00:00", True),  # daylight saving: 15:00 UTC, not 16:00
        ("2026-10-25 00:59:59", True),  # the Sunday on which clocks go back
        ("2026-10-25 02:30:00", False),
    ],
)
def test_hours_are_of_their_zone(moment: str, open_now: bool) -> None:
    hours = MEDIA.rules[0].hours
    assert hours is not None
    assert hours.open_at(epoch(moment)) is open_now


def test_an_hour_that_occurs_twice_is_in_its_window_twice() -> None:
    window = {"zone": "Europe/Berlin", "windows": [{"days": ["sun"], "from": "02:00", "to": "03:00"}]}
    hours = read({**VARIABLES, "verify_sites": [site("a", rule(hours=window))]}).sites[0].rules[0].hours
    assert hours is not None
    first = epoch("2026-10-25 00:30:00", "UTC")
    assert [hours.open_at(first + n * 3600) for n in (-1, 0, 1, 2)] == [False, True, True, False]


def test_a_span_in_which_the_hours_change_decides_nothing() -> None:
    mine, begin = MEDIA.rules[0], epoch("2026-11-27 17:00:00")
    assert mine.allows("10.213.0.20", (begin - 20, begin - 1)) is False
    assert mine.allows("10.213.0.20", (begin - 20, begin + 1)) is None
    assert mine.allows("10.213.0.20", (begin, begin + 90)) is True
    # Open at both ends, and not between them.
    assert mine.allows("10.213.0.20", (epoch("2026-11-28 00:59:00"), epoch("2026-11-28 17:01:00"))) is None
    assert mine.allows("10.213.0.20", None) is None
    assert mine.allows("10.213.5.20", None) is False, "the place alone decides"


def test_the_span_of_the_visits_holds_however_slowly_the_host_said_its_time() -> None:
    found = moments({"atlas": (1000.0, 50.0, 58.0)}, [100.0, 110.0])
    assert found == {"atlas": (1000 + 100 - 58 - 5, 1000 + 110 - 50 + 5)}
    assert moments({"atlas": (1000.0, 50.0, 58.0)}, []) == {}


def test_the_most_exact_rule_decides_and_without_a_login_only_to_the_letter() -> None:
    status, dav, rest = CLOUD.rules
    for path, wanted in {
        "/status.php": status, "/STATUS.php": rest, "/status.php/x": rest, "/dav/": dav, "/dav/x/y": dav, "/dav": dav,
        "/davx": rest, "/": rest, "/dav.": rest,
    }.items():  # fmt: skip
        assert CLOUD.rule_of(path) is wanted, path
    strict = read({**VARIABLES, "verify_sites": [site("a", rule("/Admin/*"), rule("", "none"))]}).sites[0]
    assert strict.rule_of("/aDMIN/x") is strict.rules[0]


def test_a_rule_that_others_hide_has_no_path() -> None:
    hidden = read({**VARIABLES, "verify_sites": [site("a", rule(), rule("/x"))]})
    assert path_of(hidden.sites[0], hidden.sites[0].rules[1]) is None
    found = plan(hidden, rules())
    assert [line.split(",")[0] for line in found.problems] == ["a.lab.home/x: the rules before it cover all of it"]


def test_the_listing_says_who_where_when_and_marks_what_needs_no_login() -> None:
    assert listing(SITES) == [
        "who may reach what, from where, when:",
        "  cloud.lab.home (cloud)",
        "    /status.php      anybody       BYPASS: no login  from anywhere  always",
        "    /dav/*           anybody       BYPASS: no login  from lan       always",
        "    everything else  group family  two factors       from lan       always",
        "  media.lab.home (media)",
        "    everything  owner, group family  password  from lan  "
        "weekend: fri, sat 17:00-24:00, sat, sun 00:00-01:00 Europe/Berlin",
        "  panel.lab.home (panel): CLOSED to everybody",
        "  reached without a login (bypass): cloud.lab.home/status.php, cloud.lab.home/dav/*",
    ]
    assert listing(Sites()) == []


def rules(**seen: Seen) -> Rules:
    """A proxy on atlas, published to `lan` and `guest` by 443 and 80; `internet` may not reach it."""
    lab = declaration.read({
        "verify_services": [
            {"name": "caddy", "host": "atlas", "project": "caddy", "ports": [{"proto": "tcp", "port": 443}],
             "networks": [{"network": "rf-front", "address": "172.20.0.2", "address6": ""}]},
        ],
        "verify_published": [
            {"service": "caddy", "host": "atlas", "proto": "tcp", "published": port, "port": port,
             "places": ["lan", "guest"], "sources": [LAN, GUEST]} for port in (80, 443)
        ],
        "verify_hosts": [{"name": "atlas", "addresses": ["10.213.0.10", "fd52:4600::10"], "services": []}],
        "verify_vantages": [
            {"name": "lan", "host": "outside", "address": "10.213.0.20", "address6": "fd52:4600::20"},
            {"name": "guest", "host": "outside", "address": "10.213.5.20"},
            {"name": "internet", "host": "outside", "address": "198.51.100.20"},
            {"name": "itself", "host": "atlas", "address": "10.213.0.10"},
        ],
    })  # fmt: skip
    caddy = Container("caddy-caddy-1", 1, 2, "caddy", "caddy", {"rf-front": ("172.20.0.2", "")})
    both = {
        "atlas": Seen("atlas", (("lan0", "10.213.0.10", 24),), containers=(caddy,)),
        "outside": Seen("outside", (("lan0", "10.213.0.20", 24), ("g0", "10.213.5.20", 24))),
    }
    return Rules(lab, seen or both)


def test_every_vantage_goes_to_every_rule_and_once_to_what_is_not_published_for_it() -> None:
    found = plan(SITES, rules())
    assert found.problems == found.unvisited == ()
    assert [visit.number for visit in found.visits] == list(range(len(found.visits)))
    for vantage in ("lan", "guest"):
        went = {v.shown for v in found.visits if (v.vantage, v.kind, v.address) == (vantage, "rule", "10.213.0.10")}
        assert went == {
            "cloud.lab.home/status.php", "cloud.lab.home/dav/ringfence-verify", "cloud.lab.home/", "media.lab.home/",
            "panel.lab.home/",
        }  # fmt: skip
    # Neither is the port published for `internet`, nor has the proxy an IPv6 address.
    for closed in (
        [v for v in found.visits if v.vantage == "internet"],
        [v for v in found.visits if v.own[:2] == "fd"],
    ):
        assert [v.shown for v in closed] == ["cloud.lab.home/", "media.lab.home/", "panel.lab.home/"]
        assert {expectation(v, None)[0] for v in closed} == {("none",)}
    assert "itself" not in {v.vantage for v in found.visits}


def test_what_tries_to_slip_past_a_login() -> None:
    found = [v for v in plan(SITES, rules()).visits if v.vantage == "lan" and v.address == "10.213.0.10"]
    paths = {v.path for v in found if v.kind == "path" and v.site == "cloud.lab.home"}
    assert paths == {
        "//", "/ringfence-verify/../",
        "/status.php/../ringfence-verify", "/status.php/%2e%2e/ringfence-verify", "/status.php-ringfence-verify",
        "/status.php;/ringfence-verify", "/status.php%2f..%2fringfence-verify", "/status.php/ringfence-verify",
        "/STATUS.PHP",
        "/dav/../ringfence-verify", "/dav/%2e%2e/ringfence-verify", "/dav-ringfence-verify", "/dav;/ringfence-verify",
        "/dav%2f..%2fringfence-verify", "/DAV/RINGFENCE-VERIFY",
    }  # fmt: skip
    forged = [v for v in found if v.kind == "forged" and v.site == "cloud.lab.home"]
    # What is for everybody has no place to lie about.
    assert [(v.path, [name for name, _ in v.headers]) for v in forged] == [
        ("/dav/ringfence-verify", ["X-Forwarded-For", "X-Real-IP", "X_Forwarded_For", "X.Forwarded.For"]),
        ("/", ["X-Forwarded-For", "X-Real-IP", "X_Forwarded_For", "X.Forwarded.For"]),
        ("/", ["Remote-User", "Remote-Groups"]),
        ("/", ["remote_user", "Remote.User"]),
    ]
    assert {value for v in forged for name, value in v.headers if name == "X-Real-IP"} == {"10.213.0.1"}
    assert {v.named for v in found if v.kind == "stranger" and not v.tls} == {
        "10.213.0.10",
        "ringfence-verify.lab.home",
    }
    assert {(v.sni, v.named) for v in found if v.kind == "stranger" and v.tls} == {
        ("", "10.213.0.10"),
        ("ringfence-verify.lab.home", "ringfence-verify.lab.home"),
        ("cloud.lab.home", "media.lab.home"),
        ("media.lab.home", "panel.lab.home"),
        ("panel.lab.home", "cloud.lab.home"),
    }
    plain = [v for v in found if v.kind == "plain"]
    assert [(v.port, v.tls, v.named) for v in plain] == [(80, False, s.name) for s in SITES.sites]


def test_what_needs_no_login_anyway_is_not_forged() -> None:
    open_site = read(
        {
            **VARIABLES,
            "verify_sites": [site("a", rule("/x/*", "none", networks=["any"]), rule("", "none", networks=["any"]))],
        }
    )
    kinds = {v.kind for v in plan(open_site, rules()).visits}
    assert kinds == {"rule", "plain", "stranger"}


def test_a_proxy_that_nobody_can_visit_is_named() -> None:
    alone = plan(SITES, rules(outside=rules().seen["outside"]))
    assert alone.visits == ()
    assert alone.problems[0] == "cloud.lab.home: its proxy's host atlas did not take part, so nobody visited it"
    nobody = plan(SITES, rules(atlas=rules().seen["atlas"]))
    assert (nobody.problems, nobody.unvisited) == ((), tuple(s.name for s in SITES.sites))
    elsewhere = read({**VARIABLES, "verify_sites": [site("a", rule(), host="titan")]})
    assert "titan is not among verify_hosts" in plan(elsewhere, rules()).problems[0]


def test_a_request_is_written_to_the_byte() -> None:
    mine = next(v for v in plan(SITES, rules()).visits if v.path == "/dav/%2e%2e/ringfence-verify")
    assert mine.request() == (
        "GET /dav/%2e%2e/ringfence-verify HTTP/1.1\r\nHost: cloud.lab.home\r\nUser-Agent: ringfence-verify\r\n"
        "Accept: text/html\r\nConnection: close\r\n\r\n"
    )
    asked = request(plan(SITES, rules()), SITES.root, "outside")
    assert asked["root"] == "PEM"
    assert {one["trust"] for one in asked["visits"]} == {True, False}
    assert request(plan(SITES, rules()), SITES.root, "atlas")["visits"] == []


def visit(**changes: Any) -> Visit:
    first = next(v for v in plan(SITES, rules()).visits if (v.vantage, v.shown) == ("lan", "cloud.lab.home/"))
    return replace(first, **changes)


BACK = "https://auth.lab.home/?rd=https%3A%2F%2Fcloud.lab.home%2F&rm=GET"


@pytest.mark.parametrize(
    ("outcome", "got"),
    [
        ((302, BACK), "portal"),
        ((302, "https://auth.lab.home/?rd=https%3A%2F%2Fevil.example%2F"), "astray"),
        ((302, "https://auth.lab.home/"), "astray"),
        ((302, "http://auth.lab.home/?rd=https%3A%2F%2Fcloud.lab.home%2F"), "astray"),
        ((307, BACK), "astray"),
        ((302, "https://auth.lab.home/api/oidc/authorization?client_id=cloud"), "application"),
        ((302, "https://auth.lab.home.evil.example/?rd=https%3A%2F%2Fcloud.lab.home%2F"), "application"),
        ((302, "/login"), "application"),
        ((301, "https://cloud.lab.home/"), "application"),
        ((200, ""), "application"),
        ((401, ""), "application"),
        ((404, ""), "application"),
        ((500, ""), "application"),
        ((400, ""), "400"),
        ((403, ""), "403"),
        ((421, ""), "421"),
        ((502, ""), "unavailable"),
        ((0, ""), "unknown"),
    ],
)
def test_what_is_not_the_proxys_own_answer_is_the_applications(outcome: tuple[int, str], got: str) -> None:
    said = {"outcome": "answered", "status": outcome[0], "location": outcome[1], "why": ""}
    assert answer_of(visit(), said, "auth.lab.home")[0] == got


def test_without_an_answer_it_is_told_apart_what_was_not_tried() -> None:
    for outcome in ("timeout", "refused", "closed", "tls", "silent"):
        assert answer_of(visit(), {"outcome": outcome}, "auth.lab.home")[0] == "none"
    for outcome in ("was not tried", "failed: no buffer space", "no address of that family"):
        assert answer_of(visit(), {"outcome": outcome}, "auth.lab.home") == ("unknown", outcome)
    assert answer_of(visit(), {"outcome": "untrusted", "why": "expired"}, "")[0] == "untrusted"


def test_a_redirect_to_https_must_be_to_the_same_name_and_without_tls() -> None:
    said = {"outcome": "answered", "status": 308, "location": "https://cloud.lab.home/", "why": ""}
    plain = visit(kind="plain", tls=False)
    assert answer_of(plain, said, "auth.lab.home")[0] == "https"
    assert answer_of(plain, {**said, "location": "https://evil.example/"}, "auth.lab.home")[0] == "application"
    assert answer_of(visit(), said, "auth.lab.home")[0] == "application"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, ("portal",)),
        ({"reach": "either"}, ("portal", "none")),
        ({"reach": "closed"}, ("none",)),
        ({"own": "10.213.5.20"}, ("403",)),
        ({"kind": "forged"}, ("portal", "400", "403")),
        ({"kind": "forged", "own": "10.213.5.20"}, ("403", "400")),
        ({"kind": "path", "own": "10.213.5.20"}, ("portal", "400", "403")),
        ({"kind": "plain"}, ("https", "none")),
        ({"kind": "stranger"}, ("none", "400", "403", "421")),
        ({"kind": "stranger", "tls": False}, ("none", "400", "403", "421", "https")),
        ({"rule": CLOUD.rules[1]}, ("application",)),
        ({"rule": CLOUD.rules[1], "own": "10.213.5.20"}, ("403",)),
        ({"rule": CLOUD.rules[1], "kind": "forged", "own": "10.213.5.20"}, ("403", "400")),
        ({"rule": CLOUD.rules[0], "own": "10.213.5.20"}, ("application",)),
        ({"rule": None}, ("403",)),
    ],
)
def test_what_is_expected_of_a_visit(changes: dict[str, Any], wanted: tuple[str, ...]) -> None:
    assert expectation(visit(**changes), None)[0] == wanted


def test_hours_are_expected_by_the_proxys_clock() -> None:
    friday = epoch("2026-11-27 18:00:00")
    mine = visit(rule=MEDIA.rules[0])
    assert expectation(mine, (friday, friday + 10)) == (
        ("portal",),
        "owner, group family, password, from lan, "
        "weekend: fri, sat 17:00-24:00, sat, sun 00:00-01:00 Europe/Berlin",
    )  # fmt: skip
    assert expectation(mine, (friday - 86400, friday - 86390))[0] == ("403",)
    wanted, reason = expectation(mine, (friday - 3605, friday - 3595))
    assert wanted == ("portal", "403")
    assert reason.endswith("; the hours change just now")


def test_a_difference_names_site_path_vantage_and_what_came() -> None:
    two = Plan((visit(number=0), visit(number=1, address="10.213.0.11"), visit(number=2, vantage="guest")), ("p: no",))
    said = {"outcome": "answered", "status": 200, "location": "", "why": ""}
    good = {**said, "status": 302, "location": BACK}
    found = judge_visits(SITES, two, {0: said, 1: said, 2: good}, {}, {})
    assert found.differences == (
        "p: no",
        "lan → cloud.lab.home/ (10.213.0.20 to 10.213.0.10, 10.213.0.20 to 10.213.0.11): expected 302 to the portal "
        "(group family, two factors, from lan), got 200: the application's answer",
    )
    report = with_sites(judge(Matrix({}, ()), Answers({}, {}, {}), ["drift"]), found)
    shown = text(report)
    assert shown.endswith(
        "\n\nsites: 3 visits, 2 differences\n0 cells: 0 open, 0 closed, 3 differences"
    )  # fmt: skip
    assert "  cloud.lab.home (cloud)\n" in shown
    told = json.loads(json.dumps(as_json(report)))["sites"]
    assert [one["wrong"] for one in told["visits"]] == [True, True, False]
    assert [r["bypass"] for r in told["declared"][0]["rules"]] == [True, True, False]
    assert [one["closed"] for one in told["declared"]] == [False, False, True]
    suite = ElementTree.fromstring(junit(report))
    assert (suite.get("tests"), suite.get("failures")) == ("4", "3")
    assert [f.get("message") for f in suite.iter("failure")][2:] == ["drift", "p: no"]


def test_a_host_that_did_not_answer_and_a_visit_without_answer_are_differences() -> None:
    two = Plan((visit(number=0), visit(number=1, vantage="guest", host="other")))
    found = judge_visits(SITES, two, {}, {"other": "no answer"}, {})
    assert found.differences == (
        "other: the sites could not be visited from there: no answer",
        "lan → cloud.lab.home/ (10.213.0.20 to 10.213.0.10): expected 302 to the portal (group family, two factors, "
        "from lan), got was not tried",
    )
    assert found.summary == "sites: 1 visit, 2 differences"
