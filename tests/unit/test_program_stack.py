"""The stack role: its compose files, and what its host program plans from facts alone."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ringfence.render import render
from ringfence.role import Role
from tests.programs import load

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/stack"
OLD_TEMPLATE = ROOT / "tests/fixtures/stack-old/compose.yaml.j2"
STACKS = Path("/opt/ringfence/stacks")

program = load("stack")
Facts = program.Facts
File = program.File


@pytest.fixture
def desired() -> dict[str, Any]:
    role = Role(str(ROOT / "roles/stack/deploy.py"))
    given = yaml.safe_load((GOLDEN / "variables.yml").read_text(encoding="utf-8"))
    return dict(program.whole(role.render_json("desired.json.j2", role.variables(given))))


NETWORKS = {
    "rf-back": {"id": "nb", "v6": False, "subnets": ["172.21.0.0/24"], "internal": True},
    "rf-front": {"id": "nf", "v6": False, "subnets": ["172.20.0.0/24"], "internal": False},
}
STARTED = "1970-01-01T00:33:21.000000000Z"


def made_of(desired: dict[str, Any], newest: bool = False) -> dict[str, Any]:
    """The compose document of the first project, for the oldest engine or the newest, which has IPv6 and sets MACs."""
    project = desired["projects"][0]
    home = str(program.home(project))
    return dict(program.document(project, desired["owner"], home, desired["log"], newest, newest))


def converged(desired: dict[str, Any]) -> Any:
    """The host after a complete run."""
    entries: dict[Path, Any] = {}
    trees: dict[Path, Any] = {}
    containers = []
    for project in desired["projects"]:
        values = desired["secrets"].get(project["name"], {})
        made = program.document(project, desired["owner"], str(program.home(project)), desired["log"], False)
        entries |= program.wanted_files(project, made, values, desired["owner"])
        for service in project["services"]:
            for target, files in program.wanted_trees(project, service, values).items():
                trees[program.tree_of(project, service, target)] = program.Seen("..1", files, 1000.0, True, [])
            own = f"{project['name']}-{service['name']}-1"
            containers.append({
                "id": own, "name": own, "state": "running", "status": "Up 5 minutes", "created": 2000.0, "ports": [],
                "volumes": [f"{project['name']}_{v['name']}" for v in service["volumes"] if v.get("name")],
                "labels": {
                    "ringfence.project": project["name"], "com.docker.compose.project": project["name"],
                    "com.docker.compose.service": service["name"],
                    "ringfence.spec": program.specs(made)[service["name"]],
                    "com.docker.compose.image": "sha256:one",
                },
                "networks": {
                    leg["network"]: {
                        "id": NETWORKS[leg["network"]]["id"], "address": leg["address"], "address6": "",
                        "mac": program.mac_of(leg["address"]),
                    }
                    for leg in service["networks"]
                }
                or {"none": {"id": "none", "address": "", "address6": "", "mac": ""}},
            })  # fmt: skip
    images = {s["image"]: "sha256:one" for p in desired["projects"] for s in p["services"]}
    mtimes = dict.fromkeys(entries, 1000.0)
    home = STACKS / "shop"
    directories = {up for path in [*entries, *trees] for up in path.parents if home in up.parents}
    return Facts(
        docker=True,
        projects=["shop"],
        owners={"shop": desired["owner"]},
        entries={**dict.fromkeys(directories), **dict.fromkeys(trees), **entries},
        mtimes=mtimes,
        trees=trees,
        started={c["id"]: STARTED for c in containers},
        containers=containers,
        networks=copy.deepcopy(NETWORKS),
        images=images,
    )


def container(facts: Any, name: str) -> Any:
    return next(c for c in facts.containers if c["name"] == name)


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


def test_on_a_bare_host_everything_is_pending(desired: dict[str, Any]) -> None:
    plan = program.make_plan(desired, Facts())
    assert plan.refusals == []
    assert plan.changes == [
        "+ project shop: 4 services",
        "+ secret /opt/ringfence/stacks/shop/secrets/token",
        "+ container shop-web-1 (docker.io/library/nginx:1.29)",
        "+ container shop-db-1 (docker.io/library/postgres:18.6)",
        "+ container shop-lonely-1 (docker.io/library/busybox:1.37)",
        "+ container shop-proxy-1 (docker.io/library/caddy:2.11.7)",
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


def test_a_container_with_another_mac_address_is_made_anew(desired: dict[str, Any]) -> None:
    facts = dataclasses.replace(converged(desired), engine_25=True)
    for path, file in program.wanted_files(
        desired["projects"][0], program.document(
            desired["projects"][0], "stack", str(STACKS / "shop"), desired["log"], engine_25=True
        ), desired["secrets"]["shop"], "stack",
    ).items():  # fmt: skip
        facts.entries[path] = file
    assert program.make_plan(desired, facts).changes == []
    container(facts, "shop-web-1")["networks"]["rf-back"]["mac"] = "6a:00:00:00:00:01"
    plan = program.make_plan(desired, facts)
    line = "! container shop-web-1 has 6a:00:00:00:00:01 on rf-back, declared: 02:42:ac:15:00:0b"
    assert plan.changes == [line]
    assert plan.work["shop"].force == ["web"]
    container(facts, "shop-web-1")["state"] = "exited"  # an engine tells none of one that is stopped
    assert line not in program.make_plan(desired, facts).changes


def test_an_engine_that_makes_the_mac_address_itself_is_given_no_other(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    assert program.make_plan(desired, facts).refusals == []
    desired["projects"][0]["services"][0]["networks"][0]["mac"] = "02:42:00:00:00:01"
    (refusal,) = program.make_plan(desired, facts).refusals
    assert "from the IPv4 address: write 02:42:ac:15:00:0b, or leave it out" in refusal
    assert program.make_plan(desired, dataclasses.replace(facts, engine_25=True)).refusals == []


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
    facts.mtimes[STACKS / "shop/secrets/token"] = 3000.0
    assert program.make_plan(desired, facts).changes == ["~ container shop-web-1: older than its secret token"]


def test_a_changed_secret_is_named_and_never_shown(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    facts.entries[STACKS / "shop/secrets/token"] = File(b"the-old-value", 0o400, 70)
    changes = program.make_plan(desired, facts).changes
    assert changes[0] == "~ secret /opt/ringfence/stacks/shop/secrets/token: content"
    assert "value" not in " ".join(changes)


def test_a_network_that_will_be_made_anew_takes_its_containers_along(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    facts.networks["rf-front"]["subnets"] = ["172.29.0.0/24"]
    assert program.make_plan(desired, facts).changes == ["~ container shop-web-1: its network rf-front is made anew"]
    facts = converged(desired)
    facts.networks["rf-front"]["id"] = "other"
    assert program.make_plan(desired, facts).changes == ["~ container shop-web-1: its network rf-front was made anew"]


def test_a_removed_project_keeps_its_volumes_and_names_them(desired: dict[str, Any]) -> None:
    facts = dataclasses.replace(converged(desired), volumes={"shop": ["shop_old"]})
    plan = program.make_plan({**desired, "projects": []}, facts)
    assert plan.changes == ["- project shop: 4 containers; volumes kept: shop_data, shop_old"]
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
    assert program.make_plan(desired, facts).files == {}
    for network in facts.networks.values():
        network["v6"] = True
    plan = program.make_plan(desired, dataclasses.replace(facts, engine_v6=True))
    assert "ipv6_address" in plan.files[STACKS / "shop/compose.yaml"].content.decode()
    assert plan.changes[1:] == ["! container shop-web-1 has no IPv6 on rf-back, declared: fd00:21::11",
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
    plan = program.make_plan(desired, Facts(docker=True, containers=[container]))
    assert words in " ".join(plan.refusals)
    assert plan.remove == []


def test_missing_values_and_directories_are_refused(desired: dict[str, Any]) -> None:
    refusals = program.make_plan(desired | {"secrets": {}}, Facts(missing={"/srv/media"})).refusals
    assert refusals == [
        "stack_secrets.shop: no value for the secret 'key'",
        "stack_secrets.shop: no value for the secret 'token'",
        "project shop, service web: /srv/media does not exist on this host: make it, or correct the volume",
    ]


def test_messages_are_cleaned_of_secrets() -> None:
    tell = program.Teller()
    tell.learn({"shop": {"token": "hunter22"}})
    assert tell.clean("password hunter22 refused") == "password ******** refused"


def test_apply_takes_networks_as_they_are(desired: dict[str, Any]) -> None:
    facts = dataclasses.replace(converged(desired), engine_v6=True)
    assert "~ container shop-web-1: its network rf-front is made anew" in program.make_plan(desired, facts).changes
    plan = program.make_plan(desired, facts, networks_follow=False)
    assert plan.changes == []
    assert plan.files == {}


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

ODD = "".join(map(chr, [0x09, 0x0A, 0x0D, 0x7F, 0x85, 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF, 0x1F600, 0xE9]))
TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from(ODD + "$#'\"{}@:- 0")
)
WORDS = st.lists(TEXTS, max_size=3)
VARIABLES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
PARTS = TEXTS.map(lambda text: text.replace("/", "")[:40]).filter(lambda text: text not in ("", ".", ".."))
PATHS = st.lists(PARTS, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
NAMES = st.sampled_from(["null", "true", "1", "0x10", "on", "y", "1e3", "0o7", "01", "no", "a"])
SERVICES = st.fixed_dictionaries({
    "name": NAMES, "image": st.just("docker.io/library/busybox:1.37"), "command": WORDS, "health": WORDS,
    "environment": st.dictionaries(VARIABLES, TEXTS, max_size=3), "user": TEXTS,
    "memory": st.sampled_from(["", "1", "64m", "2G"]), "pids": st.integers(1, 4194304),
    "files": st.lists(st.fixed_dictionaries({"target": PATHS, "content": TEXTS}), max_size=2),
    "config": st.dictionaries(PATHS, st.dictionaries(PATHS.map(lambda path: path[1:]), TEXTS, max_size=2), max_size=2),
    "volumes": st.lists(st.fixed_dictionaries({"name": NAMES, "target": PATHS}), max_size=2),
    "tmpfs": st.lists(PATHS, max_size=2), "init": st.booleans(), "read_only": st.booleans(),
    "capabilities": st.lists(st.sampled_from(["CHOWN", "NET_BIND_SERVICE"]), unique=True),
    "ports": st.lists(st.fixed_dictionaries({
        "published": st.integers(1, 65535), "port": st.integers(1, 65535), "proto": st.sampled_from(["tcp", "udp"])
    }), max_size=2),
    "extra_hosts": st.dictionaries(NAMES, st.ip_addresses().map(str), max_size=2),
})  # fmt: skip


def project_of(*services: dict[str, Any]) -> dict[str, Any]:
    return dict(program.whole({"projects": [{"name": "shop", "services": list(services)}]})["projects"][0])


LOG = {"max_size": "10m", "max_file": 3}


def undone(value: Any) -> Any:
    """What compose makes of the values that it reads: "$$" is "$"."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, dict):
        return {key: undone(inner) for key, inner in value.items()}
    return [undone(inner) for inner in value] if isinstance(value, list) else value


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


