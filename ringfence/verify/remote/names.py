"""Which questions for names leave the host, asked by Docker's resolver for containers.

Every container asks for a name that exists nowhere and holds the run's token. Whatever the engine makes of it is seen
where it leaves the host: on the way out by any interface, loopback included.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import selectors
import socket
import struct
import time

from ringfence.verify.remote.commands import Json, ProbeFailedError
from ringfence.verify.remote.listening import SO_RCVBUFFORCE
from ringfence.verify.remote.spaces import inside, open_space

EMBEDDED = ("127.0.0.11", 53)  # Docker's resolver, in every container's namespace
EVERYTHING = 0x0003  # ETH_P_ALL
OUTGOING = 4  # PACKET_OUTGOING


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


def asking(source: Json) -> socket.socket:
    """A socket in a container's namespace. Raises ProbeFailedError where it is not the one that was seen, OSError."""
    space = open_space(source["pid"], source["space"])
    try:
        with inside(space):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    finally:
        os.close(space)
    made.setblocking(False)
    return made


def ask(wanted: Json) -> Json:
    """Ask for every source: `token`, `sources` [{pid, space}], `seconds`.

    Returns:
        `left` {number: [[interface, server], …]}, `answered` [number], `errors` {number: why}.
    """
    token = wanted["token"]
    mark = re.compile(rb"n(\d+)" + bytes([len(token)]) + re.escape(token.encode()))
    left: dict[int, set[tuple[str, str]]] = {}
    answered, errors = set[int](), dict[int, str]()
    chooser = selectors.DefaultSelector()
    try:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERYTHING))
    except OSError as error:
        raise ProbeFailedError(f"what leaves the host cannot be seen: {error.strerror}") from error
    with wire:
        wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        wire.setblocking(False)
        chooser.register(wire, selectors.EVENT_READ)
        for number, source in enumerate(wanted["sources"]):
            try:
                sock = asking(source)
                sock.connect(EMBEDDED)
                sock.send(question(number, token))
                chooser.register(sock, selectors.EVENT_READ, number)
            except ProbeFailedError as failure:
                errors[number] = str(failure)
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
