"""Docker's engine 29, which no Debian release carries yet, built from its Go module and cached."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.engine import apt_install
from lab.gomodule import GoModule

MODULE = Path(__file__).parent / "docker29"
VERSION = "29.9.0"
PROGRAMS = ("dockerd", "docker-proxy")
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
ENGINE = GoModule(
    folder=MODULE,
    title=f"Docker {VERSION}",
    name=f"docker-{VERSION}",
    programs={name: f"{SOURCE}/cmd/{name}" for name in PROGRAMS},
    instead="take another --engine",
    revision=(VERSION, "3"),
    flags=(
        *("-tags", "exclude_graphdriver_btrfs"),
        # Nobody debugs it, and the linker leaves it out; what inlining gains here it does not cost in compiling.
        "-gcflags=all=-dwarf=false -l",
        *("-ldflags", f"-s -w -X {SOURCE}/dockerversion.Version={VERSION}"),
    ),
    environment={"CGO_ENABLED": "1", "GOGC": "400"},  # memory is cheaper than a minute of collecting garbage
)


def key() -> str:
    """Short hash of what decides the programs."""
    return ENGINE.key()


def ensure() -> Path:
    """Return the folder with dockerd and docker-proxy, built unless the cache has them. Raises LabError."""
    if ENGINE.built() is None:
        missing = [
            package for package, sign in (("gcc", "gcc"), ("pkg-config", "pkg-config")) if not shutil.which(sign)
        ]
        if not Path("/usr/include/systemd/sd-journal.h").exists():
            missing.append("libsystemd-dev")
        if missing:
            apt_install(*missing, "libc6-dev")
    return ENGINE.ensure()


def program(name: str) -> Path:
    """One of PROGRAMS, built if need be."""
    return ensure() / name
