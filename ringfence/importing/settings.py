"""The settings of a service that stand alone: what the lab has a word for, what passes through, what is a question."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ringfence.host.grants import capability_fault
from ringfence.host.handing import device_faults, gpu_fault, group_fault, handed
from ringfence.host.passing import PASSED
from ringfence.importing.confidential import shown_words
from ringfence.importing.forms import text_of
from ringfence.importing.interpolate import Filled, raw_of, unset_in
from ringfence.importing.problems import ComposeError
from ringfence.importing.said import Said, question
from ringfence.model.passed import passed_of

# What an image that starts as root needs to make its directories its own, to become another user and to run a program
# with the right to low ports. Docker gives
# these, and more (NET_RAW, MKNOD, SETFCAP, AUDIT_WRITE, SYS_CHROOT, …), to everybody.
USUAL = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
PROCESSES = 1000  # compose sets no limit; the lab's own, 200, is for what was made with it in mind
# Said by other modules, or by the files' reading.
ELSEWHERE = frozenset(
    {
        "configs", "depends_on", "environment", "extends", "links", "networks", "network_mode", "ports", "profiles",
        "secrets", "volumes",
    }
)  # fmt: skip
_OWN = ("devices", "group_add", "gpus")  # with fields of their own, in compose's form
_WITH_HOLES = ("command", "image", "user")  # that ask for what is not set in words of their own
# Tags that are moved on to what is new. Others without a digit are, too: a version has one.
_FLOATING = re.compile(r"latest\b.*|[^0-9]*", re.IGNORECASE | re.DOTALL)
_FENCED = {
    "blkio_config": "its disk access was weighed or limited ({value}): do without",
    "build": "it was built here ({value}): build it yourself, give it a name with a version, and write that as image",
    "cgroup": "it had the cgroup namespace '{value}': that hands over the host; do without",
    "cgroup_parent": "it was in the cgroup '{value}': do without",
    "container_name": "",
    "cpuset": "it ran on the processors {value} only: do without (cpus limits how much it may use)",
    "credential_spec": "Windows only: remove it",
    "device_cgroup_rules": "it might use further devices ({value}): name them under devices, or do without",
    "dns": "it asked {value} for names: services ask lab_resolvers, and who has no egress asks nobody",
    "dns_opt": "its resolver had the options {value}: do without",
    "dns_search": "it completed names with {value}: write whole names, or do without",
    "external_links": "it was linked to {value} of another project: declare that service and write it under calls",
    "extra_hosts": "it resolved {value} itself: write addresses in place of the names and the way under egress "
    "(host.docker.internal: a service of lab_hosts.<host>.services that names this one in from)",
    "label_file": "it had labels from {value}: write those that it needs under labels of compose (what other proxies "
    "read there becomes site and access)",
    "ipc": "it shared memory by '{value}': do without",
    "mac_address": "it had the MAC address {value}: the lab gives its own; do without",
    "models": "it used the models {value} of Docker's model runner: not supported; do without",
    "pid": "it saw the processes of {value}: do without, or write pid: host with allow_host: true",
    "post_start": "compose ran {value} after its start: run it in its entrypoint, or do without",
    "pre_start": "compose ran {value} before its start: run it in its entrypoint, or do without",
    "pre_stop": "compose ran {value} before its end: do without",
    "privileged": "it was privileged, which hands the whole host to it: name the capabilities and devices that it "
    "needs in place of that, or write privileged: true with allow_host: true, which verify lists each time",
    "provider": "it was run by another program than Docker ({value}): not supported",
    "runtime": "it was run by '{value}': do without",
    "scale": "compose ran {value} of it: declare each as a service of its own",
    "security_opt": "it had the security options {value}: do without",
    "umask": "its files were made with the umask {value}: set it in its entrypoint, or do without",
    "use_api_socket": "it was given Docker's own socket, which hands the whole host to it: let it call a proxy that "
    "filters it, a service with docker_socket: true, or do without",
    "userns_mode": "it was in the user namespace '{value}': do without",
    "uts": "it had the host's name for its own ({value}): do without",
    "volumes_from": "it had all volumes of {value}: write them under volumes, one by one",
}
_IGNORED = {
    "develop": "for development with compose",
    "isolation": "Windows only",
}


def simple(name: str, service: Mapping[str, Any], said: Said) -> None:
    """Say every setting of a service that another module does not."""
    for key, value in service.items():
        if key in ELSEWHERE or value is None:
            continue
        if key not in _WITH_HOLES and unset_in(value):
            value = _asked(key, value, said)  # what is known of it goes on
            if not value:
                continue
        if key in _SAID:
            _SAID[key](name, value, said)
        elif key in PASSED:
            passed(key, value, said)
        elif key in _OWN:
            _field(key, value, said)
        elif key.startswith("x-"):
            said.remarks.append(f"{key}: an extension that nothing here reads")
        elif key in _IGNORED:
            said.remarks.append(f"{key}: {_IGNORED[key]}")
        elif key in _FENCED and value is not False and value not in ([], {}) and (key, value) != ("scale", 1):
            said.questions[key] = _FENCED[key].format(value=_told(key, value))
        elif key not in _FENCED:
            said.questions[key] = f"compose's '{key}' is not known here: do without?"
    _defaults(service, said)


def _asked(key: str, value: Any, said: Said) -> Any:
    """Ask for what a variable is missing in; return what is whole, of settings whose parts stand alone."""
    parts = key in ("annotations", "labels", "sysctls") and isinstance(value, Mapping)
    holes = {name: one for name, one in value.items() if unset_in(one)} if parts else value
    of = f" of {', '.join(holes)}" if parts else ""
    said.questions[f"{key} not set"] = (
        f"{key}{of} needs {', '.join(unset_in(holes))}, which is not set"
        + ("" if parts else f" (it was '{_told(key, value)}')")
        + ": write what it is to be, or do without"
    )
    return {name: one for name, one in value.items() if name not in holes} if parts else None


def passed(key: str, value: Any, said: Said) -> None:
    """Hand a setting to compose as it is; what the lab does not pass on is a question."""
    parts = [{name: one} for name, one in value.items()] if key == "sysctls" else [value]
    for part in parts:
        try:
            passed_of({key: part})
        except ValueError as fault:
            subject = f"{key} {next(iter(part))}" if key == "sysctls" else key
            said.questions[subject] = f"compose had {key}: {_told(key, part)}. {fault}"
            continue
        into = said.entry.setdefault("compose", {})
        into[key] = {**into.get(key, {}), **part} if key == "sysctls" else part


def _field(key: str, value: Any, said: Said) -> None:
    """Hand a field on in its own form; devices that hand over the host are asked about."""
    if key == "gpus":
        said.entry[key] = value if value == "all" else [dict(one) for one in value]
        return
    for one in map(_device, value):
        faults = [*device_faults(one), *map(str, handed(privileged=False, pid="", devices=[one], volumes=[]))]
        if key == "devices" and faults:
            said.questions[f"devices {one}"] = (
                f"it had the device {one}: {faults[0]}. Do without, or write it under devices with allow_host: true"
            )
        elif key == "group_add" and group_fault(one):
            said.questions[f"group_add {one}"] = f"it was in the group {one}: write its number under group_add"
        else:
            said.entry.setdefault(key, []).append(one)


def _device(value: Any) -> str:
    """Return a device in its short form."""
    if not isinstance(value, Mapping):
        return text_of(value)
    return ":".join(str(value[key]) for key in ("source", "target", "permissions") if value.get(key))


def _told(key: str, value: Any) -> str:
    """What a question says of a setting: of labels and arguments the names alone, as a password may stand in any."""
    if key in ("annotations", "build", "labels") and isinstance(value, Mapping):
        return ", ".join(str(one) for one in value)
    if key in ("post_start", "pre_start", "pre_stop") and isinstance(value, list):
        return "; ".join(shown_words(_words(one.get("command") or [])) for one in value if isinstance(one, Mapping))
    if key in ("command", "entrypoint", "healthcheck"):
        words = value.get("test") if isinstance(value, Mapping) else value
        return shown_words([raw_of(one) for one in (words if isinstance(words, list) else [words])])
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_shown(one)}" if one is not None else str(key) for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value)
    return value.raw if isinstance(value, Filled) else text_of(value)


def _defaults(service: Mapping[str, Any], said: Said) -> None:
    added = [_bare(str(one)) for one in service.get("cap_add") or []]
    dropped = {str(one).upper() for one in service.get("cap_drop") or []}
    user = str(service.get("user") or "").partition(":")[0]
    given = () if "ALL" in dropped or user not in ("", "0", "root") else USUAL
    capabilities = [one for one in (*given, *added) if one not in {_bare(each) for each in dropped}]
    good = sorted({one for one in capabilities if not capability_fault(one)})
    for given_away in handed(
        privileged=False, pid="", devices=(), volumes=(), network=str(service.get("network_mode") or ""),
        capabilities=good,
    ):  # fmt: skip
        good.remove(given_away.subject)
        if given_away.subject in added:
            said.questions[f"cap_add {given_away.subject}"] = (
                f"it had {given_away}. Do without, or write it under capabilities with allow_host: true"
            )
    if good:
        said.entry["capabilities"] = good
    for one in added:
        if fault := capability_fault(one):
            said.questions[f"cap_add {one}"] = f"the capability {one} {fault}"
    if not service.get("read_only"):
        said.entry["read_only"] = False
    said.entry.setdefault("pids", PROCESSES)


def _bare(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")


# -- settings with a word of the lab's


def _image(name: str, value: Any, said: Said) -> None:
    if isinstance(value, Filled) and value.unset:
        said.entry["image"] = question(
            f"'{value.raw}' needs {', '.join(value.unset)}, which is not set: write the image that runs, with its "
            "version or digest"
        )
        return
    image = str(value)
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    if "@" not in image and _FLOATING.fullmatch(tag):
        bare = image.removesuffix(f":{tag}")
        said.entry["image"] = question(
            f"'{image}' is not pinned: write what runs, its version ({bare}:1.2.3) or its digest ({bare}@sha256:…, as "
            f"`docker image inspect {image}` shows it under RepoDigests)"
        )
    else:
        said.entry["image"] = image


def _words(value: Any) -> list[str]:
    return [text_of(one) for one in value] if isinstance(value, list) else [text_of(value)]


def _command(name: str, value: Any, said: Said) -> None:
    if unset := unset_in(value):
        said.questions["command"] = f"{', '.join(unset)} in the command is not set: write what is meant in its place"
    if value:
        said.entry["command"] = [one if isinstance(one, str) else text_of(one) for one in value]


def _restart(name: str, value: Any, said: Said) -> None:
    text = text_of(value)
    if text in ("always", "unless-stopped"):
        said.remarks.append(f"restart: {text} (every service is started again)")
    else:
        passed("restart", "no" if value is False else text, said)


def _user(name: str, value: Any, said: Said) -> None:
    text = text_of(value)
    if isinstance(value, Filled) and value.unset:
        said.entry["user"] = question(f"it ran as '{value.raw}', which is not set: write numbers such as 1000:1000")
    elif text:
        said.entry["user"] = text


def _memory(name: str, value: Any, said: Said) -> None:
    found = re.fullmatch(r"([0-9.]+)\s*([bkmgt]?)(?:i?b)?", text_of(value).lower())
    if not found or not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", found[1]) or not float(found[1]):
        said.questions["mem_limit"] = f"its memory was limited to '{text_of(value)}': write it as memory: 512m"
        return
    size = float(found[1]) * {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}[found[2]]
    for unit, bytes_ in (("g", 2**30), ("m", 2**20)):
        if size >= bytes_ and size % bytes_ == 0:
            said.entry["memory"] = f"{int(size // bytes_)}{unit}"
            return
    said.entry["memory"] = f"{max(1, round(size / 2**10))}k"


def _pids(name: str, value: Any, said: Said) -> None:
    try:
        wanted = int(value)
    except ValueError:
        raise ComposeError(f"services.{name}: its limit of processes is no number (compose refuses it)") from None
    if wanted > 0:
        said.entry["pids"] = wanted


def _tmpfs(name: str, value: Any, said: Said) -> None:
    said.entry.setdefault("tmpfs", []).extend(text_of(one) for one in value)


def _health(name: str, value: Any, said: Said) -> None:
    test = value.get("test")
    if isinstance(test, list) and (
        not test or test[0] not in ("CMD", "CMD-SHELL", "NONE") or test in (["CMD"], ["CMD-SHELL"])
    ):
        raise ComposeError(
            f"services.{name}.healthcheck.test begins with none of CMD, CMD-SHELL and NONE, or has no command (compose "
            "refuses it)"
        )
    if value.get("disable") or test in (["NONE"], "NONE"):
        said.questions["healthcheck"] = (
            "the image's own health check was switched off: write one as health, or do without"
        )
        return
    if test:
        said.entry["health"] = text_of(test[1]) if test[0] == "CMD-SHELL" else [text_of(one) for one in test[1:]]
    if not test:
        said.remarks.append("healthcheck: the image's own")
    times = {key: value[key] for key in value if key not in ("test", "disable")}
    if times and test:
        passed("healthcheck", times, said)
    elif times:
        said.remarks.append(
            f"healthcheck: {', '.join(f'{key} {text_of(one)}' for key, one in times.items())} "
            "(the lab asks as often as stack_health_seconds says)"
        )


def _security(name: str, value: Any, said: Said) -> None:
    others = [text_of(one) for one in value if not re.match(r"no-new-privileges(?:[:=]true)?$", text_of(one))]
    if len(others) < len(value):
        said.remarks.append("security_opt: no-new-privileges (every service has it)")
    if others:
        said.questions["security_opt"] = _FENCED["security_opt"].format(value=", ".join(others))


def _deploy(name: str, value: Any, said: Said) -> None:
    limits = (value.get("resources") or {}).get("limits") or {}
    reserved = (value.get("resources") or {}).get("reservations") or {}
    if limits.get("memory"):
        _memory(name, limits["memory"], said)
    if limits.get("pids"):
        _pids(name, limits["pids"], said)
    if limits.get("cpus"):
        passed("cpus", limits["cpus"], said)
    if reserved.get("memory"):
        passed("mem_reservation", reserved["memory"], said)
    if reserved.get("cpus"):
        said.remarks.append("deploy.resources.reservations.cpus (of swarm)")
    for device in reserved.get("devices") or []:
        _gpu(device, said)
    replicas = value.get("replicas")
    if replicas == 0:
        said.questions["deploy"] = "compose ran none of it: remove it, or keep it to have it run"
    elif replicas not in (None, 1):
        said.questions["deploy"] = _FENCED["scale"].format(value=replicas)
    policy = (value.get("restart_policy") or {}).get("condition")
    if policy and policy != "any":
        passed("restart", "no" if policy == "none" else policy, said)
    rest = sorted(set(value) - {"resources", "replicas", "restart_policy"})
    if rest:
        said.remarks.append(f"deploy: {', '.join(rest)} (of swarm)")


def _gpu(device: Mapping[str, Any], said: Said) -> None:
    if fault := gpu_fault(device):
        said.questions["gpus"] = f"it had the device ({_shown(device)}): {fault}"
    else:
        said.entry.setdefault("gpus", []).append(dict(device))


def _env_file(name: str, value: Any, said: Said) -> None:
    said.remarks.append(f"env_file: {', '.join(str(one['path']) for one in value)} (in environment and the vault)")


def _container_name(name: str, value: Any, said: Said) -> None:
    said.remarks.append(f"container_name: {value} (containers are called after stack and service)")


def _expose(name: str, value: Any, said: Said) -> None:
    said.remarks.append(f"expose: {', '.join(map(text_of, value))} (who calls it says so)")


def _cap(name: str, value: Any, said: Said) -> None:
    """Said with what the service has by default (`_defaults`)."""


_SAID: dict[str, Callable[[str, Any, Said], None]] = {
    "cap_add": _cap,
    "cap_drop": _cap,
    "command": _command,
    "container_name": _container_name,
    "deploy": _deploy,
    "env_file": _env_file,
    "expose": _expose,
    "healthcheck": _health,
    "image": _image,
    "init": lambda name, value, said: said.entry.update(init=True) if value else None,
    "mem_limit": _memory,
    "pids_limit": _pids,
    "read_only": lambda name, value, said: said.entry.update(read_only=True) if value else None,
    "restart": _restart,
    "security_opt": _security,
    "tmpfs": _tmpfs,
    "user": _user,
}
