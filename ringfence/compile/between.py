"""What the policy of a host has to know of the others: calls between hosts, and what the hub passes on."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from ringfence.compile import vpn
from ringfence.compile.plan import Flow, Plan
from ringfence.compile.wireguard import INTERFACE
from ringfence.model import ANYWHERE
from ringfence.model.values import Span

Entry = dict[str, Any]
_EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


def ends(flow: Flow) -> Entry:
    """Return a flow as the policy is told of it, without its bridges."""
    return {
        "name": f"{flow.caller} > {flow.callee}",
        "source": flow.source.address,
        "source6": flow.source.address6,
        "destination": flow.destination.address,
        "destination6": flow.destination.address6,
        "proto": flow.proto,
        "port": flow.port,
    }


def flows(plan: Plan, host: str) -> list[Entry]:
    """Return the calls from and to other hosts: the VPN's interface is their bridge at one end."""
    found = []
    for flow in plan.flows_between(host):
        bridges = {end.network.host: end.network.bridge for end in (flow.source, flow.destination)}
        here = flow.source.network.host == host
        way = (bridges[host], INTERFACE) if here else (INTERFACE, bridges[host])
        found.append({**ends(flow), "from_bridge": way[0], "to_bridge": way[1]})
    return found


def way(plan: Plan, host: str) -> Entry:
    """Return what only the VPN's interface may bring and take, and what the hub passes on from peer to peer."""
    if plan.lab.tailnet is not None:
        # It knows hosts, not what is behind them: containers go out as their host does everywhere.
        networks = sorted(map(str, vpn.networks(plan.lab)))
        return {"interface": plan.lab.tailnet.interface, "networks": networks, "transit": [], "masquerade": True}
    if plan.lab.vpn is None:
        return {}
    far = [network for network in plan.networks.values() if network.host != host]
    networks = [*map(str, vpn.networks(plan.lab)), *(subnet for n in far for subnet in (n.subnet, n.subnet6))]
    hub = host == plan.lab.vpn.hub
    return {
        "interface": INTERFACE,
        "networks": sorted(networks),
        "transit": [*_calls(plan, host), *_doors(plan, host)] if hub else [],
        "egress": list(_ways_out(plan)) if hub else [],
        "masquerade": False,
    }


def _ways_out(plan: Plan) -> Iterator[Entry]:
    """What devices reach beyond the hub."""
    inside = vpn.addresses(plan.lab, plan.book.vpn)
    for device, to, proto, port in vpn.ways_out(plan.lab):
        source, source6 = inside[device]
        found = {"name": f"{device} > {to}", "source": source, "source6": source6}
        yield {**found, "to": to, "proto": proto, "port": port}


def _calls(plan: Plan, hub: str) -> Iterator[Entry]:
    """Calls between two other hosts."""
    for flow in plan.flows:
        hosts = {flow.source.network.host, flow.destination.network.host}
        if hub not in hosts and len(hosts) > 1:
            yield ends(flow)


def _doors(plan: Plan, hub: str) -> Iterator[Entry]:
    """What other hosts answer and publish, for who may use it from inside the VPN."""
    inside = vpn.addresses(plan.lab, plan.book.vpn)
    for host in sorted(set(plan.lab.hosts) - {hub}):
        for name, proto, port, places in _answered(plan, host):
            for source in plan.sources(places):
                for destination in inside[host]:
                    version = ipaddress.ip_address(destination).version
                    network = _EVERYTHING[version] if source == "any" else source
                    if _meets(plan, network, version):
                        suffix = "6" if version == 6 else ""
                        found = dict.fromkeys(("source", "source6", "destination", "destination6"), "")
                        found |= {f"source{suffix}": network, f"destination{suffix}": destination}
                        yield {"name": name, **found, "proto": proto, "port": port}


def _answered(plan: Plan, host: str) -> Iterator[tuple[str, str, Span, tuple[str, ...]]]:
    """Yield (name, protocol, port, places that may) of what a host itself answers, and of what it publishes."""
    for name, service in sorted(plan.doors(host).items()):
        places = tuple(source for source in service.sources if source == ANYWHERE or source in plan.lab.places)
        yield f"{name} of {host}", service.proto, service.port, places
    for name in plan.services_on(host):
        if plan.lab.in_hosts_network(name):
            continue  # one of the host's own doors
        for publish in (one for one in plan.lab.services[name].publish if not one.inward):
            yield f"{name} {publish.host_port}", publish.proto, publish.host_port, publish.sources


def _meets(plan: Plan, network: str, version: int) -> bool:
    """Return whether a network is of that family, and somebody of the VPN may be in it."""
    found = ipaddress.ip_network(network)
    own = next(own for own in vpn.networks(plan.lab) if own.version == version)
    return found.version == version and found.overlaps(own)
