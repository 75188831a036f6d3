"""Containers read new certificates; what they have read is recorded: a killed run is made up for."""

from __future__ import annotations

import calendar
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from ringfence.host.engine import NotThereError, docker_runs, engine
from ringfence.host.files import read_json, replace_file
from ringfence.host.pki.declared import Leaf
from ringfence.host.pki.pairs import LEAVES, seen
from ringfence.host.running import Fault, run, search_path

READ = Path("/var/lib/ringfence/pki/read.json")  # {leaf: what its container has read}
STABLE = 1.0  # seconds: a program that a signal ends has ended by then
COMMAND_SECONDS, RESTART_SECONDS = 60, 30


def have_read() -> dict[str, Any]:
    """Return what the containers have read. Raises Fault."""
    return read_json(READ) or {}


def record(name: str, what: str) -> None:
    """Note what a container has read; "" forgets it. Raises Fault."""
    known = have_read()
    if known.get(name, "") != what:
        kept = {other: value for other, value in known.items() if other != name} | ({name: what} if what else {})
        replace_file(READ, json.dumps(kept, indent=1, sort_keys=True) + "\n", 0o600)


def unread(leaf: Leaf) -> dict[str, Any] | None:
    """Return the running container that has not read a leaf's present files; None where there is none.

    Raises:
        Fault: Docker does not answer.
    """
    name = leaf.reload.get("container")
    if not name or have_read().get(leaf.name) == seen(leaf.name) or not docker_runs():
        return None
    try:
        found: dict[str, Any] = engine("GET", f"/containers/{name}/json")
    except NotThereError:
        return None
    if not found["State"]["Running"] or _started(found) > _since(leaf.name):
        return None  # what starts after the swap reads the new files
    return found


def _started(container: dict[str, Any]) -> float:
    """Return when a container was started, at the earliest; 0 where Docker says it in another way."""
    words = str(container["State"].get("StartedAt") or "")
    try:
        return float(calendar.timegm(time.strptime(words[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return 0.0


def _since(name: str) -> float:
    """Return when a leaf's files last changed."""
    return max((LEAVES / name / part).lstat().st_ctime for part in ("current", "ca.pem"))


def reread(leaf: Leaf) -> str:
    """Have a leaf's container read its files again, if it runs and has not; returns what was done, "" for nothing.

    Raises:
        Fault: it failed, and is tried again next time.
    """
    if shutil.which("dockerd", path=search_path()) and not docker_runs():
        return ""  # at boot nothing runs yet; but containers may run on without their daemon, and are told later
    present = seen(leaf.name)
    container = unread(leaf)
    done = ""
    if container is not None:
        try:
            done = _tell(leaf, container)
        except Fault as fault:
            raise Fault(
                f"container {leaf.reload['container']} has not taken over its new certificate ({leaf.name}): {fault}; "
                "this is tried again by the timer"
            ) from None
    record(leaf.name, present if leaf.reload.get("container") else "")
    return done


def _tell(leaf: Leaf, container: dict[str, Any]) -> str:
    name, words = container["Id"], [str(word) for word in leaf.reload.get("command") or []]
    if words:
        answer = run("docker", "exec", name, *words, timeout=COMMAND_SECONDS)
        if answer.returncode:
            said = "\n".join((answer.stderr.strip() or answer.stdout.strip()).splitlines()[-10:])
            raise Fault(f"`{' '.join(words)}` ends with {answer.returncode}: {said}")
        return f"{leaf.reload['container']} has read its new certificate"
    if leaf.reload.get("signal"):
        _signal(container["State"]["Pid"], leaf.reload["signal"])
        return f"{leaf.reload['container']} was told by {leaf.reload['signal']} to read its new certificate"
    engine("POST", f"/containers/{name}/restart?t={RESTART_SECONDS}")
    return f"{leaf.reload['container']} was restarted with its new certificate"


def _signal(process: int, name: str) -> None:
    """Signal a container's process, which has to outlive it; that it has read its files nothing says.

    Not by the engine: it takes any signal for the user's wish that the container stays down when it ends.
    """
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        raise Fault("it ended just now") from None
    try:
        signal.pidfd_send_signal(descriptor, signal.Signals[name])
        if select.select([descriptor], [], [], STABLE)[0]:
            raise Fault(f"{name} ended it")
    except ProcessLookupError:
        raise Fault("it ended just now") from None
    finally:
        os.close(descriptor)
