"""Tells whoever calls by which address he is seen, and remembers when he was heard last. Arguments: PORT|dns@ADDRESS …

By TCP he is told a line with his address; then every read of his connection writes the time, as /proc/uptime has it, to
/run/heard.PORT. `dns` is port 53: the answer to every question is the caller's address (A), by UDP and TCP.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
import threading
import time
from pathlib import Path


def plain(address: str) -> str:
    return str(getattr(ipaddress.ip_address(address), "ipv4_mapped", None) or address)


def answer(question: bytes, caller: str) -> bytes:
    """The answer to one question of DNS: a record of type A with the caller's address."""
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(caller)
    return question[:2] + b"\x81\x80" + struct.pack("!4H", 1, 1, 0, 0) + question[12:] + record


def listening(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = socket.socket(family, kind)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((address, port))
    return found


def told(one: socket.socket, caller: str, port: int) -> None:
    with contextlib.suppress(OSError), one:
        if port == 53:
            said = answer(one.recv(4096)[2:], caller)
            one.sendall(struct.pack("!H", len(said)) + said)
            return
        one.sendall(f"{caller}\n".encode())
        while one.recv(4096):
            Path(f"/run/heard.{port}").write_text(f"{time.clock_gettime(time.CLOCK_BOOTTIME)}", encoding="ascii")


def by_tcp(address: str, port: int) -> None:
    server = listening(socket.SOCK_STREAM, address, port)
    server.listen()
    while True:
        one, caller = server.accept()
        threading.Thread(target=told, args=(one, plain(caller[0]), port), daemon=True).start()


def by_udp(address: str, port: int) -> None:
    server = listening(socket.SOCK_DGRAM, address, port)
    while True:
        said, caller = server.recvfrom(4096)
        server.sendto(answer(said, plain(caller[0])), caller)


threads = []
for word in sys.argv[1:]:
    what, _, at = word.partition("@")
    number = 53 if what == "dns" else int(what)
    for serve in (by_tcp, by_udp) if what == "dns" else (by_tcp,):
        threads.append(threading.Thread(target=serve, args=(at, number)))
for thread in threads:
    thread.start()
