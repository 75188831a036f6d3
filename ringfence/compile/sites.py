"""Who may reach what, from where and when: every site with its rules, worked out once for all who enforce it."""

from __future__ import annotations

from dataclasses import dataclass

from ringfence.compile.plan import Plan
from ringfence.model.identity import EVERYONE, PROXY, Access, Rule
from ringfence.model.lab import Service
from ringfence.model.site_checks import effective_factor


@dataclass(frozen=True)
class SiteRule:
    """One rule of a site. The first whose path fits decides alone.

    Attributes:
        path: "" for the whole site, "/exact", or "/prefix/*".
        factor: none, one or two.
        people, groups: who may; neither, where anybody who signs in may, or with factor none.
        places: places and devices; ("anywhere",) for all.
        hours: names of hours; none = always.
    """

    path: str
    factor: str
    people: tuple[str, ...]
    groups: tuple[str, ...]
    places: tuple[str, ...]
    hours: tuple[str, ...]

    @property
    def subjects(self) -> list[str]:
        """Who may, in Authelia's words: any of them; empty = anybody who signs in."""
        return [f"user:{name}" for name in self.people] + [f"group:{name}" for name in self.groups]


@dataclass(frozen=True)
class Site:
    """A site with its rules, the most specific first; without any it is closed."""

    name: str
    service: str
    rules: tuple[SiteRule, ...]


def full_name(plan: Plan, label: str) -> str:
    """Return a name under lab_domain."""
    return f"{label}.{plan.lab.domain}"


def sites(plan: Plan) -> list[Site]:
    """Return every site, sorted by name."""
    found = [
        Site(full_name(plan, service.site.name), name, tuple(_rules(plan, service)))
        for name, service in plan.lab.services.items()
        if service.site
    ]
    return sorted(found, key=lambda site: site.name)


def portal_name(plan: Plan) -> str:
    """Return the name of the site where people sign in; "" where there is none."""
    return full_name(plan, plan.lab.portal.site) if plan.lab.portal else ""


def _rules(plan: Plan, service: Service) -> list[SiteRule]:
    access = service.access
    if access is None:
        return []
    given = {path: _effective(plan, access, rule) for path, rule in access.paths.items()}
    given |= dict.fromkeys(access.bypass, ("none", (), ()))
    rules = []
    for path in sorted(given, key=_specific):
        rule = access.paths.get(path)
        factor, people, groups = given[path]
        rules.append(SiteRule(path, factor, people, groups, _places(plan, access, rule), _hours(access, rule)))
    factor, people, groups = _effective(plan, access, access)
    return [*rules, SiteRule("", factor, people, groups, _places(plan, access, None), access.hours)]


def _specific(path: str) -> tuple[bool, int, str]:
    """Exact paths before prefixes, long ones before short ones."""
    return path.endswith("/*"), -len(path), path


def _effective(plan: Plan, access: Access, rule: Rule) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    factor = effective_factor(access, rule)
    if factor == "none":
        return factor, (), ()
    own = rule if rule.people or rule.groups else access
    if EVERYONE in own.groups:
        return factor, (), ()
    return factor, tuple(own.people), tuple(own.groups)


def _places(plan: Plan, access: Access, rule: Rule | None) -> tuple[str, ...]:
    proxy = plan.lab.services[PROXY].publish[0].sources
    return (rule.sources if rule and rule.sources else access.sources) or proxy


def _hours(access: Access, rule: Rule | None) -> tuple[str, ...]:
    return rule.hours if rule and rule.hours else access.hours
