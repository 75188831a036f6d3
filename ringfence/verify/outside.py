"""What runs on the hosts and is not ringfence's: shown after every run, never a difference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ringfence.verify.declared import Declared
from ringfence.verify.expected import KEPT
from ringfence.verify.report import OPEN, Report
from ringfence.verify.seen import Container, Seen


def outside(declared: Declared, seen: Mapping[str, Seen], report: Report) -> list[str]:
    """Return a line per unmanaged container and network, and per way that a UFW rule of others opens."""
    lines = []
    for host, one in sorted(seen.items()):
        ours = {(s.project, s.name) for s in declared.services if s.host == host}
        for container in one.containers:
            if (container.project, container.service) not in ours:
                lines.append(f"{host}: container {_described(container)}")
        lines += [f"{host}: {other.kind} {other.name}{_published(other.published)}" for other in one.others]
        lines += [f"{host}: network {name}" for name in one.unmanaged]
    kept: dict[str, list[str]] = {}
    for judged in report.judged:
        cell = judged.cell
        if judged.got == OPEN and cell.reason.startswith(KEPT):
            sources = kept.setdefault(f"{cell.destination}: {cell.proto}/{cell.port} is {cell.reason}", [])
            if cell.source not in sources:
                sources.append(cell.source)
    return [*lines, *(f"{line}: open for {', '.join(sources)}" for line, sources in kept.items())]


def is_listed(notice: str) -> bool:
    """Whether a role's notice is about a container that `outside` names: it is said once."""
    return bool(re.match(r"outside the fence: container \S+ (on network|uses the host's own network)", notice))


def _described(container: Container) -> str:
    kind = container.mode.partition(":")[0]
    shared = {"host": "the host's network: as the host itself, nothing fences it", "container": "another's network"}
    networks = shared.get(kind) or ", ".join(sorted(container.networks)) or "no network"
    task = f"task of the swarm service {container.task}; " if container.task else ""
    return f"{container.name} ({task}{networks}{_published([(p, port) for p, port, _ in container.published])})"


def _published(ports: Iterable[tuple[str, int]]) -> str:
    found = ", ".join(f"{proto}/{port}" for proto, port in ports)
    return f"; publishes {found}" if found else ""
