"""Variables of the role `pki`: the certificates that a host makes for its services."""

from __future__ import annotations

from typing import Any

from ringfence.compile.plan import Plan
from ringfence.compile.sites import full_name
from ringfence.model.base import Reload
from ringfence.model.identity import PROXY, Tls

DIRECTORY = "/srv/ringfence/pki"
# Where a service finds its certificate.
TARGET = "/run/tls"
_CADDY = ["caddy", "reload", "--force", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
_CADDY += ["--address", "unix//run/caddy/admin.sock"]


def variables(plan: Plan, host: str) -> dict[str, Any]:
    """Return the lab's CA and the certificates of the host's services."""
    if plan.lab.ca is None:
        return {}
    return {
        "pki_host": host,
        "pki_domain": plan.lab.domain,
        "pki_root": plan.lab.ca.certificate,
        "pki_root_key": plan.lab.ca.key,
        "pki_leaves": leaves(plan, host),
    }


def leaves(plan: Plan, host: str) -> list[dict[str, Any]]:
    """Return the host's certificates: the proxy's, for all sites, and one for each service with ``tls``."""
    found = [_leaf(plan, name, tls) for name in plan.services_on(host) if (tls := plan.lab.services[name].tls)]
    found += [
        _client(plan, client)
        for name in plan.services_on(host)
        if (tls := plan.lab.services[name].tls)
        for client in tls.clients
    ]
    proxy = plan.lab.proxy
    if proxy and proxy.host == host:
        wanted = plan.site_names if proxy.certificates == "lab" else []
        # With public certificates it needs the lab's CA only, to know the services by.
        found.append(_entry(PROXY, wanted or [full_name(plan, PROXY)], "0", ["server"], _CADDY, ""))
    return sorted(found, key=lambda leaf: str(leaf["name"]))


def _leaf(plan: Plan, name: str, tls: Tls) -> dict[str, Any]:
    reload = tls.reload or plan.lab.services[name].reload or Reload.model_construct(command=(), signal="")
    # A client reads its files when it connects; a server that cannot read them again is started anew.
    told = reload.command or reload.signal or "server" in tls.usage
    return {
        **_entry(name, [full_name(plan, name)], tls.owner, list(tls.usage), list(reload.command), reload.signal),
        "reload": {
            "container": f"{plan.lab.project(name)}-{name}-1" if told else "",
            "command": list(reload.command),
            "signal": reload.signal,
        },
    }


def _client(plan: Plan, name: str) -> dict[str, Any]:
    """Return the certificate of a machine outside of Docker: nobody is told of a new one."""
    entry = _entry(name, [f"{name}.{plan.lab.domain}"], "0", ["client"], [], "")
    return {**entry, "reload": {**entry["reload"], "container": ""}}


def _entry(
    name: str, names: list[str], owner: str, usage: list[str], command: list[str], signal: str
) -> dict[str, Any]:
    return {
        "name": name,
        "names": names,
        "addresses": [],
        "owner": owner,
        "usage": usage,
        "reload": {"container": f"{name}-{name}-1", "command": command, "signal": signal},
    }


def volume(service: str) -> dict[str, Any]:
    """Return how a service mounts its certificate."""
    return {"source": f"{DIRECTORY}/{service}", "target": TARGET, "read_only": True}
