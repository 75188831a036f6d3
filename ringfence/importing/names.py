"""Names of the lab for those of compose: which service is meant by a host name, and what it is called here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

from ringfence.importing.files import Project
from ringfence.importing.mentions import is_address
from ringfence.importing.ports import image_name

LONGEST = 40
LONGEST_SEGMENT = 12


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
        hosts: every name and fixed address by which a service is found in the networks → compose's name of it.
        near: compose's name of a caller → those names that mean another service in its networks → that service.
        segments: compose's name of a network → the segment's.
    """

    stack: str
    services: Mapping[str, str]
    hosts: Mapping[str, str]
    near: Mapping[str, Mapping[str, str]]
    segments: Mapping[str, str]

    def hosts_for(self, caller: str) -> dict[str, str]:
        """Return by which names a service finds the others."""
        return {**self.hosts, **self.near.get(caller, {})}


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
        services[name] = _free((wanted, lab_name(f"{stack}-{wanted}")), {*taken, *services.values()}, LONGEST)
    found = _found_as(project)
    hosts = {known: owners[0][0] for known, owners in found.items()}
    near = {name: _near(project, name, found, hosts) for name in project.services}
    return Names(stack, services, hosts, near, _segments(project, stack, segments_taken))


def _free(wanted: Sequence[str], unavailable: Collection[str], longest: int) -> str:
    """Return the first of these names that nobody has, or else the first one with a number."""
    numbered = (f"{wanted[0][: longest - len(str(n)) - 1].rstrip('-')}-{n}" for n in count(2))
    return next(one for one in chain(wanted, numbered) if one not in unavailable)


def _found_as(project: Project) -> dict[str, list[tuple[str, set[str]]]]:
    """Return who is found by each name and fixed address: [(service, networks in which)], services' own names first."""
    found = {name: [(name, set(networks_of(service)))] for name, service in project.services.items()}
    for name, service in project.services.items():
        everywhere = set(networks_of(service))
        others = [(service.get(key), everywhere) for key in ("container_name", "hostname")]
        for network, said in (service.get("networks") or {}).items():
            given = said or {}
            others += [(one, {network}) for one in (*(given.get("aliases") or []), given.get("ipv4_address"))]
        for other, where in others:
            if other:
                found.setdefault(str(other), []).append((name, where))
    for service in project.services.values():
        for link in service.get("links") or []:
            target, _, alias = str(link).partition(":")
            if alias and target in project.services:
                found.setdefault(alias, [(target, set(networks_of(project.services[target])))])
    return found


def _near(
    project: Project, caller: str, found: Mapping[str, list[tuple[str, set[str]]]], hosts: Mapping[str, str]
) -> dict[str, str]:
    """Return which names mean another service to a caller than to all: links are its own, an alias is its network's."""
    service = project.services[caller]
    kind, _, other = str(service.get("network_mode") or "").partition(":")
    owner = hosts.get(other, other) if kind in ("service", "container") else caller
    own = set(networks_of(project.services.get(owner, service)))
    meant = {known: next((name for name, where in owners if where & own), "") for known, owners in found.items()}
    for link in service.get("links") or []:
        target, _, alias = str(link).partition(":")
        if target in project.services:
            meant[alias or target] = target
    return {known: name for known, name in meant.items() if name and name != hosts[known]}


def networks_of(service: Mapping[str, Any]) -> dict[str, Any]:
    """Return the networks of a service with what it says of them; none where it has no network of its own.

    Docker's own bridge (``network_mode: bridge``) is one that knows no names. It has no segment here: who was in it is
    in the project's default one.
    """
    if service.get("network_mode") == "bridge":
        return {"default": {}}
    if service.get("network_mode"):
        return {}
    return dict(service.get("networks") or {"default": {}})


def _segments(project: Project, stack: str, taken: Collection[str]) -> dict[str, str]:
    used = dict.fromkeys(network for service in project.services.values() for network in networks_of(service))
    declared = {network: project.sections["networks"].get(network) or {} for network in used}
    shared = {
        network: str(one.get("name") or network) for network, one in declared.items() if one.get("external")
    }  # fmt: skip
    # Those of others first: each has one name in every project, and the project's own have another.
    found = {network: _shared(real, set(shared.values())) for network, real in shared.items()}
    for network in used:
        if network in shared:
            continue
        plain = lab_name(network)
        room = max(3, LONGEST_SEGMENT - 1 - len(plain))
        wanted = stack if network == "default" or plain == stack else f"{stack[:room].rstrip('-')}-{plain}"
        wanted = wanted[:LONGEST_SEGMENT].rstrip("-")
        found[network] = _free((wanted,), {*taken, *found.values()}, LONGEST_SEGMENT)
    return {network: found[network] for network in used}


def _shared(real: str, others: Collection[str]) -> str:
    """Return the segment of a network that several projects share: the same in each, and no other network's."""
    plain = lab_name(real, 10**6)
    alike = any(other != real and lab_name(other, 10**6) == plain for other in others)
    if len(plain) <= LONGEST_SEGMENT and (real == plain or not alike):
        return plain
    return f"{plain[: LONGEST_SEGMENT - 5].rstrip('-')}-{hashlib.sha256(real.encode()).hexdigest()[:4]}"


# What images call when no variable says otherwise: by the last part of an image's name, variables of which any says
# otherwise → (host, port).
BUILT_IN: dict[str, dict[tuple[str, ...], tuple[str, int | None]]] = {
    "adminer": {("ADMINER_DEFAULT_SERVER",): ("db", None)},
    "immich-server": {
        ("IMMICH_MACHINE_LEARNING_URL", "IMMICH_MACHINE_LEARNING_ENABLED"): ("immich-machine-learning", 3003),
        ("REDIS_HOSTNAME", "REDIS_URL", "REDIS_SOCKET"): ("redis", 6379),
        ("DB_HOSTNAME", "DB_URL"): ("database", 5432),
    },
    "kibana": {("ELASTICSEARCH_HOSTS", "ELASTICSEARCH_URL"): ("elasticsearch", 9200)},
    "mongo-express": {("ME_CONFIG_MONGODB_URL", "ME_CONFIG_MONGODB_SERVER"): ("mongo", 27017)},
    "phpmyadmin": {("PMA_HOST", "PMA_HOSTS", "PMA_ARBITRARY"): ("db", 3306)},
    "wordpress": {("WORDPRESS_DB_HOST",): ("mysql", 3306)},
    "zabbix-agent": {("ZBX_SERVER_HOST",): ("zabbix-server", 10051)},
    "zabbix-server-mysql": {("DB_SERVER_HOST",): ("mysql-server", 3306)},
    "zabbix-server-pgsql": {("DB_SERVER_HOST",): ("postgres-server", 5432)},
    "zabbix-web-nginx-mysql": {
        ("DB_SERVER_HOST",): ("mysql-server", 3306),
        ("ZBX_SERVER_HOST",): ("zabbix-server", 10051),
    },
    "zabbix-web-nginx-pgsql": {
        ("DB_SERVER_HOST",): ("postgres-server", 5432),
        ("ZBX_SERVER_HOST",): ("zabbix-server", 10051),
    },
}


def built_in(service: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    """Return the hosts that a service calls without being told to, with their ports."""
    known = BUILT_IN.get(image_name(str(service.get("image") or "")), {})
    environment = service.get("environment") or {}
    return [called for variables, called in known.items() if not set(variables) & set(environment)]


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
    given |= {host for one in inside for host, _ in built_in(one)}
    found = {
        known
        for known, meant in names.hosts_for(caller).items()
        if meant == callee and not is_address(known) and (known in given or any(_says(text, known) for text in texts))
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
