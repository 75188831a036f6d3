"""What a running container has read of its configuration, and how it reads again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.host.compose import directories
from ringfence.host.engine import engine
from ringfence.host.files import read_json, replace_file
from ringfence.host.projects import container_name, content_digest, home, tree_of
from ringfence.host.running import Fault
from ringfence.host.stack.containers import STABLE, there, wait
from ringfence.host.stack.telling import TELL, docker, last_words
from ringfence.host.swapping import Seen, discard, look_into, swap

CHECKED, UNHEALTHY = 10.0, 30.0  # seconds that a health check may take, and fail, once files were read again


class Read(NamedTuple):
    """What a container has read of its configuration.

    Attributes:
        container, started: id and start of the container; another start reads again.
        digest: of the files, as `content_digest` makes it.
        generations: where they stand, by the directory's path in the container.
        settled: whether it is certain; not while a reload is under way.
    """

    container: str
    started: str
    digest: str
    generations: dict[str, str]
    settled: bool


def now_read(container: str, started: str, seen: dict[str, Seen]) -> Read:
    """Return what a container has read that reads now."""
    generations = {target: one.generation for target, one in seen.items()}
    return Read(container, started, content_digest({t: one.files for t, one in seen.items()}), generations, True)


RECORD = "read.json"


def recorded(here: Path) -> dict[str, Read]:
    """Return what the containers of a project have read, as it was recorded."""
    try:
        return {name: Read(**said) for name, said in (read_json(here / RECORD) or {}).items()}
    except TypeError as error:
        raise Fault(f"{here / RECORD} is not understood ({error}): move it away, then run again") from None


def record(here: Path, read: dict[str, Read]) -> None:
    """Record what the containers of a project have read."""
    known = {**recorded(here), **read}
    replace_file(here / RECORD, json.dumps({name: one._asdict() for name, one in known.items()}), 0o600)


def reread(project: dict[str, Any], service: dict[str, Any], container: str, seconds: float) -> None:
    """Have a running container read its files again.

    Raises:
        Fault: its command fails, or it does not outlive the signal.
    """
    words = [str(word) for word in service["reload"].get("command") or []]
    before = engine("GET", f"/containers/{container}/json")["State"]
    if not before["Running"]:
        raise Fault("it does not run")
    if words:
        answer = docker("exec", container, *words, timeout=seconds)
        if answer.returncode:
            raise Fault(f"the command ends with {answer.returncode}:\n{last_words(answer)}")
    else:
        # Not by the engine: it takes any signal for the user's wish that the container does not start again by itself.
        try:
            os.kill(before["Pid"], signal.Signals[service["reload"]["signal"]])
        except ProcessLookupError:
            raise Fault("it ended just now") from None
    outlives(container, before, 0 if words else seconds)


def outlives(container: str, before: dict[str, Any], seconds: float) -> None:
    """See whether a container still works: for a moment, and by its health check, which is not waited for but made.

    Args:
        before: its state before.
        seconds: how long the check may fail; 0: it has said itself that it works.

    Raises:
        Fault: it ended, or its check does not succeed.
    """
    begun = time.monotonic()
    while True:
        found = engine("GET", f"/containers/{container}/json")
        state = found["State"]
        if not state["Running"] or state["StartedAt"] != before["StartedAt"]:
            how = ", and Docker started it again" if state["Running"] else f" (exit code {state['ExitCode']})"
            raise Fault(f"it ended{how}; its last words:\n{last_words(docker('logs', '--tail', '12', container))}")
        if not seconds:
            return
        if time.monotonic() - begun > STABLE:
            check = health_check(found["Config"])
            patience = ((found["Config"].get("Healthcheck") or {}).get("Timeout") or 30e9) / 1e9
            answer = docker("exec", container, *check, timeout=max(patience, CHECKED)) if check else None
            if answer is None or answer.returncode == 0:
                return
            if time.monotonic() - begun > min(seconds, UNHEALTHY):
                raise Fault(f"its health check does not succeed any more ({answer.returncode}): {last_words(answer)}")
        time.sleep(0.2)


def health_check(configuration: dict[str, Any]) -> list[str]:
    """Return the command of a container's health check; [] where it has none."""
    kind, *words = (configuration.get("Healthcheck") or {}).get("Test") or [""]
    if kind == "CMD-SHELL":
        return [*(configuration.get("Shell") or ["/bin/sh", "-c"]), *words]
    return words if kind == "CMD" else []


def seen_trees(project: dict[str, Any], service: dict[str, Any]) -> dict[str, Seen]:
    """Return a service's swapped directories as they are now, by their paths in the container."""
    return {target: look_into(tree_of(project, service, target)) for target in directories(service)}


def settle(project: dict[str, Any], names: Iterable[str]) -> None:
    """Record what containers have read that were started, or have read again, and remove what they read before."""
    read = {}
    for service in project["services"]:
        if service["name"] in names and directories(service):
            state = there(f"/containers/{container_name(project, service)}/json")
            if state:
                seen = seen_trees(project, service)
                read[service["name"]] = now_read(state["Id"], state["State"]["StartedAt"], seen)
                for target, one in seen.items():
                    for other in one.others:
                        discard(tree_of(project, service, target) / other)
    if read:
        record(home(project), read)


def reload(project: dict[str, Any], service: dict[str, Any], had: Read | None, seconds: float) -> None:
    """Have a container read its files again; if it fails, the old ones come back and are read.

    Raises:
        Fault: it failed, with the reason and what is there now.
    """
    name = container_name(project, service)
    state = engine("GET", f"/containers/{name}/json")
    identity, started = state["Id"], state["State"]["StartedAt"]
    old = had or Read(identity, started, "", {}, False)
    record(home(project), {service["name"]: old._replace(settled=False)})
    TELL.say(f"{name}: reading its configuration again")
    try:
        reread(project, service, identity, seconds)
    except Fault as fault:
        failed = f"container {name} did not take over its new configuration: {fault}"
    else:
        settle(project, [service["name"]])
        return
    places = {tree_of(project, service, target): generation for target, generation in old.generations.items()}
    if not places or not all((directory / generation).is_dir() for directory, generation in places.items()):
        raise Fault(f"{failed}\nwhat it had before is not known, so the new files stay: correct them and run again")
    for directory, generation in places.items():
        swap(directory, generation)
    try:
        reread(project, service, identity, seconds)
        how = "and in use"
    except Fault as fault:
        how = f"; they could not be read again either, so the container was started again: {fault}"
        engine("POST", f"/containers/{identity}/restart?t=10")
        wait({name}, seconds)
    settle(project, [service["name"]])
    raise Fault(f"{failed}\nthe old files are back {how}")
