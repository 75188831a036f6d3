"""What arrives on a host and in its containers, seen behind the filters."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import selectors
import socket
import struct
import time
from collections.abc import Callable
from functools import partial

from ringfence.verify.remote.commands import Json, ProbeFailedError
from ringfence.verify.remote.outcomes import ECHO_REQUEST, ECHO_REQUEST6
from ringfence.verify.remote.spaces import inside

SO_RCVBUFFORCE = 33  # Python has no name for it: a larger buffer than the system allows by default
SO_ATTACH_FILTER = 26
SOL_RAW = 255
PROTOS = {
    socket.AF_INET: (socket.IPPROTO_UDP, socket.IPPROTO_TCP, socket.IPPROTO_ICMP),
    socket.AF_INET6: (socket.IPPROTO_UDP, socket.IPPROTO_TCP, socket.IPPROTO_ICMPV6),
}
GROUPS = {socket.AF_INET: ("224.0.0.251", "239.255.255.250"), socket.AF_INET6: ("ff02::fb", "ff02::c")}


def ears(space: int | None, *, groups: bool = False) -> list[socket.socket]:
    """Raw sockets that see a namespace's datagrams, first segments of connections and requests for an echo.

    Raw, not packet, sockets: they are served after the INPUT chain. What a host's firewall drops never shows here,
    although it came in by the wire; and no application has to answer. With `groups` the namespace becomes a member of
    the groups that hosts listen to, by every interface: without one nothing that is sent to them would be seen.
    """
    made = []
    with inside(space):
        for family, protos in PROTOS.items():
            for proto in protos:
                try:
                    ear = socket.socket(family, socket.SOCK_RAW, proto)
                except OSError as error:
                    if error.errno != errno.EAFNOSUPPORT:  # no IPv6: nothing can arrive by it
                        raise ProbeFailedError(f"cannot listen: {error.strerror}") from error
                    continue
                made.append(ear)
                narrow(ear)
        made += members() if groups else []
    for ear in made:
        ear.setblocking(False)
        with contextlib.suppress(OSError):
            ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
    return made


def narrow(ear: socket.socket) -> None:
    """Let a raw socket see requests for an echo only, or SYN only: the rest is others' business, and plenty."""
    if ear.proto == socket.IPPROTO_ICMP:
        ear.setsockopt(SOL_RAW, 1, struct.pack("I", 0xFFFFFFFF & ~(1 << ECHO_REQUEST)))
    elif ear.proto == socket.IPPROTO_ICMPV6:
        words = [0xFFFFFFFF & ~(1 << ECHO_REQUEST6 % 32 if n == ECHO_REQUEST6 // 32 else 0) for n in range(8)]
        ear.setsockopt(socket.IPPROTO_ICMPV6, 1, struct.pack("8I", *words))
    elif ear.proto == socket.IPPROTO_TCP:
        # Classic BPF. IPv4 is handed over with its header, IPv6 without: X is where TCP begins.
        start = (0xB1, 0, 0, 0) if ear.family == socket.AF_INET else (0x01, 0, 0, 0)  # X = header length, or 0
        program = [start, (0x50, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]
        code = b"".join(struct.pack("HBBI", *line) for line in program)
        kept = ctypes.create_string_buffer(code)
        ear.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(kept)))


def members() -> list[socket.socket]:
    """Sockets by which every interface of this namespace is a member of the groups that hosts listen to."""
    made = []
    for number, _ in socket.if_nameindex():  # one for each: a socket may join only so many times
        for family, groups in GROUPS.items():
            member = socket.socket(family, socket.SOCK_DGRAM)
            made.append(member)
            with contextlib.suppress(OSError):  # it has no multicast
                for group in groups:
                    packed = socket.inet_pton(family, group)
                    if family == socket.AF_INET:
                        wanted = packed + bytes(4) + struct.pack("i", number)
                        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, wanted)
                    else:
                        wanted = packed + struct.pack("i", number)
                        member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, wanted)
    return made


def doors(address: str, ports: list[int]) -> tuple[list[socket.socket], list[str]]:
    """TCP listeners on one of the host's addresses; a port that is taken already answers by itself."""
    made, complaints = [], []
    for port in ports:
        door = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((address, port))
            door.listen(512)
            door.setblocking(False)
            made.append(door)
        except OSError as error:
            door.close()
            if error.errno != errno.EADDRINUSE:
                complaints.append(f"cannot listen on {address} port {port}: {error.strerror}")
    return made, complaints


def control_name(token: str) -> str:
    return f"\0ringfence-probe-{token}"  # abstract: leaves nothing behind, and only this host's namespace sees it


def listen(
    token: str,
    named: dict[str, list[socket.socket]],
    opened: list[socket.socket],
    life: float,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until somebody collects, or until `life` seconds are over. Blocks."""
    chooser = selectors.DefaultSelector()
    arrivals: dict[str, set[str]] = {}
    mark = re.compile(rb"ringfence " + re.escape(token.encode()) + rb" (\d+) ")
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind(control_name(token))
    control.listen(1)
    for name, group in named.items():
        for ear in group:
            chooser.register(ear, selectors.EVENT_READ, partial(_hear, mark, arrivals, name))
    for door in opened:
        chooser.register(door, selectors.EVENT_READ, _let_in)
    chooser.register(control, selectors.EVENT_READ, None)
    ready()
    end = time.monotonic() + life
    while (left := end - time.monotonic()) > 0:
        for key, _ in chooser.select(left):
            if key.data is not None:
                key.data(key.fileobj)
                continue
            # Somebody collects: what has arrived by now still counts.
            for name, group in named.items():
                for ear in group:
                    _hear(mark, arrivals, name, ear)
            caller, _ = control.accept()
            with caller:
                caller.sendall(json.dumps({i: sorted(names) for i, names in arrivals.items()}).encode())
            return


def _hear(mark: re.Pattern[bytes], arrivals: dict[str, set[str]], name: str, ear: socket.socket) -> None:
    """Read all that waits at an ear, and note which cells it is of."""
    with contextlib.suppress(BlockingIOError):
        while True:
            for number in mark.findall(ear.recv(2048)):
                arrivals.setdefault(number.decode(), set()).add(name)


def _let_in(door: socket.socket) -> None:
    """Accept a connection: that is all that whoever tries a port wants to know."""
    with contextlib.suppress(OSError):
        door.accept()[0].close()


def background(work: Callable[[Callable[[], None]], None]) -> None:
    """Run `work` detached from this session; returns when it says that it is ready."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        answer = os.read(reader, 200)
        os.close(reader)
        os.wait()
        if answer != b"ready":
            raise ProbeFailedError(f"the listener did not start: {answer.decode() or 'it ended at once'}")
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(reader)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)

        def ready() -> None:
            os.write(writer, b"ready")
            os.close(writer)

        work(ready)
    except BaseException as error:  # a forked child must never return into its parent's code
        with contextlib.suppress(OSError):
            os.write(writer, str(error).encode()[:200])
    finally:
        os._exit(0)


def collect(wanted: Json) -> Json:
    """What arrived: {"arrivals": {cell: [container names, "" = the host itself]}}; ends the listener."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(10)
    try:
        caller.connect(control_name(wanted["token"]))
        text = b"".join(iter(lambda: caller.recv(1 << 16), b""))
        return {"arrivals": json.loads(text)}
    except (OSError, ValueError):
        return {"arrivals": {}, "gone": True}
    finally:
        caller.close()
