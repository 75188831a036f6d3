"""What a sign-in costs: requests through proxy and portal against the proxy alone, on the demo lab, as ratios.

Run it when `./run demo` has been run: ./run -- python benchmarks/login.py
The same application answers both: a path that needs no sign-in, and one that does, with a session that has it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ringfence.inventory import front  # noqa: E402 - found by the line above
from tests.live.labs import Lab  # noqa: E402
from tests.live.proxy.client import Session, register  # noqa: E402

SECONDS, CLIENTS, ROUNDS = 3.0, 8, 4
PERSON, SITE, OPEN, SIGNED = "anna", "cloud", "/status.php", "/index.php"


class Connection(http.client.HTTPSConnection):
    """A connection to a site by the host's address, without asking any DNS."""

    def __init__(self, name: str, address: str, context: ssl.SSLContext) -> None:
        super().__init__(name, context=context, timeout=30)
        self.way = address
        self.tls = context

    def connect(self) -> None:
        """Dial the address, and ask for the name."""
        plain = socket.create_connection((self.way, 443), 30)
        self.sock = self.tls.wrap_socket(plain, server_hostname=self.host)


def measure(connect: Callable[[], Connection], path: str, cookie: str) -> tuple[float, float]:
    """Return requests per second of all clients, and the median of a request's seconds."""
    times: list[float] = []
    end = time.monotonic() + SECONDS

    def client() -> None:
        connection = connect()
        while time.monotonic() < end:
            began = time.monotonic()
            connection.request("GET", path, headers={"Cookie": cookie})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"{path}: {answer.status} instead of 200: has ./run demo been run?")
            times.append(time.monotonic() - began)
        connection.close()

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    return len(times) / SECONDS, statistics.median(times)


def main() -> int:
    """Print both and their ratio. Returns the exit status."""
    lab = Lab("demo", "")
    lab.inventory = front.lab_directory(ROOT)
    lab.environment = dict(os.environ)
    variables: dict[str, Any] = lab.variables()
    register(lab, PERSON)
    session = Session(lab, PERSON, second=True)
    context = ssl.create_default_context(cadata=variables["verify_root"])

    def connect() -> Connection:
        return Connection(session.site(SITE), lab.address(), context)

    alone, signed = [], []
    for _ in range(ROUNDS):  # in turns: the machine is not always as fast
        alone.append(measure(connect, OPEN, ""))
        signed.append(measure(connect, SIGNED, session.cookie))
    rates = [statistics.median(rate for rate, _ in found) for found in (alone, signed)]
    delays = [statistics.median(delay for _, delay in found) for found in (alone, signed)]
    print(f"proxy alone:       {rates[0]:7.0f} requests/s, median {delays[0] * 1000:.1f} ms")
    print(f"proxy and portal:  {rates[1]:7.0f} requests/s, median {delays[1] * 1000:.1f} ms")
    print(json.dumps({"requests": round(rates[1] / rates[0], 2), "latency": round(delays[1] / delays[0], 2)}))
    print(f"a sign-in adds {(delays[1] - delays[0]) * 1000:.1f} ms to a request")
    return 0


if __name__ == "__main__":
    sys.exit(main())
