"""What to write in the place of words that the lab does not have: compose's above all, which people know."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

from ringfence.host.passing import PASSED

_DROPPED = "leave it out: everything is dropped already, and capabilities: [CHOWN] gives back what it needs"
_CALLS = "write calls: [db]; whom it calls it finds by name"
_NAMES = "leave it out: names follow from calls, segments and egress, and are asked of lab_resolvers"
_SEGMENTS = "write segments: [frontend]; fixed addresses are under address"
# What the fence owns of a compose service, with the field that says it.
_SERVICE: Mapping[str, str] = {
    "build": "nothing is built here: write image: with a version, of a registry or of the host",
    "cap_add": "write capabilities: [NET_BIND_SERVICE]",
    "cap_drop": _DROPPED,
    "configs": "write files: {/etc/app.conf: …} for single files, config: for directories",
    "container_name": "leave it out: the container is called <stack>-<service>-1, and stack: says the first part",
    "depends_on": "write depends: [db]; it waits until db is healthy where db has health, else until it runs",
    "dns": _NAMES,
    "dns_opt": _NAMES,
    "dns_search": _NAMES,
    "expose": "write port: 8080, the port that callers use",
    "extends": "write the service whole; a YAML anchor can stand for what several share",
    "external_links": _CALLS,
    "extra_hosts": _NAMES,
    "healthcheck": "write health: [CMD, …], or a line for the container's shell: what test says in "
    "compose; the times are under compose",
    "links": _CALLS,
    "mac_address": "leave it out: it follows from the address, which address: fixes",
    "mem_limit": "write memory: 512m",
    "network_mode": "write network: host, network: none or network: <service>, or segments: [frontend] for networks of "
    "its own",
    "networks": _SEGMENTS,
    "pids_limit": "write pids: 200",
    "ports": "write publish: [{port: 80, published: 8080, from: [lan]}], with the places that may use it",
    "profiles": "leave out the services that shall not run",
    "services": "write each service under lab_services, by its own name; nothing is inside of one",
    "security_opt": "leave it out: no-new-privileges is set, and Docker's own seccomp and AppArmor profiles are kept",
    "volumes_from": "write the same volume in both services",
}
# What compose passes on to the container and the fence does not care about.
_PASSED = frozenset(PASSED)
# What else compose has: it hands over a part of the host, or has no meaning here.
_REFUSED: Mapping[str, str] = {
    "device_cgroup_rules": "write devices: [/dev/ttyUSB0], with those that it needs",
    "deploy": "write cpus under compose, and memory here; other limits are named as compose names them",
    "env_file": "write compose: {env_file: app.env}, a file below the inventory, or environment",
    "ipc": "leave it out: every container has its own",
    "post_start": "leave it out: it can run with every right",
    "pre_start": "leave it out: it can run with every right",
    "pre_stop": "leave it out: it can run with every right",
    "runtime": "leave it out: Docker's own is what the fence is made for",
    "scale": "leave it out: every container has its own address; write one service for each",
    "umask": "leave it out: set it in the entrypoint",
    "use_api_socket": "leave it out: it hands over Docker, and with it the host",
    "userns_mode": "leave it out: Docker's own user namespace stays",
    "uts": "leave it out: every container has its own; hostname under compose names it",
}
_UNKNOWN = frozenset({
    "blkio_config", "cgroup", "cgroup_parent", "credential_spec", "develop", "driver_opts", "isolation", "label_file",
    "models", "provider", "pull_refresh_after",
})  # fmt: skip
_OTHERS: Mapping[str, Mapping[str, str]] = {
    "Volume": {
        "bind": "leave it out: a directory of the host is there, or the run says so",
        "consistency": "leave it out: it means nothing on Linux",
        "name": "write source: with the name that Docker has for it, and external: true where the host has it already",
        "tmpfs": "write tmpfs: [/path] in the service",
        "type": "leave it out: a source with a '/' in front is a directory of the host, any other a volume",
        "volume": "leave it out",
    },
    "Publish": {
        "app_protocol": "leave it out",
        "host_ip": "say who may use it by from: [lan]",
        "mode": "leave it out",
        "name": "leave it out",
        "protocol": "write proto: udp, or port: 53/udp",
        "target": "write port: 80, the port in the container",
    },
    "Secret": {
        "environment": "write value:, from the vault",
        "external": "write value:, from the vault",
        "file": "write value:, from the vault",
        "gid": "write owner: with the user id alone; nobody else reads it",
        "mode": "leave it out: only its owner reads it",
        "source": "the secret's name is the key: write name: {value: …}",
        "target": "the secret's name is the key; it is the file /run/secrets/<name>",
        "uid": 'write owner: "1000"',
    },
    "Segment": {
        "driver": "leave it out: a segment is a bridge",
        "enable_ipv6": "leave it out: every segment has IPv6 where the engine can",
        "external": "leave it out: ringfence makes its networks itself, with names and addresses of its own",
        "internal": "write internet: false",
        "ipam": "write subnet: 172.20.0.0/24",
        "name": "leave it out: the bridge is called rf-<segment>",
    },
}
_VARIABLES: Mapping[str, str] = {
    "lab_configs": "write files or config in the service",
    "lab_networks": "write lab_segments",
    "lab_secrets": "write secrets in the service, with values from the vault",
    "lab_volumes": "write volumes in the service",
}
_MANY = 10  # names that are listed where a word is near none of them
_PORTS = re.compile(
    r"(?:(?P<ip>\[.+\]|[0-9]+\.[0-9.]+):)?(?:(?P<published>[0-9]+(?:-[0-9]+)?):)?"
    r"(?P<port>[0-9]+(?:-[0-9]+)?(?:/(?:tcp|udp))?)"
)


def instead(model: str, word: str, names: Sequence[str]) -> str:
    """Return what to write for a setting that there is not.

    Args:
        model: name of the model in which it stands.
        word: the setting.
        names: the settings that there are.
    """
    if found := _of_compose(model, word, names):
        return found
    near = difflib.get_close_matches(word, sorted(names), n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    if len(names) <= _MANY:
        return f"what it takes: {', '.join(names)}"
    return f"remove it; docs/model.md lists the {len(names)} settings that there are"


def variable_instead(name: str) -> str:
    """Return what to write for a variable ``lab_…`` that is not part of a lab, "" where nothing comes to mind."""
    return _VARIABLES.get(name, "")


def _of_compose(model: str, word: str, names: Collection[str]) -> str:
    if model != "Service":
        return _OTHERS.get(model, {}).get(word, "")
    if word in _SERVICE:
        return _SERVICE[word]
    if word in _REFUSED:
        return _REFUSED[word]
    if word in _PASSED and "compose" in names:
        return f"write it under compose: {{{word}: …}}"
    if word in _PASSED | _UNKNOWN or word.startswith("x-"):
        return "a word of compose that has no place here; leave it out"
    return ""


def misshapen(setting: str, value: object) -> str:
    """Return what to write for a value of a shape that compose takes and the lab does not, "" where it is none.

    Nothing of the value is in the answer where it may be secret.
    """
    if setting in ("environment", "labels", "secrets") and isinstance(value, list | tuple):
        example = "TZ: Europe/Berlin" if setting == "environment" else "name: …"
        of = ", with its value from the vault" if setting == "secrets" else ""
        return f"is a list (write each as {example}, a line of its own under {setting}:{of})"
    if setting in ("depends", "segments", "calls") and isinstance(value, Mapping):
        more = "; fixed addresses are under address" if setting == "segments" else ""
        more = "; it waits until they are healthy" if setting == "depends" else more
        return f"is not a list (write {setting}: [{', '.join(map(str, value))}]{more})"
    if setting == "health" and isinstance(value, Mapping):
        return (
            "is not a list of words (write what test says alone: health: [CMD, …]; how often is stack_health_seconds)"
        )
    if setting == "publish" and isinstance(value, str | int):
        return _published(str(value))
    if setting in ("segments", "calls", "depends", "tmpfs", "capabilities", "volumes") and isinstance(value, str):
        return f"is not a list (write {setting}: [{value}])"
    return ""


def in_long_form(setting: str, value: object) -> str:
    """Return what to write for compose's long form of what the lab has in a short one alone, "" for all else."""
    if not isinstance(value, Mapping):
        return ""
    if setting == "devices" and value.get("source"):
        parts = [str(value[key]) for key in ("source", "target", "permissions") if value.get(key)]
        return f"is not written as here (write {':'.join(parts)})"
    if setting == "network":
        mode = value.get("mode")
        return f"is not written as here (write network: {mode if isinstance(mode, str) else 'host'})"
    return ""


def _published(text: str) -> str:
    """Return what to write for a port that is published in compose's short form."""
    found = _PORTS.fullmatch(text)
    if not found:
        return "is no port with its places (write {port: 80, from: [lan]}, with the places that may use it)"
    port = f"port: {found['port']}" + (f", published: {found['published']}" if found["published"] else "")
    address = (found["ip"] or "").strip("[]")
    if address in ("127.0.0.1", "::1"):
        return f"says not whose it is (write {{{port}, address: self}}: the host's alone)"
    port += f", address: {address}" if address not in ("", "0.0.0.0", "::") else ""
    return f"says no place (write {{{port}, from: [lan]}}, with the places that may use it)"
