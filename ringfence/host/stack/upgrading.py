"""Upgrades with a way back: stop, copy, try; where the new version fails, the old one returns.

A project's upgraded services go together, with what they depend on as far as it changes as well: all of them stay, or
all go back. What is done next is in a journal before it is done; a run that finds one finishes it or takes it back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ringfence.host.engine import NotThereError, engine
from ringfence.host.files import read, sync_directory
from ringfence.host.projects import ROOT
from ringfence.host.running import Fault
from ringfence.host.stack.containers import Container, containers, explain, image_path, is_done, remove, there, wait
from ringfence.host.stack.external import copied_names
from ringfence.host.stack.journal import (
    COPYING,
    PARTIAL,
    RESTORING,
    TRYING,
    Journal,
    Upgraded,
    copy_name,
    private,
    prune,
)
from ringfence.host.stack.telling import TELL, docker, last_words
from ringfence.host.stack.undoing import copy_tree, put_back
from ringfence.host.stack.volumes import Volume, copy_volume, forget_replaced, put_volume_back, volumes_of
from ringfence.host.swapping import discard

LEAVE = 60  # seconds that a service is given to end: what it has not written yet would be missing in the copy


def compose_up(project: str, services: Iterable[str], seconds: float, directory: Path, *files: Path) -> None:
    """Make containers of a project anew: those that are named, and not what they depend on. Raises Fault.

    Args:
        files: further compose files, which win.
    """
    named = [word for file in (directory / "compose.yaml", *files) for word in ("-f", str(file))]
    answer = docker(
        *("compose", "--progress", "plain", "-p", project, "--project-directory", str(directory), *named),
        *("up", "-d", "--no-build", "--no-deps", "--force-recreate", *services),
        timeout=seconds + 120,
    )
    if answer.returncode:
        raise Fault(f"project {project}: compose up failed (exit code {answer.returncode}):\n{last_words(answer)}")


def own(project: str, service: str) -> list[Container]:
    """Return the containers of a service, those that an interrupted run left included."""
    found = containers("ringfence.project")
    wanted = (project, service)
    return [
        c
        for c in found
        if (c["labels"].get("ringfence.project"), c["labels"].get("com.docker.compose.service")) == wanted
    ]


def upgraded(project: str, service: dict[str, Any], container: Container) -> Upgraded:
    """Return what a service's upgrade needs to know. Raises Fault where a volume cannot be copied."""
    said = there(f"/containers/{container['id']}/json")
    image = container["labels"].get("com.docker.compose.image") or said.get("Image", "")
    was = str((said.get("Config") or {}).get("Image") or image)
    volumes = volumes_of(copied_names(project, service))
    return Upgraded(
        container["id"], str(image), was, service["image"], copy_name(was, time.time()),
        {one.name: str(one.place) for one in volumes}, int(service["upgrade"].get("keep") or 2),
    )  # fmt: skip


def volumes_in(one: Upgraded) -> list[Volume]:
    """Return the volumes that are copied."""
    return [Volume(name, Path(place)) for name, place in one.volumes.items()]


def begin(journal: Journal) -> None:
    """Stop the services and copy their volumes. Raises Fault with everything running as before."""
    here = ROOT / journal.project
    if not (here / "compose.yaml").is_file():
        raise Fault(
            f"project {journal.project}: {here}/compose.yaml is gone, so there would be no way back from an upgrade:"
            " apply with the old image first"
        )
    discard(journal.here)
    private(journal.here)
    copy_tree(here, journal.before)
    journal.write()
    stopped: list[str] = []
    try:
        for name, one in journal.services.items():
            stopped += [c["id"] for c in own(journal.project, name) if c["state"] in ("running", "restarting")]
            _stop_and_copy(journal, name, one)
    except (Fault, OSError) as error:
        for identity in stopped:
            engine("POST", f"/containers/{identity}/start")
        for name in journal.services:
            discard(journal.copies(name) / PARTIAL)
        journal.close()
        raise Fault(
            f"project {journal.project}: its volumes cannot be copied, so nothing was changed, and the old version runs"
            f" again: {error}"
        ) from None
    journal.phase = TRYING
    journal.write()


def _stop_and_copy(journal: Journal, name: str, one: Upgraded) -> None:
    copies, shown = journal.copies(name), f"{journal.project}-{name}-1"
    TELL.say(f"{shown}: stopping it to copy {', '.join(one.volumes) or 'nothing, as its volumes are not there yet'}")
    for container in own(journal.project, name):
        leave(container["id"])
    discard(copies / PARTIAL)
    private(copies / PARTIAL)
    for volume in volumes_in(one):
        forget_replaced(volume)
        copy_volume(volume, copies / PARTIAL / f"{volume.name}.tar")
    sync_directory(copies / PARTIAL)
    discard(copies / one.copy)
    (copies / PARTIAL).rename(copies / one.copy)
    sync_directory(copies)


def leave(identity: str) -> None:
    """Stop a container and give it time for that."""
    try:
        engine("POST", f"/containers/{identity}/stop?t={LEAVE}", timeout=LEAVE + 60)
    except NotThereError:
        return


def container_names(journal: Journal, services: Iterable[str]) -> set[str]:
    """Return the names of the containers of services."""
    return {f"{journal.project}-{service}-1" for service in services}


