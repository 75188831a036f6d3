"""Compose projects as a role hands them over: what is wrong with them, which files they want on the host."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence.host.compose import HOST_NETWORK, Document, as_yaml, completed, digest, directories, rereads, shares
from ringfence.host.grants import FORGING, capability_fault
from ringfence.host.handing import CONFIRM, DOCKER_SOCKET, Given, device_faults, gpu_fault, group_fault, handed
from ringfence.host.mounts import is_socket, source_fault
from ringfence.host.passing import calls_itself, passing_faults, shared_faults
from ringfence.host.program import Desired
from ringfence.host.running import Fault
from ringfence.host.stack.generated import KINDS, rotation
from ringfence.host.swapping import File
from ringfence.host.texts import (
    device_place_fault,
    file_target_fault,
    memory_fault,
    nested,
    place_of,
    relative_fault,
    target_fault,
    text_fault,
    user_fault,
    variable_fault,
)

ROOT = Path("/opt/ringfence/stacks")
STAGING = ROOT / ".staging"  # what is to replace files, until it is known to be good
ALONE = "stack"  # owner of the projects on hosts of the time when there was only one


def whole(given: Desired) -> Desired:
    """Return the desired state with everything that it does not say."""
    pace = {"health_seconds": int(given["health_seconds"])} if given.get("health_seconds") else {}
    projects = [
        {"secrets": [], **project, "services": [completed(pace | one) for one in project.get("services") or []]}
        for project in given.get("projects") or []
    ]
    return {
        "owner": given.get("owner") or ALONE,
        "projects": projects,
        "secrets": mapped_secrets(given.get("secrets") or {}),
        "networks": given.get("networks") or [],
        "wait": float(given.get("wait") or 180),
        "log": {"max_size": "10m", "max_file": 3, **(given.get("log") or {})},
    }


def mapped_secrets(given: Any) -> dict[str, dict[str, Any]]:
    """Return secrets, {project: {name: value}}, if they are that.

    Raises:
        Fault: they are something else; it says where, and what they must be, but no value.
    """
    for place, value, holds in (
        ("stack_secrets", given, "projects with their secrets"),
        *((f"stack_secrets.{name}", of, "names of secrets with their values") for name, of in _items(given)),
    ):
        if not isinstance(value, dict):
            raise Fault(f"{place}: must be a mapping, of {holds} (its value is not shown)")
    for project, values in given.items():
        for name, value in values.items():
            if isinstance(value, bool | list | dict) or value is None:
                raise Fault(f"stack_secrets.{project}.{name}: must be a text (its value is not shown)")
    return dict(given)


def _items(given: Any) -> list[tuple[str, Any]]:
    return list(given.items()) if isinstance(given, dict) else []


_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_OWNER = re.compile(r"[a-z][a-z0-9_]*")
_NAMED = "write letters, digits, '_', '.' and '-', at most 128, one of the first two first"
_IN_WORDS = {
    _PROJECT: "write lower-case letters, digits, '_' and '-', at most 63, one of the first two first",
    _NAME: _NAMED,
    _OWNER: "write lower-case letters, digits and '_', a letter first",
}
_MAC = re.compile(r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}")
_OPTION = re.compile(r"[a-z0-9-]+(?::[0-9]+)?")
_MEMORY = re.compile(r"(?:[0-9]+[bkmgBKMG]?)?")


def unfit(desired: Desired) -> list[str]:
    """Say what is declared in a way that cannot be handed to Docker as it is, each with the fix."""
    found: list[str] = []

    def name(where: str, value: Any, kind: str, shape: re.Pattern[str] = _NAME) -> None:
        if not isinstance(value, str) or not shape.fullmatch(value):
            found.append(f"{where}: {value!r} cannot be the name of a {kind} ({_IN_WORDS[shape]})")

    name("owner", desired["owner"], "role", _OWNER)
    found += _text_faults("stack_secrets", desired["secrets"], shown=False)
    seen: set[str] = set()
    for project in desired["projects"]:
        where = f"project {project.get('name')}"
        name(where, project.get("name"), "project", _PROJECT)
        found += _text_faults(where, project)
        if project.get("name") in seen:
            found.append(f"{where}: is declared twice (rename one)")
        seen.add(str(project.get("name")))
        for secret in project["secrets"]:
            name(where, secret.get("name"), "secret")
            found += [f"{where}: {fault}" for fault in generated_faults(project, secret, desired["secrets"])]
        services = [str(service.get("name")) for service in project["services"]]
        for twice in sorted({s for s in services if services.count(s) > 1}):
            found.append(f"{where}: the service {twice!r} is declared twice (rename one)")
        for service in project["services"]:
            name(where, service.get("name"), "service")
            found += [f"{where}, service {service.get('name')}: {fault}" for fault in service_faults(project, service)]
    return [*found, *_forging(desired), *_posing(desired)]


def generated_faults(project: dict[str, Any], secret: dict[str, Any], values: dict[str, Any]) -> Iterator[str]:
    """Say what is wrong with a secret that is made on the host."""
    kind, name = secret.get("generate") or "", secret.get("name")
    if kind and kind not in KINDS:
        yield f"secrets: {name!r}: generate: {kind!r} is not known (write {' or '.join(KINDS)})"
    if kind and (values.get(str(project.get("name"))) or {}).get(name):
        yield f"secrets: {name!r} is made on the host, and has a value in stack_secrets (remove one of the two)"


def upgrade_faults(project: dict[str, Any], service: dict[str, Any]) -> Iterator[str]:
    """Say which volumes cannot be copied before an upgrade."""
    named = sorted({v["name"] for v in service["volumes"] if v.get("name")})
    for volume in service["upgrade"].get("backup") or []:
        if volume not in named:
            there = f"there are: {', '.join(named)}" if named else "it has none"
            yield f"upgrade: {volume!r} is no named volume of the service ({there})"
        writing = [
            str(other["name"])
            for other in project["services"]
            if other is not service
            and any(v.get("name") == volume and not v.get("read_only") for v in other["volumes"])
        ]
        if writing:
            yield (
                f"upgrade: the volume {volume!r} is written by {', '.join(writing)} as well, which would go on while it"
                " is copied (give each a volume of its own)"
            )
    keep = service["upgrade"].get("keep", 2)
    if not str(keep).isdecimal() or int(keep) < 1:
        yield f"upgrade: keep: {keep!r} is not a number of copies (write 1 or more)"


def _forging(desired: Desired) -> Iterator[str]:
    """Frames with another's MAC and IP address cannot be told from that one's by any rule on a bridge."""
    on = []
    for project in desired["projects"]:
        legs = {s.get("name"): {leg.get("network") for leg in s["networks"]} for s in project["services"]}
        for service in project["services"]:
            # Who shares another's network is where that one is.
            owner = service["network"] if service["network"] in legs else service.get("name")
            on.append((project.get("name"), owner, service, legs[owner]))
    for project, owner, service, networks in on:
        forging = sorted(FORGING & set(service["capabilities"]))
        near = [
            other["name"]
            for where, whose, other, there in on
            if (where, whose) != (project, owner) and networks & there
        ]
        if forging and near and not service["allow_forging"]:
            yield (
                f"project {project}, service {service['name']}: capabilities: {forging[0]!r} lets it pose as what "
                f"shares a network with it, {', '.join(near)} (give it one of its own, or add allow_forging: true)"
            )


def _posing(desired: Desired) -> Iterator[str]:
    """Docker answers for a container's hostname beside its name: who asks for another would find this one."""
    services = [(project, service) for project in desired["projects"] for service in project["services"]]
    for project, service in services:
        for other, one in services:
            if one is not service and set(connected_to(one)) & set(connected_to(service)):
                names = {str(one.get("name")), container_name(other, one)}
                if fault := posing_fault(service, names):
                    yield f"project {project.get('name')}, service {service.get('name')}: {fault}"


