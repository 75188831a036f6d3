"""Variables of the roles `base`, `guard` and `docker` that follow from the lab."""

from __future__ import annotations

from typing import Any

from ringfence.compile.plan import Plan
from ringfence.roles import OF_DOCKER

# Room for 2048 networks that ringfence does not manage; the default pools of the lab lie elsewhere.
DOCKER_ADDRESS_POOLS: list[dict[str, Any]] = [{"base": "172.24.0.0/13", "size": 24}]
_SSH = "ssh"
_DEFAULT_SSH_PORT = 22


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return sshd's port, the ports that the guard must find open, Docker's pools for other networks, and the roles
    that are not for this host."""
    ssh = plan.lab.hosts[host].services.get(_SSH)
    port = ssh.port if ssh else _DEFAULT_SSH_PORT
    return {
        "base_ssh_port": port,
        "guard_ports": [port],
        "docker_address_pools": DOCKER_ADDRESS_POOLS,
        "ringfence_skipped": [] if plan.lab.hosts[host].docker else list(OF_DOCKER),
    }


def backend(docker: str) -> dict[str, Any]:
    """Return what the roles have to know of Docker's firewall back end before Docker runs with it.

    Args:
        docker: ``docker_firewall_backend`` of the host; empty = they ask the running engine.
    """
    return {"policy_backend": docker, "segments_backend": docker} if docker else {}
