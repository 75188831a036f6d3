"""Root file systems of the hosts, made by mmdebstrap once and then cached by what they are made of."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab import docker29, wheels
from lab.cache import alone, cache_dir
from lab.engine import apt_install
from lab.plan import SUITES
from lab.shell import LabError, run, step, tail

PACKAGES = (
    "ca-certificates",
    "dbus",
    "hostname",
    "iproute2",
    "iputils-ping",
    "mount",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "util-linux",
)


@dataclass(frozen=True)
class Copy:
    """A file of an image: where it goes, what identifies its content, and how to get it when it is needed."""

    target: str
    identity: str
    source: Callable[[], Path]
    mode: int = 0o644

    @staticmethod
    def of(path: Path, target: str, mode: int = 0o644) -> Copy:
        """A file of this repository."""
        return Copy(target, hashlib.sha256(path.read_bytes()).hexdigest(), lambda: path, mode)


@dataclass(frozen=True)
class Recipe:
    """What a root file system is made of. `commands` run by sh, on this machine, in the root of the new system."""

    name: str
    suite: str
    packages: tuple[str, ...]
    copies: tuple[Copy, ...] = ()
    commands: tuple[str, ...] = ()
    options: tuple[str, ...] = ("--variant=apt",)

    def key(self) -> str:
        """Short hash of everything that decides the content."""
        parts = {
            "suite": self.suite,
            "packages": sorted(self.packages),
            "copies": [(copy.target, copy.identity, copy.mode) for copy in self.copies],
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


def host_recipe(engine: str) -> Recipe:
    """The recipe of a host: bare, except for what its Debian release lacks (see docs/lab.md)."""
    suite = SUITES[engine]
    name = suite
    packages: tuple[str, ...] = PACKAGES
    copies: list[Copy] = []
    commands = [
        "rm -f etc/ssh/ssh_host_* etc/machine-id etc/resolv.conf etc/hostname usr/sbin/policy-rc.d",
        "touch etc/machine-id etc/resolv.conf",
    ]
    options = ["--variant=apt", '--aptopt=Acquire::GzipIndexes "true"', "--skip=cleanup/apt/lists"]
    if suite == "sid":
        # Snapshots of sid are used for longer than its Release file is valid.
        options.append('--aptopt=Acquire::Check-Valid-Until "false"')
    if suite == "bookworm":
        identity = f"{wheels.COMPOSE.version} {wheels.COMPOSE.sha256}"
        copies.append(
            Copy(
                "/usr/local/lib/docker/cli-plugins/docker-compose",
                identity,
                lambda: wheels.COMPOSE.program(cache_dir()),
                0o755,
            )
        )
    if engine == "29":
        name, packages = f"{suite}-docker29", (*PACKAGES, *docker29.PACKAGES)
        copies += [
            Copy(f"/usr/bin/{program}", docker29.key(), partial(docker29.program, program), 0o755)
            for program in docker29.PROGRAMS
        ]
        copies += [Copy.of(docker29.MODULE / file, to) for file, to in docker29.UNITS.items()]
        commands += docker29.COMMANDS
    return Recipe(name, suite, packages, tuple(copies), tuple(commands), tuple(options))


def build(recipe: Recipe) -> None:
    """Make the archive of a recipe unless the cache has it. Raises LabError with mmdebstrap's last words."""
    if recipe.archive.exists():
        return
    for program, package in (("mmdebstrap", "mmdebstrap"), ("zstd", "zstd")):
        if not shutil.which(program):
            apt_install(package)
    part = recipe.archive.with_name(f"{recipe.archive.name}.{os.getpid()}.part")
    hooks = [
        f'--customize-hook=install -D -m {copy.mode:o} "{copy.source()}" "$1{copy.target}"' for copy in recipe.copies
    ]
    hooks += [f'--customize-hook=cd "$1" && {command}' for command in recipe.commands]
    command = [
        "mmdebstrap",
        "--quiet",
        "--format=tar",
        f"--include={','.join(recipe.packages)}",
        *recipe.options,
        *hooks,
        recipe.suite,
        "-",
    ]
    try:
        with step(f"building the {recipe.name} root file system (once)"), part.open("wb") as target:
            maker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            packer = subprocess.Popen(["zstd", "-q", "-3", "-T0", "-c"], stdin=maker.stdout, stdout=target)
            assert maker.stdout
            assert maker.stderr
            maker.stdout.close()
            words = maker.stderr.read().decode(errors="replace")
            if maker.wait() or packer.wait():
                raise LabError(f"mmdebstrap could not make {recipe.name}:\n{tail(words)}")
        part.rename(recipe.archive)
    finally:
        part.unlink(missing_ok=True)


def ensure_image(recipe: Recipe) -> str:
    """Return the engine's image of a recipe, built or imported when it is not there."""
    if run(["docker", "image", "inspect", recipe.image], check=False).returncode == 0:
        return recipe.image
    with alone(recipe.name):
        if run(["docker", "image", "inspect", recipe.image], check=False).returncode == 0:
            return recipe.image
        build(recipe)
        with step(f"importing {recipe.image}"):
            unpacker = subprocess.Popen(["zstd", "-q", "-dc", str(recipe.archive)], stdout=subprocess.PIPE)
            done = subprocess.run(
                [
                    "docker",
                    "import",
                    "--change",
                    'LABEL ringfence.lab.image="1"',
                    "--change",
                    'CMD ["/usr/lib/ringfence-lab/init"]',
                    "-",
                    recipe.image,
                ],
                stdin=unpacker.stdout,
                capture_output=True,
                check=False,
            )
            if unpacker.wait() or done.returncode:
                raise LabError(f"docker import of {recipe.archive} failed: {done.stderr.decode(errors='replace')}")
        forget_older(recipe)
    return recipe.image


def forget_older(recipe: Recipe) -> None:
    """Remove what earlier versions of a recipe left behind, except images that a host still uses."""
    for archive in recipe.archive.parent.glob(f"rootfs-{recipe.name}-*.tar.zst"):
        if archive != recipe.archive and re.fullmatch(rf"rootfs-{recipe.name}-[0-9a-f]{{12}}\.tar\.zst", archive.name):
            archive.unlink(missing_ok=True)
    forget_older_images(f"ringfence-lab/{recipe.name}", recipe.image)


def forget_older_images(repository: str, current: str) -> None:
    """Remove all images of a repository but the current one, except those that a host still uses."""
    known = run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository])
    older = [name for name in known.stdout.decode().split() if name != current]
    if older:
        run(["docker", "image", "rm", *older], check=False)
