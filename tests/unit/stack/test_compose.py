"""Compose files: what is declared stands in them as it is, whatever a text holds."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings

from ringfence.render import render
from tests.unit.stack.cases import (
    GOLDEN,
    LOG,
    ODD,
    OLD_TEMPLATE,
    SERVICES,
    STACKS,
    File,
    converged,
    made_of,
    program,
    project_of,
    undone,
)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.newest.yaml"])
def test_compose_files_are_as_reviewed(desired: dict[str, Any], name: str) -> None:
    text = program.as_yaml(made_of(desired, newest=name == "compose.newest.yaml"))
    if os.environ.get("RINGFENCE_WRITE_GOLDEN"):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_a_compose_file_holds_what_was_declared_and_no_secret(desired: dict[str, Any]) -> None:
    text = program.as_yaml(made_of(desired))
    assert "not-in-any-compose-file" not in text
    web = yaml.safe_load(text)["services"]["web"]
    assert web["environment"] == {"PRICE": "$$5 & {{ x }}", "QUOTES": 'it\'s "so"'}
    assert web["cap_drop"] == ["ALL"]
    assert web["read_only"] is True
    assert web["tmpfs"] == ["/tmp", "/run"]
    assert web["logging"]["options"]["tag"] == "{{.Name}}"
    assert web["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert yaml.safe_load(text)["services"]["lonely"]["network_mode"] == "none"


def test_each_service_has_its_own_digest(desired: dict[str, Any]) -> None:
    before = program.specs(made_of(desired))
    assert len(set(before.values())) == 4
    assert program.specs(made_of(desired, newest=True)) == before
    desired["projects"][0]["services"][0]["extra_hosts"] = {"billing": "172.22.0.8"}
    after = program.specs(made_of(desired))
    assert [name for name in before if before[name] != after[name]] == ["web"]


def test_what_is_read_from_files_is_not_part_of_the_digest(desired: dict[str, Any]) -> None:
    before = program.specs(made_of(desired))
    proxy = desired["projects"][0]["services"][3]
    proxy["config"]["/etc/proxy"]["new.conf"] = "new"
    proxy["validate"], proxy["reload"] = ["other"], {"signal": "SIGUSR1"}
    assert program.specs(made_of(desired)) == before


def test_health_is_checked_seldom_but_soon_at_first_where_the_engine_can() -> None:
    service = program.completed({"name": "db", "image": "i", "health": ["pg_isready"]})
    project = {"name": "p", "services": [service]}

    def pace(engine_25: bool) -> dict[str, Any]:
        made = program.document(project, "stack", "/p", LOG, engine_25=engine_25)
        return dict(made["services"]["db"]["healthcheck"])

    assert pace(True) == pace(False) | {"interval": "30s", "start_interval": "2s", "retries": 3}
    assert "start_interval" not in pace(False)
    # An upgrade of the engine makes no container anew for that.
    assert program.specs(program.document(project, "stack", "/p", LOG)) == program.specs(
        program.document(project, "stack", "/p", LOG, engine_25=True)
    )


def test_health_is_checked_as_seldom_as_somebody_wants_it() -> None:
    wish = {"projects": [{"name": "p", "services": [{"name": "db", "image": "i", "health": ["pg_isready"]}]}]}

    def made(seconds: int, engine_25: bool = True) -> dict[str, Any]:
        project = program.whole(wish | {"health_seconds": seconds})["projects"][0]
        return dict(program.document(project, "stack", "/p", LOG, engine_25=engine_25))

    assert made(300)["services"]["db"]["healthcheck"]["interval"] == "300s"
    assert made(300)["services"]["db"]["healthcheck"]["start_interval"] == "2s"
    assert made(300, False)["services"]["db"]["healthcheck"]["interval"] == "10s"  # it would start that slowly
    # Docker makes a container anew for that, and the plan has to say so.
    assert program.specs(made(300)) != program.specs(made(30))


# -- the release before


def old_digests(project: dict[str, Any], log: dict[str, Any]) -> dict[str, str]:
    """The digests that ringfence's first release gave the services of a project, made by its own template."""
    text = render(
        OLD_TEMPLATE,
        {"project": project, "stack_log_max_size": log["max_size"], "stack_log_max_file": log["max_file"]},
    )
    body = re.search(r"^services:\n((?:  .*\n)*)", text, re.M)
    assert body
    parts = re.split(r"^  ([A-Za-z0-9][\w.-]*):(?: \{\})?\n", body[1], flags=re.M)
    return {n: hashlib.sha256(t.encode()).hexdigest() for n, t in zip(parts[1::2], parts[2::2], strict=True)}


