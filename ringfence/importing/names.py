"""Names of the lab for those of compose: which service is meant by a host name, and what it is called here."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.importing.files import Project

LONGEST = 40
LONGEST_SEGMENT = 12
# Where a host name may stand: not inside a word, a longer name or a path.
_BEFORE = r"(?<![\w.$/:@-])"
_AFTER = r"(?![\w-]|\.[\w])"


def lab_name(name: str, longest: int = LONGEST) -> str:
    """Return a name of lower-case letters, digits and '-' that begins with a letter."""
    plain = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", name.lower())).strip("-")
    plain = plain if plain[:1].isalpha() else f"x-{plain}".rstrip("-")
    return plain[:longest].rstrip("-")


@dataclass(frozen=True)
class Names:
    """The names of a project.

    Attributes:
        stack: name of the project as a stack.
        services: compose's name → the lab's.
        hosts: every name by which a service is found in the project's networks → compose's name of it.
        segments: compose's name of a network → the segment's.
    """

    stack: str
    services: Mapping[str, str]
    hosts: Mapping[str, str]
    segments: Mapping[str, str]


def names_of(project: Project, taken: Collection[str], segments_taken: Collection[str]) -> Names:
    """Choose names for what a project has.

    Args:
        project: what was read.
        taken: names that services of the lab cannot have: other services, hosts, places.
        segments_taken: segments of the lab.
    """
    stack = lab_name(project.name)
    services: dict[str, str] = {}
    for name in project.services:
        wanted = lab_name(name)
        unavailable = {*taken, *services.values()}
        for candidate in (wanted, lab_name(f"{stack}-{wanted}"), *(f"{wanted[:36]}-{n}" for n in range(2, 99))):
            if candidate not in unavailable:
                services[name] = candidate
                break
    return Names(stack, services, _hosts(project), _segments(project, stack, segments_taken))


def _hosts(project: Project) -> dict[str, str]:
    found = {name: name for name in project.services}
    for name, service in project.services.items():
        others = [service.get("container_name"), service.get("hostname")]
        for network in (service.get("networks") or {}).values():
            others += (network or {}).get("aliases") or []
        for other in others:
            if other:
                found.setdefault(str(other), name)
    for service in project.services.values():
        for link in service.get("links") or []:
            target, _, alias = str(link).partition(":")
            if alias and target in project.services:
                found.setdefault(alias, target)
    return found


def networks_of(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return the networks of a service with what it says of them; none where it has no network of its own."""
    if service.get("network_mode"):
        return {}
    return dict(service.get("networks") or {"default": {}})


def _segments(project: Project, stack: str, taken: Collection[str]) -> dict[str, str]:
    used = dict.fromkeys(network for service in project.services.values() for network in networks_of(service))
    found: dict[str, str] = {}
    for network in used:
        declared = project.sections["networks"].get(network) or {}
        if declared.get("external"):
            real = declared.get("name") or network
            found[network] = lab_name(str(real), LONGEST_SEGMENT)
            continue
        plain = lab_name(network)
        room = max(3, LONGEST_SEGMENT - 1 - len(plain))
        wanted = stack if network == "default" or plain == stack else f"{stack[:room].rstrip('-')}-{plain}"
        wanted = wanted[:LONGEST_SEGMENT].rstrip("-")
        unavailable = {*taken, *found.values()}
        numbered = (f"{wanted[: LONGEST_SEGMENT - 2].rstrip('-')}-{n}" for n in range(2, 10))
        found[network] = next(one for one in (wanted, *numbered) if one not in unavailable)
    return found


@dataclass(frozen=True)
class Mention:
    """A host name of the project in a text: where it stands, whose it is, and the port behind it, if one is there."""

    start: int
    end: int
    service: str
    port: int | None


