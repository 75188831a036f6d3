"""Sent to a host and run there: which questions for names leave the host, asked by Docker's resolver for containers.

Verb `ask`, with a JSON object on stdin and one on stdout. Every container asks for a name that exists nowhere and holds
the run's token. Whatever the engine makes of it is seen where it leaves the host: on the way out by any interface,
loopback included. Nothing on the host is changed. Python 3.11 of the distribution, no dependencies.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import os
import re
import resource
import selectors
import socket
import struct
import sys
import time
from typing import Any

Json = dict[str, Any]
EMBEDDED = ("127.0.0.11", 53)  # Docker's resolver, in every container's namespace
CLONE_NEWNET = 0x40000000
SO_RCVBUFFORCE = 33
EVERYTHING = 0x0003  # ETH_P_ALL
OUTGOING = 4  # PACKET_OUTGOING
LIBC = ctypes.CDLL(None, use_errno=True)


def question(number: int, token: str) -> bytes:
    """A DNS message that asks for the address of `n<number>.<token>.invalid`."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in (f"n{number}", token, "invalid"))
    return os.urandom(2) + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + struct.pack(">HH", 1, 1)


def asked_of(packet: bytes, mark: re.Pattern[bytes]) -> tuple[int, str] | None:
    """(number of the question, address of the server) of an IP packet to port 53; None of any other."""
    found = mark.search(packet)
    if not found:
        return None
    six = packet[0] >> 4 == 6
    head = 40 if six else 4 * (packet[0] & 15)
    if packet[6 if six else 9] not in (6, 17) or packet[head + 2 : head + 4] != b"\0\x35":
        return None
    return int(found[1]), str(ipaddress.ip_address(packet[24:40] if six else packet[16:20]))


def asking(source: Json, home: int) -> socket.socket:
    """A socket in a container's namespace, if it is still the one that was seen; raises OSError."""
    space = os.open(f"/proc/{source['pid']}/ns/net", os.O_RDONLY)
    try:
        if os.fstat(space).st_ino != source["space"]:
            raise OSError("the container was restarted meanwhile")
        if LIBC.setns(space, CLONE_NEWNET):
            raise OSError(f"cannot enter its network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            LIBC.setns(home, CLONE_NEWNET)
    finally:
        os.close(space)
    made.setblocking(False)
    return made


def ask(wanted: Json) -> Json:
    """Ask for every source: `token`, `sources` [{pid, space}], `seconds`.

    Returns:
        `left` {number: [[interface, server], …]}, `answered` [number], `errors` {number: why}.
    """
    token, home = wanted["token"], os.open("/proc/self/ns/net", os.O_RDONLY)
    mark = re.compile(rb"n(\d+)" + bytes([len(token)]) + re.escape(token.encode()))
    left: dict[int, set[tuple[str, str]]] = {}
    answered, errors = set[int](), dict[int, str]()
    chooser = selectors.DefaultSelector()
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERYTHING)) as wire:
        wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        wire.setblocking(False)
        chooser.register(wire, selectors.EVENT_READ)
        for number, source in enumerate(wanted["sources"]):
            try:
                sock = asking(source, home)
                sock.connect(EMBEDDED)
                sock.send(question(number, token))
                chooser.register(sock, selectors.EVENT_READ, number)
            except OSError as error:
                errors[number] = error.strerror or str(error)
        end = time.monotonic() + wanted["seconds"]
        waiting = len(chooser.get_map()) - 1
        # Without any answer (Docker 20.10 gives none where nobody answers it) the whole time is waited out.
        while (rest := end - time.monotonic()) > 0:
            for key, _ in chooser.select(rest if waiting else 0.2):
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            packet, (device, _, kind, *_) = wire.recvfrom(2048)
                            # A frame into a container is out again on its bridge's port.
                            seen = asked_of(packet, mark) if kind == OUTGOING and len(packet) > 40 else None
                            if seen and not device.startswith("veth"):
                                left.setdefault(seen[0], set()).add((device, seen[1]))
                    continue
                with contextlib.suppress(OSError):
                    said = key.fileobj.recv(2048)  # type: ignore[union-attr]
                    if len(said) > 3 and said[3] & 15 in (0, 3):  # an answer, or that there is no such name
                        answered.add(key.data)
                chooser.unregister(key.fileobj)
                waiting -= 1
            if not waiting:
                end = min(end, time.monotonic() + 0.2)
    return {
        "left": {number: sorted(map(list, seen)) for number, seen in left.items()},
        "answered": sorted(answered),
        "errors": errors,
    }


def main(argv: list[str], wanted: Json | None) -> int:
    if argv != ["ask"]:
        print("usage: remote_names.py ask < request.json", file=sys.stderr)
        return 2
    # Every container has several sockets, and there may be hundreds.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        print(json.dumps(ask(json.load(sys.stdin) if wanted is None else wanted)))
    except OSError as error:
        print(f"names could not be asked for: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ in ("__main__", "ringfence"):
    request = globals().get("REQUEST")  # as ringfence sends it; by hand it reads standard input
    sys.exit(main(request["arguments"] if request else sys.argv[1:], request["desired"] if request else None))
