"""Where a service's data is: it stays where it is."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from ringfence.host.mounts import is_socket, source_fault
from ringfence.importing.files import Project
from ringfence.importing.interpolate import Filled, filled, unset_in
from ringfence.importing.said import Said, question

_OPTIONS = {"type", "source", "target", "read_only", "bind", "volume", "tmpfs", "consistency"}


def volumes(project: Project, service: Mapping[str, Any], where: str, said: Said) -> None:
    """Say the mounts of a service.

    Args:
        project: it belongs to.
        service: its settings.
        where: the directory of the host in which the compose files lie; "" where that is not known.
        said: receives them.
    """
    found: list[Any] = []
    for one in service.get("volumes") or []:
        kind, target = one.get("type"), str(one.get("target"))
        if kind in ("bind", "volume") and posixpath.normpath(target).startswith("/run/secrets"):
            said.questions[f"volume {target}"] = (
                f"{one.get('source')} was mounted at {target}, where secrets are: declare it under secrets, or mount "
                "it elsewhere and point the program there"
            )
        elif kind == "tmpfs":
            given = one.get("tmpfs") or {}
            mode = {"mode": f"{given['mode']:o}"} if isinstance(given.get("mode"), int) else {}
            options = ",".join(f"{key}={value}" for key, value in {**given, **mode}.items())
            said.entry.setdefault("tmpfs", []).append(f"{target}:{options}" if options else target)
        elif kind == "bind":
            _bind(one, target, where, str(service.get("image") or ""), found, said)
        elif kind == "volume":
            found.append(_volume(project, one, target))
            if (one.get("volume") or {}).get("nocopy"):
                said.remarks.append(f"volume {target}: nocopy (it has its content already)")
        elif kind == "unset":
            unset = one["source"].unset if isinstance(one["source"], Filled) else ()
            raw = one["source"].raw if isinstance(one["source"], Filled) else one["source"]
            found.append(
                question(
                    f"what is mounted at {target} was '{raw}', and {', '.join(unset)} is not set: write it as "
                    f"/srv/app:{target}"
                )
            )
        else:
            said.questions[f"volume {target}"] = (
                f"compose mounts something of type '{kind}' at {target}, which is not supported: mount a volume or a "
                "directory there, or do without"
            )
        strange = sorted(set(one) - _OPTIONS)
        if strange:
            said.questions[f"volume {target}"] = f"{', '.join(strange)} of the mount at {target}: do without?"
    if found:
        said.entry["volumes"] = found


def _volume(project: Project, one: Mapping[str, Any], target: str) -> Any:
    source = one.get("source")
    if not source:
        return question(
            f"{target} had a volume without a name, and its data is in it: `docker inspect` shows the volume's name "
            f"under Mounts; write it as {{source: NAME, target: {target}, external: true}}, or a new one as "
            f"data:{target}"
        )
    subpath = (one.get("volume") or {}).get("subpath")
    if subpath:
        return question(f"{target} was the directory '{subpath}' inside of the volume '{source}': mount the whole one")
    return existing(volume_name(project, str(source)), target, bool(one.get("read_only")))


def volume_name(project: Project, source: str) -> str:
    """Return how Docker calls a volume of the project."""
    declared = project.sections["volumes"].get(source) or {}
    external = declared.get("external")
    if isinstance(external, Mapping) and external.get("name"):
        return str(external["name"])
    if declared.get("name"):
        return str(declared["name"])
    return source if external else f"{project.name}_{source}"


def existing(name: str, target: str, read_only: bool) -> dict[str, Any]:
    """Return the mount of a volume that is there already, by its Docker name."""
    return {
        "source": name,
        "target": target,
        "external": True,
        **({"read_only": True} if read_only else {}),
    }


# Images whose work it is to filter Docker's socket, by the last part of their names: others are called much alike.
_PROXY = re.compile(r"(?:docker-?)?socket-?proxy|docker-proxy")
FILTERS_AT = 2375  # port, where such an image is told nothing else


def _bind(one: Mapping[str, Any], target: str, where: str, image: str, found: list[Any], said: Said) -> None:
    source, suffix = str(one.get("source")), ":ro" if one.get("read_only") else ""
    if source.startswith("~"):
        found.append(
            question(f"'{source}' was in a home directory of the host: write it as /home/NAME/…:{target}{suffix}")
        )
        return
    if not source.startswith("/"):
        if not where:
            found.append(
                question(
                    f"'{source}' lies beside the compose file on the host: write it with its whole path as "
                    f"/opt/app/…:{target}{suffix} (--directory says it once for all)"
                )
            )
            return
        source = posixpath.normpath(posixpath.join(where, source))
    if _clock(source):
        said.remarks.append(
            f"{source}: programs take the time zone from the variable TZ; the host's files are not needed"
        )
        if "TZ" not in (said.entry.get("environment") or {}):
            said.questions["TZ"] = (
                "the host's time zone was mounted: write the variable TZ into environment, such as Europe/Berlin"
            )
        return
    if is_socket(source) and posixpath.basename(source) == "docker.sock" and _PROXY.fullmatch(_last(image)):
        said.entry["docker_socket"] = True
        return
    if fault := source_fault(source, bool(one.get("read_only"))):
        confirm = "" if is_socket(source) else "; or write it under volumes with allow_host: true"
        said.questions[f"volume {target}"] = f"{source} was mounted, and it {fault}{confirm}"
        return
    read_only = {"read_only": True} if suffix else {}
    plain = ":" not in source + target
    found.append(f"{source}:{target}{suffix}" if plain else {"source": source, "target": target, **read_only})
    propagation = (one.get("bind") or {}).get("propagation")
    if propagation:
        said.questions[f"volume {target}"] = (
            f"mounts made below {source} later were passed on ({propagation}): they are not, restart the service then"
        )


def _last(image: str) -> str:
    """Return an image's own name, without where it is from and which one it is."""
    return image.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0]


