"""Debian's cloud kernel, as its package has it: downloaded and unpacked, never installed."""

from __future__ import annotations

import lzma
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lab.cache import alone, cache_dir
from lab.shell import LabError, output, run, step

PACKAGE = "linux-image-cloud-amd64"  # depends on the newest one


class Kernel(NamedTuple):
    """A kernel on this machine's disk.

    Attributes:
        release: as `uname -r` says it.
        image: what is booted.
        modules: folder of its modules, with the lists that modprobe reads.
    """

    release: str
    image: Path
    modules: Path


def kernel() -> Kernel:
    """The newest cloud kernel of this machine's own release. Raises LabError when there is none to be had."""
    with alone("kernel"):
        try:
            return _unpacked(*_newest())
        except LabError:  # old lists name what the mirror no longer has
            run(["apt-get", "update", "-q", "-o", "DPkg::Lock::Timeout=300"], timeout=300)
            return _unpacked(*_newest())


def _newest() -> tuple[str, str]:
    """(package, sha256) of the kernel that apt would install."""
    package = _field("Depends", PACKAGE).split()[0]
    return package, _field("SHA256", package)


def _field(name: str, package: str) -> str:
    found = re.search(rf"^{name}: (.*)", output(["apt-cache", "show", "--no-all-versions", package]), re.MULTILINE)
    if not found:
        raise LabError(f"apt knows no {name} of {package}")
    return found[1]


def _unpacked(package: str, sha256: str) -> Kernel:
    home = cache_dir() / f"kernel-{sha256[:12]}"
    if not home.exists():
        for older in cache_dir().glob("kernel-*/"):
            shutil.rmtree(older)
        with step(f"getting {package} (once)"), tempfile.TemporaryDirectory(prefix=".kernel-", dir=cache_dir()) as part:
            _unpack(package, Path(part))
            (Path(part) / "root").rename(home)
    modules = next((home / "usr/lib/modules").iterdir())
    return Kernel(modules.name, home / f"boot/vmlinuz-{modules.name}", modules)


def _unpack(package: str, part: Path) -> None:
    """Make part/root of a package, with modules that everything can read in the one place of both kmod's releases."""
    run(["sh", "-c", 'cd "$0" && apt-get download -q "$1"', str(part), package], timeout=300)
    root, packed = part / "root", part / "packed"
    run(["dpkg-deb", "-x", str(next(part.glob("*.deb"))), str(packed)])
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (packed / "boot").rename(root / "boot")
    next(_folders(packed)).rename(root / "usr/lib/modules")
    for module in (root / "usr/lib/modules").rglob("*.ko.xz"):
        module.with_suffix("").write_bytes(lzma.decompress(module.read_bytes()))
        module.unlink()
    run(["depmod", "-b", str(root), next((root / "usr/lib/modules").iterdir()).name])


def _folders(packed: Path) -> Iterator[Path]:
    return (found for place in ("lib/modules", "usr/lib/modules") if (found := packed / place).is_dir())
