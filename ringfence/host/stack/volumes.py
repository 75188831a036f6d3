"""Named volumes: measured, copied, and put back so that never half of one is there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ringfence.host.files import sync_directory
from ringfence.host.running import HUNG, Fault, must, run
from ringfence.host.stack.containers import there
from ringfence.host.swapping import discard

RESTORED, REPLACED = ".ringfence-restored", ".ringfence-replaced"  # beside the volume's data, where Docker never looks
HOURS = 12 * 3600.0  # seconds that a copy may take
SPARE = 64 << 20  # bytes that stay free on a disk that a copy is written to

_AS_THEY_ARE = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")


class Volume(NamedTuple):
    """A named volume of the engine, and where its data are on the host."""

    name: str
    place: Path


def volumes_of(names: Iterable[str]) -> list[Volume]:
    """Return those volumes that exist, by the names that the engine has for them.

    Raises:
        Fault: one of them is not simply a directory of this host.
    """
    found = []
    for name in names:
        said = there(f"/volumes/{quote(name)}")
        if not said:
            continue
        if said.get("Driver") != "local" or said.get("Options"):
            raise Fault(
                f"the volume {said['Name']} is not a directory of this host (driver {said.get('Driver')}), so it cannot"
                " be copied: take it out of `upgrade`, and see to a copy of it where it is kept"
            )
        found.append(Volume(str(said["Name"]), Path(said["Mountpoint"])))
    return found


def size_of(place: Path, seconds: float) -> int | None:
    """Return how many bytes a directory takes, None where it is too large to be measured in that time."""
    words = ("du", "--summarize", "--block-size=1", str(place))
    answer = run(*words, timeout=seconds)
    if answer.returncode == HUNG:
        return None
    # A file that goes while it is measured is no fault: the service still runs.
    with_total = answer.stdout.split("\t")[0]
    if not with_total.isdecimal():
        raise Fault(f"`{' '.join(words)}` failed: {answer.stderr.strip()}")
    return int(with_total)


def lacking(sizes: dict[Path, int], backups: Path, freed: Mapping[Path, int]) -> list[str]:
    """Say which disks have no room for copies of directories, and for putting them back beside what is there.

    Args:
        sizes: bytes of each directory.
        backups: where the copies go.
        freed: bytes beside a directory that are removed before.
    """
    needed: dict[int, tuple[Path, int]] = {}
    for place, size in sizes.items():
        for target in (backups, place):
            on = next(up for up in (target, *target.parents) if up.is_dir())
            first, sum_of = needed.get(on.stat().st_dev, (on, 0))
            less = freed.get(place, 0) if target is place else 0
            needed[on.stat().st_dev] = (first, sum_of + size + size // 20 - less)
    found = []
    for on, bytes_needed in needed.values():
        status = os.statvfs(on)
        free = status.f_bavail * status.f_frsize
        if free < bytes_needed + SPARE:
            found.append(
                f"the disk of {on} has {free >> 20} MiB free, and the copies before an upgrade need"
                f" {(bytes_needed + SPARE) >> 20} MiB: make room (docker system df), or move the copies away"
            )
    return found


def copy_volume(volume: Volume, archive: Path) -> None:
    """Write the data of a volume that nobody writes to into an archive; it is on the disk when this returns.

    Raises:
        Fault: tar fails.
    """
    words = ("tar", "--create", "--file", str(archive), "--directory", str(volume.place), *_AS_THEY_ARE, "--sparse")
    must(*words, ".", timeout=HOURS)
    archive.chmod(0o600)
    descriptor = os.open(archive, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_volume_back(volume: Volume, archive: Path) -> None:
    """Put the data of an archive in the place of a volume's, which stay aside until `forget_replaced`.

    What is unpacked stands aside until it is whole; then two directories are renamed. Killed anywhere it can be called
    again, and goes on: the volume has its old data, none at all, or those of the archive, never half of them.

    Raises:
        Fault: tar fails.
    """
    restored, replaced = volume.place.with_name(RESTORED), volume.place.with_name(REPLACED)
    if not replaced.is_dir():
        discard(restored)
        restored.mkdir(mode=0o700)
        words = ("tar", "--extract", "--file", str(archive), "--directory", str(restored), *_AS_THEY_ARE)
        must(*words, "--same-owner", "--preserve-permissions", timeout=HOURS)
        must("sync", "--file-system", str(restored), timeout=HOURS)
        volume.place.rename(replaced)
    if not volume.place.is_dir():
        restored.rename(volume.place)
    sync_directory(volume.place.parent)


def forget_replaced(volume: Volume) -> None:
    """Remove what an upgrade that was taken back had made of a volume's data."""
    discard(volume.place.with_name(RESTORED))
    discard(volume.place.with_name(REPLACED))
