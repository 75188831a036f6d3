"""Variables of the role `ufw`: what the host itself answers, and to whom. Containers never pass through UFW."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ringfence.compile.plan import Plan
from ringfence.model import ANYWHERE
from ringfence.model.lab import HostService


@dataclass(frozen=True)
class Source:
    """One network that may use a host service; ``interface`` is set for containers."""

    name: str
    network: str
    interface: str = ""


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return the UFW rules of a host, one per service and source network."""
    rules = []
    for name, service in sorted(plan.lab.hosts[host].services.items()):
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
    if plan.lab.vpn is not None:
        rules.append(
            {
                "name": "vpn",
                "action": "allow",
                "proto": "udp",
                "port": str(plan.lab.vpn.port),
                "source": "any",
                "interface": "",
            }
        )
    return {"ufw_rules": rules}


def sources(plan: Plan, service: HostService) -> Iterator[Source]:
    """Yield the networks behind a host service's ``from``: of places, and of single containers."""
    for name in service.sources:
        if name == ANYWHERE:
            yield Source(name, "any")
        elif name in plan.lab.places:
            for network in plan.lab.places[name]:
                yield Source(name, str(network))
        else:
            for leg in plan.legs[name]:
                for address in (leg.address, leg.address6):
                    yield Source(name, str(ipaddress.ip_network(address)), leg.network.bridge)
