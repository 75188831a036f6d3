"""Variables of the role `segments`: the host's Docker networks."""

from __future__ import annotations

from typing import Any

from ringfence.compile.plan import Plan
from ringfence.compile.wireguard import INTERFACE


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return the networks that the host's services are in; Docker's network is named like its bridge."""
    return {
        "segments_trusted": [INTERFACE] if plan.lab.vpn else [],
        "segments_networks": [
            {
                "name": network.name,
                "network": network.bridge,
                "bridge": network.bridge,
                "subnet": network.subnet,
                "gateway": network.gateway,
                "subnet6": network.subnet6,
                "gateway6": network.gateway6,
                "internal": network.internal,
            }
            for network in plan.networks_on(host)
        ],
    }
