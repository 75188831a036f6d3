"""Directories of configuration: swapped, read again, taken back."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.unit.stack.cases import (
    STACKS,
    STARTED,
    Facts,
    File,
    container,
    converged,
    program,
    project_of,
)

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


@pytest.mark.parametrize(
    ("version", "answer"),
    [("29.0.1", None), ("29.0.1", {"x": []}), ("29.0.1", [{"Id": "x"}]), ("29.0.1", "text"), ("new", [])],
)
def test_what_docker_answers_and_nobody_understands_is_dockers(
    version: str, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "docker_runs", lambda: True)
    monkeypatch.setattr(program, "engine_version", lambda: version)
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


@pytest.mark.parametrize(
    ("configuration", "command"),
    [
        ({"Healthcheck": {"Test": ["CMD", "pg_isready", "-q"]}}, ["pg_isready", "-q"]),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "a || b"]}}, ["/bin/sh", "-c", "a || b"]),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "a"]}, "Shell": ["/bin/ash", "-ec"]}, ["/bin/ash", "-ec", "a"]),
        ({"Healthcheck": {"Test": ["NONE"]}}, []),
        ({"Healthcheck": {"Test": None}}, []),
        ({"Healthcheck": None}, []),
        ({}, []),
    ],
)
def test_a_health_check_is_made_as_docker_makes_it(configuration: dict[str, Any], command: list[str]) -> None:
    assert program.health_check(configuration) == command


def test_files_are_for_a_containers_users_and_for_none_of_the_hosts(
    desired: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "stacks"
    for name, place in {"ROOT": root, "STAGING": root / ".staging", "LOCK": root / ".lock"}.items():
        monkeypatch.setattr(program, name, place)
    monkeypatch.setattr(program, "docker_runs", lambda: False)
    line = f"~ directory {root}: other users of the host come to the files in it"
    with program.alone():
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert line not in program.make_plan(desired, program.look(desired)).changes
    root.chmod(0o711)  # as releases before had it: a file whose path is known could be read
    assert line in program.make_plan(desired, program.look(desired)).changes
    # A role that has nothing here says nothing of it.
    assert program.make_plan(program.whole({"owner": "other"}), program.look(program.whole({}))).changes == []


@pytest.mark.parametrize(
    ("secrets", "place"),
    [
        ("hunter22", "stack_secrets: must be a mapping"),
        (["hunter22"], "stack_secrets: must be a mapping"),
        ({"shop": "hunter22"}, "stack_secrets.shop: must be a mapping"),
        ({"shop": ["hunter22"]}, "stack_secrets.shop: must be a mapping"),
        ({"shop": {"token": ["hunter22"]}}, "stack_secrets.shop.token: must be a text"),
        ({"shop": {"token": {"value": "hunter22"}}}, "stack_secrets.shop.token: must be a text"),
    ],
)
def test_secrets_of_the_wrong_type_are_named_and_not_shown(secrets: Any, place: str) -> None:
    for verb in (program.check, program.apply):
        with pytest.raises(program.Fault) as told:
            verb({"projects": [], "secrets": secrets})
        assert str(told.value).startswith(place)
        assert "hunter22" not in str(told.value)