# Variables whose value is a host, an address or a list of them.
_HOST_VARIABLE = re.compile(
    r"HOST|URL|URI|ADDR|SERVER|ENDPOINT|DSN|BROKER|UPSTREAM|PROXY|CONNECTION|LINK|TARGET|BACKEND|LISTEN|SMTP|REDIS|"
    r"DATABASE|_DB|CACHE|QUEUE|TIKA|GOTENBERG|AMQP|MQTT|SERVICE|API|ORIGIN|NODES?$|PEER|IMGPROXY|KUMA",
    re.IGNORECASE,
)
_NO_HOST = re.compile(
    r"(?:USER|USERNAME|NAME|PASS|PASSWORD|PASSWD|PWD|SECRET|TOKEN|KEY|DBNAME|DATABASE|_DB|TYPE|ENGINE|DRIVER|PREFIX|"
    r"BUCKET|VERSION|TITLE|REALM|SCHEMA|MODE|KIND)$",
    re.IGNORECASE,
)


def mentions(text: str, hosts: Mapping[str, str], variable: str = "") -> list[Mention]:
    """Return whom a text names as a host, in order.

    A name counts where it stands as one: behind ``://`` or ``@``, before a port, or alone in a variable of hosts.
    """
    if not hosts:
        return []
    names = "|".join(re.escape(host) for host in sorted(hosts, key=len, reverse=True))
    pattern = rf"(?:(?<=://)|(?<=@)|{_BEFORE})(?P<host>{names}){_AFTER}(?::(?P<port>[0-9]{{2,5}})(?![0-9:]))?"
    found: list[Mention] = []
    for one in re.finditer(pattern, text):
        port = int(one["port"]) if one["port"] else None
        if _is_host(text, one.start(), one.end(), port, variable):
            found.append(Mention(one.start("host"), one.end("host"), hosts[one["host"]], port))
    return found


def _is_host(text: str, start: int, end: int, port: int | None, variable: str) -> bool:
    before = text[:start]
    if before.endswith("://") and re.match(r"[^/?#@\s]*@", text[end:]):
        return False  # who signs in there
    if before.endswith("://") or (before.endswith("@") and "://" in before):
        return True
    alone = (start == 0 or text[start - 1] in " ,;=|(") and (end == len(text) or text[end] in " ,;|/)?")
    if not alone:
        return False
    if variable.upper().endswith(("HOSTNAME", "HOST_NAME", "DBHOST")):
        return True
    return not _NO_HOST.search(variable) and (port is not None or bool(_HOST_VARIABLE.search(variable)))


def known_as(project: Project, names: Names, caller: str, callee: str) -> list[str]:
    """Return the names, besides the lab's, by which a service may look for another one.

    Compose's name of it, its aliases and links always count, as an image may have them built in; what its container was
    called does where the caller, or who shares its network, has it in a text.
    """
    inside = [one for name, one in project.services.items() if name == caller or _network_owner(names, one) == caller]
    texts = [text for one in inside for text in _texts(one)]
    networks = [(one or {}).get("aliases") or [] for one in networks_of(project.services[callee]).values()]
    links = [str(link).partition(":")[2] for one in inside for link in one.get("links") or []]
    given = {callee, *map(str, (alias for aliases in networks for alias in aliases)), *links}
    found = {
        known
        for known, meant in names.hosts.items()
        if meant == callee and (known in given or any(_says(text, known) for text in texts))
    }
    return sorted(found - {names.services[callee]})


def _network_owner(names: Names, service: Mapping[str, Any]) -> str:
    kind, _, other = str(service.get("network_mode") or "").partition(":")
    return names.hosts.get(other, "") if kind in ("service", "container") else ""


def _texts(service: Mapping[str, Any]) -> list[str]:
    """Return the texts of a service in which it may name a host."""
    parts = [service.get(key) for key in ("command", "entrypoint", "environment", "healthcheck", "labels")]
    found: list[str] = []
    while parts:
        one = parts.pop()
        if isinstance(one, Mapping):
            parts += one.values()
        elif isinstance(one, list):
            parts += one
        elif one is not None:
            found.append(str(one))
    return found


def _says(text: str, name: str) -> bool:
    return bool(re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", text))
