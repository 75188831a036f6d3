"""The stack role: its compose files, and what its host program plans from facts alone."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from ringfence.role import Role

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/stack/files/ringfence-stack"
GOLDEN = ROOT / "tests/golden/stack"
STACKS = Path("/opt/ringfence/stacks")


def load() -> SimpleNamespace:
    space: dict[str, Any] = {"__name__": "under_test"}
    exec(compile(PROGRAM.read_text(encoding="utf-8"), str(PROGRAM), "exec"), space)
    return SimpleNamespace(**space)


program = load()


@pytest.fixture
def desired() -> dict[str, Any]:
    role = Role(str(ROOT / "roles/stack/deploy.py"))
    given = yaml.safe_load((GOLDEN / "variables.yml").read_text(encoding="utf-8"))
    return role.render_json("desired.json.j2", role.variables(given))


def bare(**changes: Any) -> dict[str, Any]:
    """A host without Docker, where the user's directory is there."""
    return {
        "directories": [], "files": {}, "mtimes": {}, "missing": set(), "docker": False, "containers": [],
        "networks": {},
        "images": {}, "engine_v6": False, "volumes": {},
    } | changes  # fmt: skip


NETWORKS = {
    "rf-back": {"id": "nb", "v6": False, "subnets": ["172.21.0.0/24"], "internal": True},
    "rf-front": {"id": "nf", "v6": False, "subnets": ["172.20.0.0/24"], "internal": False},
}


def converged(desired: dict[str, Any]) -> dict[str, Any]:
    """The host after a complete run."""
    files, containers = {}, []
    for entry in desired["projects"]:
        project = entry["project"]
        wanted = program.wanted_files(entry, desired["secrets"].get(project["name"], {}))
        files |= {path: file[:3] for path, file in wanted.items()}
        specs = program.with_specs(entry["compose"])[1]
        for service in project["services"]:
            own = f"{project['name']}-{service['name']}-1"
            legs = service.get("networks", [])
            containers.append({
                "id": own, "name": own, "state": "running", "status": "Up 5 minutes", "created": 2000.0, "ports": [],
                "volumes": [f"{project['name']}_{v['name']}" for v in service.get("volumes", []) if v.get("name")],
                "labels": {
                    "ringfence.project": project["name"], "com.docker.compose.project": project["name"],
                    "com.docker.compose.service": service["name"], "ringfence.spec": specs[service["name"]],
                    "com.docker.compose.image": "sha256:one",
                },
                "networks": {
                    leg["network"]: {"id": NETWORKS[leg["network"]]["id"], "address": leg["address"], "address6": ""}
                    for leg in legs
                }
                or {"none": {"id": "none", "address": "", "address6": ""}},
            })  # fmt: skip
    images = dict.fromkeys((s["image"] for e in desired["projects"] for s in e["project"]["services"]), "sha256:one")
    return bare(
        docker=True,
        directories=["shop"],
        files=files,
        mtimes=dict.fromkeys(files, 1000.0),
        containers=containers,
        networks=copy.deepcopy(NETWORKS),
        images=images,
    )


def container(facts: dict[str, Any], name: str) -> dict[str, Any]:
    return next(c for c in facts["containers"] if c["name"] == name)


@pytest.mark.parametrize("kind", ["compose", "ipv6"])
def test_compose_files_are_as_reviewed(desired: dict[str, Any], kind: str) -> None:
    path = GOLDEN / ("compose.yaml" if kind == "compose" else "compose.ipv6.yaml")
    if os.environ.get("RINGFENCE_WRITE_GOLDEN"):
        path.write_text(desired["projects"][0][kind], encoding="utf-8")
    assert desired["projects"][0][kind] == path.read_text(encoding="utf-8")


def test_a_compose_file_holds_what_was_declared_and_no_secret(desired: dict[str, Any]) -> None:
    text = desired["projects"][0]["compose"]
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
    text = desired["projects"][0]["compose"]
    filled, digests = program.with_specs(text)
    labels = {name: service["labels"]["ringfence.spec"] for name, service in yaml.safe_load(filled)["services"].items()}
    assert labels == digests
    assert len(set(digests.values())) == 3
    other = program.with_specs(text.replace("172.22.0.9", "172.22.0.8"))[1]
    assert [name for name in digests if digests[name] != other[name]] == ["web"]


def test_on_a_bare_host_everything_is_pending(desired: dict[str, Any]) -> None:
    plan = program.make_plan(desired, bare())
    assert plan.refusals == []
    assert plan.changes == [
        "+ project shop: 3 services",
        "+ secret /opt/ringfence/stacks/shop/secrets/token",
        "+ container shop-web-1 (docker.io/library/nginx:1.29)",
        "+ container shop-db-1 (docker.io/library/postgres:18.6)",
        "+ container shop-lonely-1 (docker.io/library/busybox:1.37)",
    ]
    secret = plan.files[STACKS / "shop/secrets/token"]
    assert (secret.mode, secret.owner, secret.content) == (0o400, 70, b"not-in-any-compose-file")


def test_a_converged_host_has_nothing_pending(desired: dict[str, Any]) -> None:
    plan = program.make_plan(desired, converged(desired))
    assert (plan.changes, plan.refusals, plan.notices) == ([], [], [])


