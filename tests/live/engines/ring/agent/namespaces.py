"""Into a container's network namespace and back, without asking Docker: it must work while Docker is down."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Collection
from pathlib import Path

MOUNTED = Path("/run/docker/netns")  # Docker mounts every sandbox's namespace here before it starts the container
HOME = os.open("/proc/self/ns/net", os.O_RDONLY)
CLONE_NEWNET = 0x40000000
SIOCGIFADDR = 0x8915
_LIBC = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int) -> None:
    """Make an open namespace this thread's own. Raises OSError.

    Some hosts' Python is older than os.setns.
    """
    if _LIBC.setns(namespace, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def addresses() -> set[str]:
    """The IPv4 addresses of this thread's namespace."""
    found = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asked, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                    raise
            else:
                found.add(socket.inet_ntoa(answer[20:24]))
    return found


def find(wanted: Collection[str]) -> bool:
    """Enter the namespace that has one of the IPv4 addresses; whether there is one. If not, nothing has moved."""
    try:
        paths = sorted(MOUNTED.iterdir())
    except OSError:
        return False
    for path in paths:
        try:
            namespace = os.open(path, os.O_RDONLY)
        except OSError:  # gone meanwhile
            continue
        try:
            enter(namespace)
            if has(wanted):
                return True
        except OSError:  # being made or being removed: no container's now
            pass
        finally:
            os.close(namespace)
        enter(HOME)
    return False


def has(wanted: Collection[str]) -> bool:
    """Whether this thread's namespace has one of the addresses.

    A container that ended loses its interfaces. That Docker unmounts its namespace says nothing: a Docker that starts
    does so with containers that run on.
    """
    return not addresses().isdisjoint(wanted)
