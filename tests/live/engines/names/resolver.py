"""Sent to a host and run there: DNS servers that write down every question and answer it.

Arguments: the file for the questions, a line each (protocol, own address, who asked, name), and the addresses to listen
at (port 53, UDP and TCP). Every name has the address 192.0.2.7.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
from pathlib import Path


def name_of(question: bytes) -> str:
    """The name that a DNS message asks for."""
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
        at += question[at] + 1
    return ".".join(labels)


def answer(question: bytes) -> bytes:
    """A DNS message that answers with one address, whatever is asked for."""
    end = question.index(0, 12) + 5
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton("192.0.2.7")
    return question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + question[12:end] + record


def serve(path: str, addresses: list[str]) -> None:
    """Listen at every address for as long as the process lives."""
    chooser = selectors.DefaultSelector()
    for address in addresses:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            ear = socket.socket(socket.AF_INET, kind)
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ear.bind((address, 53))
            if kind == socket.SOCK_STREAM:
                ear.listen(256)
            chooser.register(ear, selectors.EVENT_READ, kind == socket.SOCK_STREAM)
    with Path(path).open("a", buffering=1, encoding="ascii") as log:
        print("ready", file=log)
        while True:
            for key, _ in chooser.select():
                ear: socket.socket = key.fileobj  # type: ignore[assignment]
                with contextlib.suppress(OSError, IndexError, ValueError):
                    if key.data:
                        caller, peer = ear.accept()
                        with caller:
                            caller.settimeout(2)
                            question = caller.recv(2048)[2:]
                            print("tcp", ear.getsockname()[0], peer[0], name_of(question), file=log)
                            said = answer(question)
                            caller.sendall(len(said).to_bytes(2, "big") + said)
                    else:
                        question, peer = ear.recvfrom(2048)
                        print("udp", ear.getsockname()[0], peer[0], name_of(question), file=log)
                        ear.sendto(answer(question), peer)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
