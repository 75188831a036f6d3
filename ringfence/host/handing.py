"""What gives a container more of the host than files and addresses of its own, and has to be confirmed."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.host.mounts import handed_over, is_socket, plain
from ringfence.host.texts import target_fault

# Where a proxy that filters it finds Docker's socket, on the host and in its container.
DOCKER_SOCKET = "/var/run/docker.sock"
CONFIRM = "or confirm it with allow_host: true, which verify lists each time"

_DEVICE = re.compile(r"(?P<source>/[^:]+)(?::(?P<target>/[^:]+))?(?::(?P<rights>[rwm]{1,3}))?")
_GROUP = re.compile(r"[0-9]{1,10}|[a-z_][a-z0-9_-]{0,31}")
# Below /dev: who may use one of these has the host's memory, its disks, its kernel, or what is typed at it.
_HANDING_NAMES = (
    # memory, processor, kernel
    "mem", "kmem", "kcore", "port", "kmsg", "cpu", "snapshot", "userfaultfd", "kvm-.*", "sev.*", "nvram", "hpet",
    "rtc.*", "watchdog.*", "mei.*", "tpm.*", "hwrng", "autofs", "cachefiles", "vfio", "iommu", "vhost-.*", "uio.*",
    "fw[0-9]+", "xen", "ipmi.*", "i2c-.*", "vga_arbiter", "dax.*", "nmem.*", "ndctl.*", "hpilo", "virtio-ports",
    "vport.*", "vmci",
    # disks: ways to them, and what makes them
    "mapper", "disk", "block", "char", "root", "bsg", "sg[0-9]+", "raw.*", "loop.*", "dm-[0-9]+", "md.*", "nbd[0-9].*",
    "(sd|hd|vd|xvd|ubd)[a-z]+[0-9]*", "nvme.*", "ng[0-9]+.*", "mmcblk.*", "mspblk.*", "mtd.*", "ubi.*", "pmem.*",
    "zd[0-9]+.*", "zvol", "zfs", "zram.*", "btrfs-control", "bcache.*", "drbd.*", "rbd.*", "ublk.*", "dasd.*",
    "cciss", "ida", "rd", "i2o", "ataraid", "sr[0-9]+", "scd[0-9]+", "cdrom.*", "cdrw.*", "dvd.*", "fd[0-9]+.*",
    "megaraid.*", "megadev.*", "mpt[0-9].*", "aac[0-9]+", "twa[0-9]+", "twe[0-9]+", "3w.*",
    # what is typed and shown
    "bus", "input", "hidraw.*", "psaux", "uinput", "userio", "uhid", "fd", "pts", "vcs.*", "tty[0-9]*",
    "console", "hvc[0-9]+", "fuse-ctl",
)  # fmt: skip
_HANDING = re.compile(f"({'|'.join(_HANDING_NAMES)})(/.*)?", re.S)
_GIVES = "hands the host to the container: its disks, its memory or what is typed is behind it"


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


# Anywhere: these are rights over the host itself, which no namespace bounds.
_OVER_THE_HOST = {
    "SYS_PACCT": "hands a record of every program that ends on the host to the container",
    "SYS_TIME": "hands the host's clock to the container: hours, certificates and second factors go by it",
}


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
    over = _OVER_THE_HOST | (_IN_THE_HOSTS_NETWORK if network == "host" else {})
    yield from (Given("capabilities", one, over[one]) for one in sorted(set(capabilities) & set(over)))
    for entry in devices:
        source = entry.partition(":")[0]
        if plain(source) == "/dev" or _HANDING.fullmatch(plain(source).removeprefix("/dev/")):
            yield Given("devices", source, _GIVES)
    for path, read_only in volumes:
        found = None if is_socket(path) else handed_over(path, read_only)
        if found:
            yield Given("volumes", path, f"hands {found.what} to the container: {found.why}")


# -- what only the host can tell


def devices_leading(devices: Iterable[str]) -> dict[str, str]:
    """Return the declared devices that hand over this host by what they are, whatever they are called: with the reason.

    Args:
        devices: paths on this host, directories of devices among them.
    """
    return {device: f"{found}, which {_GIVES}" for device in devices if (found := _handing_node(device))}


def _handing_node(device: str) -> str:
    """Return the device that hands the host over at a path or below it, "" where there is none."""
    nodes = [device]
    if Path(device).is_dir():
        nodes = [f"{above}/{name}" for above, _, names in os.walk(device) for name in sorted(names)]
    for node in nodes:
        try:
            found = Path(node).stat()
        except OSError:
            continue  # it is not there, which is told elsewhere
        real = os.path.realpath(node)
        if stat.S_ISBLK(found.st_mode):
            return f"the disk {real}"
        if stat.S_ISCHR(found.st_mode):
            for name in (plain(real).removeprefix("/dev/"), _kernels_name(found.st_rdev)):
                if _HANDING.fullmatch(name):
                    return f"/dev/{name}"
    return ""


def _kernels_name(number: int) -> str:
    """Return how the kernel calls a device: a node made by hand may have any name."""
    try:
        text = Path(f"/sys/dev/char/{os.major(number)}:{os.minor(number)}/uevent").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"^DEVNAME=(?:/dev/)?(.+)$", text, re.M)
    return found[1] if found else ""
