"""dockerd's command line in daemon.json's words: dockerd refuses what both of them say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.host.files import read
from ringfence.host.running import run

# Options whose name is not that of their key.
_SHORT = {
    "H": "hosts", "D": "debug", "G": "group", "b": "bridge", "g": "data-root", "l": "log-level", "p": "pidfile",
    "s": "storage-driver",
}  # fmt: skip
_LONG = {
    "add-runtime": "runtimes", "allow-nondistributable-artifact": "allow-nondistributable-artifacts",
    "authorization-plugin": "authorization-plugins", "cdi-spec-dir": "cdi-spec-dirs",
    "default-address-pool": "default-address-pools", "default-ulimit": "default-ulimits", "dns-opt": "dns-opts",
    "exec-opt": "exec-opts", "feature": "features", "graph": "data-root", "host": "hosts",
    "insecure-registry": "insecure-registries", "label": "labels", "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources", "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}  # fmt: skip
_BOTH = frozenset(["runtimes"])  # what may be said in both places


def flag_values(flags: list[str]) -> dict[str, str]:
    """Options of a command line: `--log-driver=journald`, `--iptables false`, `-H fd://` → {key of daemon.json: value}.

    Of an option that is there more than once, the last value; of a switch, "true".
    """
    found = {}
    for i, flag in enumerate(flags):
        if not flag.startswith("-") or flag in ("-", "--"):
            continue
        following = flags[i + 1] if i + 1 < len(flags) and not flags[i + 1].startswith("-") else "true"
        if flag.startswith("--"):
            name, equals, value = flag[2:].partition("=")
            found[_LONG.get(name, name)] = value if equals else following
        else:
            value = flag[2:].removeprefix("=")
            found[_SHORT.get(flag[1], flag[1])] = value or following
    return found


def said_twice(config: Mapping[str, Any], flags: Mapping[str, str]) -> list[str]:
    """The keys of a daemon.json for which dockerd refuses it, because its command line has them."""
    return sorted((config.keys() & flags.keys()) - _BOTH)


def next_command(unit: str = "docker.service") -> list[str]:
    """The arguments that a unit's program is started with the next time, as its files say now; empty if none say."""
    told = run("systemctl", "cat", "--", unit)
    return arguments(told.stdout) if told.returncode == 0 else []


def arguments(text: str) -> list[str]:
    """The arguments of the last ExecStart in a unit's text and its drop-ins, variables of its environment filled in."""
    command, environment = "", dict[str, str]()
    for line in re.sub(r"\\\n", " ", text).splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            continue
        if name == "ExecStart":
            command = value  # an empty one takes back those before it
        elif name == "Environment":
            environment |= _assigned(value)
        elif name == "EnvironmentFile":
            environment |= _assigned(read(Path(value.removeprefix("-"))))
    words: list[str] = []
    for word in _words(command.lstrip("-@:+!")):
        if whole := re.fullmatch(r"\$(\w+)", word):
            words += environment.get(whole[1], "").split()
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda found: environment.get(found[1], ""), word))
    return words[1:]


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=False)
    except ValueError:  # an open quote: systemd does not start it either
        return text.split()


def _assigned(text: str) -> dict[str, str]:
    """Assignments, one or more in a line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", ";"))]
    pairs = [word.partition("=") for line in lines for word in _words(line)]
    return {name: value for name, equals, value in pairs if equals}