def connected_to(service: dict[str, Any]) -> list[str]:
    """Return the names of the networks that a service is connected to."""
    return [str(leg.get("network")) for leg in service["networks"]]


def posing_fault(service: dict[str, Any], names: set[str]) -> str:
    """Say whether a service's hostname is one of the names of another that shares a network with it."""
    taken = {name.lower() for name in names}
    same = next((called for called in calls_itself(service["compose"]) if called in taken), "")
    return (
        f"compose: hostname is {same}, by which another in its network is found (leave it out, or write another)"
        if same
        else ""
    )


def _text_faults(where: str, value: Any, shown: bool = True) -> Iterator[str]:
    if isinstance(value, str):
        if fault := text_fault(value):
            yield f"{where}: {ascii(value)[:60] + ' ' if shown and len(value) < 50 else 'the text '}{fault}"
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _text_faults(where, key, shown)
            yield from _text_faults(f"{where}.{ascii(key)[1:-1]}", inner, shown and key not in ("content", "config"))
    elif isinstance(value, list):
        for inner in value:
            yield from _text_faults(where, inner, shown)


def service_faults(project: dict[str, Any], service: dict[str, Any]) -> Iterator[str]:
    """Say what of one service cannot be handed to Docker as it is."""
    if not service.get("image"):
        yield "has no image (add image: …)"
    for variable in service["environment"]:
        if fault := variable_fault(variable):
            yield f"environment: {variable!r} {fault}"
    for kind, names in (
        ("networks", [leg.get("network") for leg in service["networks"]]),
        ("volumes", [v["name"] for v in service["volumes"] if v.get("name")]),
        ("secrets", service["secrets"]),
        ("extra_hosts", service["extra_hosts"]),
        ("depends", service["depends"]),
    ):
        odd = [n for n in names if not isinstance(n, str) or not _NAME.fullmatch(n)]
        yield from (f"{kind}: {n!r} is not a name ({_NAMED})" for n in odd)
    for other in service["depends"]:
        if other not in [s.get("name") for s in project["services"]] or other == service.get("name"):
            yield f"depends: {other!r} is no other service of the project (correct the name)"
    yield from (f"capabilities: {c!r} {fault}" for c in service["capabilities"] if (fault := capability_fault(str(c))))
    for v in service["volumes"]:
        if v.get("external") and (v.get("owner") or not v.get("name")):
            yield "volumes: external is for a volume by its name, as it is (leave owner and source out)"
    if fault := user_fault(str(service["user"])):
        yield f"user: {service['user']!r} {fault}"
    yield from _handing_faults(service)
    yield from _network_faults(project, service)
    if not _MEMORY.fullmatch(str(service["memory"])):
        yield f"memory: {service['memory']!r} is not an amount of memory (write it as 512m or 2g)"
    addresses = [
        ("networks", leg[key]) for leg in service["networks"] for key in ("address", "address6") if leg.get(key)
    ]
    for kind, address in [*addresses, *(("dns", server) for server in service["dns"])]:
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(str(address))
            continue
        yield f"{kind}: {address!r} is not an IP address"
    yield from (
        f"networks: {leg['mac']!r} is not the MAC address of one interface (write it as 02:42:ac:14:00:02)"
        for leg in service["networks"]
        if leg.get("mac") and not (_MAC.fullmatch(str(leg["mac"])) and int(str(leg["mac"])[:2], 16) % 2 == 0)
    )
    yield from (
        f"dns_opt: {o!r} is no option of a resolver" for o in service["dns_opt"] if not _OPTION.fullmatch(str(o))
    )
    reload = service["reload"]
    if reload.get("command") and reload.get("signal"):
        yield "reload: has a command and a signal (remove one of the two)"
    if rereads(service) and not directories(service):
        yield "reload: there is nothing that it could read again (declare config or secrets)"
    if reload.get("signal") and reload["signal"] not in signal.Signals.__members__:
        yield f"reload: {reload['signal']!r} is not a signal (write it as SIGHUP)"
    yield from (f"compose: {setting} {fault}" for setting, fault in passing_faults(service["compose"]))
    yield from upgrade_faults(project, service)
    yield from place_faults(project, service)


