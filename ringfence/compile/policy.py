"""Variables of the role `policy`: which packets pass between bridges, inside them and out of them."""

from __future__ import annotations

import ipaddress
from typing import Any

from ringfence.compile import vpn
from ringfence.compile.plan import Plan
from ringfence.compile.wireguard import INTERFACE
from ringfence.model import ANYWHERE

# What "the internet" is not. Places and segments of the lab are added: a place may well be a public network.
PRIVATE = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/3",
    "::/127",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return the host's segments and every flow that its policy lets pass."""
    here = set(plan.services_on(host))
    return {
        "policy_segments": [
            {"name": n.name, "bridge": n.bridge, "subnet": n.subnet, "subnet6": n.subnet6}
            for n in plan.networks_on(host)
        ],
        "policy_endpoints": [
            {
                "name": service,
                "bridge": leg.network.bridge,
                "mac": leg.mac,
                "address": leg.address,
                "address6": leg.address6,
            }
            for service in plan.services_on(host)
            for leg in plan.legs[service]
        ],
        "policy_places": _places(plan, host),
        "policy_flows": [*_flows(plan, host), *(_remote(plan, host) if plan.lab.vpn else [])],
        "policy_vpn": _vpn(plan, host),
        "policy_egress": _egress(plan, here),
        "policy_published": _published(plan, here),
        "policy_host": _host(plan, host),
        "policy_private": private(plan),
    }


def _places(plan: Plan, host: str) -> list[dict[str, Any]]:
    """Every place, and by which interfaces of this host it may come in besides the one that leads to it."""
    interfaces = plan.lab.hosts[host].interfaces
    return [
        {"name": name, "networks": [str(n) for n in networks], "interfaces": list(interfaces.get(name, ()))}
        for name, networks in sorted(plan.lab.places.items())
    ]


def _flows(plan: Plan, host: str) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{flow.caller} > {flow.callee}",
            "from_bridge": flow.source.network.bridge,
            "to_bridge": flow.destination.network.bridge,
            "source": flow.source.address,
            "source6": flow.source.address6,
            "destination": flow.destination.address,
            "destination6": flow.destination.address6,
            "proto": flow.proto,
            "port": flow.port,
        }
        for flow in plan.flows_within(host)
    ]


def _remote(plan: Plan, host: str) -> list[dict[str, Any]]:
    """Flows from and to other hosts: the VPN's interface is their bridge at one end."""
    found = []
    for flow in plan.flows_between(host):
        here = flow.source.network.host == host
        found.append(
            {
                "name": f"{flow.caller} > {flow.callee}",
                "from_bridge": flow.source.network.bridge if here else INTERFACE,
                "to_bridge": INTERFACE if here else flow.destination.network.bridge,
                "source": flow.source.address,
                "source6": flow.source.address6,
                "destination": flow.destination.address,
                "destination6": flow.destination.address6,
                "proto": flow.proto,
                "port": flow.port,
            }
        )
    return found


def _vpn(plan: Plan, host: str) -> dict[str, Any]:
    """What only the VPN's interface may bring and take, and what the hub passes on between its peers."""
    if plan.lab.vpn is None:
        return {}
    far = [n for n in plan.networks.values() if n.host != host]
    networks = [*map(str, vpn.networks(plan.lab)), *(subnet for n in far for subnet in (n.subnet, n.subnet6))]
    return {
        "interface": INTERFACE,
        "networks": sorted(networks),
        "transit": _transit(plan) if host == plan.lab.vpn.hub else [],
    }


