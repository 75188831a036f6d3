"""Ansible's connection variables in pyinfra's words: all that ansible-core resolves, or a refusal by name.

Standard library only, as `ringfence.inventory.front`. Both engines have to come to a host by the same way, as the same
user, with the same keys: what is dropped silently here is a host that only one of them reaches, or another host.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# pyinfra's name → Ansible's names for it; of those that are set, the last one counts, as in ansible-core.
ALIASES = {
    "ssh_hostname": ("ansible_host", "ansible_ssh_host"),
    "ssh_port": ("ansible_port", "ansible_ssh_port"),
    "ssh_user": ("ansible_user", "ansible_ssh_user"),
    "ssh_password": ("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"),
    "ssh_key": ("ansible_private_key_file", "ansible_ssh_private_key_file"),
    "ssh_key_password": ("ansible_private_key_passphrase", "ansible_ssh_private_key_passphrase"),
    "ssh_strict_host_key_checking": ("ansible_host_key_checking", "ansible_ssh_host_key_checking"),
    "ssh_connect_retries": ("ansible_ssh_retries",),
    "timeout": ("ansible_ssh_timeout",),
    "_sudo": ("ansible_become",),
    "_sudo_user": ("ansible_become_user", "ansible_sudo_user"),
    "_sudo_password": ("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"),
}
# What pyinfra has no word for, with the values that mean nothing else than what it does.
REFUSED: dict[str, tuple[str, ...]] = {
    "ansible_private_key": (), "ansible_ssh_private_key": (), "ansible_ssh_pkcs11_provider": (),
    "ansible_ssh_executable": ("ssh", "/usr/bin/ssh"),
    "ansible_connection": ("ssh", "smart", "local", "ansible.builtin.ssh", "ansible.builtin.local"),
    "ansible_become_method": ("sudo", "ansible.builtin.sudo"),
    "ansible_become_exe": ("sudo", "/usr/bin/sudo"), "ansible_sudo_exe": ("sudo", "/usr/bin/sudo"),
    "ansible_become_flags": ("-H -S -n", "-H -S", "-H"), "ansible_sudo_flags": ("-H -S -n", "-H -S", "-H"),
    "ansible_sudo_chdir": (),
}  # fmt: skip
# How Ansible sends, not where and as whom.
WITHOUT_MEANING = frozenset([
    "ansible_ssh_password_mechanism", "ansible_sshpass_prompt", "ansible_sftp_executable", "ansible_scp_executable",
    "ansible_scp_extra_args", "ansible_sftp_extra_args", "ansible_pipelining", "ansible_ssh_pipelining",
    "ansible_control_path", "ansible_control_path_dir", "ansible_sftp_batch_mode", "ansible_ssh_transfer_method",
    "ansible_ssh_use_tty", "ansible_ssh_verbosity",
])  # fmt: skip
ARGUMENTS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")

_VALUED = {
    "F": "configfile", "J": "proxyjump", "p": "port", "i": "identityfile", "l": "user", "o": "", "c": "ciphers",
    "m": "macs", "E": "logfile", "e": "escapechar", "S": "controlpath", "O": "controlcommand", "L": "localforward",
    "R": "remoteforward", "D": "dynamicforward", "w": "tunnel", "b": "-b", "B": "-B", "I": "-I", "W": "-W", "P": "-P",
    "Q": "-Q",
}  # fmt: skip
_SWITCHES = {"A": ("forwardagent", "yes"), "a": ("forwardagent", "no"), "4": ("-4", ""), "6": ("-6", "")}
# OpenSSH's options that pyinfra takes as data of a host, and those that it reads in a file of OpenSSH's form.
_DATA = {
    "port": "ssh_port", "user": "ssh_user", "userknownhostsfile": "ssh_known_hosts_file", "connecttimeout": "timeout",
    "stricthostkeychecking": "ssh_strict_host_key_checking", "forwardagent": "ssh_forward_agent",
    "configfile": "ssh_config_file",
}  # fmt: skip
_IN_FILE = ("hostname", "proxyjump", "proxycommand", "identityfile", "identityagent", "certificatefile")
_STRICTNESS = {"yes": "yes", "no": "no", "accept-new": "accept-new", "off": "off", "ask": "yes"}
# Neither another host, nor another user, nor another key by it.
_HARMLESS = frozenset([
    "addkeystoagent", "batchmode", "checkhostip", "ciphers", "clearallforwardings", "compression", "connectionattempts",
    "controlcommand", "controlmaster", "controlpath", "controlpersist", "dynamicforward", "escapechar",
    "exitonforwardfailure", "fingerprinthash", "forwardx11", "forwardx11timeout", "forwardx11trusted", "gatewayports",
    "gssapiauthentication", "gssapidelegatecredentials", "hashknownhosts", "hostbasedauthentication",
    "hostkeyalgorithms", "identitiesonly", "ipqos", "kbdinteractiveauthentication", "challengeresponseauthentication",
    "kexalgorithms", "localcommand", "localforward", "logfile", "loglevel", "logverbose", "macs",
    "nohostauthenticationforlocalhost", "numberofpasswordprompts", "passwordauthentication", "permitlocalcommand",
    "preferredauthentications", "pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes", "pubkeyauthentication",
    "rekeylimit",
    "remoteforward", "requesttty", "sendenv", "serveralivecountmax", "serveraliveinterval", "setenv",
    "streamlocalbindmask", "streamlocalbindunlink", "syslogfacility", "tcpkeepalive", "tunnel", "updatehostkeys",
    "visualhostkey", "xauthlocation",
])  # fmt: skip


class Connection(NamedTuple):
    """How pyinfra comes to a host.

    Attributes:
        data: pyinfra's data of the host.
        options: OpenSSH's options, in order, that pyinfra reads in a file only.
        problems: what it cannot be told, a line each.
    """

    data: dict[str, Any]
    options: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


def connection(host: str, values: Mapping[str, Any]) -> Connection:
    """Translate one host's final variables. Pure."""
    data = {key: value for key, names in ALIASES.items() if (value := _last(values, names)) is not None}
    problems = [
        _problem(host, name, str(values[name]))
        for name, same in REFUSED.items()
        if values.get(name) not in (None, "", *same)
    ]
    in_file: list[tuple[str, str]] = []
    said: dict[str, Any] = {}
    # In the order of Ansible's command line, where the first value of an option counts; variables stand before these.
    of_variables = {key: data[key] for key in data if not key.startswith("_")}
    for variable in ARGUMENTS:
        if variable == ARGUMENTS[1]:
            said = {**of_variables, **said}
        try:
            options = list(ssh_options(str(values.get(variable) or "")))
        except ValueError as error:
            problems.append(f"{host}: {variable} cannot be read: {error}")
            continue
        for option, value in options:
            if option in _DATA:
                said.setdefault(_DATA[option], _read(option, value))
            elif option in _IN_FILE:
                in_file.append((option, value))
            elif option not in _HARMLESS:
                problems.append(_problem(host, variable, option if option.startswith("-") else f"-o {option}"))
    data = {**data, **said}
    if values.get("ringfence_known_hosts"):
        data["ssh_known_hosts_file"] = values["ringfence_known_hosts"]
    return Connection(_typed(data), tuple(_firsts(in_file)), tuple(problems))


