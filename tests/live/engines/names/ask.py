"""Sent to a host and run there: questions for names to Docker's resolver, each from a container's network namespace.

Argument: JSON, `{container: [name, …]}`. Every name is asked for by UDP and by TCP, as different kinds of records.
Prints JSON, `{container: [asked, resolved, seconds until the last answer]}`.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import time

SECONDS = 3.0  # within these an answer comes, or none; an engine asks at once
KINDS = (1, 28, 16, 15)  # A, AAAA, TXT, MX; names of addresses an engine answers itself
RESOLVER = ("127.0.0.11", 53)


def question(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return os.urandom(2) + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + struct.pack(">HH", kind, 1)


def ask(names: list[str]) -> list[float]:
    """Ask from the namespace that this process is in."""
    chooser, resolved, last, begun = selectors.DefaultSelector(), 0, 0.0, time.monotonic()
    for number, name in enumerate(names):
        asked = question(name, KINDS[number % len(KINDS)])
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(socket.AF_INET, kind)
            sock.connect(RESOLVER)
            sock.sendall(asked if kind == socket.SOCK_DGRAM else len(asked).to_bytes(2, "big") + asked)
            chooser.register(sock, selectors.EVENT_READ, 0 if kind == socket.SOCK_DGRAM else 2)
    while (left := begun + SECONDS - time.monotonic()) > 0 and chooser.get_map():
        for key, _ in chooser.select(left):
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            try:
                said = sock.recv(2048)
                if key.data and len(said) == 2:  # the length in a segment of its own
                    said += sock.recv(2048)
            except OSError:
                said = b""
            said = said[key.data :]
            resolved += len(said) > 12 and said[3] & 15 == 0 and said[6:8] != b"\0\0"
            last = time.monotonic() - begun
            chooser.unregister(sock)
            sock.close()
    return [2 * len(names), resolved, last]


def main(wanted: dict[str, list[str]]) -> None:
    libc, found = ctypes.CDLL(None, use_errno=True), {}
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    for container, names in wanted.items():
        inspect = ["docker", "inspect", "-f", "{{.State.Pid}}", container]
        pid = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
        space = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        if libc.setns(space, 0x40000000):
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace of {container}")
        found[container] = ask(names)
        libc.setns(home, 0x40000000)
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
