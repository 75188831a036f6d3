"""What runs on a host: the images of a project's containers by digest, and where its files lie."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence.importing.problems import ComposeError

SECONDS = 120
VAULT_PASSWORD = ".vault-password"  # noqa: S105 - the name of a file, as in ringfence.inventory.source
_SERVICE = "com.docker.compose.service"
_DIRECTORY = "com.docker.compose.project.working_dir"
# Prints containers and their images as two lists.
_ASK = (
    "ids=$(docker ps -aq {filter}); "
    'if [ -z "$ids" ]; then echo []; echo []; exit; fi; docker inspect $ids; '
    "docker image inspect $(docker inspect -f '{% raw %}{{.Image}}{% endraw %}' $ids | sort -u)"
)


@dataclass(frozen=True)
class Running:
    """What was found.

    Attributes:
        images: service → the image that it runs, with its digest.
        directory: of the host, in which the compose files lie; "" where no container says it.
        unpinned: services whose image was made on the host, so that it has no digest.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""
    unpinned: tuple[str, ...] = ()


def ask(hosts_file: Path, host: str, project: str) -> Running:
    """Ask a host over Ansible what it runs of a project.

    Raises:
        ComposeError: it cannot be asked; the message has Ansible's words.
    """
    return read(_asked(hosts_file, host, f"--filter label=com.docker.compose.project={project}"))


def images(hosts_file: Path, host: str) -> dict[str, set[str]]:
    """Ask a host over Ansible which images its containers run: name (`full_name`) → the same with a digest, "" where
    it was made on the host.

    Raises:
        ComposeError: it cannot be asked; the message has Ansible's words.
    """
    containers, known = _two_lists(_asked(hosts_file, host, ""))
    found: dict[str, set[str]] = {}
    for container in containers:
        name = str(container["Config"]["Image"])
        found.setdefault(full_name(name), set()).add(_pinned(name, known.get(container["Image"]) or {}))
    return found


def full_name(image: str) -> str:
    """Return an image's name with its registry, its directory and its tag, as Docker completes it."""
    name, at, digest = image.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, "" if digest else "latest"
    registry, slash, rest = repository.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, rest = "docker.io", repository
    if registry == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    return f"{registry}/{rest}{f':{tag}' if tag else ''}{at}{digest}"


def _asked(hosts_file: Path, host: str, which: str) -> str:
    program = Path(sys.executable).with_name("ansible")
    words = ["-i", str(hosts_file), host, "-b", "-m", "ansible.builtin.shell", "-a", _ASK.replace("{filter}", which)]
    own = hosts_file.parent / VAULT_PASSWORD
    words += ["--vault-id", f"default@{own}"] if own.exists() else []
    done = subprocess.run(
        [str(program), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    if done.returncode != 0:
        raise ComposeError(
            f"{host} cannot be asked what it runs: {' '.join((done.stdout + done.stderr).split())[:300]}"
        )
    return done.stdout.partition("\n")[2]


def _two_lists(text: str) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    decoder = json.JSONDecoder()
    containers, end = decoder.raw_decode(text.lstrip())
    rest = text.lstrip()[end:].lstrip()
    return containers, {one["Id"]: one for one in decoder.raw_decode(rest)[0]}


def read(text: str) -> Running:
    """Read the two lists that the host printed."""
    containers, known = _two_lists(text)
    found: dict[str, str] = {}
    unpinned: set[str] = set()
    directories = set()
    for container in containers:
        labels = container["Config"].get("Labels") or {}
        service = labels.get(_SERVICE)
        directories.add(labels.get(_DIRECTORY) or "")
        if service:
            pinned = _pinned(str(container["Config"]["Image"]), known.get(container["Image"]) or {})
            if pinned:
                found[service] = pinned
            else:
                unpinned.add(service)
    return Running(found, directories.pop() if len(directories) == 1 else "", tuple(sorted(unpinned)))


def _pinned(name: str, image: Mapping[str, Any]) -> str:
    """Return an image's name with the digest under which its registry has it; "" where it has none."""
    if "@" in name:
        return name
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, ""
    short = repository.removeprefix("docker.io/").removeprefix("library/")
    for one in image.get("RepoDigests") or []:
        of, _, digest = str(one).partition("@")
        if of.removeprefix("docker.io/").removeprefix("library/") == short:
            return f"{repository}{f':{tag}' if tag and tag != 'latest' else ''}@{digest}"
    return ""
