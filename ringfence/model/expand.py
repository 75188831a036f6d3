"""Services that nobody lists under lab_services because a role of their own brings them: the proxy and the portal.

Added to the lab as it is read, so that addresses, policy, published ports and the proof know them like any other.
"""

from __future__ import annotations

from ringfence.model.identity import PORTAL, PROXY, Portal, Proxy
from ringfence.model.lab import INTERNET, Lab, Service

# Which variable declares the service that a role of the same name runs.
ROLE_SERVICES = {PROXY: "lab_proxy", PORTAL: "lab_portal"}
HTTP, HTTPS, PORTAL_PORT, POSTGRES = 80, 443, 9091, 5432


def expand(lab: Lab) -> Lab:
    """Return the lab with the services that follow from lab_proxy and lab_portal."""
    services = dict(lab.services)
    if lab.proxy:
        services[PROXY] = _proxy(lab.proxy)
    if lab.portal:
        services[PORTAL] = _portal(lab.portal)
    return lab.model_copy(update={"services": services})


def _proxy(proxy: Proxy) -> Service:
    doors = ((HTTP, "tcp"), (HTTPS, "tcp"), (HTTPS, "udp"))
    return Service.model_validate(
        {
            "host": proxy.host,
            "image": proxy.image,
            "segments": proxy.segments,
            "port": HTTPS,
            "publish": [{"port": port, "proto": proto, "from": proxy.sources} for port, proto in doors],
            "egress": [{"to": INTERNET, "port": HTTPS}] if proxy.certificates == "acme" else (),
        }
    )


def _portal(portal: Portal) -> Service:
    calls = []
    if portal.database:
        calls.append({"service": portal.database.service, "port": POSTGRES})
    if portal.ldap:
        calls.append({"service": portal.ldap.service, "port": portal.ldap.port})
    return Service.model_validate(
        {
            "host": portal.host,
            "image": portal.image,
            "segments": portal.segments,
            "port": PORTAL_PORT,
            "calls": calls,
            "egress": portal.egress,
        }
    )
