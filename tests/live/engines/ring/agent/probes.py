"""What must not arrive, tried again and again from one place."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import socket
import struct
import time
from collections import deque
from typing import Any

from . import odd
from .frames import MARK
from .ledger import Ledger
from .loop import WRITE, Loop

PATIENCE = 0.3  # seconds until a connection that is not there is given up: before the first SYN is repeated
BEHIND = 0.3  # seconds of delay that are made up for; what is more lowers the rate
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST, which leaves nothing behind


class Probes:
    """Every probe at its rate, in turn.

    Each is {id, proto, family, address, port, first, span} and perhaps `bind`, the address that it comes from; its
    source ports are `first` to `first + span`, one after the other. It is tried `times` (1) in each round.
    """

    def __init__(self, probes: list[dict[str, Any]], rate: float, loop: Loop, ledger: Ledger) -> None:
        """`rate`: rounds per second."""
        self._loop = loop
        self._ledger = ledger
        numbers = [(probe, itertools.count()) for probe in probes]
        most = max((probe.get("times", 1) for probe in probes), default=1)
        # Who is tried twice has his turns half a round apart, not one right behind the other.
        rounds = [one for turn in range(most) for one in numbers if one[0].get("times", 1) > turn]
        self._next = itertools.cycle(rounds)
        self._interval = 1 / (rate * max(len(rounds), 1))
        self._at = time.monotonic() if probes else math.inf
        self._open: deque[tuple[float, socket.socket]] = deque()
        self._wires: dict[str, socket.socket] = {}

    def turn(self) -> float:
        """Try what is due; returns the seconds until there is something to do."""
        now = time.monotonic()
        self._at = max(self._at, now - BEHIND)
        while self._at <= now:
            self._try(*next(self._next))
            self._at += self._interval
        while self._open and self._open[0][0] <= now:
            self._loop.forget(self._open.popleft()[1])
        return self._at - now

    def _try(self, probe: dict[str, Any], number: itertools.count[int]) -> None:
        if probe["proto"] not in ("tcp", "udp"):
            self._send_odd(probe, number)
            return
        kind = socket.SOCK_STREAM if probe["proto"] == "tcp" else socket.SOCK_DGRAM
        sock = socket.socket(socket.AF_INET if probe["family"] == 4 else socket.AF_INET6, kind | socket.SOCK_NONBLOCK)
        try:
            self._bind(sock, probe, number)
            if kind == socket.SOCK_DGRAM:
                sock.sendto(_mark(probe), (probe["address"], probe["port"]))
                sock.close()
            else:
                self._connect(sock, probe)
        except OSError as error:
            sock.close()
            self._failed(probe, error)
        else:
            self._ledger.count("sent", probe["id"])

    def _send_odd(self, probe: dict[str, Any], number: itertools.count[int]) -> None:
        try:
            if probe["proto"] == "frames":
                self._send_frames(probe)
                self._ledger.count("sent", probe["id"])
                return
            odd.send(probe, _mark(probe), probe["first"] + next(number) % probe["span"])
        except OSError as error:
            self._failed(probe, error)
        else:
            self._ledger.count("sent", probe["id"])

    def _send_frames(self, probe: dict[str, Any]) -> None:
        wire = self._wires.get(probe["bind"])
        if wire is None:  # closing one waits for the whole machine, so it is kept
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            wire.bind((probe["bind"], 0))
            self._wires[probe["bind"]] = wire
        for frame in probe["frames"]:
            wire.send(bytes.fromhex(frame))

    def _failed(self, probe: dict[str, Any], error: OSError) -> None:
        if error.errno == errno.EPERM:  # what the host's own filter says to a process of the host that it stops
            self._ledger.count("sent", probe["id"])
            return
        self._ledger.count("errors", f"{probe['id']} {errno.errorcode.get(error.errno or 0, error.errno)}")

    def _bind(self, sock: socket.socket, probe: dict[str, Any], number: itertools.count[int]) -> None:
        for last in (False, False, True):  # a port that somebody listens at is passed over
            try:
                sock.bind((probe.get("bind", ""), probe["first"] + next(number) % probe["span"]))
                return
            except OSError as error:
                if last or error.errno != errno.EADDRINUSE:
                    raise

    def _connect(self, sock: socket.socket, probe: dict[str, Any]) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        code = sock.connect_ex((probe["address"], probe["port"]))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))

        def ready() -> None:
            self._loop.unwatch(sock)
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                self._ledger.count("connected", probe["id"])
                with contextlib.suppress(OSError):  # whoever accepted it has closed it again
                    sock.send(_mark(probe))

        self._loop.watch(sock, WRITE, ready)
        self._open.append((time.monotonic() + PATIENCE, sock))


def _mark(probe: dict[str, Any]) -> bytes:
    return MARK + str(probe["id"]).encode() + b"\n"
