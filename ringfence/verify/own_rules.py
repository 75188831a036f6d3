"""The user's own ``ufw_rules``: declared, although no service of the lab says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ringfence.verify.declared import Declared, Machine


@dataclass(frozen=True)
class OwnRule:
    """One of them; ``ports`` in UFW's notation, "any" for all; ``interface`` is "" for every one."""

    name: str
    allows: bool
    proto: str
    ports: str
    source: str
    interface: str = ""

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


def with_own_rules(declared: Declared, rules: Mapping[str, Iterable[Mapping[str, Any]]]) -> Declared:
    """Return the lab with the rules that its hosts have beside those that follow from their services.

    Args:
        declared: the lab.
        rules: host → its ``ufw_rules``, in order.
    """
    machines = (replace(m, rules=tuple(_own(m, rules.get(m.name) or ()))) for m in declared.machines)
    return replace(declared, machines=tuple(machines))


def _own(machine: Machine, rules: Iterable[Mapping[str, Any]]) -> Iterable[OwnRule]:
    follow = {(s.proto, str(s.port), source) for s in machine.services for source in s.sources}
    for rule in rules:
        said = (str(rule.get("proto") or "any"), str(rule.get("port") or "any"), str(rule.get("source") or "any"))
        allows = rule.get("action", "allow") == "allow"
        if not (allows and said in follow):
            yield OwnRule(str(rule.get("name")), allows, *said, str(rule.get("interface") or ""))