def test_a_container_attached_to_another_segment_is_named_and_detached(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    container(facts, "shop-db-1")["networks"]["rf-front"] = {"id": "nf", "address": "172.20.0.2", "address6": ""}
    plan = program.make_plan(desired, facts)
    assert plan.changes == ["! container shop-db-1 is attached to rf-front, declared: rf-back"]
    assert plan.work["shop"].disconnect == [("rf-front", "shop-db-1")]
    assert plan.work["shop"].force == []


def test_a_moved_container_is_made_anew(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    container(facts, "shop-db-1")["networks"] = {"rf-front": {"id": "nf", "address": "172.20.0.2", "address6": ""}}
    plan = program.make_plan(desired, facts)
    assert plan.changes == ["! container shop-db-1 is attached to rf-front, declared: rf-back"]
    assert plan.work["shop"].force == ["db"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"state": "exited", "status": "Exited (1) 2 minutes ago"},
            "! container shop-db-1 is not running (Exited (1) 2 minutes ago)",
        ),
        ({"state": "paused"}, "! container shop-db-1 is paused"),
        ({"state": "restarting", "status": "Restarting (1)"}, "! container shop-db-1 is restarting again and again"),
        ({"status": "Up 5 minutes (unhealthy)"}, "! container shop-db-1 is unhealthy"),
        (
            {"name": "0a1b_shop-db-1"},
            "~ container 0a1b_shop-db-1: left over from an interrupted run, becomes shop-db-1",
        ),
    ],
)
def test_a_container_that_does_not_run_as_declared(desired: dict[str, Any], change: dict[str, Any], line: str) -> None:
    facts = converged(desired)
    container(facts, "shop-db-1").update(change)
    assert program.make_plan(desired, facts).changes == [line]


def test_a_container_older_than_its_secret_is_made_anew(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    facts["mtimes"][STACKS / "shop/secrets/token"] = 3000.0
    assert program.make_plan(desired, facts).changes == ["~ container shop-web-1: older than its secret token"]


def test_a_changed_secret_is_named_and_never_shown(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    facts["files"][STACKS / "shop/secrets/token"] = (b"the-old-value", 0o400, 70)
    changes = program.make_plan(desired, facts).changes
    assert changes[0] == "~ secret /opt/ringfence/stacks/shop/secrets/token: content"
    assert "value" not in " ".join(changes)


def test_a_network_that_will_be_made_anew_takes_its_containers_along(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    facts["networks"]["rf-front"]["subnets"] = ["172.29.0.0/24"]
    assert program.make_plan(desired, facts).changes == ["~ container shop-web-1: its network rf-front is made anew"]
    facts = converged(desired)
    facts["networks"]["rf-front"]["id"] = "other"
    assert program.make_plan(desired, facts).changes == ["~ container shop-web-1: its network rf-front was made anew"]


def test_a_removed_project_keeps_its_volumes_and_names_them(desired: dict[str, Any]) -> None:
    facts = converged(desired) | {"volumes": {"shop": ["shop_old"]}}
    plan = program.make_plan({**desired, "projects": []}, facts)
    assert plan.changes == ["- project shop: 3 containers; volumes kept: shop_data, shop_old"]
    assert plan.gone == ["shop"]


def test_services_that_swap_addresses_are_stopped_first(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    web, db = (
        container(facts, "shop-web-1")["networks"]["rf-back"],
        container(facts, "shop-db-1")["networks"]["rf-back"],
    )
    web["address"], db["address"] = db["address"], web["address"]
    assert program.make_plan(desired, facts).free == ["shop-web-1", "shop-db-1"]


def test_ipv6_is_used_only_where_every_network_has_it(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    assert not program.make_plan(desired, facts).work["shop"].ipv6
    for network in facts["networks"].values():
        network["v6"] = True
    plan = program.make_plan(desired, facts | {"engine_v6": True})
    assert plan.work["shop"].ipv6
    assert plan.changes == ["! container shop-web-1 has no IPv6 on rf-back, declared: fd00:21::11",
                            "! container shop-web-1 has no IPv6 on rf-front, declared: fd00:20::11"]  # fmt: skip


def foreign(**changes: Any) -> dict[str, Any]:
    return {
        "id": "f", "name": "other", "labels": {}, "state": "running", "status": "Up", "created": 1.0,
        "networks": {}, "ports": [], "volumes": [],
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (
            foreign(
                labels={"com.docker.compose.project": "shop", "com.docker.compose.project.working_dir": "/srv/shop"}
            ),
            "/srv/shop",
        ),
        (
            foreign(networks={"rf-front": {"id": "nf", "address": "172.20.0.11", "address6": ""}}),
            "docker network disconnect rf-front other",
        ),
        (foreign(ports=["8088/tcp"]), "port 8088/tcp is already published by other"),
        (foreign(name="shop-web-1"), "docker rename shop-web-1"),
    ],
)
def test_what_somebody_else_runs_is_never_touched(
    desired: dict[str, Any], container: dict[str, Any], words: str
) -> None:
    plan = program.make_plan(desired, bare(docker=True, containers=[container]))
    assert words in " ".join(plan.refusals)
    assert plan.remove == []


def test_missing_values_and_directories_are_refused(desired: dict[str, Any]) -> None:
    refusals = program.make_plan(desired | {"secrets": {}}, bare(missing={"/srv/media"})).refusals
    assert refusals == [
        "stack_secrets.shop: no value for the secret 'token'",
        "project shop, service web: /srv/media does not exist on this host: make it, or correct the volume",
    ]


def test_messages_are_cleaned_of_secrets() -> None:
    assert (
        program.Teller({"shop": {"token": "hunter22"}}).clean("password hunter22 refused")
        == "password ******** refused"
    )


def test_apply_takes_networks_as_they_are(desired: dict[str, Any]) -> None:
    facts = converged(desired) | {"engine_v6": True}
    assert "~ container shop-web-1: its network rf-front is made anew" in program.make_plan(desired, facts).changes
    plan = program.make_plan(desired, facts, networks_follow=False)
    assert plan.changes == []
    assert not plan.work["shop"].ipv6
