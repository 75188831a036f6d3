"""Variables of the role `policy`: which packets pass between bridges, inside them and out of them."""

from __future__ import annotations

from typing import Any

from ringfence.compile import between
from ringfence.compile.plan import Plan
from ringfence.host.slices import slice_of
from ringfence.model import ANYWHERE
from ringfence.model.values import PRIVATE


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
        "policy_flows": [*_flows(plan, host), *(between.flows(plan, host) if plan.lab.vpn else [])],
        "policy_vpn": between.way(plan, host),
        "policy_egress": _egress(plan, here),
        "policy_published": _published(plan, here),
        "policy_host": _host(plan, host),
        "policy_slices": _slices(plan, host),
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
            **between.ends(flow),
            "from_bridge": flow.source.network.bridge,
            "to_bridge": flow.destination.network.bridge,
        }
        for flow in plan.flows_within(host)
    ]


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
        | ({"host_address": publish.on} if publish.on else {})
        for service in sorted(here)
        for publish in plan.lab.services[service].publish
        if not publish.inward
        for leg in plan.open_legs(service)
    ]


def _host(plan: Plan, host: str) -> list[dict[str, Any]]:
    # A service that anybody may use is for containers too; a place has no container in it.
    found = []
    for name, service in sorted(plan.doors(host).items()):
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


def _slices(plan: Plan, host: str) -> list[dict[str, Any]]:
    """What services in the host's own network may send."""
    return [
        {
            "name": name,
            "slice": slice_of(name),
            "flows": [
                {
                    "name": f"{name} > {call.callee}",
                    "destination": leg.address,
                    "destination6": leg.address6,
                    "proto": call.proto,
                    "port": call.port,
                }
                for call in plan.calls_of_hosts(name)
                for leg in plan.legs[call.callee]
            ],
            "doors": [
                {"name": door, "proto": service.proto, "port": service.port}
                for door, service in sorted(plan.doors(host).items())
                if name in service.sources
                or door.rpartition("-")[0] == name
                or (ANYWHERE in service.sources and door in plan.lab.hosts[host].services)
            ],
            "egress": [
                {"name": f"{name} > {to}", "to": to, "proto": proto, "port": port}
                for _, to, proto, port in plan.egress_of_host(name)
            ],
        }
        for name in plan.services_on(host)
        if plan.lab.in_hosts_network(name)
    ]


def private(plan: Plan) -> list[str]:
    """Return every network that is not the internet, IPv4 and IPv6, sorted, each once."""
    found = set(PRIVATE)
    for networks in plan.lab.places.values():
        found |= {str(network) for network in networks}
    for network in plan.networks.values():
        found |= {network.subnet, network.subnet6}
    return sorted(found)