# -- what cannot be handed over


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"environment": {"A\n    privileged": "true"}}, "is not the name of an environment variable"),
        ({"environment": {"A#B": "1"}}, "'A#B' is not the name of an environment variable"),
        ({"environment": {"discovery.type": "single-node"}}, "goes into a file of the program"),
        ({"environment": {"A": "one\0two"}}, "holds a NUL character"),
        ({"command": ["\ud83d"]}, "holds U+D83D, half of a character (write the character itself)"),
        ({"files": [{"target": "/etc/a", "content": "\0"}]}, "holds a NUL character"),
        ({"files": [{"target": "/etc/../a", "content": ""}]}, "climbs with '..'"),
        ({"files": [{"target": "/", "content": ""}]}, "is the whole file system"),
        ({"files": [{"target": "/etc/a/", "content": ""}]}, "did you mean '/etc/a'?"),
        ({"files": [{"target": "/etc//a", "content": ""}]}, "did you mean '/etc/a'?"),
        ({"files": [{"target": "etc/a", "content": ""}]}, "is not an absolute path"),
        ({"files": [{"target": f"/{'é' * 128}", "content": ""}]}, "has a name of more than 255 bytes"),
        ({"files": [{"target": f"/{'a/' * 2050}a", "content": ""}]}, "is longer than the"),
        ({"files": [{"target": "/cfg/app", "content": ""}, {"target": "/cfg/app/conf", "content": ""}]}, "lies below"),
        ({"files": [{"target": "/data", "content": ""}], "volumes": [{"name": "data", "target": "/data/"}]}, "already"),
        ({"files": [{"target": "/run/secrets/token", "content": ""}], "secrets": ["token"]}, "already"),
        ({"config": {"/etc/a": {"../b": ""}}}, "climbs with '..'"),
        ({"config": {"/etc/a": {"/b": ""}}}, "is not a path below its directory"),
        ({"config": {"/etc/a": {"..data": ""}}}, "starts with '..'"),
        ({"config": {"/etc/a": {"b": "", "b/c": ""}}}, "'b' is a file and the directory of 'b/c'"),
        ({"config": {"/etc/a": {"b": ""}}, "files": [{"target": "/etc/a/c", "content": ""}]}, "lies below '/etc/a'"),
        ({"config": {"/etc/a": {}, "/etc/a/b": {}}}, "lies below '/etc/a'"),
        ({"config": {"/run/secrets/a": {"b": ""}}, "secrets": ["a"], "reload": {"signal": "SIGHUP"}}, "already"),
        ({"reload": {"signal": "SIGHUP"}}, "there is nothing that it could read again"),
        ({"reload": {"signal": "HUP; true"}, "config": {"/a": {}}}, "is not a signal"),
        ({"reload": {"signal": "HUP", "command": ["true"]}, "config": {"/a": {}}}, "remove one of the two"),
        ({"secrets": ["../../etc/shadow"]}, "is not a name"),
        ({"volumes": [{"name": "a:b", "target": "/a"}]}, "is not a name"),
        ({"extra_hosts": {"a b": "1.2.3.4"}}, "is not a name"),
        ({"networks": [{"network": "rf-a", "address": "1.2.3.4\n"}]}, "is not an IP address"),
        ({"memory": "much"}, "is not an amount of memory"),
        (
            {"networks": [{"network": "rf-a", "address": "1.2.3.4", "mac": "03:42:01:02:03:04"}]},
            "is not the MAC address",
        ),
        ({"dns": ["192.168.10.1 # router"]}, "is not an IP address"),
        ({"dns": [""]}, "is not an IP address"),
        ({"dns_opt": ["ndots:1\nnameserver 8.8.8.8"]}, "is no option of a resolver"),
        ({"capabilities": ["NET_ADMIN\n"]}, "is not a capability"),
        ({"capabilities": ["SYS_RAWIO"]}, "would read and write the host's memory"),
        ({"volumes": [{"source": "/dev/mem", "target": "/m"}]}, "is the host's kernel and its devices"),
        ({"volumes": [{"source": "//run/./docker.sock", "target": "/s"}]}, "hands the whole host to the container"),
        ({"name": "../x"}, "cannot be the name of a service"),
        ({"image": ""}, "has no image"),
        ({"depends": ["nobody"]}, "is no other service of the project"),
    ],
)
def test_what_cannot_arrive_as_it_is_declared_is_refused(change: dict[str, Any], words: str) -> None:
    given = {"projects": [{"name": "shop", "services": [{"name": "web", "image": "busybox:1.37", **change}]}]}
    answer = program.check(given)
    assert answer["changes"] == []
    assert words in "\n".join(answer["refusals"])
    assert "project shop" in answer["refusals"][0]


