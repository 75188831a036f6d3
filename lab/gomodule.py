"""Programs that no Debian release carries, built from their Go modules as go.sum pins them, and cached."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.cache import alone, cache_dir
from lab.engine import apt_install
from lab.shell import LabError, output, run, step

OLDEST = (1, 21)  # the first Go that fetches the toolchain a module asks for by itself


@dataclass(frozen=True)
class GoModule:
    """A module of the lab's own that names, with go.mod and go.sum, what is built.

    Attributes:
        folder: where it stands.
        title: of what is built, as messages have it.
        name: of its folders in the cache; with the version.
        programs: name of each program → its package.
        instead: what to do on a machine without Go.
        revision: changed when it is to be built anew although the module is the same.
        flags: for `go build`.
        environment: for `go build`.
    """

    folder: Path
    title: str
    name: str
    programs: Mapping[str, str]
    instead: str
    revision: tuple[str, ...]
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def key(self) -> str:
        """Short hash of what decides the programs: the module's pins and how they are built."""
        texts = [(self.folder / name).read_bytes() for name in ("go.mod", "go.sum", "tools.go")]
        return hashlib.sha256(b"\0".join([*texts, *(text.encode() for text in self.revision)])).hexdigest()[:12]

    def built(self) -> Path | None:
        """Return the folder with the programs; None where they are not built yet."""
        folder = cache_dir() / f"{self.name}-{self.key()}"
        return folder if all((folder / name).exists() for name in self.programs) else None

    def ensure(self) -> Path:
        """Return the folder with the programs, built unless the cache has them. Raises LabError."""
        with alone(self.folder.name):
            return self.built() or self._build()

    def _build(self) -> Path:
        folder = cache_dir() / f"{self.name}-{self.key()}"
        go = go_toolchain(self.title, self.instead)
        part = folder.with_suffix(f".{os.getpid()}.part")
        part.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "auto", **self.environment}
        with step(f"building {self.title} from its Go module (once, some minutes)"):
            for name, package in self.programs.items():
                command = [go, "-C", str(self.folder), "build", "-trimpath", *self.flags, "-o", str(part / name)]
                run([*command, package], env=environment, timeout=3600)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
        return folder


def go_toolchain(title: str, instead: str) -> str:
    """A Go that is new enough, installed from Debian when there is none.

    Args:
        title: what is to be built.
        instead: what to do without.

    Raises:
        LabError: with the fix.
    """
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        candidate = re.search(r"Candidate: \d*:?(\d+)\.(\d+)", output(["apt-cache", "policy", "golang-go"]))
        if candidate and (int(candidate[1]), int(candidate[2])) >= OLDEST:
            apt_install("golang-go")
            go = shutil.which("go")
    version = re.search(r"go(\d+)\.(\d+)", output([go, "version"])) if go else None
    if go is None or version is None or (int(version[1]), int(version[2])) < OLDEST:
        raise LabError(
            f"{title} is built with Go {OLDEST[0]}.{OLDEST[1]} or newer, which this machine lacks: "
            f"install it into /usr/local/go (https://go.dev/doc/install), or {instead}"
        )
    return go
