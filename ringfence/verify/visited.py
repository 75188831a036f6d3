"""Judges how the sites answered: what was expected of each visit, what came, and the lines that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

from ringfence.verify.declared import matches
from ringfence.verify.sites import FACTORS, Rule, Sites, listing, when, where, who
from ringfence.verify.visits import Plan, Visit

PORTAL, FORBIDDEN, APPLICATION, HTTPS, NONE = "portal", "403", "application", "https", "none"
BAD, MISDIRECTED, UNAVAILABLE = "400", "421", "unavailable"
ASTRAY, UNTRUSTED, UNKNOWN = "astray", "untrusted", "unknown"
WORDS = {
    PORTAL: "302 to the portal",
    APPLICATION: "an answer of the application",
    HTTPS: "301 or 308 to https",
    NONE: "no answer",
}
# No answer, and each of them is what a closed door looks like.
NO_ANSWER = ("timeout", "silent", "refused", "closed", "tls", "no route", "host unreachable", "forbidden")
Moments = Mapping[str, tuple[float, float]]
SLACK = 5.0  # seconds that clocks and connections may take besides


@dataclass(frozen=True)
class Visited:
    """A visit with what became of it. ``expected``: every outcome that is right; ``got``: one of them, or another."""

    visit: Visit
    expected: tuple[str, ...]
    reason: str
    got: str
    detail: str

    @property
    def wrong(self) -> bool:
        """Whether it differs from the declaration."""
        return self.got not in self.expected

    @property
    def wish(self) -> str:
        """What was expected, in words."""
        return " or ".join(WORDS.get(one, one) for one in self.expected)


@dataclass(frozen=True)
class SiteReport:
    """What is declared of the sites, and how they answered. Empty where no site is declared."""

    sites: Sites = field(default_factory=Sites)
    visited: tuple[Visited, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line with the counts."""
        return f"sites: {_count(len(self.visited), 'visit')}, {_count(len(self.differences), 'difference')}"

    @property
    def shown(self) -> list[str]:
        """Those of the differences that visits of the report have."""
        return _differences(self.visited)

    def lines(self) -> list[str]:
        """Return who may reach what, for people."""
        return listing(self.sites)

    def as_json(self) -> dict[str, Any]:
        """The same for machines, with every visit."""
        return {
            "summary": self.summary,
            "portal": self.sites.portal,
            "declared": [
                {
                    "name": site.name, "service": site.service, "host": site.host, "closed": site.closed,
                    "rules": [
                        {
                            "path": r.path, "factor": r.factor, "people": list(r.people), "groups": list(r.groups),
                            "places": list(r.places), "networks": list(r.networks),
                            "hours": when(r.hours) if r.hours else "always", "bypass": r.bypass,
                        }
                        for r in site.rules
                    ],
                }
                for site in self.sites.sites
            ],
            "visits": [
                {
                    "site": v.visit.site, "kind": v.visit.kind, "vantage": v.visit.vantage, "from": v.visit.own,
                    "address": v.visit.address, "port": v.visit.port, "asked": v.visit.shown,
                    "expected": list(v.expected), "reason": v.reason, "got": v.got, "detail": v.detail,
                    "wrong": v.wrong,
                }
                for v in self.visited
            ],
        }  # fmt: skip

    def cases(self, suite: ElementTree.Element) -> None:
        """Add a JUnit test case per visit."""
        for one in self.visited:
            visit = one.visit
            name = f"{visit.shown} at {visit.address} port {visit.port}: {one.wish}"
            case = ElementTree.SubElement(suite, "testcase", classname=f"{visit.vantage} sites", name=name)
            if one.wrong:
                message = f"got {one.got} ({one.detail}); {one.reason}"
                ElementTree.SubElement(case, "failure", message=message)


def moments(clocks: Mapping[str, tuple[float, float, float]], span: Sequence[float]) -> Moments:
    """When the visits were at the most, by each host's own clock: hours are judged by what the proxy takes for now.

    Args:
        clocks: host → (its time, and moments of the controller's own clock before and after it was asked for that).
        span: moments of the controller's clock between which the visits were.
    """
    return {
        host: (time + min(span) - after - SLACK, time + max(span) - before + SLACK)
        for host, (time, before, after) in clocks.items()
        if span
    }


def judge(
    sites: Sites, plan: Plan, results: Mapping[int, Mapping[str, Any]], errors: Mapping[str, str], moments: Moments
) -> SiteReport:
    """Compare every visit with its answer.

    Args:
        sites: what is declared.
        plan: what was asked.
        results: visit number → what `remote.visiting` said.
        errors: host that vantages are on → why nobody could go from there.
        moments: the proxy's host → first and last second of the visits, by its own clock.
    """
    visited = tuple(
        _judge(sites, visit, results.get(visit.number, {"outcome": "was not tried"}), moments)
        for visit in plan.visits
        if visit.host not in errors
    )
    lines = [*plan.problems]
    lines += [f"{host}: the sites could not be visited from there: {why}" for host, why in sorted(errors.items())]
    lines += _differences(visited)
    return SiteReport(sites, visited, tuple(lines))


