"""Which volumes of a lab hand over more of the host than a container is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ringfence.host.handing import CONFIRM, Given, device_of, handed
from ringfence.host.mounts import Handed, handed_over, is_socket, plain
from ringfence.model.lab import Service, Volume
from ringfence.model.problems import Problem


def handed_by(volume: Volume) -> Handed | None:
    """Return what a volume hands over, how, and what to write in its place; None where it is nothing."""
    return handed_over(volume.source, volume.read_only) if volume.source.startswith("/") else None


def mount_problems(owner: str, service: Service) -> Iterator[Problem]:
    """Check what a service gets of the host; ``owner`` is its path in the lab."""
    for volume in service.volumes:
        of_host = handed_by(volume)
        if of_host and (is_socket(volume.source) or not service.allow_host):
            confirm = "" if is_socket(volume.source) else f" ({CONFIRM})"
            yield Problem(f"{owner}.volumes", f"'{volume.source}' {of_host}{confirm}")
    found = _handed(service)
    # What volumes and devices lead to, only their host knows.
    if service.allow_host and not (found or service.devices or _of_the_host(service)):
        yield Problem(f"{owner}.allow_host", "there is nothing of the host that it would confirm (remove it)")
    for one in found:
        if one.setting != "volumes" and not service.allow_host:
            yield Problem(f"{owner}.{one.setting}", f"{one} (leave it out, {CONFIRM})")
    if service.docker_socket:
        yield from _socket_problems(owner, service, found)


def given_of_host(service: Service) -> Iterator[str]:
    """Yield what a service is given of its host, in a few words each; where it is confirmed, whatever it leads to."""
    found = _handed(service)
    for one in found:
        said = f"{one.setting} {one.subject or service.pid}" if one.setting != "privileged" else one.setting
        yield said + (", Docker's socket with it" if one.setting == "volumes" and plain(one.subject) == "/" else "")
    known = {one.subject for one in found}
    for setting, paths in (
        ("volumes", [source for source, _ in _of_the_host(service)]),
        ("devices", [device_of(device)[0] for device in service.devices]),
    ):
        yield from (
            f"{setting} {path}, wherever it leads" for path in paths if service.allow_host and path not in known
        )


def _of_the_host(service: Service) -> list[tuple[str, bool]]:
    return [(v.source, v.read_only) for v in service.volumes if v.source.startswith("/")]


def _handed(service: Service) -> list[Given]:
    return list(
        handed(
            privileged=service.privileged, pid=service.pid, devices=service.devices, volumes=_of_the_host(service),
            network=service.network, capabilities=service.capabilities,
        )
    )  # fmt: skip


def _socket_problems(owner: str, service: Service, found: Iterable[Given]) -> Iterator[Problem]:
    """A proxy for Docker's socket is for callers inside alone: a hole in its filter must not lead further."""
    for setting in ("publish", "egress", "site"):
        if getattr(service, setting):
            yield Problem(
                f"{owner}.{setting}",
                f"it has Docker's socket, and is for those who call it (remove {setting}, or docker_socket)",
            )
    if service.network:
        yield Problem(
            f"{owner}.network",
            "it has Docker's socket, and so a network of its own, in which nobody else is (write segments: [NAME] in "
            "place of network)",
        )
    for one in found:
        yield Problem(
            f"{owner}.{one.setting}",
            f"it has Docker's socket, and nothing else of the host goes with it (remove {one.subject or one.setting})",
        )
    if not service.port:
        yield Problem(f"{owner}.port", "its callers need the port at which it filters Docker's socket (add port: 2375)")