def test_containers_of_the_release_before_are_kept(desired: dict[str, Any]) -> None:
    del desired["projects"][0]["services"][3]  # it had no directories of configuration, and no DNS servers
    for service in desired["projects"][0]["services"]:
        service["dns"], service["dns_opt"] = [], []
    facts = converged(desired)
    old = old_digests(desired["projects"][0], desired["log"])
    for c in facts.containers:
        c["labels"]["ringfence.spec"] = old[c["labels"]["com.docker.compose.service"]]
    facts.owners = {}
    facts.entries[STACKS / "shop/compose.yaml"] = File(b"the old text", 0o640, 0)
    facts.entries[STACKS / "shop/compose.ipv6.yaml"] = File(b"the old text", 0o640, 0)
    del facts.entries[STACKS / "shop/project.json"]
    plan = program.make_plan(desired, facts)
    assert plan.refusals == []
    assert plan.changes == [
        "~ file /opt/ringfence/stacks/shop/compose.yaml: content",
        "+ file /opt/ringfence/stacks/shop/project.json",
        "- file /opt/ringfence/stacks/shop/compose.ipv6.yaml: not declared",
    ]
    assert not plan.work["shop"].any
    desired["projects"][0]["services"][2]["environment"] = {"NEW": "1"}
    assert program.make_plan(desired, facts).work["shop"].force == ["lonely"]


# -- whatever a text holds


@settings(max_examples=200, deadline=None)
@given(service=SERVICES)
@example(service={"name": "null", "image": "busybox:1", "environment": {"A": "${HOME} \U0001f600 @SPEC@"}})
@example(service={"name": "x", "image": "busybox:1", "command": [ODD], "user": "007 "})
def test_every_text_is_in_the_compose_file_as_it_was_declared(service: dict[str, Any]) -> None:
    project = project_of(service)
    made = program.document(project, "stack", "/opt/ringfence/stacks/shop", LOG, False)
    read = yaml.safe_load(program.as_yaml(made))
    assert undone(read) == made
    (entry,) = read["services"].values()
    assert list(read["services"]) == [service["name"]]
    assert undone(entry.get("environment", {})) == service.get("environment", {})
    assert undone(entry.get("command", [])) == service.get("command", [])
    assert {"privileged", "pid", "ipc", "devices"}.isdisjoint(entry)


@settings(max_examples=200, deadline=None)
@given(service=SERVICES)
def test_the_digests_of_the_release_before_are_known(service: dict[str, Any]) -> None:
    service = {**service, "config": {}, "networks": [{"network": "rf-a", "address": "172.20.0.2"}]}
    service["volumes"] = [*service["volumes"], {"source": "/srv/a", "target": "/a", "read_only": True}]
    other = {"name": "other", "image": "busybox:1.37", "depends": [service["name"]], "secrets": ["token"]}
    project = project_of(service, other)
    old = old_digests(project, LOG)
    assert old == {s["name"]: program.old_spec(project, s, LOG) for s in project["services"]}


def test_a_port_is_bound_to_the_address_that_is_declared() -> None:
    ports = [{"published": 80, "port": 80}, {"published": 81, "port": 80, "address": "192.168.10.5"}]
    service = {"name": "a", "image": "x", "ports": ports}
    project = program.whole({"projects": [{"name": "p", "services": [service]}]})["projects"][0]
    made = program._service(project, project["services"][0], "stack", "/x", LOG)
    assert [port.get("host_ip") for port in made["ports"]] == [None, "192.168.10.5"]