def _judge(sites: Sites, visit: Visit, said: Mapping[str, Any], moments: Moments) -> Visited:
    expected, reason = expectation(visit, moments.get(visit.proxy))
    got, detail = answer_of(visit, said, sites.portal)
    return Visited(visit, expected, reason, got, detail)


def expectation(visit: Visit, moments: tuple[float, float] | None) -> tuple[tuple[str, ...], str]:
    """Return every outcome that is right for a visit, and by which declaration."""
    if visit.reach == "closed":
        return (NONE,), visit.reason
    wanted, reason = _wanted(visit, moments)
    return ((*wanted, NONE) if visit.reach == "either" and NONE not in wanted else wanted), reason


def _wanted(visit: Visit, moments: tuple[float, float] | None) -> tuple[tuple[str, ...], str]:
    if visit.kind == "plain":
        return (HTTPS, NONE), "nothing is said without TLS"
    if visit.kind == "stranger":
        closed = (NONE, BAD, FORBIDDEN, MISDIRECTED)
        return closed if visit.tls else (*closed, HTTPS), f"{visit.what}: no site answers there"
    rule = visit.rule
    if rule is None or rule.factor == "closed":
        return (FORBIDDEN,), "closed to everybody"
    if visit.kind == "path":
        return (PORTAL, BAD, FORBIDDEN), f"never the application: {told(rule)}"
    allowed = rule.allows(visit.own, moments)
    answer = APPLICATION if rule.bypass else PORTAL
    wanted = {True: (answer,), False: (FORBIDDEN,), None: (answer, FORBIDDEN)}[allowed]
    if visit.kind == "forged":
        wanted = tuple(dict.fromkeys((*wanted, BAD, FORBIDDEN)))
    refused = "; not now" if matches(rule.networks, visit.own) else "; not from there"
    note = {True: "", False: refused, None: "; the hours change just now"}[allowed]
    return wanted, f"{told(rule)}{note}"


def told(rule: Rule) -> str:
    """A rule in words: who, how, from where, when."""
    hours = f", {when(rule.hours)}" if rule.hours else ""
    return f"{who(rule)}, {FACTORS[rule.factor]}, from {where(rule)}{hours}"


def answer_of(visit: Visit, said: Mapping[str, Any], portal: str) -> tuple[str, str]:
    """Return what kind of answer came, and its words. Whatever is not the proxy's own is the application's."""
    outcome, why = said["outcome"], said.get("why") or ""
    if outcome == "untrusted":
        return UNTRUSTED, f"the certificate is not trusted: {why}"
    if outcome == "answered" and said["status"]:
        return _http(visit, said["status"], said["location"], portal)
    if outcome in NO_ANSWER:
        return NONE, f"{outcome}: {why}" if why else outcome
    return UNKNOWN, why or outcome


def _http(visit: Visit, status: int, location: str, portal: str) -> tuple[str, str]:
    detail = f"{status} to {location}" if location else str(status)
    to = urlsplit(location)
    if 300 <= status < 400 and to.hostname == portal.lower() and portal and not to.path.startswith("/api/oidc/"):
        # An application that signs in by the portal's OpenID Connect sends there as well: that is its own answer.
        back = urlsplit("".join(parse_qs(to.query).get("rd", [""])[:1]))
        right = (to.scheme, back.scheme, back.hostname) == ("https", "https", visit.named.lower())
        return (PORTAL, detail) if status == 302 and right else (ASTRAY, f"{detail}: not the way back to the site")
    if status in (301, 308) and to.scheme == "https" and to.hostname == visit.named.lower() and not visit.tls:
        return HTTPS, detail
    if status in (400, 403, 421):
        return str(status), detail
    if status in (502, 503, 504):
        return UNAVAILABLE, f"{detail}: the application or the portal does not answer the proxy"
    return APPLICATION, f"{detail}: the application's answer"


def _differences(visited: tuple[Visited, ...]) -> list[str]:
    """One line per vantage, request and kind of difference; addresses of the same kind share it."""
    groups: dict[tuple[str, ...], list[Visited]] = {}
    for one in visited:
        if one.wrong:
            key = (one.visit.vantage, one.visit.shown, one.wish, one.reason, one.got, one.detail)
            groups.setdefault(key, []).append(one)
    lines = []
    for (vantage, shown, wish, reason, _, detail), group in groups.items():
        addresses = ", ".join(dict.fromkeys(f"{one.visit.own} to {one.visit.address}" for one in group))
        lines.append(f"{vantage} → {shown} ({addresses}): expected {wish} ({reason}), got {detail}")
    return lines


def _count(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"