def _network_faults(project: dict[str, Any], service: dict[str, Any]) -> Iterator[str]:
    """Say what does not go with a network that is not a service's own."""
    network = service["network"]
    if not network:
        return
    for setting in ("networks", "dns", "dns_opt", "ports", *(() if network == HOST_NETWORK else ("extra_hosts",))):
        if service[setting]:
            yield f"{setting}: it is not in a network of its own, as network is {network!r} (remove one of the two)"
    yield from (f"compose.{key}: {fault}" for key, fault in shared_faults(network, service["compose"]))
    if not shares(service):
        return
    others = {str(s.get("name")): s for s in project["services"] if s is not service}
    if network not in others:
        yield f"network: {network!r} is no other service of the project (write host, none, or one of its services)"
    elif others[network]["network"]:
        yield f"network: {network!r} has no network of its own to share (name the one that has)"
    elif others[network]["docker_socket"]:
        yield (
            f"network: {network!r} has docker_socket, and a network in which nobody else is (write networks in place "
            "of network)"
        )


def _handing_faults(service: dict[str, Any]) -> Iterator[str]:
    """Say what of the host a container cannot be given, or not without a confirmation."""
    volumes = [(str(v["source"]), bool(v.get("read_only"))) for v in service["volumes"] if v.get("source")]
    for path, read_only in volumes:
        if (fault := source_fault(path, read_only)) and (is_socket(path) or not service["allow_host"]):
            yield f"volumes: {path!r} {fault}"
    found = list(
        handed(
            privileged=bool(service["privileged"]), pid=str(service["pid"]), devices=map(str, service["devices"]),
            volumes=volumes, network=str(service["network"]), capabilities=map(str, service["capabilities"]),
        )
    )  # fmt: skip
    if not service["allow_host"]:
        yield from (f"{one.setting}: {one} (leave it out, {CONFIRM})" for one in found if one.setting != "volumes")
    elif not (found or volumes or service["devices"]):  # what those lead to, only their host knows
        yield "allow_host: there is nothing of the host that it would confirm (remove it)"
    for entry in service["devices"]:
        yield from (f"devices: {fault}" for fault in device_faults(str(entry)))
    yield from (f"group_add: {fault}" for entry in service["group_add"] if (fault := group_fault(str(entry))))
    yield from (f"gpus: {fault}" for gpu in service["gpus"] if (fault := gpu_fault(gpu)))
    if service["pid"] not in ("", "host"):
        yield f"pid: {service['pid']!r} is not known (write host, or leave it out)"
    if service["docker_socket"]:
        yield from _socket_faults(service, found)


