"""Variables of the role `ufw`: what the host itself answers, and to whom. Containers never pass through UFW."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ringfence.compile.plan import Plan
from ringfence.model import ANYWHERE
from ringfence.model.lab import HostService
from ringfence.model.values import Network


@dataclass(frozen=True)
class Source:
    """One network that may use a host service; ``interface`` is set for containers, and for a tailnet."""

    name: str
    network: str
    interface: str = ""


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return the UFW rules of a host, one per service and source network."""
    rules = []
    for name, service in sorted(plan.doors(host).items()):
        counts: dict[str, int] = {}
        for source in sources(plan, service):
            label = f"{name}-from-{source.name}"
            counts[label] = counts.get(label, 0) + 1
            rules.append(
                {
                    "name": label if counts[label] == 1 else f"{label}-{counts[label]}",
                    "action": "allow",
                    "proto": service.proto,
                    "port": str(service.port),
                    "source": source.network,
                    "interface": source.interface,
                }
            )
    if vpn := plan.lab.vpn or plan.lab.tailnet:
        rules.append(
            {
                "name": "vpn",
                "action": "allow",
                "proto": "udp",
                "port": str(vpn.port),
                "source": "any",
                "interface": "",
            }
        )
    return {
        "ufw_rules": rules,
        "ufw_published": [
            {"name": name, "proto": publish.proto, "port": port, "address": publish.on}
            for name, service in sorted(plan.lab.services.items())
            if service.host == host and not plan.lab.in_hosts_network(name)
            for publish in service.publish
            for port, _ in publish.pairs
        ],
        "ufw_exclusive_interfaces": [plan.lab.tailnet.interface] if plan.lab.tailnet else [],
    }


def sources(plan: Plan, service: HostService) -> Iterator[Source]:
    """Yield the networks behind a host service's ``from``: of places, and of single containers."""
    for name in service.sources:
        if name == ANYWHERE:
            yield Source(name, "any")
        elif name in plan.lab.places:
            for network in plan.lab.places[name]:
                yield Source(name, str(network), _way(plan, network))
        else:
            for leg in plan.legs[name]:
                for address in (leg.address, leg.address6):
                    yield Source(name, str(ipaddress.ip_network(address)), leg.network.bridge)


def _way(plan: Plan, network: Network) -> str:
    """Return the interface by which a place's network has to come: providers number their customers with a tailnet's
    addresses as well (RFC 6598)."""
    tailnet = plan.lab.tailnet
    own: list[Network] = [tailnet.network, tailnet.network6] if tailnet else []
    inside = any(network.version == of.version and network.subnet_of(of) for of in own)  # type: ignore[arg-type]
    return tailnet.interface if tailnet and inside else ""
