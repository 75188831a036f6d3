"""Who calls whom, as far as the files tell: ``depends_on``, links, and host names in variables and commands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.importing.files import Project
from ringfence.importing.forms import text_of
from ringfence.importing.mentions import Mention, line, mentions
from ringfence.importing.names import Names, built_in, networks_of
from ringfence.importing.ports import DNS_PORT, asked_by, image_name, is_store, own_port

# Variables that name others without calling them.
_NO_CALL = re.compile(
    r"(?:^|_)(?:TRUSTED|ALLOW|WHITELIST|DENY|BLOCK(?:ED|LIST)?(?:_|$)|IGNORE|EXCLUDE|NO_PROXY|CORS)", re.IGNORECASE
)
# Whose work needs nobody to call it, by a word in its name, its image or its command.
_WORKER = re.compile(
    r"(?:^|[^a-z])(?:workers?|cron(?:job)?|jobs?|scheduler|beat|celery|sidekiq|consumer|queue:work|backups?|watchtower|diun|"
    r"migrat\w*|init|setup|seed|install\w*|bot|autoheal|ofelia|ddns\w*|ddclient|dyndns|cloudflared|tunnel|"
    r"tailscale|wireguard|newt|updater|sync\w*|rclone|restic|borg\w*|certbot|acme\w*|runner|fail2ban|promtail|"
    r"alloy|telegraf|filebeat|recyclarr|unpackerr)(?:$|[^a-z])",
    re.IGNORECASE,
)
_PLAIN = {"h", "host", "hostname", "server", "endpoint", "address", "data source"}


@dataclass
class Flows:
    """The calls of a project, in compose's names.

    Attributes:
        ports: service → the port that its callers use, None where it is called and nobody says how.
        calls: caller → callee → ports named there, such as 5432 or "53/udp".
        unreached: service that nobody calls, that publishes nothing, and that does not look like one that needs
            neither → the services that share a network with it.
        called: services that somebody calls.
    """

    ports: dict[str, int | str | None] = field(default_factory=dict)
    calls: dict[str, dict[str, set[int | str]]] = field(default_factory=dict)
    unreached: dict[str, list[str]] = field(default_factory=dict)

    @property
    def called(self) -> set[str]:
        return {callee for callees in self.calls.values() for callee in callees}


def flows_of(project: Project, names: Names) -> Flows:
    """Find the calls of a project and the ports of what is called."""
    found = Flows()
    for name, service in project.services.items():
        callees: dict[str, set[int | str]] = {}
        for needed, how in (service.get("depends_on") or {}).items():
            # Whose end is waited for has done its work then, and is not called.
            if needed in project.services and how.get("condition") != "service_completed_successfully":
                callees.setdefault(needed, set())
        for link in service.get("links") or []:
            target = str(link).partition(":")[0]
            if target in project.services:
                callees.setdefault(target, set())
        hosts = names.hosts_for(name)
        for callee, ports in _named(project, name, hosts):
            callees.setdefault(callee, set()).update(ports)
        for host, port in built_in(service):
            if host in hosts:
                callees.setdefault(hosts[host], set()).update([port] if port else [])
        callees.pop(name, None)
        found.calls[name] = callees
    for name, service in project.services.items():
        said = [port for callees in found.calls.values() for port in callees.get(name, ())]
        found.ports[name] = own_port(service, said)
    found.unreached = _unreached(project, found)
    return found


def _named(project: Project, name: str, hosts: Mapping[str, str]) -> Iterator[tuple[str, list[int | str]]]:
    service = project.services[name]
    environment = {key: text_of(value) for key, value in (service.get("environment") or {}).items()}
    for variable, value in environment.items():
        if not _NO_CALL.search(variable):
            yield from _asked(project, value, mentions(value, hosts, variable), environment)
    for words in _commands(service):
        text = line(words)
        yield from _asked(project, text, mentions(text, hosts, "ARG", command=True), {})
    for server in service.get("dns") or []:
        if (callee := hosts.get(text_of(server))) is not None:
            yield callee, [DNS_PORT, f"{DNS_PORT}/udp"]
    for config in service.get("configs") or []:
        content = (project.sections["configs"].get(text_of(config.get("source"))) or {}).get("content")
        if content:
            text = text_of(content)
            yield from _asked(project, text, mentions(text, hosts), {})


def _commands(service: Mapping[str, Any]) -> Iterator[list[str]]:
    test = (service.get("healthcheck") or {}).get("test") or []
    for words in (service.get("entrypoint"), service.get("command"), test):
        if words:
            yield [text_of(word) for word in (words if isinstance(words, list) else [words])]


def _asked(
    project: Project, text: str, found: list[Mention], environment: Mapping[str, str]
) -> Iterator[tuple[str, list[int | str]]]:
    inner = _settings(text)
    for one in found:
        near = environment if one.key in environment else inner
        port = _beside(one.key, near, ("PORT",), r"[0-9]{2,5}")
        said = _beside(one.key, near, ("PROTOCOL", "PROTO", "TRANSPORT"), r"(?i:tcp|udp)")
        yield (
            one.service,
            asked_by(
                one.port or (int(port) if port else None),
                one.key,
                one.scheme,
                project.services[one.service],
                said=said,
                dns=one.dns,
            ),
        )


def _settings(text: str) -> dict[str, str]:
    """Return the numbers and protocols that keys and options of a text have: of ``host=db port=5432``, the port."""
    pattern = r"([A-Za-z][\w.-]*)[\"']?(?:\s*[=:]\s*|[\s\0]+)[\"']?([0-9]{2,5}|tcp|udp)(?![\w.])"
    return {one[1]: one[2] for one in re.finditer(pattern, text)}


def _beside(key: str, settings: Mapping[str, str], wanted: tuple[str, ...], value: str) -> str:
    """Return the setting that goes with one of a host: REDIS_PORT with REDIS_HOST, ``-p`` with ``-h``."""
    by_name = {name.upper().replace("-", "_"): one for name, one in settings.items()}
    plain = key.upper().replace("-", "_")
    ends = [end for end in ("HOSTNAME", "HOST", "SERVER", "ADDRESS", "ADDR") if plain.endswith(end)]
    others = [plain[: -len(end)] + word for end in ends for word in wanted]
    others += [word for word in (*wanted, "P") if key.lower() in _PLAIN]
    return next((by_name[one] for one in others if re.fullmatch(value, by_name.get(one, ""))), "")


def _unreached(project: Project, found: Flows) -> dict[str, list[str]]:
    sections = project.sections["networks"]
    lent = {text_of(one.get("network_mode") or "").partition(":")[2] for one in project.services.values()}
    reached = found.called | lent
    ended = {
        needed
        for one in project.services.values()
        for needed, how in (one.get("depends_on") or {}).items()
        if how.get("condition") == "service_completed_successfully"
    }
    unreached: dict[str, list[str]] = {}
    for name, service in project.services.items():
        own = set(networks_of(service))
        if name in reached | ended or service.get("ports") or _ends(service) or _works_alone(name, service):
            continue
        if any((sections.get(network) or {}).get("external") for network in own):
            continue  # others may call it, which is asked for already
        # Whom it calls itself answers it; databases and caches call nobody.
        near = [
            other
            for other, one in project.services.items()
            if other not in (name, *found.calls[name]) and own & set(networks_of(one)) and not is_store(one)
        ]
        if near:
            unreached[name] = near
    return unreached


def _works_alone(name: str, service: Mapping[str, Any]) -> bool:
    words = [text_of(word) for key in ("entrypoint", "command") for word in service.get(key) or []]
    words = [word for word in words if not word.startswith("-")]
    return bool(_WORKER.search(" ".join([name, image_name(str(service.get("image") or "")), *words])))


def _ends(service: Mapping[str, Any]) -> bool:
    """Whether a service is there to do something once."""
    return text_of(service.get("restart")) in ("no", "false", "on-failure")
