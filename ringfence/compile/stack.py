"""Variables of the role `stack`: compose projects, hardened, with fixed addresses."""

from __future__ import annotations

from typing import Any

from ringfence.compile import segments
from ringfence.compile.plan import NOBODY, Plan
from ringfence.model.lab import Service


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return the host's compose projects, and apart from them the values of their secrets."""
    projects: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[str, str]] = {}
    for name in plan.services_on(host):
        project = plan.lab.project(name)
        entry = projects.setdefault(project, {"name": project, "services": [], "secrets": []})
        entry["services"].append(_service(plan, name))
        declared = {secret["name"] for secret in entry["secrets"]}
        for secret_name, secret in sorted(plan.lab.services[name].secrets.items()):
            if secret_name not in declared:
                entry["secrets"].append({"name": secret_name, "owner": secret.owner, "mode": "0400"})
                values.setdefault(project, {})[secret_name] = secret.value
    return {
        "stack_projects": [projects[name] for name in sorted(projects)],
        "stack_secrets": values,
        "stack_networks": segments.variables(plan, host)["segments_networks"],
    }


def _service(plan: Plan, name: str) -> dict[str, Any]:
    service = plan.lab.services[name]
    return {
        "name": name,
        "image": service.image,
        "networks": [
            {"network": leg.network.bridge, "address": leg.address, "address6": leg.address6, "mac": leg.mac}
            for leg in plan.legs[name]
        ],
        "environment": dict(service.environment),
        "volumes": [_volume(volume.source, volume.target, volume.read_only) for volume in service.volumes],
        "ports": [
            {"published": publish.host_port, "port": publish.port, "proto": publish.proto}
            for publish in service.publish
        ],
        "files": [{"target": target, "content": content} for target, content in service.files.items()],
        "config": {target: dict(files) for target, files in service.config.items()},
        "validate": list(service.validation),
        "reload": _reload(service),
        "secrets": sorted(service.secrets),
        "capabilities": sorted(service.capabilities),
        "allow_forging": service.allow_forging,
        "read_only": service.read_only,
        "tmpfs": list(service.tmpfs),
        "user": service.user,
        "command": list(service.command),
        "health": list(service.health),
        "init": service.init,
        "pids": service.pids,
        "memory": service.memory,
        "extra_hosts": _extra_hosts(plan, name),
        "dns": plan.resolvers(name) or [NOBODY],
        # Docker 20.10 answers nothing where nobody answers it: who asks gives up soon. Names of the lab take no time.
        "dns_opt": [] if plan.resolvers(name) else ["timeout:1", "attempts:2"],
        "depends": sorted(service.depends),
    }


def _volume(source: str, target: str, read_only: bool) -> dict[str, Any]:
    kind = "source" if source.startswith("/") else "name"
    return {kind: source, "target": target, "read_only": read_only}


def _reload(service: Service) -> dict[str, Any]:
    if service.reload is None:
        return {}
    return {"command": list(service.reload.command), "signal": service.reload.signal}


def _extra_hosts(plan: Plan, name: str) -> dict[str, str]:
    """Names that Docker's DNS does not know, because the called service is in other segments only.

    The first open leg: the callee's default route is on it, so that request and reply take the same way.
    """
    callees = {callee for caller, callee, _, _ in plan.calls if caller == name and not plan.shared(caller, callee)}
    return {callee: plan.open_legs(callee)[0].address for callee in sorted(callees)}
