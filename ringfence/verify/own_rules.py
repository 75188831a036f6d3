"""The user's own ``ufw_rules``: declared, although no service of the lab says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ringfence.verify.declared import Declared, Machine

# Profile of UFW's → its (ports, protocol), as the host has them.
Profiles = Mapping[str, Iterable[tuple[str, str]]]


@dataclass(frozen=True)
class OwnRule:
    """One of them, about what comes in to the host.

    Attributes:
        action: UFW's: ``allow``, ``limit``, ``deny``, ``reject``.
        ports: in UFW's notation, "any" for all.
        interface: "" for every one.
    """

    name: str
    action: str
    proto: str
    ports: str
    source: str
    destination: str = "any"
    interface: str = ""

    @property
    def allows(self) -> bool:
        """Whether it lets in."""
        return self.action in ("allow", "limit")

    def covers(self, proto: str, port: int) -> bool:
        """Whether it is about a port."""
        return self.proto in (proto, "any") and covers(self.ports, port)

    def asked(self) -> list[int]:
        """Return the ports that it names one by one: those are tried."""
        return [int(part) for part in self.ports.split(",") if part.isdigit()]


def covers(ports: str, port: int) -> bool:
    """Whether UFW's notation of ports (``22``, ``6000:6007``, ``80,443``, ``any``) covers one."""
    for part in ports.split(","):
        low, _, high = part.partition(":")
        if part == "any" or (low.isdigit() and int(low) <= port <= int(high or low)):
            return True
    return False


def with_own_rules(
    declared: Declared,
    rules: Mapping[str, Iterable[Mapping[str, Any]]],
    profiles: Mapping[str, Profiles] | None = None,
) -> Declared:
    """Return the lab with the rules that its hosts have beside those that follow from their services.

    Args:
        declared: the lab.
        rules: host → its ``ufw_rules``, in order.
        profiles: host → UFW's application profiles there. What names another one declares nothing.
    """
    machines = (
        replace(m, rules=tuple(_own(m, rules.get(m.name) or (), (profiles or {}).get(m.name, {}))))
        for m in declared.machines
    )
    return replace(declared, machines=tuple(machines))


def _own(machine: Machine, rules: Iterable[Mapping[str, Any]], profiles: Profiles) -> Iterable[OwnRule]:
    follow = {(s.proto, str(s.port), source) for s in machine.services for source in s.sources}
    for rule in rules:
        if rule.get("direction", "in") != "in":
            continue
        action, source = rule.get("action", "allow"), str(rule.get("source") or "any")
        ends = (source, str(rule.get("destination") or "any"), str(rule.get("interface") or ""))
        given = (str(rule.get("port") or "any"), str(rule.get("proto") or "any"))
        for ports, proto in profiles.get(rule["application"], ()) if rule.get("application") else (given,):
            if not (action == "allow" and (proto, ports, source) in follow):
                yield OwnRule(str(rule.get("name")), action, proto, ports, *ends)
