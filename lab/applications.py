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

from lab.archive import Entry, Image, layer, write_images
from lab.cache import alone, cache_dir
from lab.rootfs import Recipe, build
from lab.shell import LabError, run, say, step
from lab.wheels import CADDY

FILES = Path(__file__).parent / "images"
PROBE = "docker.io/library/busybox:1.37"
NAMES = (
    "docker.io/library/caddy:2.11.7",
    "docker.io/library/nextcloud:34.0.3-apache",
    "docker.io/vaultwarden/server:1.36.0",
    "docker.io/library/postgres:18.6",
    "docker.io/library/eclipse-mosquitto:2.1.2-alpine",
    PROBE,
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APPLETS = (
    "sh",
    "cat",
    "echo",
    "env",
    "grep",
    "hostname",
    "httpd",
    "id",
    "ip",
    "kill",
    "ls",
    "mkdir",
    "nc",
    "netstat",
    "nslookup",
    "ping",
    "ps",
    "rm",
    "sleep",
    "tail",
    "test",
    "timeout",
    "touch",
    "true",
    "udhcpc",
    "wget",
)


def base_recipe() -> Recipe:
    """The layer that all stand-ins share; what they never use is removed, because every host loads it."""
    packages = ("busybox-static", "curl", "mosquitto", "postgresql-15", "python3-minimal", "python3-psycopg2")
    commands = (
        # The official images' user numbers: volumes and secrets are declared with them.
        "chroot . groupmod -g 999 postgres && chroot . usermod -u 999 postgres",
        "chroot . groupmod -g 1883 mosquitto && chroot . usermod -u 1883 mosquitto",
        "rm -rf var/lib/postgresql/15 etc/postgresql && chroot . chown -R postgres:postgres var/lib/postgresql"
        " run/postgresql && chroot . install -d -o mosquitto -g mosquitto /mosquitto /mosquitto/config"
        " /mosquitto/data /mosquitto/log",
        "for program in initdb pg_ctl pg_isready postgres psql; do"
        " ln -sf /usr/lib/postgresql/15/bin/$program usr/local/bin/$program; done",
        "rm -rf usr/lib/*/libLLVM* usr/lib/llvm* usr/lib/*/libz3* usr/lib/postgresql/15/lib/bitcode"
        " usr/lib/postgresql/15/lib/llvmjit* usr/lib/*/perl* usr/share/perl* usr/bin/perl* usr/share/i18n"
        " usr/lib/*/gconv usr/share/zoneinfo/right usr/share/postgresql-common usr/share/locale"
        " var/cache/* var/log/* var/lib/dpkg/info usr/share/doc usr/share/man usr/share/info usr/lib/udev"
        " usr/lib/systemd;"
        " find usr -name __pycache__ -prune -exec rm -rf {} +",
        "mkdir -p data config var/www/html",
    )
    return Recipe("applications", "bookworm", packages, (), commands, ("--variant=minbase", "--skip=output/dev"))


def key() -> str:
    """Short hash of everything that the stand-ins are made of."""
    parts = [base_recipe().key(), CADDY.sha256, *NAMES, Path(__file__).read_text()]
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


def registry_answers() -> bool:
    """Whether the probe image can be pulled. An image that was not there before is removed again later."""
    try:
        return pull(PROBE, 30)
    except LabError:
        return False


def present(name: str) -> bool:
    return run(["docker", "image", "inspect", name], check=False).returncode == 0


def pull(name: str, seconds: float) -> bool:
    """Make sure the machine's engine has an image, pulling it only when it is missing."""
    return present(name) or run(["docker", "pull", "--quiet", name], check=False, timeout=seconds).returncode == 0


def save_pulled(folder: Path) -> None:
    """Pull every image and save them all; images that the machine did not have are removed from it afterwards."""
    new = [name for name in NAMES if not present(name) or name == PROBE]
    with step(f"pulling {len(new)} images"):
        for name in NAMES:
            if not pull(name, 900):
                raise LabError(f"{name}: cannot be pulled; RINGFENCE_LAB_IMAGES=packages makes a stand-in instead")
        run(["docker", "save", "-o", str(folder / "images.tar"), *NAMES], timeout=900)
        run(["docker", "image", "rm", *new], check=False)


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
        write_images(folder / "images.tar", stand_ins(layers, base, caddy, busybox.stdout))
    recipe.archive.unlink()


def stand_ins(layers: Path, base: Path, caddy: Path, busybox: bytes) -> list[Image]:
    """The images, their thin layers written into `layers`."""

    def thin(name: str, entries: list[Entry]) -> Path:
        (layers / f"{name}.tar").write_bytes(layer(entries))
        return layers / f"{name}.tar"

    def config(*variables: str, **rest: object) -> dict[str, object]:
        return {"Env": [f"PATH={PATH}", *variables], **rest}

    caddy_name, nextcloud, vaultwarden, postgres, mosquitto, probe = NAMES
    application = thin("application", [Entry("usr/local/bin/application", (FILES / "application").read_bytes())])
    return [
        Image(
            caddy_name,
            [
                thin(
                    "caddy",
                    [
                        Entry("usr"),
                        Entry("usr/bin"),
                        Entry("usr/bin/caddy", caddy.read_bytes()),
                        Entry("etc"),
                        Entry("etc/caddy"),
                        Entry("etc/caddy/Caddyfile", b':80 {\n\trespond "caddy"\n}\n', mode=0o644),
                        Entry("data"),
                        Entry("config"),
                        Entry("tmp", mode=0o1777),
                        Entry("etc/passwd", b"root:x:0:0::/root:/bin/sh\n", mode=0o644),
                        *busybox_entries(busybox),
                    ],
                )
            ],
            config(
                "XDG_CONFIG_HOME=/config",
                "XDG_DATA_HOME=/data",
                Cmd=["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"],
                WorkingDir="/srv",
            ),
        ),
        Image(
            nextcloud,
            [base, application],
            config("APPLICATION=nextcloud", Cmd=["/usr/local/bin/application"], Volumes={"/var/www/html": {}}),
        ),
        Image(vaultwarden, [base, application], config("APPLICATION=vaultwarden", Cmd=["/usr/local/bin/application"])),
        Image(
            postgres,
            [
                base,
                thin(
                    "postgres",
                    [Entry("usr/local/bin/docker-entrypoint.sh", (FILES / "postgres-entrypoint").read_bytes())],
                ),
            ],
            config(
                "PGDATA=/var/lib/postgresql/18/docker",
                Entrypoint=["docker-entrypoint.sh"],
                Cmd=["postgres"],
                StopSignal="SIGINT",
                Volumes={"/var/lib/postgresql": {}},
            ),
        ),
        Image(
            mosquitto,
            [base],
            config(
                Cmd=["/usr/sbin/mosquitto", "-c", "/mosquitto/config/mosquitto.conf"],
                Volumes={"/mosquitto/data": {}, "/mosquitto/log": {}},
            ),
        ),
        Image(
            probe,
            [
                thin(
                    "probe",
                    [
                        Entry("etc"),
                        Entry("etc/passwd", b"root:x:0:0::/root:/bin/sh\n", mode=0o644),
                        Entry("tmp", mode=0o1777),
                        *busybox_entries(busybox),
                    ],
                )
            ],
            config(Cmd=["sh"]),
        ),
    ]


def busybox_entries(busybox: bytes) -> list[Entry]:
    return [Entry("bin"), Entry("bin/busybox", busybox), *(Entry(f"bin/{name}", link="busybox") for name in APPLETS)]
