"""What a text must be so that it arrives as it is: in a file, in an environment, as a path, as a name.

Each function answers why a text cannot be used and what to do about it, "" where it can.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LONGEST_NAME = 255  # bytes of one component of a path, on every file system that Linux hosts use
LONGEST_PATH = 4095  # bytes of a whole path, without the NUL at its end

_VARIABLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]*")
# What programs that show a container its own share put over the kernel's files (lxcfs); nothing else is mounted there.
_OVER_PROC = re.compile(r"/proc/(cpuinfo|diskstats|loadavg|meminfo|slabinfo|stat|swaps|uptime)")
_USER = re.compile(r"[^\s:]*(:[^\s:]+)?")
_AMOUNT = re.compile(r"[0-9]+[kmgt]?|[0-9]+%", re.IGNORECASE)
_MODE, _ID = re.compile(r"[0-7]{3,4}"), re.compile(r"[0-9]{1,10}")
# What a directory in memory can be told: settings with their form, and words.
_IN_MEMORY = {
    "size": _AMOUNT, "nr_inodes": _AMOUNT, "nr_blocks": _AMOUNT, "mode": _MODE, "uid": _ID, "gid": _ID,
}  # fmt: skip
_IN_MEMORY_WORDS = frozenset({
    "", "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "atime",
    "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime", "mand", "nomand",
})  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")


def text_fault(text: str) -> str:
    """Say why a text cannot be given to a program or written to a file."""
    if "\0" in text:
        return "holds a NUL character, which no program can be given (remove it)"
    if found := _SURROGATE.search(text):
        return f"holds U+{ord(found[0]):04X}, half of a character (write the character itself)"
    return ""


def variable_fault(name: str) -> str:
    """Say why a name is none of an environment variable: more than shells know, as programs do read xpack.enabled."""
    if _VARIABLE.fullmatch(name):
        return ""
    return (
        "is not the name of an environment variable (write letters, digits, '_', '.', ':', '/' and '-', one of the "
        "first three first; a setting with another name goes into a file of the program)"
    )


def target_fault(path: str, before: int = 0) -> str:
    """Say why nothing can be mounted at a path in a container.

    Args:
        before: bytes that stand before the path where it is kept on the host.
    """
    if not path.startswith("/"):
        return "is not an absolute path (start it with '/')"
    if ".." in path.split("/"):
        return "climbs with '..' (write the path that it leads to)"
    if not path.strip("/"):
        return "is the whole file system (name a path below it)"
    if f"{place_of(path)}/".startswith("/proc/") and not _OVER_PROC.fullmatch(place_of(path)):
        return f"is the kernel's in every container (choose another place, such as /host{place_of(path)})"
    return _length_fault(path, before) or text_fault(path)


def device_place_fault(path: str, source: str = "") -> str:
    """Say why something cannot be mounted in the place of a container's devices, which it does not start without."""
    if place_of(path) != "/dev" or place_of(source) == "/dev":
        return ""
    return "is where its devices are, without which it does not start (name a place below it, such as /dev/shm)"


def memory_fault(entry: str, before: int = 0) -> str:
    """Say why a directory in memory, ``/cache:size=64m``, cannot be made.

    Args:
        before: bytes that stand before the path where it is kept on the host.
    """
    path, _, options = entry.partition(":")
    if fault := target_fault(path, before) or device_place_fault(path):
        return fault
    for option in options.split(","):
        name, equals, value = option.partition("=")
        form = _IN_MEMORY.get(name)
        if not (form.fullmatch(value) if form else not equals and option in _IN_MEMORY_WORDS):
            return f"has the option {option!r}, which no directory in memory has in this form ({_MEMORY_FIX})"
    return ""


_MEMORY_FIX = "write size=64m, mode=1777, uid=1000, gid=1000, nr_inodes=1k, or words such as noexec"


def user_fault(user: str) -> str:
    """Say why a text is no user of a container, "" where it is one, or none is said."""
    return (
        ""
        if _USER.fullmatch(user)
        else "is no user (write a number or a name of the image, with a group behind a colon: 1000:1000)"
    )


def file_target_fault(path: str, before: int = 0) -> str:
    """Say why no file and no directory of ours can stand at a path in a container."""
    if fault := target_fault(path, before):
        return fault
    plain = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    return "" if path == plain else f"can be written more simply (did you mean '{plain}'?)"


def relative_fault(path: str, before: int = 0) -> str:
    """Say why a path cannot be that of a file below a directory of ours."""
    parts = path.split("/")
    if ".." in parts:
        return "climbs with '..' (write the path below its directory)"
    if any(part in ("", ".") for part in parts):
        return "is not a path below its directory (write it as Caddyfile or sites/cloud.caddy)"
    if parts[0].startswith(".."):
        return "starts with '..', which the directory needs for itself (rename it)"
    return _length_fault(path, before) or text_fault(path)


def _length_fault(path: str, before: int) -> str:
    # Lone surrogates are told of by `text_fault`.
    if any(len(part.encode(errors="replace")) > LONGEST_NAME for part in path.split("/")):
        return f"has a name of more than {LONGEST_NAME} bytes (shorten it)"
    if before + len(path.encode(errors="replace")) > LONGEST_PATH:
        return f"is longer than the {LONGEST_PATH - before} bytes that are left for it (shorten it)"
    return ""


def place_of(path: str) -> str:
    """Return the place that a path in a container stands for: "/data//", "/data/." and "/data" are one."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def nested(paths: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of paths of which the second lies below the first: none of both can be a file."""
    known = sorted(set(paths))
    return [(above, below) for above in known for below in known if below.startswith(f"{above}/")]