def _clock(source: str) -> bool:
    return source in ("/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo")


def files(project: Project, service: Mapping[str, Any], said: Said, keep: Any) -> None:
    """Say the secrets and configs of a service: their content comes along.

    Args:
        project: it belongs to.
        service: its settings.
        said: receives them.
        keep: keeps a secret of a name and a content in the vault and returns its reference.
    """
    user = str(service.get("user") or "").partition(":")[0]
    for one in service.get("secrets") or []:
        name = str(one.get("source"))
        target = str(one.get("target") or name)
        content = _content(project, "secrets", name)
        if "/" in target.removeprefix("/run/secrets/"):
            said.questions[f"secret {name}"] = (
                f"it was at {target}: secrets are files in /run/secrets here; point the program there and declare it "
                "under secrets"
            )
            continue
        value = content if isinstance(content, dict) else keep(f"secret_{name}", content)
        owner = str(one.get("uid") or (user if user.isdecimal() else "0"))
        if owner == "0":
            said.remarks.append(
                f"secret {name}: root reads it; write its owner where the program starts as somebody else"
            )
        entry = {"value": value, "owner": owner} if owner != "0" else value
        said.entry.setdefault("secrets", {})[target.removeprefix("/run/secrets/")] = entry
    for one in service.get("configs") or []:
        name = str(one.get("source"))
        content = _content(project, "configs", name)
        said.entry.setdefault("files", {})[posixpath.join("/", str(one.get("target") or name))] = content
        if _executed(project, name, one.get("mode")):
            said.questions[f"config {name}"] = (
                "its file could be executed, and those under files cannot: call it by its interpreter (entrypoint or "
                "command: [sh, /the/file]), or do without"
            )
        strange = sorted({"uid", "gid", "mode"} & set(one))
        if strange:
            said.remarks.append(f"config {name}: {', '.join(strange)} (everybody in the container reads it)")


def _executed(project: Project, name: str, mode: int | None) -> bool:
    """Whether a config is there to be executed: by the mode that is said, or by its file's where none is."""
    if mode is not None:
        return bool(mode & 0o111)
    file = (project.sections["configs"].get(name) or {}).get("file")
    return bool(file) and os.access(project.directory / str(file), os.X_OK)


def _content(project: Project, section: str, name: str) -> Any:
    declared = project.sections[section].get(name) or {}
    if "content" in declared:
        if unset := unset_in(declared["content"]):
            return question(f"the content of {section}.{name} needs {', '.join(unset)}, which is not set: write it")
        return declared["content"]
    if declared.get("environment"):
        variable = str(declared["environment"])
        value = project.variables.get(variable)
        if value is None:
            return question(f"the variable {variable} is not set: write it")
        return filled(value, f"${{{variable}}}", (), (variable,))
    if declared.get("file"):
        path = project.directory / str(declared["file"])
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return question(f"{declared['file']} cannot be read here: write its content (of a secret, by the vault)")
    return question(f"{section}.{name} is made outside of the compose files: write its content")