def _problem(host: str, variable: str, what: str) -> str:
    shown = "" if "private_key" in variable else f": {what}"
    return (
        f"{host}: {variable}{shown}: pyinfra cannot do that, and would come to the host in another way: take it out, "
        "or run the playbook (ansible-playbook playbooks/site.yml)"
    )


def _last(values: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    found = [values[name] for name in names if values.get(name) is not None]
    return found[-1] if found else None


def _typed(data: dict[str, Any]) -> dict[str, Any]:
    """Bring values into the types that pyinfra takes, however they are written."""
    for key in ("ssh_port", "ssh_connect_retries"):
        if str(data.get(key, "")).isdigit():
            data[key] = int(data[key])
    if isinstance(data.get("_sudo"), str):
        data["_sudo"] = _yes(data["_sudo"])
    if (strict := data.get("ssh_strict_host_key_checking")) is not None and strict not in _STRICTNESS.values():
        data["ssh_strict_host_key_checking"] = "accept-new" if _yes(strict) else "no"
    if (seconds := data.pop("timeout", None)) is not None:
        data["ssh_paramiko_connect_kwargs"] = {"timeout": int(seconds)}
    return data


def _yes(value: Any) -> bool:
    return str(value).lower() in ("true", "yes", "on", "1", "y", "t")


def _read(option: str, value: str) -> Any:
    if option == "stricthostkeychecking":
        return _STRICTNESS.get(value.lower(), "yes")
    if option == "forwardagent":
        return _yes(value)
    if option in ("userknownhostsfile", "configfile"):
        # OpenSSH takes several files, pyinfra one.
        return str(Path(value.split()[0]).expanduser()) if value else value
    return value


def _firsts(options: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Of each option the first; of the keys all."""
    seen = set()
    for option, value in options:
        # A command and a jump host are two words for one thing.
        kind = "proxy" if option.startswith("proxy") else option
        if option != "identityfile" and kind in seen:
            continue
        seen.add(kind)
        if value.lower() != "none":
            yield option, value


def ssh_options(arguments: str) -> Iterator[tuple[str, str]]:
    """Yield OpenSSH's options, in lower case, and their values; `-F` is "configfile", a flag without a name itself.

    Raises:
        ValueError: a quote is not closed.
    """
    words = iter(shlex.split(arguments))
    for word in words:
        if not word.startswith("-") or word == "-":
            continue
        for position, letter in enumerate(word[1:], 2):
            if letter not in _VALUED:
                if letter in _SWITCHES:
                    yield _SWITCHES[letter]
                continue
            value = word[position:] or next(words, "")
            if letter == "o":
                name, _, value = value.strip().replace("=", " ", 1).partition(" ")
                yield name.lower(), value.strip().strip('"')
            else:
                yield _VALUED[letter], value.strip()
            break


def ssh_file(connection: Connection, name: str) -> str:
    """Return what pyinfra has to read in OpenSSH's form; "" where it needs no file of its own.

    Args:
        connection: of a host.
        name: by which pyinfra calls the host, its address or alias.
    """
    if not connection.options:
        return ""
    included = connection.data.get("ssh_config_file") or str(Path("~/.ssh/config").expanduser())
    lines = [f"Host {name}", *(f"  {option} {_word(value)}" for option, value in connection.options)]
    # A jump host whose key nobody knows is refused, as by ssh without a terminal: nothing asks.
    return "\n".join([*lines, f"Include {included}", "Host *", "  StrictHostKeyChecking yes", ""])


def _word(value: str) -> str:
    return str(Path(value).expanduser()) if value.startswith("~/") else value


def with_file(name: str, found: Connection) -> dict[str, Any]:
    """Return pyinfra's data of a host, with a file for what it takes from a file only; that is written where it lacks.

    Raises:
        OSError: the file cannot be written.
    """
    text = ssh_file(found, str(found.data.get("ssh_hostname") or name))
    if not text:
        return found.data
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(cache) / "ringfence" / "ssh" / hashlib.sha256(text.encode()).hexdigest()[:24]
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {**found.data, "ssh_config_file": str(path)}
