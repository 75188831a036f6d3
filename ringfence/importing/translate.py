"""A compose project in the lab's words: a part of the lab with its questions, and what belongs into the vault."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringfence.host.grants import FORGING
from ringfence.importing import mounts, networks, ports, settings
from ringfence.importing.confidential import Vault, is_secret
from ringfence.importing.files import Project
from ringfence.importing.flows import Flows, flows_of
from ringfence.importing.forms import text_of
from ringfence.importing.interpolate import Filled
from ringfence.importing.names import Names, known_as, names_of, networks_of
from ringfence.importing.said import Prose, Said, question

ORDER = (
    "host", "image", "stack", "network", "segments", "address", "port", "publish", "calls", "egress", "depends",
    "environment", "secrets", "files", "volumes",
)  # fmt: skip
# Where a secret may stand besides the environment.
_TEXTS = ("command", "health", "compose", "files")


@dataclass(frozen=True)
class Wishes:
    """What the caller knows beside the files.

    Attributes:
        host: of lab_hosts, that runs the project.
        places: that may use its published ports; none where each is to be asked for.
        directory: of the host, in which the compose files lie; "" where that is not known.
        images: service → the image that runs, pinned.
        taken: names that its services cannot have.
        segments: names that its segments cannot have.
    """

    host: str
    places: Sequence[str] = ()
    directory: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    taken: Collection[str] = ()
    segments: Collection[str] = ()


@dataclass(frozen=True)
class Imported:
    """The result.

    Attributes:
        stack: name of the project.
        part: segments, services and questions, ready to be written.
        vault: variable → secret.
        remarks: service ("" for the project) → what was left out, and why.
    """

    stack: str
    part: dict[str, Any]
    vault: dict[str, str]
    remarks: dict[str, list[str]]


def translate(project: Project, wishes: Wishes) -> Imported:
    """Say a project in the lab's words."""
    names = names_of(project, wishes.taken, wishes.segments)
    flows = flows_of(project, names)
    _lend(project, names, flows)
    vault = Vault(project, names.stack)
    whole = Said()
    segments = networks.segments(project, names, whole.remarks)
    services: dict[str, Any] = {}
    remarks: dict[str, list[str]] = {}
    for name in project.services:
        said = _service(project, names, flows, vault, wishes, segments, name)
        entry = {key: said.entry[key] for key in ORDER if key in said.entry}
        entry |= {key: value for key, value in sorted(said.entry.items()) if key not in entry}
        said.entry = {
            key: vault.kept(value, f"{names.services[name]}_{key}") if key in _TEXTS else value
            for key, value in entry.items()
        }
        services[names.services[name]] = _told(said.whole, vault)
        if names.services[name] != name:
            said.remarks.insert(0, f"it was '{name}' in compose")
        remarks[names.services[name]] = [vault.told(remark) for remark in said.remarks]
    _forging(services)
    _whole(project, whole)
    part: dict[str, Any] = {**_told(whole.whole, vault), "segments": segments, "services": services}
    remarks = {"": whole.remarks, **remarks}
    return Imported(names.stack, part, vault.values, {key: lines for key, lines in remarks.items() if lines})


def _told(value: Any, vault: Vault) -> Any:
    """Questions show no secret either."""
    if isinstance(value, Prose):
        return Prose(vault.told(value))
    if isinstance(value, dict):
        return {key: _told(one, vault) for key, one in value.items()}
    return [_told(one, vault) for one in value] if isinstance(value, list) else value


def _forging(services: Mapping[str, Any]) -> None:
    """Ask whether who may send any frame shall share a segment with others."""
    for name, entry in services.items():
        forging = sorted(FORGING & set(entry.get("capabilities") or []))
        owner = entry.get("network") if entry.get("network") in services else name  # of the network in which it is
        own = services[owner].get("segments")
        near = [
            other
            for other, one in services.items()
            if owner not in (other, one.get("network"))
            and isinstance(own, list)
            and isinstance(one.get("segments"), list)
            and set(own) & set(one["segments"])
        ]
        if forging and near:
            entry["allow_forging"] = question(
                f"with {forging[0]} it may pose as what shares a segment with it, {', '.join(near)}: write true, or "
                "false and give it a segment of its own, or remove the capability"
            )


