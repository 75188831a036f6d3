"""What a path of the host hands over to a container: the whole host, its logins, the data of others.

Paths are compared as they end up (`//run`, `/run/../run` and `/var/run` are `/run`), and by containment both ways: what
lies below a dangerous place is part of it, and what contains one hands it over as well. Below /etc and /run, where the
host's own services live, it is named what may be mounted, not what may not.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ringfence.host.mountinfo import MountTable, joined, mount_table, within


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
_PART = "mount what is needed of it, or a directory made for it, such as /srv/app"
_SOCKET = Handed(
    "the whole host",
    "who may speak to this socket starts programs as root",
    "remove it, and call a service that has docker_socket: true, a proxy that filters it",
)
_KERNEL = Handed("the host's kernel and its devices", "they belong to no container", _REMOVE)
_LOGINS = Handed("the host's logins", "who can read or write them gets in, as root as well", _OWN)
_STARTED = Handed("the whole host", "what stands there is run or believed by root", _OWN)
_USER_STARTED = Handed("a user's account", "what stands there is run as that user", _OWN)
_SWAPPED = Handed("the host's memory", "what it has no room for is written there, passwords among it", _REMOVE)
_ENGINE = Handed("the data and secrets of all containers", "the engine or ringfence keeps them there", _OWN)
_VOLUME = Handed(
    "a volume of the engine",
    "its directory is the engine's",
    "mount the volume by its Docker name: {{source: {name}, target: …, external: true}}",
)
_SERVICES = Handed("what the host's services keep in /run", "their sockets obey whoever speaks to them", _OWN)
_SESSIONS = Handed("the sessions of the host's users", "sockets of their keys, screens and programs are there", _OWN)
_USER_LOGINS = Handed("a user's logins", "keys and passwords for other machines are there", _OWN)
_ROOTS_HOME = Handed("root's home", "its keys, its shell's files and its history are there", _OWN)
_HOME = Handed("a user's home", "the keys that log in and the files that the shell runs are there", _OWN)

# Ways by which Debian's own links lead elsewhere.
_ALIASES = {
    "/var/run": "/run", "/var/lock": "/run/lock", "/bin": "/usr/bin", "/sbin": "/usr/sbin", "/lib": "/usr/lib",
    "/lib32": "/usr/lib32", "/lib64": "/usr/lib64", "/libx32": "/usr/libx32",
}  # fmt: skip
# What answers commands, wherever it lies: rootless engines keep theirs in a home.
_SOCKET_NAMES = frozenset({
    "docker.sock", "docker.proxy.sock", "docker.raw.sock", "dockershim.sock", "podman.sock", "containerd.sock",
    "crio.sock", "buildkitd.sock", "cri-dockerd.sock", "balena.sock", "balena-engine.sock", "libvirt-sock",
    "snapd.socket", "fail2ban.sock", "supervisor.sock", "supervisord.sock",
})  # fmt: skip
# A service's volumes are compared with these; nothing is ever written there, which is what S108 is about.
_HARMLESS = ("/dev/log", "/dev/net/tun", "/dev/shm", "/run/systemd/journal/dev-log")  # noqa: S108
# Not even to be read, as passwords stand there or they say what root runs; the rest of /etc can be read.
_ETC = (
    "apparmor", "apparmor.d", "apt", "bash.bashrc", "containerd", "containers", "cron.d", "cron.daily", "cron.hourly",
    "cron.monthly", "cron.weekly", "crontab", "dbus-1", "default", "docker", "environment", "environment.d", "fstab",
    "init.d", "initramfs-tools", "iptables", "kernel", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload",
    "logrotate.conf", "logrotate.d", "modprobe.d", "modules", "modules-load.d", "netplan", "network", "nftables.conf",
    "polkit-1", "profile", "profile.d", "rc.local", "security", "sysctl.conf", "sysctl.d", "systemd", "tmpfiles.d",
    "udev", "ufw",
)  # fmt: skip
_ETC_LOGINS = (
    "NetworkManager", "ansible", "chatscripts", "cloud", "credentials", "cryptsetup-keys.d", "crypttab", "davfs2",
    "group-", "grub.d", "gshadow", "gshadow-", "ipsec.conf", "ipsec.d", "ipsec.secrets", "iwd", "krb5.keytab",
    "kubernetes", "letsencrypt", "libvirt", "luks", "msmtprc", "mysql/debian.cnf", "opasswd", "openvpn", "pam.conf",
    "pam.d", "passwd-", "postfix/sasl_passwd", "ppp", "pve", "rancher", "restic", "shadow", "shadow-", "smbcredentials",
    "ssh", "ssl/private", "sudo.conf", "sudoers", "sudoers.d", "swanctl", "tinc", "wireguard", "wpa_supplicant", "zfs",
)  # fmt: skip
_RUN = (
    "balena", "balena-engine.sock", "balena.sock", "buildkit", "containerd", "cri-dockerd.sock", "crio", "crun", "dbus",
    "docker", "docker.sock", "dockershim.sock", "fail2ban", "guest-services", "host-services", "incus", "initctl",
    "k0s", "k3s", "libpod", "libvirt", "lxd", "podman", "polkit", "runc", "screen", "snapd-snap.socket", "snapd.socket",
    "sshd", "sudo", "supervisor", "supervisor.sock", "supervisord.sock", "systemd", "tmux", "user",
)  # fmt: skip
# What programs on the host and in containers meet by: the host's databases, its printers, its names in the network.
_RUN_SHARED = ("/run/avahi-daemon", "/run/cups", "/run/mysqld", "/run/postgresql", "/run/redis")
# What the host can lose or give away beyond /etc and /run: what root runs, keeps its secrets or its memory in.
_VAR_STARTED = (
    "/var/backups", "/var/cache/apt", "/var/cache/debconf", "/var/lib/apt", "/var/lib/cloud", "/var/lib/dkms",
    "/var/lib/dpkg", "/var/lib/flatpak", "/var/lib/initramfs-tools", "/var/lib/libvirt", "/var/lib/lxc",
    "/var/lib/machines", "/var/lib/pam", "/var/lib/polkit-1", "/var/lib/portables", "/var/lib/snapd",
    "/var/lib/sudo", "/var/lib/systemd", "/var/lib/vz", "/var/spool/anacron", "/var/spool/at", "/var/spool/cron",
    "/var/spool/incron",
)  # fmt: skip
_VAR_LOGINS = (
    "/var/lib/AccountsService", "/var/lib/NetworkManager", "/var/lib/iwd", "/var/lib/samba/private", "/var/lib/sss",
    "/var/lib/tailscale",
)  # fmt: skip
_SWAP = ("/swapfile", "/swap.img", "/swap", "/var/swap")
# With everything below them.
_PLACES: tuple[tuple[str, Handed], ...] = (
    *((f"/run/{name}", _SOCKET) for name in _RUN),
    *((path, _SOCKET) for path in ("/var/lib/lxd", "/var/lib/incus", "/var/snap/lxd", "/var/snap/docker")),
    *((path, _KERNEL) for path in ("/proc", "/sys", "/dev")),
    *((path, _ENGINE) for path in (
        "/etc/ringfence", "/opt/containerd", "/opt/ringfence", "/run/ringfence", "/var/lib/containerd",
        "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet", "/var/lib/rancher", "/var/lib/ringfence",
    )),
    *((f"/etc/{name}", _LOGINS) for name in _ETC_LOGINS),
    *((path, _LOGINS) for path in _VAR_LOGINS),
    *((f"/etc/{name}", _STARTED) for name in _ETC),
    *((path, _STARTED) for path in ("/boot", "/efi", "/initrd.img", "/vmlinuz", *_VAR_STARTED)),
    *((path, _SWAPPED) for path in _SWAP),
    ("/root", _ROOTS_HOME),
)  # fmt: skip
# These, but not what is below them.
_WHOLE = ("/", "/etc", "/home", "/opt", "/run", "/usr", "/var", "/var/cache", "/var/lib", "/var/spool")
# Where every user has sockets, with those that programs are known to make.
_SHARED_TEMPORARY = re.compile(
    r"/(var/)?tmp(/(ssh-|tmux-|screens?\b|uscreens\b|dbus-|systemd-private-|\.X11-unix|\.ICE-unix|\.X[0-9]+-lock).*)?",
    re.S,
)
# What a container may read, but not write.
_READ_ONLY = ("/etc", "/run/log", "/run/udev", "/run/utmp", "/usr")
_HOME_LOGINS = (".ssh", ".gnupg")  # wherever they are: no other directory has these names
_HOME_STARTED = (
    ".bash_aliases", ".bash_login", ".bash_logout", ".bash_profile", ".bashrc", ".cargo/bin", ".config/autostart",
    ".config/environment.d", ".config/fish", ".config/systemd", ".cshrc", ".docker/cli-plugins", ".docker/desktop",
    ".docker/run", ".forward", ".gitconfig", ".config/git", ".kshrc", ".local/bin", ".local/share/containers",
    ".local/share/docker", ".local/share/systemd", ".login", ".pam_environment", ".procmailrc", ".profile", ".rhosts",
    ".shosts", ".tcshrc", ".tmux.conf", ".vimrc", ".xinitrc", ".xprofile", ".xsession", ".xsessionrc", ".zlogin",
    ".zlogout", ".zprofile", ".zshenv", ".zshrc", "bin",
)  # fmt: skip
_HOME_SECRETS = (
    ".aws", ".azure", ".bash_history", ".config/gcloud", ".config/gh", ".config/rclone", ".config/restic",
    ".docker/config.json", ".git-credentials", ".kube", ".local/share/keyrings", ".my.cnf", ".netrc", ".password-store",
    ".pgpass", ".pypirc", ".npmrc", ".vault-token", ".zsh_history",
)  # fmt: skip
_VOLUMES = "/var/lib/docker/volumes"
# Where engines mount what others have, for a container: that is no second name of theirs.
_IN_PASSING = r"/volumes/[^/]+/_data|/overlay2/[^/]+/merged|/containers/[^/]+/mounts/.*"
# File systems through which the kernel itself speaks, wherever they are mounted.
_KERNEL_KINDS = frozenset({
    "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "nsfs", "proc", "pstore", "securityfs",
    "sysfs", "tracefs",
})  # fmt: skip


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
        return Handed("what belongs to the host", f"{_inside(real)} is in it", _PART if real == "/run" else _OWN)
    if _SHARED_TEMPORARY.fullmatch(real):
        return _SESSIONS
    if found := _of_a_home(real, homes):
        return found
    if _below(real, _READ_ONLY):
        if read_only:
            return None
        return Handed(
            "a file or program of the host",
            "the container could write it",
            "add :ro where reading is enough, or " + _OWN,
        )
    # Locks of the serial ports are below the first.
    return _SERVICES if real.startswith("/run/") and not _below(real, ("/run/lock", *_RUN_SHARED)) else None


def is_socket(path: str) -> bool:
    """Whether a path is a socket by which programs are started as root, or the directory of them all: reading it is
    enough to speak to them. Whoever has one is past every fence, so nobody confirms it: `docker_socket` gives Docker's
    to a proxy that filters it."""
    return handed_over(path, True) == _SOCKET or plain(path) == "/run"


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
        for names, handed in ((_HOME_STARTED, _USER_STARTED), (_HOME_SECRETS, _USER_LOGINS)):
            own = tuple(f"{home}/{name}" for name in names)
            if _below(real, own) or any(_below(one, (real,)) for one in own):
                return handed
    return None


def _inside(real: str) -> str:
    """Name one thing that a place contains: the worst first."""
    named = ("/run/docker.sock", "/etc/shadow", "/root", "/var/lib/docker", "/proc", "/usr/bin", "/var/spool/cron")
    inside = [place for place in (*named, *(place for place, _ in _PLACES)) if _below(place, (real,))]
    return inside[0] if inside else "what people log in with" if real == "/home" else "much of it"


def _below(path: str, above: Iterable[str]) -> bool:
    return any(path == one or path.startswith(one.rstrip("/") + "/") for one in above)


# -- what only the host can tell


class Led(NamedTuple):
    """What a path of this host leads to.

    Attributes:
        end: by its own name.
        handed: what that hands over.
        inner: what is mounted below the path, where it is by that.
    """

    end: str
    handed: Handed
    inner: str = ""

    def __str__(self) -> str:
        return f"{self.end}{f' (mounted at {self.inner})' if self.inner else ''}, which {self.handed}"

    @property
    def confirmable(self) -> bool:
        """Whether `allow_host` confirms it."""
        return self.handed != _SOCKET and not is_socket(self.end)


def leading(mounts: Mapping[str, bool], engines: Iterable[str] = (), table: MountTable | None = None) -> dict[str, Led]:
    """Return the paths that lead where no mount may: by links, by being the same file, or by what is mounted in them.

    Args:
        mounts: path on this host → whether it is mounted read-only everywhere.
        engines: directories of engines, where they are not the usual ones.
        table: the mounts of this host, where they have been read.

    Raises:
        Fault: what is mounted on this host is not known.
    """
    if not mounts:
        return {}
    host = _host_of(engines, table)
    found = {}
    for source, read_only in mounts.items():
        same = [(host.same[one], read_only, "") for one in _identity(source) if one in host.same]
        if led := host.led([*_ends(os.path.realpath(source), read_only, host), *same]):
            found[source] = led
    return found


def led_below(path: str, engines: Iterable[str] = (), table: MountTable | None = None) -> Led | None:
    """Return what is mounted below a directory that is a container's already, as a volume's, and leads where no mount
    may; None where there is nothing.

    Raises:
        Fault: what is mounted on this host is not known.
    """
    host = _host_of(engines, table)
    return host.led(one for one in _ends(os.path.realpath(path), False, host) if one[2])


class _Host(NamedTuple):
    """What this host has.

    Attributes:
        table: what is mounted where.
        homes: directories of people.
        engines: directories of engines beside the usual ones.
        same: file → the place whose that is: a hard link has another name.
        linked: where each place ends that is a link, or lies behind one, and the place.
    """

    table: MountTable
    homes: list[str]
    engines: list[str]
    same: dict[tuple[int, int], str]
    linked: list[tuple[str, str]]

    def led(self, ends: Iterable[tuple[str, bool, str]]) -> Led | None:
        """Return what the worst of a path's names leads to: what nobody confirms, and then the first."""
        found = [
            Led(end, handed, inner)
            for end, only_read, inner in ends
            if (handed := handed_over(end, only_read, self.homes, self.engines) or _of_the_kernel(end, self.table))
        ]
        return min(found, key=lambda one: one.confirmable, default=None)


