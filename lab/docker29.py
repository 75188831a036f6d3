"""Docker's engine 29, which no Debian release carries yet, built from its Go module and cached."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from lab.cache import alone, cache_dir
from lab.engine import apt_install
from lab.shell import LabError, output, run, step

MODULE = Path(__file__).parent / "docker29"
VERSION = "29.9.0"
PROGRAMS = ("dockerd", "docker-proxy")
GO = (1, 21)  # the first that fetches the toolchain a module asks for by itself
# What the engine needs besides itself, from the host's Debian release.
PACKAGES = ("containerd", "docker-cli", "docker-compose", "iptables", "nftables", "runc", "tini")
UNITS = {
    "docker.service": "/etc/systemd/system/docker.service",
    "docker.socket": "/etc/systemd/system/docker.socket",
    "daemon.json": "/etc/docker/daemon.json",
}
COMMANDS = (
    "ln -s tini-static usr/bin/docker-init",
    "chroot . groupadd --system --force docker",
    "chroot . systemctl enable docker.service docker.socket containerd.service",
)
SOURCE = "github.com/moby/moby/v2"


def key() -> str:
    """Short hash of what decides the programs: the module's pins and how they are built."""
    texts = [(MODULE / name).read_bytes() for name in ("go.mod", "go.sum", "tools.go")]
    return hashlib.sha256(b"\0".join([*texts, VERSION.encode(), b"1"])).hexdigest()[:12]


def ensure() -> Path:
    """Return the folder with dockerd and docker-proxy, built unless the cache has them. Raises LabError."""
    with alone("docker29"):
        return find_or_build()


def find_or_build() -> Path:
    folder = cache_dir() / f"docker-{VERSION}-{key()}"
    if all((folder / name).exists() for name in PROGRAMS):
        return folder
    go = go_toolchain()
    apt_missing = [
        package for package, sign in (("gcc", "gcc"), ("pkg-config", "pkg-config")) if not shutil.which(sign)
    ]
    if not Path("/usr/include/systemd/sd-journal.h").exists():
        apt_missing.append("libsystemd-dev")
    if apt_missing:
        apt_install(*apt_missing, "libc6-dev")
    part = folder.with_suffix(f".{os.getpid()}.part")
    part.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "CGO_ENABLED": "1", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "auto"}
    with step(f"building Docker {VERSION} from its Go module (once, some minutes)"):
        for name in PROGRAMS:
            run(
                [
                    go,
                    "-C",
                    str(MODULE),
                    "build",
                    "-trimpath",
                    "-tags",
                    "exclude_graphdriver_btrfs",
                    "-ldflags",
                    f"-s -w -X {SOURCE}/dockerversion.Version={VERSION}",
                    "-o",
                    str(part / name),
                    f"{SOURCE}/cmd/{name}",
                ],
                env=env,
                timeout=3600,
            )
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder


def program(name: str) -> Path:
    """One of PROGRAMS, built if need be."""
    return ensure() / name


def go_toolchain() -> str:
    """A Go that is new enough, installed from Debian when there is none. Raises LabError with the fix."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        candidate = re.search(r"Candidate: \d*:?(\d+)\.(\d+)", output(["apt-cache", "policy", "golang-go"]))
        if candidate and (int(candidate[1]), int(candidate[2])) >= GO:
            apt_install("golang-go")
            go = shutil.which("go")
    version = re.search(r"go(\d+)\.(\d+)", output([go, "version"])) if go else None
    if go is None or version is None or (int(version[1]), int(version[2])) < GO:
        raise LabError(
            f"engine 29 is built with Go {GO[0]}.{GO[1]} or newer, which this machine lacks: "
            "install it into /usr/local/go (https://go.dev/doc/install), or take another --engine"
        )
    return go
