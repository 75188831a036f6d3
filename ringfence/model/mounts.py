"""Which volumes of a lab hand over more of the host than a container is given."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.host.mounts import Handed, handed_over
from ringfence.model.lab import Service, Volume
from ringfence.model.problems import Problem


def handed_by(volume: Volume) -> Handed | None:
    """Return what a volume hands over, how, and what to write in its place; None where it is nothing."""
    return handed_over(volume.source, volume.read_only) if volume.source.startswith("/") else None


def mount_problems(owner: str, service: Service) -> Iterator[Problem]:
    """Check the volumes of a service; ``owner`` is its path in the lab."""
    for volume in service.volumes:
        if handed := handed_by(volume):
            yield Problem(f"{owner}.volumes", f"'{volume.source}' {handed}")
