"""What gives a container more of the host than files and addresses of its own, and has to be confirmed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ringfence.host.mounts import handed_over, is_socket, plain
from ringfence.host.texts import target_fault

# Where a proxy that filters it finds Docker's socket, on the host and in its container.
DOCKER_SOCKET = "/var/run/docker.sock"
CONFIRM = "or confirm it with allow_host: true, which verify lists each time"

_DEVICE = re.compile(r"(?P<source>/[^:]+)(?::(?P<target>/[^:]+))?(?::(?P<rights>[rwm]{1,3}))?")
_GROUP = re.compile(r"[0-9]{1,10}|[a-z_][a-z0-9_-]{0,31}")
# Below /dev: who may use one of these has the host's memory, its disks, its kernel, or what is typed at it.
_HANDING = re.compile(
    r"(mem|kmem|kcore|port|kmsg|mapper|disk|block|char|bus|input|fd|pts|vcs.*|tty[0-9]*|console|uinput|uhid|fuse-ctl"
    r"|nbd[0-9].*|loop.*|(sd|hd|vd|xvd)[a-z]+[0-9]*|nvme.*|mmcblk.*|md.*|dm-[0-9]+|zd[0-9]+.*|zfs|btrfs-control|rbd.*"
    r"|mtd.*|raw.*|sg[0-9]+|bsg|vfio|vhost-.*|cpu|watchdog.*|mei.*|tpm.*|hwrng|autofs|userfaultfd|kvm-.*|sev.*"
    r"|snapshot|nvram|rtc.*|hpet|userio|ubi.*|vga_arbiter|xen|ipmi.*|i2c-.*)(/.*)?"
)


def device_of(entry: str) -> tuple[str, str, str]:
    """Return path on the host, path in the container and rights of ``/dev/dri:/dev/dri:rwm``.

    Raises:
        ValueError: it is not of that form; with the fix.
    """
    found = _DEVICE.fullmatch(entry)
    if not found:
        raise ValueError(f"{entry!r} is not a device (write it as /dev/ttyUSB0 or /dev/ttyUSB0:/dev/ttyACM0:rw)")
    return found["source"], found["target"] or found["source"], found["rights"] or "rwm"


def device_faults(entry: str) -> Iterator[str]:
    """Say why a device cannot be given to a container, whoever confirms it."""
    try:
        source, target, _ = device_of(entry)
    except ValueError as error:
        yield str(error)
        return
    real = plain(source)
    if not real.startswith("/dev/") or "//" in source or real != posixpath.normpath(source):
        yield f"{entry!r} is no device below /dev (write it as /dev/ttyUSB0; files and directories belong to volumes)"
    if fault := target_fault(target, 0):
        yield f"{entry!r}: {target!r} {fault}"


def group_fault(entry: str) -> str:
    """Say why a further group cannot be one, "" where it can."""
    return (
        ""
        if _GROUP.fullmatch(entry)
        else f"{entry!r} is no group (write its number, such as 44, or its name in the image)"
    )


def gpu_fault(entry: Mapping[str, Any]) -> str:
    """Say why a request for GPUs cannot be handed on, "" where it can."""
    texts = ("driver",)
    lists = ("device_ids", "capabilities")
    for key, value in entry.items():
        if key == "count":
            good = value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value > 0)
        elif key in texts:
            good = isinstance(value, str)
        elif key in lists:
            good = isinstance(value, list) and all(isinstance(one, str) for one in value)
        else:
            good = key == "options" and isinstance(value, Mapping)
        if not good:
            return f"{key!r} is not as it is to be (write all, or [{{driver: nvidia, count: 1, capabilities: [gpu]}}])"
    return ""


class Given(NamedTuple):
    """What hands over the host: the setting, what of it ("" where it is all of it), and what follows."""

    setting: str
    subject: str
    what: str

    def __str__(self) -> str:
        return f"{self.subject!r} {self.what}" if self.subject else self.what


# In the host's network, each of these undoes what is told by control group on its way out.
_IN_THE_HOSTS_NETWORK = {
    "NET_ADMIN": "hands the host's network to the container: in that network it can take every rule away",
    "NET_RAW": "lets it past the fence: in the host's network it can send any frame, which no rule sees",
}


def handed(
    *,
    privileged: bool,
    pid: str,
    devices: Iterable[str],
    volumes: Iterable[tuple[str, bool]],
    network: str = "",
    capabilities: Iterable[str] = (),
) -> Iterator[Given]:
    """Yield what hands over the host, sockets excepted, which nobody confirms.

    Args:
        privileged: whether the container is.
        pid: "host" where it has the host's processes.
        devices: as they are declared.
        volumes: path on the host, and whether it is read-only.
        network: "host" where it is in the host's own.
        capabilities: that it has.
    """
    if privileged:
        yield Given("privileged", "", "hands the whole host to the container: every device and every right is there")
    if pid == "host":
        yield Given("pid", "", "hands the host's processes to the container: it sees and, as root, ends and reads them")
    for capability in sorted(set(capabilities)) if network == "host" else ():
        if what := _IN_THE_HOSTS_NETWORK.get(capability):
            yield Given("capabilities", capability, what)
    for entry in devices:
        source = entry.partition(":")[0]
        if plain(source) == "/dev" or _HANDING.fullmatch(plain(source).removeprefix("/dev/")):
            what = "hands the host to the container: its disks, its memory or what is typed is behind it"
            yield Given("devices", source, what)
    for path, read_only in volumes:
        found = None if is_socket(path) else handed_over(path, read_only)
        if found:
            yield Given("volumes", path, f"hands {found.what} to the container: {found.why}")
