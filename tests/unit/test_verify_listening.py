"""verify's listener reads what arrives as it arrives, whoever it is for: what waits keeps a processor busy."""

from __future__ import annotations

import secrets
import select
import socket
import threading
import time

import pytest

from ringfence.verify.remote.listening import collect, listen


@pytest.mark.parametrize("name", ["", "web"], ids=["the host itself", "a container"])
def test_what_has_arrived_does_not_wait_at_the_ear(name: str) -> None:
    token = secrets.token_hex(8)
    ear, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    door = socket.create_server(("127.0.0.1", 0))
    began = threading.Event()
    for one in (ear, door):
        one.setblocking(False)
    listener = threading.Thread(target=listen, args=(token, {name: [ear]}, [door], 20.0, began.set))
    listener.start()
    try:
        assert began.wait(10)
        sender.send(f"ringfence {token} 7 ".encode())
        with socket.create_connection(door.getsockname(), timeout=10) as connection:
            assert connection.recv(1) == b""  # let in, and let go
        until = time.monotonic() + 10
        while select.select([ear], [], [], 0)[0]:
            assert time.monotonic() < until, "it is never read"
            time.sleep(0.01)  # between two looks, until it is read or the deadline is over
    finally:
        collected = collect({"token": token})
        listener.join(20)
        for one in (ear, sender, door):
            one.close()
    assert collected == {"arrivals": {"7": [name]}}
