"""Compose documents, made from data.

They are written as JSON, which YAML contains: whatever a text holds, it is read back as the same text.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from ringfence.host.handing import DOCKER_SOCKET
from ringfence.host.passing import ends, passed
from ringfence.host.slices import path_within, slice_of

Document = dict[str, Any]

# What stands in JSON as it is, but not in YAML: it is no printable character there, or ends a line.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_HEAD = "---\n# Managed by ringfence. Changes made by hand are undone by the next run.\n"

# A health check costs a tenth of a second of a processor, and more on a small one: rarely, but soon at first, as others
# wait for it. Engines before 25 have one pace for both.
EVERY = 30  # seconds
_PACE: Document = {"interval": f"{EVERY}s", "start_interval": "2s", "retries": 3}
_PACE_BEFORE_25: Document = {"interval": "10s", "retries": 6}

# What a service is where it says nothing else.
DEFAULTS: dict[str, Any] = {
    "networks": [], "environment": {}, "volumes": [], "ports": [], "files": [], "config": {}, "validate": [],
    "reload": {}, "secrets": [], "capabilities": [], "allow_forging": False, "read_only": True, "tmpfs": [],
    "user": "", "command": [], "health": [], "pids": 200, "memory": "", "init": False, "extra_hosts": {}, "dns": [],
    "dns_opt": [], "depends": [], "upgrade": {}, "health_seconds": EVERY, "compose": {}, "devices": [],
    "network": "", "group_add": [], "gpus": [], "privileged": False, "pid": "", "allow_host": False,
    "docker_socket": False,
}  # fmt: skip


# What a service says of its network where it has none of its own: beside these the service whose network it shares.
HOST_NETWORK, NO_NETWORK = "host", "none"


def shares(service: dict[str, Any]) -> str:
    """Return the service whose network another one shares, "" where it does not."""
    return "" if service["network"] in (HOST_NETWORK, NO_NETWORK) else str(service["network"])


def completed(service: dict[str, Any]) -> dict[str, Any]:
    """Return a service with everything that it does not say."""
    return {**DEFAULTS, **{key: value for key, value in service.items() if value is not None}}


def rereads(service: dict[str, Any]) -> bool:
    """Whether a service reads its files again without being made anew."""
    return bool(service["reload"].get("command") or service["reload"].get("signal"))


def directories(service: dict[str, Any]) -> list[str]:
    """Return the paths in the container at which directories of ours are mounted."""
    secrets = ["/run/secrets"] if service["secrets"] and rereads(service) else []
    return [*sorted(service["config"]), *secrets]


def writable_in_memory(service: dict[str, Any]) -> list[str]:
    """Return the directories in memory, each perhaps with options behind a colon."""
    given = list(service["tmpfs"])
    return [*(["/tmp"] if service["read_only"] and "/tmp" not in given else []), *given]  # noqa: S108 - the container's


def document(
    project: dict[str, Any],
    owner: str,
    here: str,
    log: dict[str, Any],
    ipv6: bool = False,
    engine_25: bool = False,
    cgroups: str = "",
) -> Document:
    """Return a project's compose document.

    Args:
        project: name and services, each `completed`.
        owner: name of the role that declares it.
        here: the project's directory on the host.
        log: ``{max_size, max_file}``.
        ipv6: whether its networks have IPv6.
        cgroups: how the engine manages control groups, "systemd" or "cgroupfs"; "" where a slice is of no use.
        engine_25: whether the engine is 25 or newer: it takes a MAC address for each network, and a pace of its own for
            the health checks of a container that has just been started.
    """
    services = project["services"]
    made: Document = {
        "name": project["name"],
        "services": {s["name"]: _service(project, s, owner, here, log) for s in services},
    }
    for service in services:
        entry = made["services"][service["name"]]
        if service["network"] == HOST_NETWORK and cgroups:
            name = slice_of(service["name"])
            entry["cgroup_parent"] = name if cgroups == "systemd" else f"/{path_within(name)}"
        entry["labels"]["ringfence.spec"] = digest(entry)
        # Not part of the digest: what another engine makes of them is seen in the addresses that the containers have.
        for leg in service["networks"]:
            if ipv6 and leg.get("address6"):
                entry["networks"][leg["network"]]["ipv6_address"] = leg["address6"]
            if engine_25 and leg.get("mac"):
                entry["networks"][leg["network"]]["mac_address"] = leg["mac"]
        if service["health"]:
            every = entry["healthcheck"].get("interval")
            entry["healthcheck"] |= (_PACE | ({"interval": every} if every else {})) if engine_25 else _PACE_BEFORE_25
        if own := service["compose"].get("healthcheck"):
            entry["healthcheck"] |= own
            if not engine_25:  # which engines before it refuse
                entry["healthcheck"].pop("start_interval", None)
    networks = sorted({leg["network"] for s in services for leg in s["networks"]})
    volumes = {volume_key(v): v for s in services for v in s["volumes"] if v.get("name")}
    if networks:
        made["networks"] = {name: {"external": True, "name": name} for name in networks}
    if volumes:
        made["volumes"] = {
            key: {"external": True, "name": v["name"]} if v.get("external") else {}
            for key, v in sorted(volumes.items())
        }
    return made


def volume_key(volume: dict[str, Any]) -> str:
    """Return a named volume's key in the document: one that was there before is never taken for the project's own."""
    return f"_{volume['name']}" if volume.get("external") else str(volume["name"])


def digest(value: Any) -> str:
    """Return the digest of anything that JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def specs(made: Document) -> dict[str, str]:
    """Return the digest of each service of a document."""
    return {name: str(entry["labels"]["ringfence.spec"]) for name, entry in made["services"].items()}