def test_who_could_pose_as_its_neighbours_is_alone_or_confirmed() -> None:
    leg = {"network": "rf-a", "address": "172.20.0.9"}
    sniffer = {"name": "sniffer", "image": "i", "capabilities": ["NET_RAW"], "networks": [leg]}
    web = {"name": "web", "image": "i", "networks": [{**leg, "address": "172.20.0.8"}]}

    def refused(*projects: list[dict[str, Any]]) -> list[str]:
        given = [{"name": f"p{number}", "services": services} for number, services in enumerate(projects)]
        return list(program.unfit(program.whole({"projects": given})))

    told = "lets it pose as what shares a network with it, web (give it one of its own, or add allow_forging: true)"
    assert refused([sniffer], [web]) == [f"project p0, service sniffer: capabilities: 'NET_RAW' {told}"]
    assert refused([{**sniffer, "capabilities": ["NET_ADMIN"]}, web])
    assert refused([{**sniffer, "allow_forging": True}, web]) == []
    assert refused([sniffer], [{**web, "networks": [{**leg, "network": "rf-b"}]}]) == []


def test_a_link_that_leads_to_the_docker_socket_is_refused(desired: dict[str, Any], tmp_path: Path) -> None:
    for name, target in (("socket", "/run/docker.sock"), ("data", str(tmp_path))):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "run").symlink_to("/run")
    sources = [str(tmp_path / name) for name in ("socket", "data", "run")]
    volumes = [{"source": source, "target": f"/{number}"} for number, source in enumerate(sources)]
    desired["projects"][0]["services"][0]["volumes"] = volumes
    leading = program.leading(sources)
    assert set(leading) == {sources[0], sources[2]}
    refusals = program.make_plan(desired, Facts(leading=leading)).refusals
    assert f"project shop, service web: {sources[0]} leads to /run/docker.sock, which hands the whole host" in str(
        refusals
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"projects": [{"name": "../x", "services": []}]}, "cannot be the name of a project"),
        ({"projects": [{"name": "x", "services": []}, {"name": "x", "services": []}]}, "is declared twice"),
        ({"projects": [{"name": "x", "services": [{"name": "a", "image": "i"}] * 2}]}, "'a' is declared twice"),
        ({"projects": [{"name": "x", "secrets": [{"name": "/etc/shadow"}], "services": []}]}, "name of a secret"),
        ({"owner": "../x", "projects": []}, "cannot be the name of a role"),
        ({"secrets": {"x": {"token": "hunter22\0"}}, "projects": []}, "stack_secrets.x.token: the text holds a NUL"),
    ],
)
def test_names_that_are_none_are_refused(given: dict[str, Any], words: str) -> None:
    (refusal, *_) = program.check(given)["refusals"]
    assert words in refusal
    assert "hunter22" not in refusal


