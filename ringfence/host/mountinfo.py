"""Which file of which file system a path of this host is, and by which other paths the host has it.

A bind mount gives a file a second path that no link shows. The kernel tells of each mount which part of which file
system it is (proc_pid_mountinfo(5)), so two paths are compared by that: also of btrfs, whose subvolumes are parts of
one file system, and of overlays, which show the files of their layers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ringfence.host.running import Fault

MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")
_LAYERS = re.compile(r"(?:upperdir|lowerdir\+?|datadir\+?)=((?:\\.|[^,\\])*)")


class Mounted(NamedTuple):
    """One mount.

    Attributes:
        number: the kernel's number of it.
        parent: number of the mount that its point lies on.
        device: of its file system, as "254:0".
        root: what of the file system is mounted, as a path in it.
        point: where it is mounted.
        kind: of the file system, such as "ext4".
        layers: directories of this host whose files an overlay shows.
    """

    number: str
    parent: str
    device: str
    root: str
    point: str
    kind: str
    layers: tuple[str, ...] = ()


class Spot(NamedTuple):
    """A file or directory, whatever it is called: its file system and its path in there."""

    device: str
    path: str


@dataclass(frozen=True)
class MountTable:
    """The mounts of this host.

    Attributes:
        first: what is mounted at "/".
        children: number of a mount → what is mounted on it.
        views: what of which file system can be seen by which mount.
    """

    first: Mounted
    children: dict[str, list[Mounted]]
    views: list[tuple[Spot, Mounted]]

    def carrying(self, path: str) -> Mounted:
        """Return the mount that an absolute path without links lies on: what is hidden by a later one is not found."""
        here = self.first
        while above := [m for m in self.children.get(here.number, []) if within(path, m.point) is not None]:
            here = min(above, key=lambda m: len(m.point))
        return here

    def spots(self, path: str) -> set[Spot]:
        """Return what an absolute path without links is, in an overlay each layer's as well."""
        found: set[Spot] = set()
        waiting = [path]
        while waiting:
            one = waiting.pop()
            mount = self.carrying(one)
            spot = Spot(mount.device, joined(mount.root, within(one, mount.point) or ""))
            if spot not in found:
                found.add(spot)
                waiting += [os.path.realpath(joined(layer, spot.path)) for layer in mount.layers]
        return found

    def names(self, path: str) -> set[str]:
        """Return every path by which this host has the same file or directory, or something that lies in it."""
        found = set()
        for spot in self.spots(path):
            for view, mount in self.views:
                if view.device != spot.device:
                    continue
                if (rest := within(spot.path, view.path)) is not None:
                    name = joined(mount.point, rest)
                elif within(view.path, spot.path) is not None:
                    name = mount.point
                else:
                    continue
                if self.carrying(name) == mount:
                    found.add(name)
        return found

    def mounts_below(self, path: str) -> list[str]:
        """Return where something is mounted below a directory: it is there for whom the directory is mounted, too."""
        points = {m.point for of in self.children.values() for m in of}
        return sorted(point for point in points if within(point, path))


def within(path: str, above: str) -> str | None:
    """Return a path as seen from one that it lies below ("" where it is that one), None where it does not."""
    if path == above:
        return ""
    stem = above.rstrip("/") + "/"
    return path[len(stem) :] if path.startswith(stem) else None


def joined(above: str, rest: str) -> str:
    """Return the path of what is seen as ``rest`` from ``above``."""
    return f"{above.rstrip('/')}/{rest.lstrip('/')}".rstrip("/") or "/"


def mount_table(source: Path = MOUNTINFO, passed_over: re.Pattern[str] | None = None) -> MountTable:
    """Read the mounts of this host.

    Args:
        source: where the kernel tells them.
        passed_over: mount points that are no name of what is mounted there, as others mount it there in passing.

    Raises:
        Fault: they cannot be read, or not understood: what a path leads to is not known then.
    """
    try:
        text = source.read_bytes().decode(errors="surrogateescape")
        mounts = [_mounted(line) for line in text.split("\n") if line]
    except (OSError, ValueError) as error:
        raise Fault(
            f"{source}: what is mounted on this host cannot be read, so nobody knows what volumes lead to: {error}"
            " (mount /proc, or report this line)"
        ) from None
    numbers = {mount.number for mount in mounts}
    first = [m for m in mounts if m.point == "/" and (m.parent not in numbers or m.parent == m.number)]
    if not first:
        raise Fault(
            f"{source}: nothing is mounted at /, so nobody knows what volumes lead to (run it outside a chroot)"
        )
    children: dict[str, list[Mounted]] = {}
    for mount in mounts:
        if mount.parent != mount.number:
            children.setdefault(mount.parent, []).append(mount)
    table = MountTable(first[0], children, [])
    table.views.extend(_views(table, [m for m in mounts if not (passed_over and passed_over.fullmatch(m.point))]))
    return table


def _views(table: MountTable, mounts: Iterable[Mounted]) -> Iterator[tuple[Spot, Mounted]]:
    for mount in mounts:
        yield Spot(mount.device, mount.root), mount
        for layer in mount.layers:
            yield from ((spot, mount) for spot in table.spots(os.path.realpath(joined(layer, mount.root))))


def _mounted(line: str) -> Mounted:
    """Read ``36 35 98:0 /of /where rw shared:1 - ext4 /dev/sda1 rw``.

    Raises:
        ValueError: it is not of that form.
    """
    before, _, after = line.partition(" - ")
    number, parent, device, root, point = before.split(" ")[:5]
    kind, *rest = after.split(" ")
    if not (number.isdecimal() and parent.isdecimal() and kind and _unescaped(point).startswith("/")):
        raise ValueError(ascii(line))
    layers = tuple(_layers(rest[-1])) if kind == "overlay" else ()
    return Mounted(number, parent, device, _unescaped(root), _unescaped(point), kind, layers)


def _layers(options: str) -> Iterator[str]:
    """Yield the layers of an overlay that this host has: those of a host within another one are outside of it."""
    for found in _LAYERS.finditer(_unescaped(options)):
        for layer in re.split(r"(?<!\\):", found[1]):
            path = re.sub(r"\\(.)", r"\1", layer)
            if path.startswith("/") and Path(path).is_dir():
                yield path


def _unescaped(text: str) -> str:
    # The kernel writes bytes: what is beyond ASCII arrives as it is, so only these are to be made characters.
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