def as_yaml(made: Document) -> str:
    """Return the text of a compose file; compose replaces "$…" in values, hence "$$"."""
    text = json.dumps(_literal(made), ensure_ascii=False, indent=2)
    return _HEAD + _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _literal(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}  # compose leaves keys as they are
    return [_literal(inner) for inner in value] if isinstance(value, list) else value


def _service(project: dict[str, Any], s: dict[str, Any], owner: str, here: str, log: dict[str, Any]) -> Document:
    once = {other["name"] for other in project["services"] if ends(other["compose"])}
    healthy = {other["name"] for other in project["services"] if other["health"] and other["health"][0] != "NONE"}
    entry: Document = {
        "image": s["image"],
        "restart": "unless-stopped",
        "cap_drop": ["ALL"],
        "cap_add": list(s["capabilities"]),
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": int(s["pids"]),
        "mem_limit": str(s["memory"]),
        "user": str(s["user"]),
        "init": bool(s["init"]),
        "read_only": bool(s["read_only"]),
        "tmpfs": writable_in_memory(s),
        "command": [str(word) for word in s["command"]],
        "environment": {name: str(value) for name, value in sorted(s["environment"].items())},
        "healthcheck": _health([str(word) for word in s["health"]], s["health_seconds"]),
        "depends_on": {name: {"condition": _condition(name in once, name in healthy)} for name in s["depends"]},
        "volumes": _volumes(s, here),
        "ports": [
            {"target": int(p["port"]), "published": str(p["published"]), "protocol": p.get("proto") or "tcp"}
            | ({"host_ip": str(p["address"])} if p.get("address") else {})
            for p in s["ports"]
        ],
        "extra_hosts": dict(sorted(s["extra_hosts"].items())),
        "dns": list(s["dns"]),
        "dns_search": ["."] if s["dns"] else [],  # none: the host's would say which networks it is in
        "dns_opt": list(s["dns_opt"]),
        "devices": [str(entry) for entry in s["devices"]],
        "group_add": [str(entry) for entry in s["group_add"]],
        "deploy": _reserved(s["gpus"]),
        "privileged": bool(s["privileged"]),
        "pid": str(s["pid"]),
        "networks": {leg["network"]: {"ipv4_address": leg["address"]} for leg in s["networks"]},
        "network_mode": _network_mode(s),
    }
    made = {
        **{key: value for key, value in entry.items() if value},
        "logging": {
            "driver": "json-file",
            "options": {"max-size": str(log["max_size"]), "max-file": str(log["max_file"]), "tag": "{{.Name}}"},
        },
        "labels": {
            "ringfence.project": project["name"], "ringfence.service": s["name"], "ringfence.owner": owner,
        },
    }  # fmt: skip
    return passed(made, s["compose"])


def _network_mode(s: dict[str, Any]) -> str:
    if s["networks"]:
        return ""
    return f"service:{s['network']}" if shares(s) else s["network"] or NO_NETWORK


def _reserved(gpus: list[Document]) -> Document:
    """GPUs, in the words that every compose knows."""
    if not gpus:
        return {}
    wanted = [
        {
            "capabilities": ["gpu"],
            **({} if gpu.get("count") or gpu.get("device_ids") else {"count": "all"}),
            **gpu,
        }
        for gpu in gpus
    ]
    return {"resources": {"reservations": {"devices": wanted}}}


def _condition(once: bool, healthy: bool) -> str:
    if once:
        return "service_completed_successfully"
    return "service_healthy" if healthy else "service_started"


def _health(words: list[str], every: int) -> Document:
    if not words:
        return {}
    test = words if words[0] in ("CMD", "CMD-SHELL", "NONE") else ["CMD", *words]
    # The usual pace is not part of the digest: a container that has it is not made anew for another engine's words.
    return {
        "test": test,
        "timeout": "5s",
        "start_period": "60s",
        **({"interval": f"{every}s"} if every != EVERY else {}),
    }


def _volumes(s: dict[str, Any], here: str) -> list[Document]:
    found: list[Document] = []
    for v in s["volumes"]:
        if v.get("name"):
            found.append({"type": "volume", "source": volume_key(v), "target": v["target"]})
            if v.get("owner"):  # else the engine gives it to whom the image's directory belongs
                found[-1]["volume"] = {"nocopy": True}
        else:
            found.append(_bind(v["source"], v["target"]))
        found[-1]["read_only"] = bool(v.get("read_only"))
    if s["docker_socket"]:
        found.append({**_bind(DOCKER_SOCKET, DOCKER_SOCKET), "read_only": True})
    ours = {file["target"]: f"{here}/files/{s['name']}{file['target']}" for file in s["files"]}
    ours |= {target: f"{here}/config/{s['name']}{target}" for target in directories(s)}
    if not rereads(s):
        ours |= {f"/run/secrets/{name}": f"{here}/secrets/{name}" for name in s["secrets"]}
    return found + [{**_bind(source, target), "read_only": True} for target, source in ours.items()]


def _bind(source: str, target: str) -> Document:
    return {"type": "bind", "source": source, "bind": {"create_host_path": False}, "target": target}
