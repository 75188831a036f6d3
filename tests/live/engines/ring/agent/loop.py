"""Sockets and what to do when they are ready, in one thread."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable


class Loop:
    """A selector whose sockets are closed with it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, sock: socket.socket, event: int, ready: Callable[[], None]) -> None:
        self._selector.register(sock, event, ready)

    def forget(self, sock: socket.socket) -> None:
        """Close a socket, watched or not."""
        if sock.fileno() >= 0:
            with contextlib.suppress(KeyError):
                self._selector.unregister(sock)
            sock.close()

    def unwatch(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)

    def turn(self, seconds: float) -> None:
        """Wait at most so long for something to do, and do it."""
        for key, _ in self._selector.select(seconds):
            key.data()

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()


READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
