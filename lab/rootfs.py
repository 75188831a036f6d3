"""Root file systems of the hosts, made by mmdebstrap once and then cached by what they are made of."""
from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from lab.engine import docker
from lab.shell import LabError, run, step, tail

FILES = Path(__file__).parent / "files"

PACKAGES = (
    "ca-certificates", "dbus", "iproute2", "iputils-ping", "netbase", "openssh-server", "procps", "python3",
    "python3-apt", "sudo", "systemd", "systemd-sysv",
)

# Units that make no sense in a container or only slow its start down; nothing that a role manages.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "dev-hugepages.mount", "dev-mqueue.mount",
    "e2scrub_all.timer", "fstrim.timer", "getty.target", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-logind.service", "systemd-networkd.service",
    "systemd-networkd-wait-online.service", "systemd-udevd.service", "systemd-udev-trigger.service",
)


def cache_dir() -> Path:
    """Where built things are kept between runs."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "ringfence"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Recipe:
    """What a root file system is made of. `copies` maps a path on this machine to its path in the image."""

    name: str
    suite: str
    packages: tuple[str, ...]
    copies: dict[Path, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def key(self) -> str:
        """Short hash of everything that decides the content."""
        parts = {
            "suite": self.suite,
            "packages": sorted(self.packages),
            "copies": {to: hashlib.sha256(path.read_bytes()).hexdigest() for path, to in self.copies.items()},
            "commands": self.commands,
            "options": self.options,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def image(self) -> str:
        return f"ringfence-lab/{self.name}:{self.key()}"

    @property
    def archive(self) -> Path:
        return cache_dir() / f"rootfs-{self.name}-{self.key()}.tar.zst"


def host_recipe(engine: str, suite: str) -> Recipe:
    """The recipe of a bare host (engine 29 and the compose plugin of bookworm are added by their modules)."""
    commands = (
        "rm -f etc/ssh/ssh_host_* etc/machine-id etc/resolv.conf etc/hostname",
        "touch etc/machine-id etc/resolv.conf",
        "rm -f usr/sbin/policy-rc.d",
        "mkdir -p etc/systemd/system && cd etc/systemd/system && "
        + " && ".join(f"ln -sf /dev/null {unit}" for unit in MASKED),
    )
    options = ("--aptopt=Acquire::GzipIndexes \"true\"", "--skip=cleanup/apt/lists")
    if suite == "sid":
        options += ("--aptopt=Acquire::Check-Valid-Until \"false\"",)
    return Recipe(suite, suite, PACKAGES, {FILES / "init": "/usr/lib/ringfence-lab/init"}, commands, options)


def build(recipe: Recipe) -> None:
    """Make the archive of a recipe unless the cache has it. Raises LabError with mmdebstrap's last words."""
    if recipe.archive.exists():
        return
    part = recipe.archive.with_suffix(f".{os.getpid()}.part")
    hooks = [f'--customize-hook=mkdir -p "$1{os.path.dirname(to)}" && cp {path} "$1{to}"'
             for path, to in recipe.copies.items()]
    hooks += [f'--customize-hook=cd "$1" && {command}' for command in recipe.commands]
    command = ["mmdebstrap", "--quiet", "--variant=apt", "--format=tar", f"--include={','.join(recipe.packages)}",
               *recipe.options, *hooks, recipe.suite, "-"]
    with step(f"building the {recipe.name} root file system (once)"), open(part, "wb") as target:
        maker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        packer = subprocess.Popen(["zstd", "-q", "-3", "-T0", "-c"], stdin=maker.stdout, stdout=target)
        assert maker.stdout and maker.stderr
        maker.stdout.close()
        words = maker.stderr.read().decode(errors="replace")
        if maker.wait() or packer.wait():
            part.unlink(missing_ok=True)
            raise LabError(f"mmdebstrap could not make {recipe.name}:\n{tail(words)}")
    part.rename(recipe.archive)


def ensure_image(recipe: Recipe) -> str:
    """Return the engine's image of a recipe, built or imported when it is not there."""
    if run(["docker", "image", "inspect", recipe.image], check=False).returncode == 0:
        return recipe.image
    build(recipe)
    with step(f"importing {recipe.image}"):
        unpacker = subprocess.Popen(["zstd", "-q", "-dc", str(recipe.archive)], stdout=subprocess.PIPE)
        done = subprocess.run(
            ["docker", "import", "--change", 'LABEL ringfence.lab.image="1"',
             "--change", 'CMD ["/usr/lib/ringfence-lab/init"]', "-", recipe.image],
            stdin=unpacker.stdout, capture_output=True, check=False)
        if unpacker.wait() or done.returncode:
            raise LabError(f"docker import of {recipe.archive} failed: {done.stderr.decode(errors='replace')}")
    return recipe.image


__all__ = ["Recipe", "build", "cache_dir", "docker", "ensure_image", "host_recipe"]