# -- directories of configuration

PROXY = STACKS / "shop/config/proxy/etc/proxy"
SECRETS = STACKS / "shop/config/proxy/run/secrets"


def read(**changes: Any) -> Any:
    """What the proxy's container of `converged` has read, changed in some points."""
    return program.Read("shop-proxy-1", STARTED, "d", {"/etc/proxy": "..1", "/run/secrets": "..1"}, True)._replace(
        **changes
    )


def test_a_container_that_can_reload_reads_its_changed_files_again(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    desired["projects"][0]["services"][3]["config"]["/etc/proxy"] = {"Caddyfile": "new", "sites/a.caddy": ""}
    plan = program.make_plan(desired, facts)
    assert plan.changes == [
        f"~ config {PROXY}/Caddyfile: content",
        f"+ config {PROXY}/sites/a.caddy",
        f"- config {PROXY}/sites/cloud.caddy: not declared",
        "~ container shop-proxy-1: has to read its configuration again",
    ]
    assert list(plan.trees) == [PROXY]
    assert (plan.work["shop"].reload, plan.work["shop"].force) == (["proxy"], [])
    assert plan.work["shop"].had_read["proxy"].generations == {"/etc/proxy": "..1", "/run/secrets": "..1"}


def test_a_changed_secret_is_read_again_as_well_and_never_shown(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    desired["secrets"]["shop"]["key"] = "the-new-value"
    plan = program.make_plan(desired, facts)
    assert plan.changes == [
        f"~ secret {SECRETS}/key: content",
        "~ container shop-proxy-1: has to read its configuration again",
    ]
    assert plan.trees[SECRETS]["key"] == File(b"the-new-value", 0o400, 33, True)


def test_a_container_that_cannot_reload_is_made_anew(desired: dict[str, Any]) -> None:
    proxy = desired["projects"][0]["services"][3]
    proxy["reload"] = {}
    facts = converged(desired)
    proxy["config"]["/etc/proxy"]["Caddyfile"] = "new"
    plan = program.make_plan(desired, facts)
    assert plan.changes[-1] == "~ container shop-proxy-1: older than its configuration"
    assert (plan.work["shop"].reload, plan.work["shop"].force) == ([], ["proxy"])


@pytest.mark.parametrize(
    ("since", "record", "pending"),
    [
        (1000.0, None, False),  # there long before the container
        (2000.5, None, True),  # swapped just before its start at 2001: perhaps not read by it
        (3000.0, None, True),  # swapped after its start, and nothing says that it was read
        (3000.0, {}, False),  # read again after the swap
        (3000.0, {"digest": "other"}, True),  # swapped, and killed before the reload
        (3000.0, {"settled": False}, True),  # killed during the reload
        (3000.0, {"started": "1970-01-01T00:00:01Z"}, True),  # said of another start
        (1000.0, {"digest": "other", "container": "x"}, False),  # said of another container
    ],
)
def test_what_a_container_has_read_decides_not_what_this_run_changes(
    desired: dict[str, Any], since: float, record: dict[str, Any] | None, pending: bool
) -> None:
    facts = converged(desired)
    facts.trees = {path: seen._replace(since=since) for path, seen in facts.trees.items()}
    project = desired["projects"][0]
    values = desired["secrets"]["shop"]
    digest = program.content_digest(program.wanted_trees(project, project["services"][3], values))
    if record is not None:
        facts.read = {"shop": {"proxy": read(**{"digest": digest, **record})}}
    plan = program.make_plan(desired, facts)
    line = "~ container shop-proxy-1: has to read its configuration again"
    assert plan.changes == ([line] if pending else [])


def test_a_stopped_container_reads_when_it_starts(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    container(facts, "shop-proxy-1").update(state="exited", status="Exited (0)")
    desired["projects"][0]["services"][3]["config"]["/etc/proxy"]["Caddyfile"] = "new"
    work = program.make_plan(desired, facts).work["shop"]
    assert (work.start, work.reload, work.settle) == (["shop-proxy-1"], [], ["proxy"])


def test_what_was_read_until_now_is_kept_and_older_files_go(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    facts.read = {"shop": {"proxy": read(generations={"/etc/proxy": "..0"}, settled=False)}}
    facts.trees[PROXY] = facts.trees[PROXY]._replace(others=["..0", "..00"])
    plan = program.make_plan(desired, facts)
    assert plan.leftovers == [PROXY / "..00"]


def test_a_file_and_a_directory_change_places(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    target = STACKS / "shop/files/web/etc/web.conf"
    facts.entries[target] = None
    facts.entries[target / "old"] = File(b"", 0o644, 0)
    plan = program.make_plan(desired, facts)
    assert plan.files[target].content == b"hello\n"
    assert f"+ file {target}: a directory is in its place" in plan.changes
    assert plan.leftovers == [target / "old"]
    desired["projects"][0]["services"][0]["files"] = [{"target": "/etc/web.conf/new", "content": ""}]
    facts = converged(desired)
    facts.entries = {path: file for path, file in facts.entries.items() if target not in (path, *path.parents)}
    facts.entries[target] = File(b"hello\n", 0o644, 0)
    plan = program.make_plan(desired, facts)
    assert plan.leftovers == [target]
    assert list(plan.files) == [target / "new"]


# -- owners


def test_a_role_removes_only_its_own_projects(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    other = program.whole({"owner": "caddy", "projects": []})
    assert program.make_plan(other, facts).changes == []
    facts.owners = {}  # a host of the time before there were owners
    assert program.make_plan(other, facts).changes == []
    assert program.make_plan({**other, "owner": "stack"}, facts).gone == ["shop"]
    facts.owners, facts.projects = {}, []  # the directory was removed by hand
    for c in facts.containers:
        c["labels"]["ringfence.owner"] = "caddy"
    assert program.make_plan({**other, "owner": "stack"}, facts).changes == []
    assert program.make_plan(other, facts).gone == ["shop"]


def test_two_roles_cannot_have_one_project(desired: dict[str, Any]) -> None:
    (refusal,) = program.make_plan({**desired, "owner": "caddy"}, converged(desired)).refusals
    assert "the project 'shop' is declared by the role caddy, but the role stack made the one that is here" in refusal


def test_what_another_role_holds_is_not_taken_from_it(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    service = {
        "name": "x", "image": "busybox:1.37", "networks": [{"network": "rf-back", "address": "172.21.0.12"}],
    }  # fmt: skip
    other = program.whole({"owner": "caddy", "projects": [{"name": "y", "services": [service]}]})
    assert program.make_plan(other, facts).refusals == []  # stack may free it before
    plan = program.make_plan(other, facts, networks_follow=False)
    assert "172.21.0.12 on rf-back is held by shop-db-1, which is the role stack's" in plan.refusals[0]
    assert plan.free == []


# -- doing


def test_a_trial_is_the_service_without_network_and_data(desired: dict[str, Any]) -> None:
    project = desired["projects"][0]
    proxy = {
        **project["services"][3], "memory": "64m", "user": "33:33", "environment": {"A": "$1"},
        "tmpfs": ["/run:size=1m"],
        "volumes": [{"name": "data", "target": "/data"}, {"source": "/srv/media", "target": "/media"}],
        "files": [{"target": "/etc/single", "content": ""}], "capabilities": ["NET_BIND_SERVICE"],
    }  # fmt: skip
    plan = program.Plan(trees={PROXY: {}}, files={STACKS / "shop/files/proxy/etc/single": File(b"", 0o644, 0)})
    made = program.trial(project, proxy, plan, program.amount("64m"))
    assert made["Entrypoint"] + made["Cmd"] == ["caddy", "validate", "--config", "/etc/proxy/Caddyfile"]
    assert (made["User"], made["Env"]) == ("33:33", ["A=$1"])
    host = made["HostConfig"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["Memory"]) == ("none", True, 64 << 20)
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["NET_BIND_SERVICE"])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Tmpfs"] == {"/tmp": "", "/run": "size=1m", "/data": ""}
    assert all(mount["ReadOnly"] for mount in host["Mounts"])
    assert {mount["Target"]: mount["Source"] for mount in host["Mounts"]} == {
        "/etc/single": f"{STACKS}/.staging/shop/files/proxy/etc/single",
        "/etc/proxy": f"{STACKS}/.staging/shop/config/proxy/etc/proxy",
        "/run/secrets": str(SECRETS),  # unchanged: where it is
        "/media": "/srv/media",
    }


class Engine:
    """Docker with one container that runs; what is asked of it is noted."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, method: str, path: str, body: Any = None, timeout: float = 60) -> Any:
        self.asked.append(f"{method} {path}")
        return {"Id": "c", "State": {"Running": True, "StartedAt": STARTED, "ExitCode": 0, "Pid": 1}}


@pytest.fixture
def proxy_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """A project whose service has read its files, and whose files have been swapped since."""
    monkeypatch.setattr(program, "ROOT", tmp_path)
    monkeypatch.setattr(program, "engine", Engine())
    service = {"name": "proxy", "image": "i", "config": {"/etc/proxy": {"f": "new"}}, "reload": {"command": ["r"]}}
    project = project_of(service)
    directory = program.tree_of(project, project["services"][0], "/etc/proxy")
    for number, content in enumerate(["old", "new"]):
        (directory / f"..{number}").mkdir(parents=True)
        (directory / f"..{number}/f").write_text(content)
        program.swap(directory, f"..{number}")
    return project, project["services"][0], directory


def had(generation: str) -> Any:
    return program.Read("c", STARTED, "old", {"/etc/proxy": generation}, True)


def answers(monkeypatch: pytest.MonkeyPatch, *faults: str) -> None:
    """Let one reload after another end so; "" is well."""
    left = list(faults)

    def reread(*_: Any) -> None:
        if fault := left.pop(0):
            raise program.Fault(fault)

    monkeypatch.setattr(program, "reread", reread)


def test_what_was_read_is_recorded_and_what_was_read_before_is_removed(
    proxy_on_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, service, directory = proxy_on_disk
    answers(monkeypatch, "")
    program.reload(project, service, had("..0"), 1)
    (record,) = program.recorded(program.home(project)).values()
    assert record.settled
    assert record.generations == {"/etc/proxy": "..1"}
    assert not (directory / "..0").exists()


def test_files_that_cannot_be_read_are_taken_back(proxy_on_disk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project, service, directory = proxy_on_disk
    answers(monkeypatch, "bad word in line 3", "")
    with pytest.raises(program.Fault, match=r"(?s)bad word in line 3.*the old files are back and in use"):
        program.reload(project, service, had("..0"), 1)
    assert (directory / "f").read_text() == "old"
    (record,) = program.recorded(program.home(project)).values()
    assert (record.settled, record.generations) == (True, {"/etc/proxy": "..0"})


def test_a_container_that_cannot_read_the_old_files_either_starts_again(
    proxy_on_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, service, directory = proxy_on_disk
    answers(monkeypatch, "bad word in line 3", "it ended")
    monkeypatch.setattr(program, "wait", lambda names, seconds: None)
    with pytest.raises(program.Fault, match="started again"):
        program.reload(project, service, had("..0"), 1)
    assert (directory / "f").read_text() == "old"
    assert "POST /containers/c/restart?t=10" in program.engine.asked


def test_a_run_that_dies_in_a_reload_leaves_what_is_needed_to_finish_it(
    proxy_on_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, service, directory = proxy_on_disk
    monkeypatch.setattr(program, "reread", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        program.reload(project, service, had("..0"), 1)
    (record,) = program.recorded(program.home(project)).values()
    assert not record.settled
    assert (directory / "..0/f").read_text() == "old"


def test_files_go_back_only_to_what_was_read(proxy_on_disk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project, service, directory = proxy_on_disk
    answers(monkeypatch, "bad word in line 3")
    with pytest.raises(program.Fault, match="what it had before is not known"):
        program.reload(project, service, had("..7"), 1)
    assert (directory / "f").read_text() == "new"


@pytest.mark.parametrize(
    "work",
    [{"disconnect": [("rf-a", "x")]}, {"unpause": ["x"]}, {"restart": ["x"]}, {"start": ["x"]}],
    ids=lambda work: next(iter(work)),
)
def test_a_container_that_cannot_be_repaired_is_a_failure(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise program.Fault("docker refuses")

    monkeypatch.setattr(program, "engine", refuses)
    with pytest.raises(program.Fault, match="docker refuses"):
        program.repair(program.Work(**work))


@pytest.mark.parametrize("answer", [None, [], {"Version": "new"}, [{"Id": "x"}], "text"])
def test_what_docker_answers_and_nobody_understands_is_dockers(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "docker_runs", lambda: True)
    monkeypatch.setattr(program, "engine", lambda *_, **__: answer)
    with pytest.raises(program.Fault, match="docker answers something that is not understood"):
        program.look_at_docker(program.whole({}), Facts())


def test_staged_files_take_their_places_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "ROOT", tmp_path)
    monkeypatch.setattr(program, "STAGING", tmp_path / ".staging")
    me = os.getuid()
    target, tree = tmp_path / "shop/files/web/etc/app", tmp_path / "shop/config/web/etc/proxy"
    target.mkdir(parents=True)  # in the way
    (target / "old").write_text("")
    if me:
        monkeypatch.setattr(program, "write", lambda path, file: path.write_bytes(file.content))
    plan = program.Plan(
        files={target: File(b"content", 0o644, me)},
        trees={tree: {"a/b": File(b"1", 0o644, me)}},
        leftovers=[target / "old"],
    )
    program.stage(plan)
    assert target.is_dir()  # nothing is replaced before everything is written
    program.commit({"projects": []}, plan)
    assert target.read_bytes() == b"content"
    assert (tree / "a/b").read_text() == "1"
