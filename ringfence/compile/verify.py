"""What verify proves: the whole lab, told to every host, in the words of the declaration."""

from __future__ import annotations

from typing import Any

from ringfence.compile import ufw, vpn
from ringfence.compile.calls import Call
from ringfence.compile.hours import windows
from ringfence.compile.plan import Plan
from ringfence.compile.sites import portal_name, sites
from ringfence.compile.wireguard import INTERFACE
from ringfence.host.grants import FORGING
from ringfence.host.passing import ends
from ringfence.model.lab import Service
from ringfence.model.mounts import given_of_host
from ringfence.model.values import Span
from ringfence.model.vpn import VPN


def variables(plan: Plan) -> dict[str, Any]:
    """Return services, published ports, hosts, flows, egress and vantages with their addresses."""
    return {
        "verify_services": _services(plan),
        "verify_published": _published(plan),
        "verify_hosts": _hosts(plan),
        "verify_flows": _flows(plan),
        "verify_egress": [
            {"source": service, "to": to, "proto": proto, "port": port}
            for service, to, proto, port in (*plan.egress, *_egress_of_hosts(plan))
        ],
        "verify_vantages": [
            {
                "name": name,
                "host": vantage.host,
                "address": str(vantage.address),
                "address6": str(vantage.address6) if vantage.address6 else "",
            }
            for name, vantage in sorted(plan.lab.vantages.items())
        ],
        "verify_sites": _sites(plan),
        "verify_vpn": _vpn(plan),
        "verify_portal": portal_name(plan),
        "verify_root": plan.lab.ca.certificate if plan.lab.ca and _own_certificates(plan) else "",
    }


def _vpn(plan: Plan) -> dict[str, Any]:
    if plan.lab.vpn is None:
        return {}
    addresses = vpn.addresses(plan.lab, plan.book.vpn)
    return {
        "interface": INTERFACE,
        "networks": [str(network) for network in vpn.networks(plan.lab)],
        "addresses": {name: list(own) for name, own in sorted(addresses.items())},
        "hub": plan.lab.vpn.hub,
        "egress": [
            {"source": device, "to": to, "proto": proto, "port": port}
            for device, to, proto, port in vpn.ways_out(plan.lab)
        ],
    }


def _own_certificates(plan: Plan) -> bool:
    return plan.lab.proxy is not None and plan.lab.proxy.certificates == "lab"


def _sites(plan: Plan) -> list[dict[str, Any]]:
    if plan.lab.proxy is None:
        return []
    host = plan.lab.proxy.host
    return [
        {
            "name": site.name,
            "service": site.service,
            "host": host,
            "addresses": [str(address) for address in plan.lab.hosts[host].addresses],
            "rules": [
                {
                    "path": rule.path,
                    "factor": rule.factor,
                    "people": list(rule.people),
                    "groups": list(rule.groups),
                    "places": list(rule.places),
                    "networks": plan.sources(rule.places),
                    "hours": windows(plan.lab.hours, rule.hours),
                    "hours_name": ", ".join(rule.hours),
                }
                for rule in site.rules
            ],
        }
        for site in sites(plan)
    ]


def _flows(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "source": call.caller,
            "destination": call.callee,
            "proto": call.proto,
            "port": call.port,
            "implied": call not in plan.declared_calls and call in plan.calls,
        }
        for call in (*plan.calls, *_calls_of_hosts(plan))
    ]


def _calls_of_hosts(plan: Plan) -> list[Call]:
    return [call for name in plan.lab.services if plan.lab.in_hosts_network(name) for call in plan.calls_of_hosts(name)]


def _egress_of_hosts(plan: Plan) -> list[tuple[str, str, str, Span]]:
    return [way for name in plan.lab.services if plan.lab.in_hosts_network(name) for way in plan.egress_of_host(name)]


def _services(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "host": plan.lab.services[name].host,
            "project": plan.lab.project(name),
            **({"ends": True} if ends(plan.lab.services[name].compose) else {}),
            **_resolvers(plan, name),
            **_of_the_host(plan.lab.services[name]),
            **({"network": plan.lab.services[name].network} if plan.lab.services[name].network else {}),
            "networks": [
                {
                    "network": leg.network.bridge,
                    "bridge": leg.network.bridge,
                    "address": leg.address,
                    "address6": leg.address6,
                }
                for leg in legs
            ],
            "ports": [{"proto": proto, "port": port} for proto, port in plan.ports[name]],
            "forging": sorted(FORGING & set(plan.lab.services[name].capabilities)),
        }
        for name, legs in plan.legs.items()
    ]


def _of_the_host(service: Service) -> dict[str, Any]:
    given = list(given_of_host(service))
    return ({"handed": given} if given else {}) | ({"socket": True} if service.docker_socket else {})


def _resolvers(plan: Plan, name: str) -> dict[str, Any]:
    if plan.lab.services[name].resolvers is None:
        return {}
    return {"resolvers": [one for one in plan.resolvers(name) if one not in plan.lab.services]}


def _published(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "service": name,
            "host": service.host,
            "addresses": [str(address) for address in plan.lab.hosts[service.host].addresses],
            "proto": publish.proto,
            "published": publish.host_port,
            "port": publish.port,
            "only": publish.on,
            "places": list(publish.sources),
            "sources": plan.sources(publish.sources),
        }
        for name, service in sorted(plan.lab.services.items())
        if not plan.lab.in_hosts_network(name)
        for publish in service.publish
        if not publish.inward
    ]


def _tunnel(plan: Plan) -> list[dict[str, Any]]:
    """The VPN's own port: who has no key gets no answer there."""
    vpn = plan.lab.vpn or plan.lab.tailnet
    if vpn is None:
        return []
    return [{"name": VPN, "proto": "udp", "port": vpn.port, "sources": ["any"], "outside": True}]


def _hosts(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "addresses": [str(address) for address in host.addresses],
            "services": [
                {
                    "name": service_name,
                    "proto": service.proto,
                    "port": service.port,
                    "sources": [source.network for source in ufw.sources(plan, service)],
                }
                for service_name, service in sorted(plan.doors(name).items())
            ]
            + _tunnel(plan),
        }
        for name, host in sorted(plan.lab.hosts.items())
    ]