def is_well(container: Container) -> bool:
    """Whether a container was started, and is not known to be unhealthy."""
    if is_done(container):
        return True
    return container["state"] in ("running", "created") and "(unhealthy)" not in container["status"]


def attempt(journal: Journal, seconds: float) -> None:
    """Start the new version and wait for it. Raises Fault with its words when it does not come up."""
    together = [*journal.had, *journal.new]
    TELL.say(f"{journal.project}: upgrading {journal.shown()}")
    try:
        compose_up(journal.project, together, seconds, ROOT / journal.project)
    except Fault as fault:
        # Compose names what did not come up for another one to start, but not why.
        found = {c["name"]: c for name in together for c in own(journal.project, name)}
        failed = [name for name in sorted(found) if not is_well(found[name])]
        raise Fault("\n".join([str(fault), *(explain(name, found[name], seconds) for name in failed)])) from None
    wait(container_names(journal, together), seconds, ends=True)


def succeed(journal: Journal) -> None:
    """The new version works: the way back is closed, its oldest copies go."""
    journal.close()
    for name, one in journal.services.items():
        prune(journal.copies(name), one.keep)


def take_back(journal: Journal, why: str, seconds: float) -> str:
    """Let the old version come back, with its files and its volumes as they were, and return what to tell of it.

    Raises:
        Fault: something of it could not be put back; the next run goes on with it.
    """
    failed = f"project {journal.project}: the upgrade of {journal.shown()} failed:\n{why}"
    try:
        return f"{failed}\n{_put_everything_back(journal, why, seconds)}"
    except (Fault, OSError) as error:
        raise Fault(
            f"{failed}\nand the old version could not be put back yet: {error}\nthe next run goes on with that; the"
            f" copies are in {journal.copies('')}, what else it needs in {journal.here}"
        ) from None


def _put_everything_back(journal: Journal, why: str, seconds: float) -> str:
    here = ROOT / journal.project
    TELL.say(f"{journal.project}: the new version does not come up, so the old one comes back")
    found = {name: own(journal.project, name) for name in [*journal.had, *journal.new]}
    if journal.phase != RESTORING:
        journal.phase, journal.why = RESTORING, why
        for name, one in journal.services.items():
            # Compose removes the old container before it starts the new one.
            one.tried = all(c["id"] != one.container for c in found[name])
        journal.write()
    for container in [c for each in found.values() for c in each]:
        remove(container)  # whatever happens to this run: nothing starts on data that are half put back
    aside = []
    for name, one in journal.services.items():
        for volume in volumes_in(one) if one.tried else []:
            TELL.say(f"{journal.project}-{name}-1: putting {volume.name} back")
            put_volume_back(volume, journal.copies(name) / one.copy / f"{volume.name}.tar")
            aside.append(str(volume.place.with_name(".ringfence-replaced")))
    put_back(journal.before, here)
    pinned = pin(journal, compose_images(read(here / "compose.yaml")))
    try:
        if journal.had:
            compose_up(journal.project, journal.had, seconds, here, *pinned)
            wait(container_names(journal, journal.had), seconds)
        how = "the old version runs again, with its files and volumes as they were"
    except Fault as fault:
        how = f"the old version is back, with its files and volumes as they were, but does not come up either: {fault}"
    journal.close()
    for name, one in journal.services.items():
        prune(journal.copies(name), one.keep)
    kept = f"; what the new one had made of them is kept in {', '.join(aside)} until the next upgrade" if aside else ""
    return how + kept


def pin(journal: Journal, references: dict[str, str]) -> Sequence[Path]:
    """Return the compose file that names the old images by their ids, where their references lead to others by now."""
    moved = {
        name: one.image
        for name, one in journal.services.items()
        if there(image_path(references.get(name) or one.was)).get("Id") != one.image
    }
    if not moved:
        return []
    path = journal.here / "images.json"
    path.write_text(json.dumps({"services": {name: {"image": image} for name, image in moved.items()}}))
    return [path]


def compose_images(text: str) -> dict[str, str]:
    """Return the image of each service of a compose file of ours."""
    _, brace, rest = text.partition("{")
    try:
        return {name: str(one["image"]) for name, one in json.loads(brace + rest)["services"].items()}
    except (ValueError, KeyError, TypeError):  # of a release that wrote it in another way
        return {}


def interruption(journal: Journal) -> str:
    """Return the line for an upgrade that was interrupted."""
    return f"! project {journal.project}: an upgrade was interrupted ({journal.shown()}): finished, or taken back"


def resume(journal: Journal, seconds: float) -> None:
    """Finish an upgrade that was interrupted, or take it back."""
    if journal.phase == COPYING:
        # Nothing but containers was stopped: the comparison that follows sees to them.
        for name in journal.services:
            discard(journal.copies(name) / PARTIAL)
        journal.close()
        return
    why = journal.why or "the run was interrupted before the new version was started"
    started = [own(journal.project, name) for name in journal.services]
    made = all(
        any(c["name"] in container_names(journal, [name]) and c["id"] != one.container for c in found)
        for (name, one), found in zip(journal.services.items(), started, strict=True)
    )
    if journal.phase == TRYING and made:
        try:
            wait(container_names(journal, journal.services), seconds, ends=True)
            succeed(journal)
            return
        except Fault as fault:
            why = str(fault)
    TELL.say(take_back(journal, why, seconds))
