"""Checks of who may reach what: sites, access, people, devices and hours, and what the proxy and the portal need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from ringfence.model.expand import ROLE_SERVICES
from ringfence.model.identity import EVERYONE, Access, Hours, Oidc, Rule
from ringfence.model.lab import ANYWHERE, Lab, Service
from ringfence.model.problems import Problem, did_you_mean, listed
from ringfence.model.read import Draft


def _known(owner: str, value: str, names: Iterable[str], what: str, where: str) -> Iterator[Problem]:
    known = set(names)
    if value not in known:
        fix = did_you_mean(value, known, f"declared in {where}: {listed(known)}")
        yield Problem(owner, f"'{value}' is not {what} ({fix})")


def groups_of(lab: Lab) -> set[str]:
    """Return the groups that people are in."""
    return {group for person in lab.people.values() for group in person.groups}


def _sites(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    taken = {lab.portal.site: "lab_portal.site"} if lab.portal else {}
    for name, service in lab.services.items():
        owner = f"lab_services.{name}"
        site = service.site
        if site is None:
            for key in ("access", "oidc"):
                if getattr(service, key) is not None:
                    yield Problem(f"{owner}.{key}", f"'{name}' has no site (add site: {name}, or remove {key})")
            continue
        if lab.proxy is None:
            yield Problem(f"{owner}.site", f"'{site.name}' has no proxy in front of it (declare lab_proxy)")
        elif lab.proxy.host != service.host and not draft.connected:
            yield Problem(
                f"{owner}.site",
                f"'{name}' runs on '{service.host}' and the proxy on '{lab.proxy.host}', and {draft.apart}",
            )
        if site.name in taken:
            yield Problem(f"{owner}.site", f"'{site.name}' is already {taken[site.name]} (choose another name)")
        taken.setdefault(site.name, f"the site of '{name}'")
        if site.port is None and (service.port_and_proto or (0, ""))[1] != "tcp":
            yield Problem(f"{owner}.site", f"'{name}' has no TCP port (add port: … to it, or to its site)")
        if site.tls and service.tls is None:
            yield Problem(f"{owner}.site.tls", f"'{name}' has no certificate (add tls: true to it, or remove this)")
        if service.access:
            yield from _access(draft, f"{owner}.access", service, service.access)
        if service.oidc:
            yield from _oidc(draft, f"{owner}.oidc", service.oidc)


def _access(draft: Draft, owner: str, service: Service, access: Access) -> Iterator[Problem]:
    yield from _rule(draft, owner, access)
    if access.factor != "none" and not access.people and not access.groups:
        yield Problem(
            owner, f"it is not said who may sign in (name people or groups, or write groups: [{EVERYONE}] for all)"
        )
    for path, rule in access.paths.items():
        yield from _rule(draft, f"{owner}.paths.{path}", rule)
        if path in access.bypass:
            yield Problem(f"{owner}.bypass", f"'{path}' has a rule in paths as well (remove one of the two)")
        unsaid = not (rule.people or rule.groups or access.people or access.groups)
        if unsaid and effective_factor(access, rule) != "none":
            yield Problem(f"{owner}.paths.{path}", f"'{path}' does not say who may sign in (name people or groups)")
    for path in sorted({p for p in access.bypass if access.bypass.count(p) > 1}):
        yield Problem(f"{owner}.bypass", f"'{path}' is named twice (remove one)")
    factors = [access.factor, *(effective_factor(access, rule) for rule in access.paths.values())]
    if set(factors) - {"none"} and draft.lab.portal is None:
        yield Problem(f"{owner}.factor", f"'{max(factors, key=len)}' needs a portal to sign in at (declare lab_portal)")


def effective_factor(access: Access, rule: Rule) -> str:
    """Return the factor of a path's rule, the site's own where it does not say."""
    return rule.factor if "factor" in rule.model_fields_set else access.factor


def _rule(draft: Draft, owner: str, rule: Rule) -> Iterator[Problem]:
    yield from _who(draft, owner, rule.people, rule.groups)
    yield from _from(draft, f"{owner}.from", rule.sources)
    for name in rule.hours:
        yield from _known(f"{owner}.hours", name, draft.names["hours"], "a name of hours", "lab_hours")
    if "factor" in rule.model_fields_set and rule.factor == "none" and (rule.people or rule.groups):
        yield Problem(f"{owner}.factor", "'none' asks nobody who they are (remove people and groups, or write two)")


def _who(draft: Draft, owner: str, people: Iterable[str], groups: Iterable[str]) -> Iterator[Problem]:
    if draft.lab.portal is not None and draft.lab.portal.ldap:
        return  # the directory knows them
    for person in people:
        yield from _known(f"{owner}.people", person, draft.names["people"], "a person", "lab_people")
    for group in groups:
        known = groups_of(draft.lab) | {EVERYONE}
        if group not in known and draft.names["people"] <= set(draft.lab.people):
            fix = did_you_mean(group, known, f"groups of lab_people: {listed(groups_of(draft.lab))}")
            yield Problem(f"{owner}.groups", f"'{group}' is a group that nobody is in ({fix})")


def _from(draft: Draft, owner: str, sources: Iterable[str]) -> Iterator[Problem]:
    names = draft.names["places"] | draft.names["devices"] | {ANYWHERE}
    for source in sources:
        if source not in names:
            fix = did_you_mean(source, names, f"declared in lab_places and lab_devices: {listed(names - {ANYWHERE})}")
            yield Problem(owner, f"'{source}' is neither a place nor a device ({fix})")


def _oidc(draft: Draft, owner: str, oidc: Oidc) -> Iterator[Problem]:
    yield from _who(draft, owner, oidc.people, oidc.groups)
    yield from _from(draft, f"{owner}.from", oidc.sources)
    if draft.lab.portal is None:
        yield Problem(owner, "there is no portal to ask (declare lab_portal)")
    for callback in oidc.callbacks:
        if not callback.startswith("/"):
            yield Problem(f"{owner}.callbacks", f"'{callback}' is not a path of the site (write it as /login/callback)")


def _proxy_and_portal(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    if lab.proxy and lab.proxy.certificates == "acme" and lab.proxy.acme is None:
        yield Problem("lab_proxy.acme", "'acme' needs an address to write to (add acme: {email: …})")
    if lab.proxy and lab.proxy.certificates == "lab" and lab.ca is None and "lab_ca" not in draft.reported:
        yield Problem(
            "lab_ca", "'lab' certificates need a CA (python -m ringfence.pki makes one; or certificates: acme)"
        )
    portal = lab.portal
    if portal is None:
        return
    if lab.proxy is None:
        yield Problem("lab_portal", "'authelia' has no proxy in front of it (declare lab_proxy)")
    elif lab.proxy.host != portal.host and not draft.connected:
        yield Problem(
            "lab_portal.host",
            f"'{portal.host}' is not the proxy's host, and nothing connects them "
            f"(write {lab.proxy.host}, or declare lab_vpn)",
        )
    if "." not in lab.domain:
        yield Problem("lab_domain", f"'{lab.domain}' is one word, which no cookie can be for (write it as lab.home)")
    if not portal.ldap and not draft.names["people"]:
        yield Problem("lab_people", "'authelia' has nobody who could sign in (declare people, or lab_portal.ldap)")
    yield from _from(draft, "lab_portal.from", portal.sources)
    sites = {service.site.name for service in lab.services.values() if service.site}
    if portal.default:
        yield from _known("lab_portal.default", portal.default, sites, "a site", "lab_services")
    for key in ("database", "ldap"):
        used = getattr(portal, key)
        if used and used.service in lab.services and lab.services[used.service].host != portal.host:
            yield Problem(f"lab_portal.{key}", f"'{used.service}' runs on another host (move one of them)")


def _certificates(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    taken = dict.fromkeys((*lab.services, *ROLE_SERVICES), "a service")
    for name, service in lab.services.items():
        for client in service.tls.clients if service.tls else ():
            if client in taken:
                owner, what = f"lab_services.{name}.tls.clients", taken[client]
                yield Problem(owner, f"'{client}' is the name of {what} already (choose another one)")
            taken[client] = f"a client of '{name}'"
    if lab.ca is not None or "lab_ca" in draft.reported:
        return
    for name, service in lab.services.items():
        if service.tls is not None:
            yield Problem(f"lab_services.{name}.tls", f"'{name}' needs a CA (make lab_ca: python -m ringfence.pki)")


def _people(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    emails: dict[str, str] = {}
    for name, person in lab.people.items():
        if EVERYONE in person.groups:
            yield Problem(f"lab_people.{name}.groups", f"'{EVERYONE}' is who signs in, always (remove it)")
        other = emails.setdefault(person.email.lower(), name)
        if other != name:
            yield Problem(f"lab_people.{name}.email", f"'{person.email}' is the one of '{other}' (correct one of them)")
    for name, device in lab.devices.items():
        owner = f"lab_devices.{name}"
        if device.owner:
            yield from _known(f"{owner}.owner", device.owner, draft.names["people"], "a person", "lab_people")
        for kind, what in (("places", "a place"), ("services", "a service")):
            if name in draft.names[kind]:
                yield Problem(owner, f"'{name}' is {what} as well (rename one: both appear in 'from')")


def _hours(draft: Draft) -> Iterator[Problem]:
    for name, hours in draft.lab.hours.items():
        if hours.start == "24:00":
            yield Problem(f"lab_hours.{name}.from", "'24:00' is the next day's \"00:00\" (write that)")
        if hours.start == hours.end:
            yield Problem(f"lab_hours.{name}.to", f"'{hours.end}' is when it begins (a whole day is 00:00 to 24:00)")
    yield from _one_zone(draft.lab.hours, draft.lab.services)


def _one_zone(hours: Mapping[str, Hours], services: Mapping[str, Service]) -> Iterator[Problem]:
    for name, service in services.items():
        for rule in (service.access, *service.access.paths.values()) if service.access else ():
            zones = sorted({hours[one].zone for one in rule.hours if one in hours})
            if len(zones) > 1:
                yield Problem(
                    f"lab_services.{name}.access.hours", f"'{listed(rule.hours)}' are of {listed(zones)} (use one zone)"
                )


SITE_CHECKS: tuple[Callable[[Draft], Iterable[Problem]], ...] = (
    _sites,
    _proxy_and_portal,
    _certificates,
    _people,
    _hours,
)
