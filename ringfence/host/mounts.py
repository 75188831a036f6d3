"""What a path of the host hands over to a container: the whole host, its logins, the data of others.

Paths are compared as they end up (`//run`, `/run/../run` and `/var/run` are `/run`), and by containment both ways: what
lies below a dangerous place is part of it, and what contains one hands it over as well.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple


class Handed(NamedTuple):
    """What a mount hands over.

    Attributes:
        what: whose, for "hands … to the container".
        why: how that comes.
        instead: what to write in its place.
    """

    what: str
    why: str
    instead: str

    def __str__(self) -> str:
        return f"hands {self.what} to the container: {self.why} ({self.instead})"


_REMOVE = "remove it"
_OWN = "mount a directory made for it, such as /srv/app"
_SOCKET = Handed(
    "the whole host",
    "who may speak to this socket starts programs as root",
    "remove it, and call a service that has docker_socket: true, a proxy that filters it",
)
_KERNEL = Handed("the host's kernel and its devices", "they belong to no container", _REMOVE)
_LOGINS = Handed("the host's logins", "who can read or write them gets in, as root as well", _OWN)
_STARTED = Handed("the whole host", "what stands there is run or believed by root", _OWN)
_USER_STARTED = Handed("a user's account", "what stands there is run as that user", _OWN)
_ENGINE = Handed("the data and secrets of all containers", "the engine or ringfence keeps them there", _OWN)
_VOLUME = Handed(
    "a volume of the engine",
    "its directory is the engine's",
    "mount the volume by its Docker name: {{source: {name}, target: …, external: true}}",
)
_ROOTS_HOME = Handed("root's home", "its keys, its shell's files and its history are there", _OWN)
_HOME = Handed("a user's home", "the keys that log in and the files that the shell runs are there", _OWN)

# Ways by which Debian's own links lead elsewhere.
_ALIASES = {
    "/var/run": "/run", "/var/lock": "/run/lock", "/bin": "/usr/bin", "/sbin": "/usr/sbin", "/lib": "/usr/lib",
    "/lib32": "/usr/lib32", "/lib64": "/usr/lib64",
}  # fmt: skip
# What answers commands, wherever it lies: rootless engines keep theirs in a home.
_SOCKET_NAMES = frozenset({
    "docker.sock", "podman.sock", "containerd.sock", "crio.sock", "buildkitd.sock", "cri-dockerd.sock",
    "balena-engine.sock", "libvirt-sock", "snapd.socket",
})  # fmt: skip
_HARMLESS = ("/dev/log", "/dev/net/tun", "/dev/shm")  # noqa: S108 - compared, never written to
_ETC = (
    "apparmor", "apparmor.d", "apt", "bash.bashrc", "containerd", "containers", "cron.d", "cron.daily", "cron.hourly",
    "cron.monthly", "cron.weekly", "crontab", "dbus-1", "default", "docker", "environment", "environment.d", "fstab",
    "init.d", "initramfs-tools", "iptables", "kernel", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload",
    "logrotate.conf", "logrotate.d", "modprobe.d", "modules", "modules-load.d", "netplan", "network", "nftables.conf",
    "polkit-1", "profile", "profile.d", "rc.local", "security", "sysctl.conf", "sysctl.d", "systemd", "tmpfiles.d",
    "udev", "ufw",
)  # fmt: skip
_ETC_LOGINS = (
    "group-", "gshadow", "gshadow-", "krb5.keytab", "opasswd", "pam.conf", "pam.d", "passwd-", "shadow", "shadow-",
    "ssh", "ssl/private", "sudo.conf", "sudoers", "sudoers.d", "wireguard",
)  # fmt: skip
_RUN = (
    "balena-engine.sock", "buildkit", "containerd", "cri-dockerd.sock", "crio", "dbus", "docker", "docker.sock",
    "incus", "initctl", "k3s", "libvirt", "lxd", "podman", "polkit", "screen", "snapd-snap.socket", "snapd.socket",
    "sshd", "sudo", "systemd", "tmux", "user",
)  # fmt: skip
# With everything below them.
_PLACES: tuple[tuple[str, Handed], ...] = (
    *((f"/run/{name}", _SOCKET) for name in _RUN),
    *((path, _SOCKET) for path in ("/var/lib/lxd", "/var/lib/incus", "/var/snap/lxd", "/var/snap/docker")),
    *((path, _KERNEL) for path in ("/proc", "/sys", "/dev")),
    *((path, _ENGINE) for path in (
        "/etc/ringfence", "/opt/containerd", "/opt/ringfence", "/var/lib/containerd", "/var/lib/containers",
        "/var/lib/docker", "/var/lib/kubelet", "/var/lib/rancher", "/var/lib/ringfence",
    )),
    *((f"/etc/{name}", _LOGINS) for name in _ETC_LOGINS),
    *((f"/etc/{name}", _STARTED) for name in _ETC),
    *((path, _STARTED) for path in ("/boot", "/var/lib/dpkg", "/var/lib/systemd", "/var/spool/cron", "/var/spool/at")),
    ("/root", _ROOTS_HOME),
)  # fmt: skip
# These, but not what is below them.
_WHOLE = ("/", "/etc", "/home", "/opt", "/run", "/usr", "/var", "/var/lib", "/var/spool")
# What a container may read, but not write.
_READ_ONLY = (
    "/etc/group", "/etc/hostname", "/etc/hosts", "/etc/nsswitch.conf", "/etc/passwd", "/etc/resolv.conf",
    "/etc/subgid", "/etc/subuid", "/usr",
)  # fmt: skip
_HOME_LOGINS = (".ssh", ".gnupg")  # wherever they are: no other directory has these names
_HOME_STARTED = (
    ".bash_login", ".bash_profile", ".bashrc", ".config/autostart", ".config/systemd", ".docker/desktop", ".docker/run",
    ".local/share/containers", ".local/share/docker", ".profile", ".zprofile", ".zshenv", ".zshrc",
)  # fmt: skip
_VOLUMES = "/var/lib/docker/volumes"


def plain(path: str) -> str:
    """Return an absolute path without what leads astray: doubled slashes, dots, and links that every Debian has."""
    found = "/" + posixpath.normpath(path).lstrip("/")
    for alias, real in _ALIASES.items():
        if _below(found, (alias,)):
            return real + found.removeprefix(alias)
    return found


def handed_over(
    path: str, read_only: bool = False, homes: Iterable[str] = (), engines: Iterable[str] = ()
) -> Handed | None:
    """Return what a path of the host hands over when a container has it mounted, None where it is nothing.

    Args:
        path: absolute path on the host.
        read_only: whether the container may only read it; makes a difference for few, and for no socket.
        homes: directories of people, where they are known; `/root` and those in `/home` are anyway.
        engines: directories of engines beside the usual ones.
    """
    real = plain(path)
    if _below(real, _HARMLESS):
        return None
    if posixpath.basename(real) in _SOCKET_NAMES:
        return _SOCKET
    parts = real.split("/")
    if real.startswith(f"{_VOLUMES}/"):
        return _VOLUME._replace(instead=_VOLUME.instead.format(name=parts[5]))
    places = (*_PLACES, *((plain(place), _ENGINE) for place in engines))
    for place, handed in places:
        if _below(real, (place,)):
            return handed
    if any(name in parts for name in _HOME_LOGINS):
        return _LOGINS
    if real in _WHOLE or any(_below(place, (real,)) for place, _ in places):
        return Handed("what belongs to the host", f"{_inside(real)} is in it", _OWN)
    if found := _of_a_home(real, homes):
        return found
    if not read_only and _below(real, _READ_ONLY):
        return Handed(
            "a file or program of the host",
            "the container could write it",
            "add :ro where reading is enough, or " + _OWN,
        )
    return None


def is_socket(path: str) -> bool:
    """Whether a path is a socket by which programs are started as root. Whoever has one is past every fence, so nobody
    confirms it: `docker_socket` gives Docker's to a proxy that filters it."""
    return handed_over(path, True) == _SOCKET


