"""Compose files are read as Docker Compose itself reads them, with every profile."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lab.cache import alone, cache_dir
from lab.shell import LabError
from lab.wheels import COMPOSE
from ringfence.importing.files import read
from ringfence.importing.ports import fit
from tests.unit.importing.shapes import FIXTURES, SHAPES, paths

# Compose refuses these as a whole: a variable that is not set but demanded, a volume that no file declares.
REFUSED = {"git": "RUNNER_TOKEN", "layers": "cachedir"}
PLAIN = ("command", "entrypoint", "image", "labels", "restart", "user", "init", "privileged", "cap_add")


@pytest.fixture(scope="module")
def compose() -> Path:
    try:
        with alone("compose-of-parity"):
            return COMPOSE.program(cache_dir())
    except LabError as error:
        if os.environ.get("RINGFENCE_CI"):
            raise
        pytest.skip(f"Docker Compose cannot be had: {error}")


def of_compose(program: Path, name: str) -> subprocess.CompletedProcess[str]:
    files = [word for path in paths(name) for word in ("-f", str(path))]
    return subprocess.run(
        [str(program), *files, "--profile", "*", "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def dollars(value: Any) -> Any:
    """What compose prints is a compose file again, in which a dollar is two."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, list):
        return [dollars(one) for one in value]
    return {key: dollars(one) for key, one in value.items()} if isinstance(value, dict) else value


def mounts(service: dict[str, Any], directory: Path) -> list[tuple[Any, ...]]:
    def source(one: dict[str, Any]) -> str:
        text = str(one.get("source", ""))
        return text.replace(f"{directory}/", "./").replace("/nowhere/", "~/").rstrip("/")

    return sorted(
        (one["type"], source(one), one["target"].rstrip("/"), bool(one.get("read_only")))
        for one in service.get("volumes") or []
    )


def one_by_one(port: dict[str, Any]) -> list[dict[str, Any]]:
    """Compose lists the ports of a range one by one."""
    ranges = {key: str(port.get(key) or "").partition("-") for key in ("target", "published")}
    first, _, last = ranges["target"]
    outer, _, outermost = ranges["published"]
    if not last or (outer and not outermost):
        return [port]
    assert fit(port) is not None
    return [
        {**port, "target": str(number), **({"published": str(int(outer) + number - int(first))} if outer else {})}
        for number in range(int(first), int(last) + 1)
    ]


def ports(service: dict[str, Any]) -> list[tuple[str, ...]]:
    listed = [each for one in service.get("ports") or [] for each in one_by_one(one)]
    return sorted(
        (str(one.get("host_ip", "")), str(one["target"]), str(one.get("published", "")), one.get("protocol", "tcp"))
        for one in listed
    )


@pytest.mark.parametrize("name", [name for name in SHAPES if name not in REFUSED])
def test_a_project_is_what_compose_takes_it_for(compose: Path, name: str) -> None:
    done = of_compose(compose, name)
    assert done.returncode == 0, done.stderr
    theirs, ours = dollars(json.loads(done.stdout)), read(paths(name), profiles=["*"])
    assert ours.name == theirs["name"]
    assert set(ours.services) == set(theirs["services"])
    for service, settings in theirs["services"].items():
        own = ours.services[service]
        for key in PLAIN:
            assert (own.get(key) or None) == (settings.get(key) or None), f"{service}.{key}"
        environment = {key: value or "" for key, value in (settings.get("environment") or {}).items()}
        # A name that nobody sets is left out there, and asked for here.
        given = {key: text for key, text in (own.get("environment") or {}).items() if text or key in environment}
        assert given == environment, service
        links = {str(link).partition(":")[0] for link in own.get("links") or []}
        assert {*(own.get("depends_on") or {}), *links} == set(settings.get("depends_on") or {})
        assert mounts(own, ours.directory) == mounts(settings, ours.directory)
        assert ports(own) == ports(settings)


@pytest.mark.parametrize("name", REFUSED)
def test_what_compose_refuses_is_not_the_reading(compose: Path, name: str) -> None:
    done = of_compose(compose, name)
    assert done.returncode != 0
    assert REFUSED[name] in done.stderr
    assert (FIXTURES / "compose" / name / "reviewed.yml").exists()
