"""Declared connections that stay: a byte each 100 ms, there and back."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

from .ledger import Ledger
from .loop import READ, WRITE, Loop

BEAT = 0.1  # seconds


class Flow:
    """One connection, made anew when it has ended: {id, family, address, port} and perhaps `bind`."""

    def __init__(self, flow: dict[str, Any], loop: Loop, ledger: Ledger) -> None:
        self._flow = flow
        self._loop = loop
        self._ledger = ledger
        self._sock: socket.socket | None = None
        self._up = False
        self._next = 0.0
        self._given_up = 0.0

    def turn(self) -> float:
        """Do what is due; returns the seconds until the next."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + BEAT
            self._ledger.count("beats", self._flow["id"])
            if self._sock is None:
                self._connect()
            elif self._up:
                self._send(self._sock)
            elif now > self._given_up:
                self.end()
        return self._next - now

    def _connect(self) -> None:
        self._up = False
        self._given_up = time.monotonic() + 1
        family = socket.AF_INET if self._flow["family"] == 4 else socket.AF_INET6
        self._sock = sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if "bind" in self._flow:
                sock.bind((self._flow["bind"], 0))
            if sock.connect_ex((self._flow["address"], self._flow["port"])) not in (0, errno.EINPROGRESS):
                self.end()
                return
        except OSError:
            self.end()
            return
        self._loop.watch(sock, WRITE, lambda: self._connected(sock))

    def _connected(self, sock: socket.socket) -> None:
        self._loop.unwatch(sock)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.end()
            return
        self._up = True
        self._ledger.count("begun", self._flow["id"])
        self._loop.watch(sock, READ, lambda: self._read(sock))

    def _send(self, sock: socket.socket) -> None:
        try:
            sock.send(b".")
        except BlockingIOError:
            pass  # the way is shut for now, and the buffer is full
        except OSError:
            self.end()

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._ledger.count("echoed", self._flow["id"], len(data))
        else:
            self.end()

    def end(self) -> None:
        """Close the connection, and count it if there was one."""
        if self._sock is not None:
            self._loop.forget(self._sock)
            self._sock = None
        if self._up:
            self._ledger.count("ended", self._flow["id"])
            self._up = False
