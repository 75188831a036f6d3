"""Containers: asked for, waited for, explained, stopped."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any
from urllib.parse import quote

from ringfence.host.engine import WORKING, NotThereError, engine
from ringfence.host.running import SPEAKS, Fault
from ringfence.host.stack.telling import TELL, docker, last_words

STABLE = 2.0  # seconds a container without a health check must have been running, since it started last
TOO_OFTEN = 3  # times that a new version may end while it is waited for: some start again once, after they migrated
# Times that any other one may: with Docker's growing pauses that is half a minute, in which a database may come up.
LOOPING = 8
GRACE = 10  # seconds that Docker gives a container to end, where none are declared
CHECK_KEEPS = 4096  # bytes that Docker keeps of what a health check prints; then come three dots
SHOWN = 300  # characters of them that are shown
Container = dict[str, Any]


def containers(label: str = "") -> list[Container]:
    """All containers, or those with a label, in the shape that the plan reads."""
    query = f"&filters={quote(json.dumps({'label': [label]}))}" if label else ""
    found = []
    for c in engine("GET", f"/containers/json?all=1{query}"):
        attached = (c.get("NetworkSettings") or {}).get("Networks") or {}
        found.append({
            "id": c["Id"], "name": (c["Names"] or ["?"])[0].lstrip("/"), "labels": c.get("Labels") or {},
            "image": str(c.get("Image") or ""),
            "mode": str((c.get("HostConfig") or {}).get("NetworkMode") or ""),
            "state": c["State"], "status": c["Status"], "created": float(c["Created"]),
            "networks": {
                n: {
                    "id": e["NetworkID"], "address": e["IPAddress"], "address6": e["GlobalIPv6Address"],
                    "mac": e["MacAddress"],
                }
                for n, e in attached.items()
            },
            "ports": sorted({f"{p['PublicPort']}/{p['Type']}" for p in c.get("Ports") or [] if p.get("PublicPort")}),
            "volumes": [m["Name"] for m in c.get("Mounts") or [] if m.get("Type") == "volume" and m.get("Name")],
            "written": [m["Name"] for m in c.get("Mounts") or [] if m.get("Name") and m.get("RW")],
            "places": [m["Source"] for m in c.get("Mounts") or [] if m.get("Type") == "bind" and m.get("RW")],
        })  # fmt: skip
    return found


def there(path: str) -> dict[str, Any]:
    """Return what the engine says of one thing, {} where it does not exist."""
    try:
        return dict(engine("GET", path))
    except NotThereError:
        return {}


def image_path(image: str) -> str:
    """Return the engine's path of an image."""
    return f"/images/{quote(image, safe='/:@')}/json"


def is_done(container: Container) -> bool:
    """Whether a container that is there to do something once has done it."""
    return (
        "ringfence.once" in container["labels"]
        and container["state"] == "exited"
        and str(container["status"]).startswith("Exited (0)")
    )


def ready(container: Container, since: dict[str, float]) -> bool:
    """Whether a container is healthy, has run for a moment where it has no health check, or has done what it had to."""
    if is_done(container):
        return True
    if "ringfence.once" in container["labels"] and "(healthy)" not in container["status"]:
        return False  # it is waited for until it has ended
    if (
        container["state"] != "running"
        or "(unhealthy)" in container["status"]
        or "(health: starting)" in container["status"]
    ):
        return False
    if "(healthy)" in container["status"]:
        return True
    # One that lives for a second may be found running each time: it is its own start that counts.
    state = there(f"/containers/{container['id']}/json").get("State") or {}
    run = f"{container['id']} {state.get('StartedAt')}"
    return time.monotonic() - since.setdefault(run, time.monotonic()) >= STABLE