def source_fault(path: str, read_only: bool = False) -> str:
    """Say why a path of the host cannot be mounted in a container, "" where it can."""
    return str(handed_over(path, read_only) or "")


def _of_a_home(real: str, homes: Iterable[str]) -> Handed | None:
    parts = real.split("/")
    # A user's directory below /home is taken for one without looking.
    known = {plain(home) for home in homes} | (
        {"/".join(parts[:3])} if parts[1] == "home" and len(parts) > 2 else set()
    )
    for home in sorted(known - {"/"}):
        if _below(home, (real,)):
            return _HOME
        started = tuple(f"{home}/{name}" for name in _HOME_STARTED)
        if _below(real, started) or any(_below(one, (real,)) for one in started):
            return _USER_STARTED
    return None


def _inside(real: str) -> str:
    """Name one thing that a place contains: the worst first."""
    named = ("/run/docker.sock", "/etc/shadow", "/root", "/var/lib/docker", "/proc", "/usr/bin", "/var/spool/cron")
    inside = [place for place in (*named, *(place for place, _ in _PLACES)) if _below(place, (real,))]
    return inside[0] if inside else "what people log in with" if real == "/home" else "much of it"


def _below(path: str, above: Iterable[str]) -> bool:
    return any(path == one or path.startswith(one.rstrip("/") + "/") for one in above)


# -- what only the host can tell


def leading(mounts: Mapping[str, bool], engines: Iterable[str] = ()) -> dict[str, str]:
    """Return the paths that lead where no mount may, by links or by being the same file, with that and the reason.

    Args:
        mounts: path on this host → whether it is mounted read-only everywhere.
        engines: directories of engines, where they are not the usual ones.
    """
    homes = people()
    # A bind mount or a hard link has another name, but is the same file.
    same = {identity: place for place in (*_WHOLE, *(place for place, _ in _PLACES)) for identity in _identity(place)}
    found = {}
    for source, read_only in mounts.items():
        for end in (os.path.realpath(source), *(same[i] for i in _identity(source) if i in same)):
            handed = handed_over(end, read_only, homes, engines)
            if handed and source not in found:
                found[source] = f"{end}, which {handed}"
    return found


def people(path: Path = Path("/etc/passwd")) -> list[str]:
    """Return the homes of those who can log in."""
    return sorted(set(_homes(path)))


def _homes(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for fields in (line.split(":") for line in lines):
        if len(fields) == 7 and fields[2].isdecimal() and fields[5].startswith("/"):
            logs_in = posixpath.basename(fields[6]) not in ("nologin", "false", "sync")
            if logs_in and (fields[2] == "0" or 1000 <= int(fields[2]) < 65534):
                yield fields[5]


def _identity(path: str) -> list[tuple[int, int]]:
    """Return the file that a path leads to, nothing where there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return []
    return [(status.st_dev, status.st_ino)]
