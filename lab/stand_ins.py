"""What the stand-ins for the applications' images are made of. Nothing is built here."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lab.archive import Entry, Image, layer
from lab.rootfs import Recipe
from lab.shell import LabError

FILES = Path(__file__).parent / "images"
PROBE = "docker.io/library/busybox:1.37"
NAMES = (
    "docker.io/library/caddy:2.11.7",
    "docker.io/library/nextcloud:34.0.3-apache",
    "docker.io/vaultwarden/server:1.36.0",
    "docker.io/library/postgres:18.6",
    "docker.io/library/eclipse-mosquitto:2.1.2-alpine",
    "docker.io/authelia/authelia:4.39.24",
    "docker.io/jellyfin/jellyfin:10.11.3",
    PROBE,
)
# Where Authelia's double is in its image, and the files that it is made of.
DOUBLE = "usr/local/lib/authelia-double"
DOUBLE_FILES = tuple(Path(__file__).with_name(f"authelia_double{end}") for end in (".py", "_rules.py", ".yml", ".html"))
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
    packages = (
        "busybox-static",
        "curl",
        "mosquitto",
        "postgresql-15",
        "python3-argon2",
        "python3-minimal",
        "python3-psycopg2",
        "python3-yaml",
    )
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


def real_authelia() -> Path | None:
    """The real program that takes its double's place, where RINGFENCE_AUTHELIA says that there is one.

    Raises:
        LabError: it is not there, or not a program.
    """
    given = os.environ.get("RINGFENCE_AUTHELIA", "")
    if not given:
        return None
    if not os.access(given, os.X_OK) or not Path(given).is_file():
        raise LabError(f"RINGFENCE_AUTHELIA={given}: not a program; leave it out to have Authelia's double in the lab")
    return Path(given)


def authelia_key() -> str:
    """What identifies the program in Authelia's image."""
    real = real_authelia()
    if real is None:
        return hashlib.sha256(b"".join(path.read_bytes() for path in DOUBLE_FILES)).hexdigest()
    with real.open("rb") as source:
        return f"real {hashlib.file_digest(source, 'sha256').hexdigest()}"


def authelia_entries() -> list[Entry]:
    """The real program, or its double, by the name by which the role calls it; wget is for the health check."""
    wget = Entry("usr/local/bin/wget", link="/bin/busybox")
    if real := real_authelia():
        return [wget, Entry("usr/local/bin/authelia", real.read_bytes())]
    files = [
        Entry(f"{DOUBLE}/{path.name}", path.read_bytes(), mode=0o755 if path.suffix == ".py" else 0o644)
        for path in DOUBLE_FILES
    ]
    return [wget, Entry(DOUBLE), *files, Entry("usr/local/bin/authelia", link=f"/{DOUBLE}/authelia_double.py")]


def images(layers: Path, base: Path, caddy: Path, busybox: bytes) -> list[Image]:
    """The images, their thin layers written into `layers`."""

    def thin(name: str, entries: list[Entry]) -> Path:
        (layers / f"{name}.tar").write_bytes(layer(entries))
        return layers / f"{name}.tar"

    def config(*variables: str, **rest: object) -> dict[str, object]:
        return {"Env": [f"PATH={PATH}", *variables], **rest}

    caddy_name, nextcloud, vaultwarden, postgres, mosquitto, authelia, jellyfin, probe = NAMES
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
            authelia,
            [base, thin("authelia", authelia_entries())],
            config("X_AUTHELIA_CONFIG=/config/configuration.yml", Cmd=["/usr/local/bin/authelia"]),
        ),
        Image(
            jellyfin,
            [base, application],
            config("APPLICATION=jellyfin", "PORT=8096", Cmd=["/usr/local/bin/application"]),
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
