"""Variables of the role `stack`: compose projects, hardened, with fixed addresses."""

from __future__ import annotations

from typing import Any

from ringfence.compile import pki, segments
from ringfence.compile.calls import Call
from ringfence.compile.plan import NOBODY, Plan
from ringfence.model.identity import PROXY
from ringfence.model.lab import HOST_NETWORK, Service, Volume

LOOPBACK = "127.0.0.1"


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return the host's compose projects, and apart from them the values of their secrets."""
    projects: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[str, str]] = {}
    for name in plan.services_on(host):
        if name in plan.lab.role_services:
            continue
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
        **connections(plan, name),
        "environment": dict(service.environment),
        "volumes": [
            *(_volume(volume) for volume in service.volumes),
            *([pki.volume(name)] if service.tls else []),
        ],
        "ports": [] if service.network == HOST_NETWORK else ports(service),
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
        "compose": dict(service.compose),
        **_of_the_host(service),
        # Compose waits for nobody on another host: who calls there tries again.
        "depends": sorted(other for other in service.depends if plan.lab.services[other].host == service.host),
    }


def _of_the_host(service: Service) -> dict[str, Any]:
    """Return what a service gets of its host, as far as it gets something."""
    found = {
        "devices": list(service.devices),
        "group_add": list(service.group_add),
        "gpus": [dict(gpu) for gpu in service.gpus],
        "privileged": service.privileged,
        "pid": service.pid,
        "allow_host": service.allow_host,
        "docker_socket": service.docker_socket,
    }
    return {key: value for key, value in found.items() if value}


def connections(plan: Plan, name: str) -> dict[str, Any]:
    """Return the networks of a service, with its addresses there, and how it resolves names."""
    service = plan.lab.services[name]
    if service.network:
        # A namespace that is another's has its names and its resolvers as well.
        own = {"extra_hosts": _extra_hosts(plan, name)} if service.network == HOST_NETWORK else {"extra_hosts": {}}
        return {"networks": [], "network": service.network, **own, "dns": [], "dns_opt": []}
    return {
        "networks": [
            {"network": leg.network.bridge, "address": leg.address, "address6": leg.address6, "mac": leg.mac}
            for leg in plan.legs[name]
        ],
        "extra_hosts": _extra_hosts(plan, name),
        "dns": plan.dns(name) or [NOBODY],
        # Docker 20.10 answers nothing where nobody answers it: who asks gives up soon. Names of the lab take no time.
        "dns_opt": [] if plan.resolvers(name) else ["timeout:1", "attempts:2"],
    }


def ports(service: Service) -> list[dict[str, Any]]:
    """Return the published ports of a service."""
    return [
        {"published": published, "port": port, "proto": publish.proto} | ({"address": publish.on} if publish.on else {})
        for publish in service.publish
        for published, port in publish.pairs
    ]


def _volume(volume: Volume) -> dict[str, Any]:
    kind = "source" if volume.source.startswith("/") else "name"
    found = {kind: volume.source, "target": volume.target, "read_only": volume.read_only}
    found |= {} if volume.external is None else {"external": volume.external}
    return found | ({"shared": True} if volume.shared else {})


def _reload(service: Service) -> dict[str, Any]:
    if service.reload is None:
        return {}
    return {"command": list(service.reload.command), "signal": service.reload.signal}


def _extra_hosts(plan: Plan, name: str) -> dict[str, str]:
    """Names that Docker's DNS does not know: of services in other segments only, of those without a network of their
    own, those in certificates, of sites, those that a call gives (`as`). With those that the ones in its network call.

    The address is that of the flow, so that request and reply take the same way.
    """
    found: dict[str, str] = {}
    there = {flow.callee: flow.destination.address for flow in plan.flows if flow.caller == name}
    for call in plan.said_calls:
        if plan.lab.network_of(call.caller) != name:
            continue
        of = plan.lab.network_of(call.callee)
        address = LOOPBACK if of == name else plan.meets(name, of) or there.get(of, "")
        names = [] if of == call.callee and plan.shared(name, of) else [call.callee]
        for known in (*names, *_certified(plan, call.callee), *_known_as(plan, call)):
            if address:
                found.setdefault(known, address)
    return dict(sorted(found.items()))


def _known_as(plan: Plan, call: Call) -> list[str]:
    """Return the other names by which a caller finds whom it calls."""
    caller = plan.lab.services.get(call.caller)
    calls = caller.calls if caller else ()
    return [name for one in calls if one.service == call.callee for name in one.known_as]


def _certified(plan: Plan, callee: str) -> list[str]:
    """Return the names under lab_domain that a service answers for."""
    if callee in plan.lab.role_services:
        return plan.site_names if callee == PROXY else []
    return [f"{callee}.{plan.lab.domain}"] if plan.lab.services[callee].tls else []