def wait(names: set[str], seconds: float, ends: bool = False) -> None:
    """Wait until the named containers are ready. Raises Fault that shows why one is not.

    Args:
        ends: whether one that ends again and again is given up before the time is over.
    """
    begun, since, done = time.monotonic(), dict[str, float](), set[str]()
    spoke, restarts = begun, dict[str, int]()
    while True:
        found = {c["name"]: c for c in containers("ringfence.project")}
        for name in sorted(names - done):
            if name in found and ready(found[name], since):
                done.add(name)
                word = "healthy" if "(healthy)" in found[name]["status"] else "running"
                word = "done" if is_done(found[name]) else word
                TELL.say(f"{name} is {word} after {time.monotonic() - begun:.0f} s ({len(done)} of {len(names)})")
        failed = {n for n in names - done if "(unhealthy)" in found.get(n, {}).get("status", "")}
        failed |= {n for n in names - done if n in found and (ends or ended(found[n])) and gave_up(found[n])}
        failed |= {n for n in names - done if n in found and loops(found[n], restarts)}
        if done == names:
            return
        waited = time.monotonic() - begun
        if failed or waited > seconds:
            raise Fault("\n".join(explain(name, found.get(name), waited) for name in sorted(failed or names - done)))
        if time.monotonic() - spoke >= SPEAKS:
            spoke = time.monotonic()
            how = ", ".join(
                f"{name} ({found[name]['status'] if name in found else 'not there'})" for name in sorted(names - done)
            )
            TELL.say(f"waiting for {how}: {waited:.0f} of at most {seconds:.0f} s")
        time.sleep(0.5)


def ended(container: Container) -> bool:
    """Whether a container that Docker does not start again has ended."""
    return "ringfence.once" in container["labels"] and container["state"] == "exited"


def gave_up(container: Container) -> bool:
    """Whether a container has ended for good, or was started again by Docker several times."""
    if container["state"] in ("exited", "dead"):
        return True
    if container["state"] == "running":
        return False
    return int(there(f"/containers/{container['id']}/json").get("RestartCount") or 0) >= TOO_OFTEN


def loops(container: Container, restarts: dict[str, int]) -> bool:
    """Whether Docker has started a container again too often since it is waited for.

    Args:
        container: as `containers` returns it.
        restarts: {id: how often, when this was asked first}; kept by whoever waits.
    """
    if container["state"] != "restarting":
        return False
    count = int(there(f"/containers/{container['id']}/json").get("RestartCount") or 0)
    return count - restarts.setdefault(container["id"], count) >= LOOPING


def explain(name: str, container: Container | None, waited: float) -> str:
    """Why a container is not ready after so many seconds: its state, what its health check said, its last log lines."""
    if container is None:
        return f"container {name} is not there"
    state = there(f"/containers/{container['id']}/json").get("State", {})
    health = (state.get("Health") or {}).get("Log") or []
    said = f"; its health check ({health[-1].get('ExitCode')}) said: {checked(health[-1])}" if health else ""
    logs = last_words(docker("logs", "--tail", "20", container["id"]), 20)
    now = container["status"] or container["state"]
    return f"container {name} is not ready after {waited:.0f} s: {now}{said}\n  last lines of its log:\n{logs}"


def checked(run: dict[str, Any]) -> str:
    """Return the beginning of what a run of a health check has printed, without secrets: cut, they are not known."""
    output = str(run.get("Output") or "").strip()
    is_cut = len(output.encode()) >= CHECK_KEEPS
    return TELL.clean(output.removesuffix("...").rstrip("\ufffd") if is_cut else output, cut_behind=is_cut)[:SHOWN]


def stop(identity: str) -> None:
    """Stop a container, if it is there; it is given the time to end that it is declared to need."""
    grace = (there(f"/containers/{identity}/json").get("Config") or {}).get("StopTimeout")
    with contextlib.suppress(NotThereError):
        engine("POST", f"/containers/{identity}/stop", timeout=max(int(grace or 0), GRACE) + WORKING)


def remove(container: Container) -> None:
    """Remove a container, if it is there; its volumes stay."""
    TELL.say(f"removing container {container['name']}")
    stop(container["id"])
    with contextlib.suppress(NotThereError):
        engine("DELETE", f"/containers/{container['id']}?v=false&force=true")