def _transit(plan: Plan) -> list[dict[str, Any]]:
    """What passes the hub from peer to peer: calls between other hosts, and who uses what the hosts themselves answer
    or publish from inside the VPN."""
    hub = plan.lab.vpn.hub if plan.lab.vpn else ""
    found = []
    for flow in plan.flows:
        ends = {flow.source.network.host, flow.destination.network.host}
        if hub not in ends and len(ends) > 1:
            found.append(
                {
                    "name": f"{flow.caller} > {flow.callee}",
                    "source": flow.source.address,
                    "source6": flow.source.address6,
                    "destination": flow.destination.address,
                    "destination6": flow.destination.address6,
                    "proto": flow.proto,
                    "port": flow.port,
                }
            )
    inside = vpn.addresses(plan.lab, plan.book.vpn)
    for name in sorted(set(plan.lab.hosts) - {hub}):
        for what, proto, port, sources in _doors(plan, name):
            for source in sources:
                for destination in inside[name]:
                    if source == "any" or _inside(plan, source, destination):
                        suffix = "6" if ":" in destination else ""
                        entry = {"name": what, "proto": proto, "port": port}
                        entry |= dict.fromkeys(("source", "source6", "destination", "destination6"), "")
                        entry[f"source{suffix}"] = ("::/0" if suffix else "0.0.0.0/0") if source == "any" else source
                        entry[f"destination{suffix}"] = destination
                        found.append(entry)
    return found


def _inside(plan: Plan, source: str, destination: str) -> bool:
    """Return whether a place may be inside the VPN, and of the family of an address."""
    network = ipaddress.ip_network(source)
    return network.version == ipaddress.ip_address(destination).version and any(
        own.version == network.version and own.overlaps(network) for own in vpn.networks(plan.lab)
    )


def _doors(plan: Plan, host: str) -> list[tuple[str, str, int, list[str]]]:
    """What a host answers and publishes: (name, protocol, port, networks that may)."""
    found: list[tuple[str, str, int, list[str]]] = []
    for name, service in sorted(plan.lab.hosts[host].services.items()):
        places = tuple(s for s in service.sources if s == ANYWHERE or s in plan.lab.places)
        found.append((f"{name} of {host}", service.proto, service.port, plan.sources(places)))
    for name in plan.services_on(host):
        for publish in plan.lab.services[name].publish:
            found.append(
                (f"{name} {publish.host_port}", publish.proto, publish.host_port, plan.sources(publish.sources))
            )
    return found


def _egress(plan: Plan, here: set[str]) -> list[dict[str, Any]]:
    # From every open leg: which of them carries the container's default route is Docker's choice.
    return [
        {
            "name": f"{service} > {to}",
            "bridge": leg.network.bridge,
            "source": leg.address,
            "source6": leg.address6,
            "to": to,
            "proto": proto,
            "port": port,
        }
        for service, to, proto, port in plan.egress
        if service in here
        for leg in plan.open_legs(service)
    ]


def _published(plan: Plan, here: set[str]) -> list[dict[str, Any]]:
    # For every open leg: which of them Docker forwards the published port to is its choice as well.
    return [
        {
            "name": f"{service} {publish.host_port}",
            "bridge": leg.network.bridge,
            "destination": leg.address,
            "destination6": leg.address6,
            "proto": publish.proto,
            "port": publish.port,
            "published": publish.host_port,
            "sources": plan.sources(publish.sources),
        }
        for service in sorted(here)
        for publish in plan.lab.services[service].publish
        for leg in plan.open_legs(service)
    ]


def _host(plan: Plan, host: str) -> list[dict[str, Any]]:
    # A service that anybody may use is for containers too; a place has no container in it.
    found = []
    for name, service in sorted(plan.lab.hosts[host].services.items()):
        callers: list[dict[str, Any]] = []
        for source in service.sources:
            if source == ANYWHERE:
                callers.append({"name": f"{name} from {source}", "bridge": "", "source": "", "source6": ""})
            elif source not in plan.lab.places:
                callers += [
                    {
                        "name": f"{name} from {source}",
                        "bridge": leg.network.bridge,
                        "source": leg.address,
                        "source6": leg.address6,
                    }
                    for leg in plan.legs[source]
                ]
        found += [{**caller, "proto": service.proto, "port": service.port} for caller in callers]
    return found


def private(plan: Plan) -> list[str]:
    """Return every network that is not the internet, IPv4 and IPv6, sorted, each once."""
    found = set(PRIVATE)
    for networks in plan.lab.places.values():
        found |= {str(network) for network in networks}
    for network in plan.networks.values():
        found |= {network.subnet, network.subnet6}
    return sorted(found)
