"""What a container can be given without being given the host: capabilities, and paths of the host.

Each function answers why something cannot be given and what to do about it, "" where it can.
"""

from __future__ import annotations

import difflib
import posixpath

# Every capability of capabilities(7); those with a reason reach beyond the container.
CAPABILITIES = {
    "AUDIT_CONTROL": "would switch off the host's audit log",
    "AUDIT_READ": "would read the host's audit log",
    "AUDIT_WRITE": "",
    "BLOCK_SUSPEND": "",
    "BPF": "would load programs into the host's kernel",
    "CHECKPOINT_RESTORE": "would take over processes and their memory by checkpoints",
    "CHOWN": "",
    "DAC_OVERRIDE": "",
    "DAC_READ_SEARCH": "would read every file of the host by its handle",
    "FOWNER": "",
    "FSETID": "",
    "IPC_LOCK": "",
    "IPC_OWNER": "",
    "KILL": "",
    "LEASE": "",
    "LINUX_IMMUTABLE": "",
    "MAC_ADMIN": "would change the host's AppArmor, SELinux or Smack policy",
    "MAC_OVERRIDE": "would pass the host's AppArmor, SELinux or Smack policy",
    "MKNOD": "",
    "NET_ADMIN": "",
    "NET_BIND_SERVICE": "",
    "NET_BROADCAST": "",
    "NET_RAW": "",
    "PERFMON": "would watch the host's kernel and all of its processes",
    "SETFCAP": "",
    "SETGID": "",
    "SETPCAP": "",
    "SETUID": "",
    "SYSLOG": "would read the host's kernel log and the kernel's addresses",
    "SYS_ADMIN": "would hand the host to the container",
    "SYS_BOOT": "would start another kernel on the host",
    "SYS_CHROOT": "",
    "SYS_MODULE": "would load modules into the host's kernel",
    "SYS_NICE": "",
    "SYS_PACCT": "",
    "SYS_PTRACE": "would take over what Docker starts in it, at health checks and docker exec, with its open files",
    "SYS_RAWIO": "would read and write the host's memory and devices",
    "SYS_RESOURCE": "",
    "SYS_TIME": "",
    "SYS_TTY_CONFIG": "",
    "WAKE_ALARM": "",
}
# With these, frames with any address leave the container.
FORGING = frozenset({"NET_ADMIN", "NET_RAW"})

_WHOLE = ("/", "/etc", "/run", "/root", "/boot", "/usr", "/var", "/var/lib")
# With everything below them; `/var/run` is `/run`.
_SOCKETS = (
    "/run/docker", "/run/docker.sock", "/run/containerd", "/run/podman", "/run/crio", "/run/libvirt", "/run/dbus",
    "/run/systemd",
)  # fmt: skip
_KERNEL = ("/proc", "/sys", "/dev")
_HARMLESS = ("/dev/log", "/dev/net/tun", "/dev/shm")  # noqa: S108 - shared memory, not a file of ours
_ENGINE = ("/var/lib/docker", "/var/lib/containerd", "/opt/ringfence", "/etc/ringfence", "/var/lib/ringfence")


def capability_fault(name: str) -> str:
    """Say why a capability cannot be given to a container."""
    if name == "ALL":
        return "would hand the host to the container (name the capabilities that it needs)"
    bare = name.upper().removeprefix("CAP_")
    if reason := CAPABILITIES.get(bare):
        return f"{reason} (remove it, or name the capabilities that it needs in its place)"
    if name in CAPABILITIES:
        return ""
    near = [bare] if bare in CAPABILITIES else difflib.get_close_matches(bare, CAPABILITIES, n=1, cutoff=0.6)
    fix = f"write it as {near[0] if near else 'NET_BIND_SERVICE'}: capitals, without CAP_"
    return f"is not a capability ({fix})"


def source_fault(path: str) -> str:
    """Say why a path of the host cannot be mounted in a container."""
    plain = posixpath.normpath(path).replace("//", "/")
    plain = plain.removeprefix("/var") if _below(plain, ("/var/run",)) else plain
    if _below(plain, _SOCKETS):
        return "hands the whole host to the container (remove it)"
    if _below(plain, _KERNEL) and not _below(plain, _HARMLESS):
        return "is the host's kernel and its devices (remove it)"
    if _below(plain, _ENGINE):
        return "holds the data and secrets of all containers (mount a directory made for it, such as /srv/app)"
    if plain in _WHOLE or any(_below(one, (plain,)) for one in (*_SOCKETS, *_KERNEL, *_ENGINE)):
        return "belongs to the host (mount a directory made for it, such as /srv/app)"
    return ""


def _below(path: str, above: tuple[str, ...]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in above)
