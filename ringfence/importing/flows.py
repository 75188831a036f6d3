"""Who calls whom, as far as the files tell: ``depends_on``, links, and host names in variables and commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.importing.files import Project
from ringfence.importing.forms import text_of
from ringfence.importing.names import Names, mentions
from ringfence.importing.ports import own_port


@dataclass
class Flows:
    """The calls of a project, in compose's names.

    Attributes:
        ports: service → the port that its callers use, None where it is called and nobody says how.
        calls: caller → callee → ports named there.
        called: services that somebody calls.
    """

    ports: dict[str, int | str | None] = field(default_factory=dict)
    calls: dict[str, dict[str, set[int]]] = field(default_factory=dict)

    @property
    def called(self) -> set[str]:
        return {callee for callees in self.calls.values() for callee in callees}


def flows_of(project: Project, names: Names) -> Flows:
    """Find the calls of a project and the ports of what is called."""
    found = Flows()
    for name, service in project.services.items():
        callees: dict[str, set[int]] = {}
        for needed, how in (service.get("depends_on") or {}).items():
            # Whose end is waited for has done its work then, and is not called.
            if needed in project.services and how.get("condition") != "service_completed_successfully":
                callees.setdefault(needed, set())
        for link in service.get("links") or []:
            target = str(link).partition(":")[0]
            if target in project.services:
                callees.setdefault(target, set())
        for callee, port in _named(service, names.hosts):
            callees.setdefault(callee, set()).update([port] if port else [])
        callees.pop(name, None)
        found.calls[name] = callees
    for name, service in project.services.items():
        said = [port for callees in found.calls.values() for port in sorted(callees.get(name, ()))]
        found.ports[name] = own_port(service, said)
    return found


def _named(service: Mapping[str, Any], hosts: Mapping[str, str]) -> list[tuple[str, int | None]]:
    environment = service.get("environment") or {}
    found: list[tuple[str, int | None]] = []
    for variable, value in environment.items():
        for one in mentions(text_of(value), hosts, variable):
            found.append((one.service, one.port or _port_beside(variable, environment)))
    for key in ("command", "entrypoint"):
        for word in service.get(key) or []:
            option, _, rest = text_of(word).partition("=")
            found += [(one.service, one.port) for one in mentions(rest or option, hosts, option if rest else "ARG")]
    return found


def _port_beside(variable: str, environment: Mapping[str, Any]) -> int | None:
    """Return the port in the variable that goes with one of a host: REDIS_PORT with REDIS_HOST."""
    for end in ("HOSTNAME", "HOST", "SERVER", "ADDR", "ADDRESS"):
        if variable.upper().endswith(end):
            for other in (variable[: -len(end)] + "PORT", variable[: -len(end)] + "port"):
                text = text_of(environment.get(other) or "")
                if re.fullmatch(r"[0-9]{2,5}", text):
                    return int(text)
    return None
