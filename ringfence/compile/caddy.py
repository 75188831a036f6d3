"""Variables of the role `caddy`: the sites, each with its rules of place, hour and sign-in."""

from __future__ import annotations

from typing import Any

from ringfence.compile import stack
from ringfence.compile.hours import windows
from ringfence.compile.plan import Plan
from ringfence.compile.sites import Site, full_name, portal_name, sites
from ringfence.model.expand import PORTAL_PORT
from ringfence.model.identity import PORTAL, PROXY
from ringfence.model.lab import Service


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return what the proxy serves, on the host that it runs on; nothing elsewhere."""
    proxy = plan.lab.proxy
    if proxy is None or proxy.host != host:
        return {}
    legs = stack.connections(plan, PROXY)
    acme = proxy.acme
    return {
        "caddy_image": proxy.image,
        "caddy_networks": legs["networks"],
        "caddy_extra_hosts": legs["extra_hosts"],
        "caddy_dns": legs["dns"],
        "caddy_dns_opt": legs["dns_opt"],
        "caddy_ports": stack.ports(plan.lab.services[PROXY]),
        "caddy_domain": plan.lab.domain,
        "caddy_certificates": proxy.certificates,
        "caddy_acme": {"email": acme.email, "ca": acme.ca, "ca_root": acme.root, "dns": acme.dns} if acme else {},
        "caddy_secrets": {"acme_dns": acme.token} if acme and acme.token else {},
        "caddy_max_body": proxy.max_body,
        "caddy_portal": _portal(plan),
        "caddy_sites": [_site(plan, site) for site in sites(plan)],
    }


def _portal(plan: Plan) -> dict[str, Any]:
    portal = plan.lab.portal
    if portal is None:
        return {}
    places = portal.sources or plan.lab.services[PROXY].publish[0].sources
    return {
        "name": portal_name(plan),
        "upstream": f"{PORTAL}:{PORTAL_PORT}",
        "networks": plan.sources(places),
    }


def _site(plan: Plan, site: Site) -> dict[str, Any]:
    service = plan.lab.services[site.service]
    assert service.site is not None
    return {
        "name": site.name,
        "upstream": f"{site.service}:{port_of(service)}",
        "tls": service.site.tls,
        "tls_name": full_name(plan, site.service) if service.site.tls else "",
        "max_body": service.site.max_body,
        "rules": [
            {
                "path": rule.path,
                "login": rule.factor != "none",
                "networks": plan.sources(rule.places),
                "hours": windows(plan.lab.hours, rule.hours),
            }
            for rule in site.rules
        ],
    }


def port_of(service: Service) -> int:
    """Return the port that the proxy calls; check_lab has seen that there is one."""
    if service.site and service.site.port:
        return service.site.port
    return (service.port_and_proto or (0, "tcp"))[0]
