"""Real-world compose files: nothing of them is lost, and what is written compiles once its questions are answered."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import yaml

from ringfence.compile import compile_lab
from ringfence.compile.book import Book
from ringfence.importing import written
from ringfence.importing.files import Project
from ringfence.inventory.parts import joined
from ringfence.model import LabError, Problem
from ringfence.model.questions import asked
from tests.unit.importing.shapes import FIXTURES, SHAPES, answered, answers, imported, load, paths, project

LAB = {
    "lab_domain": "fixture.home",
    "lab_places": {"lan": ["192.168.10.0/24"], "vpn": ["10.99.0.0/24"]},
    "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"], "services": {"ssh": {"port": 22, "from": ["lan"]}}}},
    "lab_resolvers": ["192.168.10.1"],
}


def texts(name: str) -> dict[str, str]:
    found = imported(name)
    part = written.part(found, ", ".join(path.name for path in project(name).files))
    return {"reviewed.yml": part, **({"reviewed_vault.yml": written.vault(found.vault)} if found.vault else {})}


def whole(name: str, part: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The lab with the part as it is written and read again, with the vault's values in their places."""
    files = texts(name)
    values = load(files.get("reviewed_vault.yml", "{}")) or {}

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [filled(one) for one in value]
        found = re.fullmatch(r"\{\{ (vault_\w+) \}\}", value) if isinstance(value, str) else None
        return values[found[1]] if found else value

    return joined({**LAB, written.variable(imported(name).stack): filled(part)})


def refused(lab: dict[str, Any]) -> list[Problem]:
    try:
        compile_lab(lab, Book(), {"atlas"})
    except LabError as error:
        return error.problems
    return []


def part_of(name: str) -> dict[str, Any]:
    read = load(texts(name)["reviewed.yml"])
    assert list(read) == [written.variable(imported(name).stack)]
    return dict(read[written.variable(imported(name).stack)])


def test_there_are_enough_shapes() -> None:
    assert len(SHAPES) >= 24


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_written_is_what_was_reviewed(name: str) -> None:
    for file, text in texts(name).items():
        path = FIXTURES / "compose" / name / file
        if os.environ.get("RINGFENCE_WRITE_GOLDEN"):
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text, file


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_refused_with_every_question_and_compiles_once_they_are_answered(name: str) -> None:
    given, part = answers(name), part_of(name)
    places = sorted(problem.owner.lstrip(".") for problem in asked(part, ""))
    assert places == sorted([*given["answers"], *given["settled"]])
    lab, problems = whole(name, part)
    found = [*problems, *refused(lab)]
    assert len({problem.owner for problem in found if "not answered yet" in problem.message}) == len(places)
    lab, problems = whole(name, answered(part, given))
    assert [str(problem) for problem in [*problems, *refused(lab)]] == []


@pytest.mark.parametrize("name", SHAPES)
def test_no_secret_is_in_the_plain_file(name: str) -> None:
    plain = "".join(line for line in texts(name)["reviewed.yml"].splitlines(True))
    for secret in imported(name).vault.values():
        if re.search(r"[^A-Za-z]", secret) and len(secret) >= 8 and secret[:1] != "-":
            assert secret not in plain


# What each setting of compose has become, beside a question or a remark that names it.
BECAME = {
    "command": ["command"],
    "configs": ["files"],
    "depends_on": ["depends"],
    "deploy": ["memory", "pids", "gpus"],
    "devices": ["devices"],
    "entrypoint": ["compose"],
    "environment": ["environment"],
    "expose": ["port"],
    "group_add": ["group_add"],
    "healthcheck": ["health"],
    "image": ["image"],
    "init": ["init"],
    "links": ["calls"],
    "mem_limit": ["memory"],
    "network_mode": ["network", "segments"],
    "networks": ["segments"],
    "pids_limit": ["pids"],
    "ports": ["publish"],
    "read_only": ["read_only"],
    "secrets": ["secrets"],
    "tmpfs": ["tmpfs"],
    "user": ["user"],
    "volumes": ["volumes", "tmpfs"],
}


def names(found: Project) -> dict[str, str]:
    """compose's name → the lab's, worked out apart from the import."""
    return {name: re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in found.services}


@pytest.mark.parametrize("name", SHAPES)
def test_every_setting_of_a_service_is_declared_or_asked_for_or_remarked(name: str) -> None:
    found, part, remarks = project(name), part_of(name), imported(name).remarks
    for service, settings in found.services.items():
        entry = part["services"][names(found)[service]]
        said = [*(entry.get("questions") or {}), *remarks.get(names(found)[service], [])]
        for key in settings:
            declared = any(field in entry for field in BECAME.get(key, [])) or key in (entry.get("compose") or {})
            capability = key in ("cap_add", "cap_drop") and ("capabilities" in entry or settings[key] == ["ALL"])
            image = key == "build" and "image" in entry
            about = any(subject.startswith((key, key.rstrip("s"))) or f"{key}." in subject for subject in said)
            assert declared or capability or image or about, f"{service}.{key}"


@pytest.mark.parametrize("name", SHAPES)
def test_no_item_of_a_list_is_lost(name: str) -> None:
    found, part, remarks = project(name), part_of(name), imported(name).remarks
    for service, settings in found.services.items():
        lab_name = names(found)[service]
        entry = part["services"][lab_name]
        said = str(entry.get("questions") or "") + str(remarks.get(lab_name))
        assert set(settings.get("environment") or {}) == set(entry.get("environment") or {})
        asked_for = [subject for subject in entry.get("questions") or {} if subject.startswith("ports ")]
        assert len(settings.get("ports") or []) <= len(entry.get("publish") or []) + len(asked_for)
        mounted = yaml.safe_dump([entry.get("volumes"), entry.get("tmpfs")], width=10**6)
        for mount in settings.get("volumes") or []:
            assert str(mount["target"]) in mounted or str(mount["target"]) in said or str(mount["source"]) in said
        for capability in settings.get("cap_add") or []:
            assert capability in (entry.get("capabilities") or []) or f"cap_add {capability}" in said
        for needed in settings.get("depends_on") or {}:
            assert names(found).get(needed) in (entry.get("depends") or []) or f"depends_on {needed}" in said
    said = str(remarks.get("")) + str(part.get("questions"))
    for key in found.extensions:
        assert key in said
    for network in found.sections["networks"]:
        assert network in str(part["segments"].keys()) or network in said or network in str(part["services"])
    for volume, declared in found.sections["volumes"].items():
        real = (declared or {}).get("name") or volume
        assert real in str(part["services"]) or f"volumes.{volume}" in said


@pytest.mark.parametrize("name", SHAPES)
def test_every_service_of_the_file_is_there_or_asked_for(name: str) -> None:
    for path in paths(name):
        raw = yaml.safe_load(re.sub(r"!(?:override|reset)", "", path.read_text(encoding="utf-8")))
        for service in raw.get("services") or {}:
            here = re.sub(r"[^a-z0-9]+", "-", service.lower())
            assert here in part_of(name)["services"] or f"service {service}" in (part_of(name).get("questions") or {})
