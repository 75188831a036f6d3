"""The applications' images on the hosts: pulled where a registry answers, otherwise stand-ins under the same names.

A stand-in does what the lab asks of the real image: the same variables, ports, users and paths, from Debian packages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab import stand_ins
from lab.archive import write_images
from lab.cache import alone, cache_dir
from lab.plan import LABEL
from lab.rootfs import build
from lab.shell import LabError, run, say, step
from lab.stand_ins import FILES, NAMES, PROBE, authelia_key, base_recipe
from lab.wheels import CADDY


def key() -> str:
    """Short hash of everything that the stand-ins are made of."""
    parts = [base_recipe().key(), CADDY.sha256, authelia_key(), *NAMES, Path(stand_ins.__file__).read_text()]
    parts += [path.read_text() for path in sorted(FILES.iterdir())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def ensure() -> Path:
    """Return the folder with images.tar and names, made when the cache has none.

    RINGFENCE_LAB_IMAGES says where from: `registry`, `packages`, or `auto` (the default: a registry if it answers).
    """
    source = os.environ.get("RINGFENCE_LAB_IMAGES", "auto")
    if source not in ("auto", "registry", "packages"):
        raise LabError(f"RINGFENCE_LAB_IMAGES={source}: not one of auto, registry, packages")
    pulled = cache_dir() / f"images-registry-{hashlib.sha256(' '.join(NAMES).encode()).hexdigest()[:12]}"
    built = cache_dir() / f"images-packages-{key()}"
    with alone("images"):
        return find_or_make(source, pulled, built)


def find_or_make(source: str, pulled: Path, built: Path) -> Path:
    wanted = {"auto": (pulled, built), "registry": (pulled,), "packages": (built,)}[source]
    for folder in wanted:
        if (folder / "names").exists():
            return folder
    if source != "packages":
        if registry_answers():
            make(pulled, save_pulled)
            return pulled
        if source == "registry":
            raise LabError("RINGFENCE_LAB_IMAGES=registry, but no registry answers `docker pull`: check the network")
        say("no image registry answers: the applications become stand-ins made from packages")
    make(built, build_stand_ins)
    return built


def make(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder of the cache so that it is complete whenever it is there."""
    with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="images-") as scratch:
        part = Path(scratch) / "part"
        part.mkdir()
        fill(part)
        (part / "names").write_text("\n".join(NAMES) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    forget_older(folder)


def forget_older(folder: Path) -> None:
    """Remove images of earlier versions, except those that a host still has mounted."""
    hosts = run(["docker", "ps", "-aq", "--filter", f"label={LABEL}"]).stdout.decode().split()
    mounts = run(["docker", "inspect", "--format", "{{range .Mounts}}{{.Source}} {{end}}", *hosts]) if hosts else None
    used = mounts.stdout.decode().split() if mounts else []
    for other in folder.parent.glob("images-*-????????????"):
        if other != folder and str(other) not in used:
            shutil.rmtree(other, ignore_errors=True)


def registry_answers() -> bool:
    """Whether a registry knows the probe image; asked without touching the images of this machine."""
    try:
        return run(["docker", "manifest", "inspect", PROBE], check=False, timeout=30).returncode == 0
    except LabError:
        return False


def present(name: str) -> bool:
    return run(["docker", "image", "inspect", name], check=False).returncode == 0


def pull(name: str, seconds: float) -> bool:
    """Make sure the machine's engine has an image, pulling it only when it is missing."""
    return present(name) or run(["docker", "pull", "--quiet", name], check=False, timeout=seconds).returncode == 0


def save_pulled(folder: Path) -> None:
    """Pull every image and save them all; images that the machine did not have are removed from it afterwards."""
    new = [name for name in NAMES if not present(name)]
    try:
        with step(f"pulling {len(new)} images"):
            for name in NAMES:
                if not pull(name, 900):
                    raise LabError(f"{name}: cannot be pulled; RINGFENCE_LAB_IMAGES=packages makes a stand-in instead")
            run(["docker", "save", "-o", str(folder / "images.tar"), *NAMES], timeout=900)
    finally:
        if pulled := [name for name in new if present(name)]:
            run(["docker", "image", "rm", *pulled], check=False)


def build_stand_ins(folder: Path) -> None:
    recipe = base_recipe()
    build(recipe)
    caddy = CADDY.program(cache_dir())
    with step("putting the stand-ins together"), tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
        layers = Path(scratch)
        base = layers / "base.tar"
        with base.open("wb") as target:
            subprocess.run(["zstd", "-q", "-dc", str(recipe.archive)], stdout=target, check=True)
        busybox = subprocess.run(["tar", "-xOf", str(base), "./usr/bin/busybox"], capture_output=True, check=False)
        if busybox.returncode:
            busybox = subprocess.run(["tar", "-xOf", str(base), "./bin/busybox"], capture_output=True, check=True)
        write_images(folder / "images.tar", stand_ins.images(layers, base, caddy, busybox.stdout))
    recipe.archive.unlink()