def _host_of(engines: Iterable[str], table: MountTable | None) -> _Host:
    engines, homes = list(engines), people()
    places = (*_WHOLE, *_READ_ONLY, *(place for place, _ in _PLACES), *engines, *homes)
    return _Host(
        table or host_mounts(engines), homes, engines,
        {identity: place for place in places for identity in _identity(place)},
        [(end, place) for place in places if (end := os.path.realpath(place)) != plain(place)],
    )  # fmt: skip


def host_mounts(engines: Iterable[str] = ()) -> MountTable:
    """Read what is mounted on this host, leaving aside what engines mount for containers.

    Raises:
        Fault: it cannot be read.
    """
    roots = "|".join(re.escape(plain(root)) for root in ("/var/lib/docker", *engines))
    return mount_table(passed_over=re.compile(f"(?:{roots})(?:{_IN_PASSING})|/var/lib/kubelet/pods/.*", re.S))


def _ends(real: str, read_only: bool, host: _Host) -> Iterator[tuple[str, bool, str]]:
    """Yield by which other names the host has a path or a part of it, whether it is read there, and by which mount.

    Names below the path are left out, as what it contains is told by its own. Read-only is but the path itself: before
    Docker 25 what is mounted below it can be written.
    """
    yield real, read_only, ""
    table = host.table
    below = table.mounts_below(real) if real != "/" else []
    for start, only_read in ((real, read_only), *((inner, False) for inner in below)):
        inner = "" if start == real else start
        names = sorted(table.names(start) | ({start} if inner else set()))
        for name in (*names, *_by_links(names, host.linked)):
            if (within(name, real) is None or (name == inner and _of_the_kernel(name, table))) and name != real:
                yield name, only_read, inner


def _by_links(names: Iterable[str], linked: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the names of places that are links of the host, as /var/lib/docker is where its data were moved."""
    for name in names:
        for end, place in linked:
            if (rest := within(name, end)) is not None:
                yield joined(place, rest)
            elif within(end, name) is not None:
                yield place


def _of_the_kernel(path: str, table: MountTable) -> Handed | None:
    return _KERNEL if not _below(path, _HARMLESS) and table.carrying(path).kind in _KERNEL_KINDS else None


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