def _socket_faults(service: dict[str, Any], found: list[Given]) -> Iterator[str]:
    """Say what does not go with Docker's socket: a hole in the filter that has it must not lead further."""
    if service["ports"]:
        yield "docker_socket: it is for callers inside, and has published ports (remove one of the two)"
    if service["network"]:
        yield "docker_socket: it needs a network of its own, where nobody else is (write networks in place of network)"
    yield from (
        f"{one.setting}: nothing else of the host goes with docker_socket (remove {one.subject or one.setting})"
        for one in found
    )


def place_faults(project: dict[str, Any], service: dict[str, Any]) -> Iterator[str]:
    """Say which files and directories of a service cannot stand where they are declared, or not beside each other."""
    # What is written lies longest below the staging directory, in a generation.
    before = len(f"{STAGING}/{project.get('name')}/config/{service.get('name')}/..0123456789012345678/")
    taken: dict[str, str] = {}
    ours = [("files", file["target"]) for file in service["files"]] + [("config", d) for d in service["config"]]
    mounted = [("volumes", v["target"]) for v in service["volumes"]]
    mounted += [("docker_socket", DOCKER_SOCKET)] if service["docker_socket"] else []
    mounted += [("tmpfs", entry.partition(":")[0]) for entry in service["tmpfs"]]
    secret = [("secrets", f"/run/secrets/{name}") for name in service["secrets"]]
    for entry in service["tmpfs"]:
        if fault := memory_fault(str(entry), before):
            yield f"tmpfs: {entry!r} {fault}"
    for v in service["volumes"]:
        if fault := device_place_fault(v["target"], str(v.get("source") or "")):
            yield f"volumes: {v['target']!r} {fault}"
    for kind, target in [*ours, *(one for one in mounted if one[0] != "tmpfs")]:
        if fault := (file_target_fault if kind in ("files", "config") else target_fault)(target, before):
            yield f"{kind}: {target!r} {fault}"
    for kind, target in [*ours, *mounted, *secret]:
        if place_of(target) in taken:
            yield f"{kind}: {target!r} is in {taken[place_of(target)]} already (remove one of the two)"
        taken.setdefault(place_of(target), kind)
    for above, below in nested(taken):
        if taken[above] in ("files", "config") or (taken[above] == "secrets" and taken[below] != "secrets"):
            yield f"{taken[below]}: {below!r} lies below {above!r} of {taken[above]} (declare it there, or move one)"
    for directory, files in service["config"].items():
        for path in files:
            if fault := relative_fault(path, before + len(directory.encode(errors="replace")) + 1):
                yield f"config.{directory}: {path!r} {fault}"
        for above, below in nested(files):
            yield f"config.{directory}: {above!r} is a file and the directory of {below!r} (rename one)"