def _whole(project: Project, whole: Said) -> None:
    for name, profiles in project.resting.items():
        whole.questions[f"service {name}"] = (
            f"it is of the profile {', '.join(profiles)} and was left out: import again with --profile {profiles[0]}, "
            "or do without"
        )
    for key in project.extensions:
        if key == "version":
            whole.remarks.append("version: compose reads it no more")
        elif key == "name":
            whole.remarks.append("name: see stack")
        elif key.startswith("x-"):
            whole.remarks.append(f"{key}: what refers to it has its content")
        else:
            whole.questions[key] = f"compose's '{key}' is not known here: do without?"
    used = {
        str(one.get("source")) for service in project.services.values() for one in service.get("volumes") or []
        if one.get("type") == "volume"
    }  # fmt: skip
    for name, declared in project.sections["volumes"].items():
        if name not in used:
            whole.remarks.append(f"volumes.{name}: no service uses it")
        rest = sorted(set(declared or {}) - {"name", "external"})
        if rest:
            whole.remarks.append(f"volumes.{name}: {', '.join(rest)} (the volume stays as it was made)")


def _lend(project: Project, names: Names, flows: Flows) -> None:
    """The calls of a service in another's network are that other's."""
    for name, service in project.services.items():
        kind, _, other = text_of(service.get("network_mode") or "").partition(":")
        owner = names.hosts.get(other)
        if kind in ("service", "container") and owner:
            for callee, called in flows.calls[name].items():
                if callee != owner:
                    flows.calls[owner].setdefault(callee, set()).update(called)
            flows.calls[name] = {}


def _service(
    project: Project,
    names: Names,
    flows: Flows,
    vault: Vault,
    wishes: Wishes,
    segments: Mapping[str, Any],
    name: str,
) -> Said:
    service = project.services[name]
    said = Said({"host": wishes.host, "stack": names.stack})
    lab_name = names.services[name]
    networks.connect(project, names, segments, name, said)
    _environment(vault, lab_name, service, said)
    settings.simple(name, service, said)
    if name in wishes.images and "image" in said.entry:
        said.entry["image"] = wishes.images[name]
    if not said.entry.get("image"):
        said.entry["image"] = question("it has no image of its own: write the one that runs, with its version")
        if service.get("build"):
            said.entry["image"] = question(said.questions.pop("build"))
    for owner, path in project.missing:
        if owner == name:
            said.questions[f"env_file {path}"] = f"{path} is not here: put its variables into environment"
    mounts.volumes(project, service, wishes.directory, said)
    mounts.files(project, service, said, lambda path, value: vault.reference(f"{lab_name}_{path}", value))
    if said.entry.get("docker_socket"):
        _filters(service, said)
    elif said.entry.get("network"):
        _unpublished(str(said.entry["network"]), service, said)
    else:
        ports.publish(lab_name, service.get("ports") or [], wishes.places, said)
    _flows(project, names, flows, name, service, said)
    _restarts(project, flows, name, service, said)
    if said.entry.get("docker_socket"):
        said.entry.setdefault("port", mounts.FILTERS_AT)
    networks.routed_by_labels(service, lab_name, said)
    if name in flows.unreached and "site" not in said.questions:
        others = [names.services[one] for one in flows.unreached[name]]
        near = ", ".join(others[:5]) + (", …" if others[5:] else "")
        said.questions["reached"] = (
            f"the files do not tell who calls it, and it publishes nothing: add {lab_name} to the calls of those that "
            f"use it (it shared a network with {near}), or remove this line"
        )
    return said


def _filters(service: Mapping[str, Any], said: Said) -> None:
    """A proxy that filters Docker's socket is for those who call it."""
    said.remarks.append("volume /var/run/docker.sock: it filters it for its callers (verify tries whether it does)")
    for one in service.get("ports") or []:
        shown = f"{one.get('published') or ''}:{one.get('target')}".lstrip(":")
        said.questions[f"ports {shown}"] = (
            f"port {shown} was open for whoever reaches the host: let those who use it call it, or do without"
        )


def _unpublished(network: str, service: Mapping[str, Any], said: Said) -> None:
    """Without a network of its own compose publishes nothing: whose network it is does, if at all."""
    for one in service.get("ports") or []:
        shown = f"{one.get('published') or ''}:{one.get('target') or ''}".strip(":")
        if network == "host":
            said.remarks.append(f"port {shown}: compose did not open it, as it is in the host's network")
        else:
            said.questions[f"ports {shown}"] = (
                f"its port {shown} is opened by the service whose network it is in: write it under publish of "
                f"{network}, or do without"
            )


