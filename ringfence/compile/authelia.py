"""Variables of the role `authelia`: who may sign in to what, and from where."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from ringfence.compile import stack
from ringfence.compile.people import DIRECTORY
from ringfence.compile.plan import Plan
from ringfence.compile.sites import SiteRule, full_name, portal_name, sites
from ringfence.model import ANYWHERE
from ringfence.model.expand import POSTGRES
from ringfence.model.identity import EVERYONE, PORTAL, Oidc, Portal

POLICIES = {"none": "bypass", "one": "one_factor", "two": "two_factor"}
_ROUNDS = 310000


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return the portal's settings and rules, on the host that it runs on; nothing elsewhere."""
    portal = plan.lab.portal
    if portal is None or portal.host != host:
        return {}
    legs = stack.connections(plan, PORTAL)
    default = f"https://{full_name(plan, portal.default)}/" if portal.default else ""
    return {
        "authelia_image": portal.image,
        "authelia_networks": legs["networks"],
        "authelia_extra_hosts": legs["extra_hosts"],
        "authelia_dns": legs["dns"],
        "authelia_dns_opt": legs["dns_opt"],
        "authelia_domain": plan.lab.domain,
        "authelia_name": portal_name(plan),
        "authelia_default_url": default,
        "authelia_people": DIRECTORY,
        "authelia_places": places(plan),
        "authelia_rules": rules(plan),
        "authelia_clients": clients(plan),
        "authelia_session": portal.session.model_dump(),
        "authelia_regulation": portal.regulation.model_dump(),
        "authelia_ca": plan.lab.ca.certificate if plan.lab.ca else "",
        **_backends(plan, portal),
    }


def _backends(plan: Plan, portal: Portal) -> dict[str, Any]:
    secrets, found = {}, {"authelia_backend": "file", "authelia_storage": "sqlite", "authelia_notifier": "file"}
    more: dict[str, Any] = {}
    if ldap := portal.ldap:
        scheme = "ldaps" if ldap.tls else "ldap"
        name = full_name(plan, ldap.service) if ldap.tls else ldap.service
        found["authelia_backend"] = "ldap"
        more["authelia_ldap"] = {
            **ldap.settings,
            "address": f"{scheme}://{name}:{ldap.port}",
            "implementation": ldap.implementation,
            "base_dn": ldap.base_dn,
            "user": ldap.user,
        }
        secrets["ldap_password"] = ldap.password
    if database := portal.database:
        tls = plan.lab.services[database.service].tls is not None
        name = full_name(plan, database.service) if tls else database.service
        found["authelia_storage"] = "postgres"
        more["authelia_postgres"] = {
            "address": f"tcp://{name}:{POSTGRES}",
            "database": database.database,
            "username": database.username,
            "tls": tls,
        }
        secrets["postgres_password"] = database.password
    if smtp := portal.smtp:
        found["authelia_notifier"] = "smtp"
        more["authelia_smtp"] = {"address": smtp.address, "username": smtp.username, "sender": smtp.sender}
        if smtp.password:
            secrets["smtp_password"] = smtp.password
    return {**found, **more, "authelia_secrets": secrets}


def places(plan: Plan) -> dict[str, list[str]]:
    """Return the networks of every place and device."""
    return {name: plan.sources((name,)) for name in sorted(plan.lab.places)}


def rules(plan: Plan) -> list[dict[str, Any]]:
    """Return access rules in Authelia's order: the first that fits decides.

    Behind the rule of a path stands one that denies it: who does not fit the path's rule would fit the site's.
    """
    found = []
    for site in sites(plan):
        for rule in site.rules:
            found.append(_rule(site.name, rule))
            if rule.path:
                found.append({"name": site.name, "path": rule.path, "policy": "deny", "subjects": [], "places": []})
    return found


def _rule(name: str, rule: SiteRule) -> dict[str, Any]:
    return {
        "name": name,
        "path": rule.path,
        "policy": POLICIES[rule.factor],
        "subjects": rule.subjects,
        "places": [] if ANYWHERE in rule.places else list(rule.places),
    }


def clients(plan: Plan) -> list[dict[str, Any]]:
    """Return the OIDC client of every service that signs people in itself."""
    own = {site.service: site for site in sites(plan)}
    found = []
    for name, service in sorted(plan.lab.services.items()):
        if service.oidc is None or name not in own:
            continue
        oidc, site = service.oidc, own[name]
        whole = site.rules[-1] if site.rules else SiteRule("", "two", (), (), (), ())
        rule = _oidc_rule(oidc, whole)
        found.append(
            {
                "id": name,
                "name": name,
                "secret_hash": hashed(name, oidc.secret),
                "redirect_uris": [f"https://{site.name}{path}" for path in oidc.callbacks],
                "scopes": list(oidc.scopes),
                "auth_method": oidc.auth_method,
                "policy": POLICIES[oidc.factor],
                "subjects": rule.subjects,
                "places": [] if ANYWHERE in rule.places else list(rule.places),
                "public": False,
            }
        )
    return found


def _oidc_rule(oidc: Oidc, whole: SiteRule) -> SiteRule:
    """Return who may sign in by OIDC: what it says itself, else what the site's access says."""
    own = oidc.people or oidc.groups
    people, groups = (oidc.people, oidc.groups) if own else (whole.people, whole.groups)
    if EVERYONE in groups:
        people, groups = (), ()
    return SiteRule("", oidc.factor, tuple(people), tuple(groups), oidc.sources or whole.places, ())


def hashed(client: str, secret: str) -> str:
    """Return what Authelia keeps of a client's secret, the same each time: a salt by chance would be a change."""
    salt = hashlib.sha256(f"ringfence:{client}:{secret}".encode()).digest()[:16]
    key = hashlib.pbkdf2_hmac("sha512", secret.encode(), salt, _ROUNDS)
    return f"$pbkdf2-sha512${_ROUNDS}${_base64(salt)}${_base64(key)}"


def _base64(data: bytes) -> str:
    """As passlib writes it: without padding, "." for "+"."""
    return base64.b64encode(data).decode().rstrip("=").replace("+", ".")
