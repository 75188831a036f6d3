"""Hosts are switched off with their cables: what the kernel takes down of a host's network afterwards reaches nobody.

A machine that is off is off at once. A host here has a network namespace that outlives its last process for a moment:
the kernel lets go of its netfilter rules first and of its interfaces after that. Containers' connections that are not
closed yet send on in between, past all rules. No rule of a host can help, and no machine has such a moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.engine import docker
from lab.shell import output, run

SHUTDOWN = 60  # seconds for a host to stop by itself
CABLES = "eth"  # how the engine calls the interfaces that it gives a container


def stop(container: str) -> None:
    """Let a host shut down, which has its network until it has; then pull its cables."""
    with network_of(container) as network:
        docker("stop", "--time", str(SHUTDOWN), container, timeout=SHUTDOWN + 60)
        pull(network)


def cut(container: str) -> None:
    """Cut a host's power, and first of all its cables: nothing that still runs tells anybody."""
    with network_of(container) as network:
        pull(network)
        docker("kill", container)


@contextmanager
def network_of(container: str) -> Iterator[Path | None]:
    """A file that is a container's network as long as this lasts, whatever ends; None where it does not run."""
    process = docker("inspect", "-f", "{{.State.Pid}}", container)
    if process == "0":
        yield None
        return
    held = os.open(f"/proc/{process}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{held}")
    finally:
        os.close(held)


def pull(network: Path | None) -> None:
    """Take down the interfaces that lead out of a network."""
    for name in cables(network) if network else ():
        # The engine may take it away at the same time.
        run(["nsenter", f"--net={network}", "ip", "link", "set", name, "down"], check=False)


def cables(network: Path) -> list[str]:
    """The interfaces that lead out of a network and can pass something on."""
    links = json.loads(output(["nsenter", f"--net={network}", "ip", "-json", "link", "show", "up"]))
    # Of those that are down, ip prints an empty object.
    return [link["ifname"] for link in links if link.get("ifname", "").startswith(CABLES)]