def _environment(vault: Vault, lab_name: str, service: Mapping[str, Any], said: Said) -> None:
    found: dict[str, Any] = {}
    for variable, value in (service.get("environment") or {}).items():
        text = text_of(value)
        if isinstance(value, Filled) and value.unset:
            found[variable] = question(
                f"'{value.raw}' needs {', '.join(value.unset)}, which is not set: write the value"
                + (" (a secret belongs into the vault)" if is_secret(variable, "?") else "")
            )
            continue
        secret = is_secret(variable, text) or (isinstance(value, Filled) and vault.holds(value)) or vault.holds(text)
        found[variable] = vault.reference(f"{lab_name}_{variable}", text) if secret else text
    if found:
        said.entry["environment"] = found


def _flows(project: Project, names: Names, flows: Flows, name: str, service: Mapping[str, Any], said: Said) -> None:
    own = set(networks_of(service))
    calls: list[Any] = []
    for callee, called in sorted(flows.calls[name].items(), key=lambda item: names.services[item[0]]):
        if not own & set(networks_of(project.services[callee])):
            continue
        main, target = flows.ports[callee], names.services[callee]
        others = sorted((port for port in called if port != main), key=ports.order)
        known = known_as(project, names, name, callee)
        found: list[dict[str, Any]] = [{"service": target}] if not called or main in called else []
        found += [{"service": target, "port": port} for port in others]
        if known:
            found[0]["as"] = known
        calls += [target if set(one) == {"service"} else one for one in found]
    if calls:
        said.entry["calls"] = calls
    port = flows.ports[name]
    if port is not None and (own or name in flows.called):
        said.entry["port"] = port
    elif name in flows.called and own:
        said.entry["port"] = question(f"others call {names.services[name]}: write the port on which it listens")
    needed_first = {
        *(service.get("depends_on") or {}),
        *(str(one).partition(":")[0] for one in service.get("links") or []),
    }
    depends = sorted(names.services[one] for one in needed_first if one in names.services)
    if depends:
        said.entry["depends"] = depends
    for needed in service.get("depends_on") or {}:
        if needed not in names.services:
            said.questions[f"depends_on {needed}"] = f"it waits for '{needed}', which is not imported: do without?"
    _egress(project, names, name, service, said)


def _ended_first(service: Mapping[str, Any]) -> set[str]:
    """Return for whose end a service waits: they have done their work then, and nobody calls them."""
    return {
        needed
        for needed, how in (service.get("depends_on") or {}).items()
        if how.get("condition") == "service_completed_successfully"
    }


def _restarts(project: Project, flows: Flows, name: str, service: Mapping[str, Any], said: Said) -> None:
    """Say that a service ends when it has done its work, or ask: compose starts nothing again unless it is told to."""
    policy = ((service.get("deploy") or {}).get("restart_policy") or {}).get("condition")
    if service.get("restart") not in (None, "no", False) or policy:
        return
    if any(name in _ended_first(other) for other in project.services.values()):
        settings.passed("restart", "no", said)
    elif service.get("restart") is not None:
        return
    elif service.get("ports") or name in flows.called:
        said.remarks.append("restart: compose left it when it had ended; here it is started again")
    else:
        said.questions["restart"] = (
            "compose left it when it had ended: remove this line if it is to run all the time, or write compose: "
            '{restart: "no"} if it does its work and ends'
        )


def _egress(project: Project, names: Names, name: str, service: Mapping[str, Any], said: Said) -> None:
    own = networks_of(service)
    sections = project.sections["networks"]
    if not own and said.entry.get("network") != "host":
        return
    if own and all((sections.get(network) or {}).get("internal") for network in own):
        return
    if said.entry.get("docker_socket"):
        return
    if ports.is_store(service):
        said.remarks.append("egress: none, as databases and caches need none (compose let it reach everything)")
        return
    said.entry["egress"] = question(
        f"compose let {names.services[name]} reach everything: write [] if it needs nothing outside of the lab, or "
        "what it needs, such as [{to: internet, port: 443}]"
    )