def home(project: dict[str, Any]) -> Path:
    """Return a project's directory."""
    return ROOT / str(project["name"])


def wanted_files(project: dict[str, Any], made: Document, secrets: dict[str, str], owner: str) -> dict[Path, File]:
    """Return every file of one project that is replaced by itself."""
    here, files = home(project), {}
    files[here / "compose.yaml"] = File(as_yaml(made).encode(), 0o640, 0)
    files[here / "project.json"] = File((json.dumps({"owner": owner, **rotation(project)}) + "\n").encode(), 0o640, 0)
    for service in project["services"]:
        for file in service["files"]:
            path = Path(f"{here}/files/{service['name']}{file['target']}")
            files[path] = File(str(file["content"]).encode(), 0o644, 0)
        if not rereads(service):
            for name, file in secret_files(project, service, secrets).items():
                files[here / "secrets" / name] = file
    return files


def secret_files(project: dict[str, Any], service: dict[str, Any], values: dict[str, str]) -> dict[str, File]:
    """Return the secrets that a service reads, by name."""
    files = {}
    for secret in project["secrets"]:
        if secret["name"] in service["secrets"]:
            mode, uid = int(str(secret.get("mode") or "0400"), 8), int(secret.get("owner") or 0)
            files[secret["name"]] = File(str(values.get(secret["name"], "")).encode(), mode, uid, True)
    return files


def wanted_trees(
    project: dict[str, Any], service: dict[str, Any], values: dict[str, str]
) -> dict[str, dict[str, File]]:
    """Return the files of each directory of a service that is swapped at once, by its path in the container."""
    trees = {
        target: {path: File(str(content).encode(), 0o644, 0) for path, content in files.items()}
        for target, files in service["config"].items()
    }
    if "/run/secrets" in directories(service):
        trees["/run/secrets"] = secret_files(project, service, values)
    return trees


def tree_of(project: dict[str, Any], service: dict[str, Any], target: str) -> Path:
    """Return where a directory of a service stands on the host."""
    return Path(f"{home(project)}/config/{service['name']}{target}")


def content_digest(trees: dict[str, dict[str, File]]) -> str:
    """Return the digest of all files of a service that are swapped."""
    return digest({
        target: {path: [hashlib.sha256(f.content).hexdigest(), f.mode, f.owner] for path, f in files.items()}
        for target, files in trees.items()
    })  # fmt: skip


def mounts(project: dict[str, Any], service: dict[str, Any]) -> list[Path]:
    """The single files of ours that a service's container mounts: it sees another one only when it is made anew."""
    here = home(project)
    files = [Path(f"{here}/files/{service['name']}{file['target']}") for file in service["files"]]
    return files + ([] if rereads(service) else [here / "secrets" / name for name in service["secrets"]])


def container_name(project: dict[str, Any], service: dict[str, Any]) -> str:
    """Return the name that compose gives a service's container."""
    return f"{project['name']}-{service['name']}-1"
