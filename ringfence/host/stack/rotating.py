"""The verb `rotate`: a new value for a secret that was made on the host, read by its services."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from ringfence.host.compose import completed, rereads
from ringfence.host.engine import docker_runs
from ringfence.host.files import make_directory, read, read_json, replace_file
from ringfence.host.projects import ROOT, container_name, home, tree_of
from ringfence.host.running import Fault
from ringfence.host.stack.containers import Container, image_path, there, wait
from ringfence.host.stack.generated import keep_secret, kept_secrets, make_secret
from ringfence.host.stack.journal import JOURNALS
from ringfence.host.stack.reading import now_read, recorded, reload, seen_trees, settle
from ringfence.host.stack.telling import TELL
from ringfence.host.stack.turns import alone
from ringfence.host.stack.upgrading import compose_images, compose_up, own
from ringfence.host.swapping import File, look_into, new_generation, swap

PATIENCE = 180.0  # seconds until what reads the new value must be healthy


def rotate(words: list[str]) -> dict[str, list[str]]:
    """Make a new value of a secret and have it read; if a service does not work with it, the old one comes back.

    Raises:
        Fault: there is no such secret, it was not made here, or a service did not take the new value over.
    """
    if len(words) != 2:
        raise Fault("write `ringfence-stack rotate PROJECT SECRET`")
    project_name, name = words
    with alone():
        project, kind = _find(project_name, name)
        old = kept_secrets(project_name).get(name, "")
        if not old:
            raise Fault(f"{project_name}/{name} has not been made yet: apply makes it")
        running = _running(project, name)
        new = make_secret(kind)
        TELL.learn({"kept": kept_secrets(project_name), "made": {name: new}, "read": _readable(project)})
        # Once it is kept, the next run goes on with it wherever this one is killed.
        keep_secret(project_name, name, new)
        try:
            changes = _hand_over(project, name, new, running)
        except (Fault, OSError) as error:
            keep_secret(project_name, name, old)
            how = "the old value is back"
            try:
                _hand_over(project, name, old, running)
            except (Fault, OSError) as again:
                how += f", but could not be handed over everywhere: {again}\nthe next run does that"
            raise Fault(f"{project_name}/{name} was not rotated: {error}\n{how}") from None
        return {"changes": [f"~ secret {project_name}/{name}: a new value, made on the host", *changes]}


def _find(project: str, name: str) -> tuple[dict[str, Any], str]:
    """Return a project, as far as it is known here, with its services that read a secret; and the secret's kind."""
    known = sorted(path.parent.name for path in ROOT.glob("*/project.json"))
    if project not in known:
        raise Fault(f"there is no project {project!r} here; {_near(project, known)}")
    if (JOURNALS / project / "journal.json").is_file():
        raise Fault(f"an upgrade of the project {project} was interrupted: apply finishes it, or takes it back")
    said = read_json(ROOT / project / "project.json") or {}
    kinds = said.get("secrets") or {}
    made = sorted(one for one, kind in kinds.items() if kind)
    if name in kinds and name not in made:
        raise Fault(f"{project}/{name} was given, not made on the host: change its value in stack_secrets and apply")
    if name not in made:
        raise Fault(f"the project {project} has no secret {name!r} that was made on the host; {_near(name, made)}")
    services = [
        completed({**service, "config": {target: {} for target in service["config"]}})
        for service in said.get("services") or []
        if name in service["secrets"]
    ]
    return {"name": project, "services": services, "secrets": []}, str(kinds[name])


def _readable(project: dict[str, Any]) -> dict[str, str]:
    """Return every secret that the services have, also those that were given: none may be shown with their words."""
    found: dict[str, str] = {}
    if (home(project) / "secrets").is_dir():
        found |= {path.name: read(path) for path in (home(project) / "secrets").iterdir() if path.is_file()}
    for service in project["services"]:
        files = look_into(tree_of(project, service, "/run/secrets")).files
        found |= {f"{service['name']}/{name}": file.content.decode("utf-8", "replace") for name, file in files.items()}
    return found


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"


def _running(project: dict[str, Any], name: str) -> dict[str, Container]:
    """Return the containers that read a secret now: those that do not run read it when they start."""
    if not docker_runs():
        return {}
    found: dict[str, Container] = {}
    images = compose_images(read(home(project) / "compose.yaml"))
    for service in project["services"]:
        for container in own(project["name"], service["name"]):
            if container["state"] not in ("running", "restarting"):
                continue
            found[service["name"]] = container
            label = container["labels"].get("com.docker.compose.image")
            image = images.get(service["name"], "")
            now = there(image_path(image)).get("Id") if image else None
            if not rereads(service) and label and now != label:
                raise Fault(
                    f"{container['name']} would get another image as well if it were made anew for {name} ({image} has"
                    " changed): apply first"
                )
    return found


def _hand_over(project: dict[str, Any], name: str, value: str, running: dict[str, Container]) -> list[str]:
    """Put a value where services read a secret, and have those that run read it. Raises Fault, OSError."""
    changes, again = [], []
    path = home(project) / "secrets" / name
    if path.is_file() and read(path) != value:
        _replace(path, value)
    for service in project["services"]:
        shown = container_name(project, service)
        container = running.get(service["name"])
        if not rereads(service):
            if container:
                again.append(service["name"])
                changes.append(f"~ container {shown}: made anew, it reads the new value")
            continue
        before = seen_trees(project, service)
        if not _swap_in(tree_of(project, service, "/run/secrets"), name, value) or not container:
            continue
        state = there(f"/containers/{container['id']}/json")
        started = str((state.get("State") or {}).get("StartedAt"))
        had = recorded(home(project)).get(service["name"])
        if not had or (had.container, had.started) != (container["id"], started):
            had = now_read(container["id"], started, before)
        reload(project, service, had, PATIENCE)
        changes.append(f"~ container {shown}: it has read the new value")
    if again:
        TELL.say(f"{project['name']}: compose up {' '.join(again)}")
        compose_up(project["name"], again, PATIENCE, home(project))
        settle(project, again)
    if running:
        wait({container_name(project, s) for s in project["services"] if s["name"] in running}, PATIENCE, ends=True)
    return changes


def _replace(path: Path, value: str) -> None:
    info = path.stat()
    replace_file(path, value, info.st_mode & 0o777, (info.st_uid, info.st_gid))


def _swap_in(tree: Path, name: str, value: str) -> bool:
    """Let a directory that is swapped at once have a value; whether it had another."""
    seen = look_into(tree)
    if name not in seen.files or seen.files[name].content == value.encode():
        return False
    generation = new_generation(tree)
    make_directory(generation)
    for path, file in seen.files.items():
        content = value.encode() if path == name else file.content
        _write(generation / path, file, content)
    swap(tree, generation.name)
    return True


def _write(path: Path, file: File, content: bytes) -> None:
    replace_file(path, content, file.mode, (file.owner, file.owner))
