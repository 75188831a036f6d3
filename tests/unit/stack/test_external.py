"""Volumes that were on the host before: mounted as they are, never made, and never written by two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.stack.cases import Facts, converged, foreign, made_of, program

WIKI = {"Name": "wiki_data", "Driver": "local", "Options": None}


def declare(desired: dict[str, Any], **volume: Any) -> None:
    service = desired["projects"][0]["services"][0]
    service["volumes"] = [{"name": "wiki_data", "target": "/data", "read_only": False, **volume}]


def faults(desired: dict[str, Any], facts: Any) -> str:
    return "\n".join(program.make_plan(desired, facts).refusals)


def on(desired: dict[str, Any], **existing: Any) -> Any:
    facts = converged(desired)
    facts.existing = program.Existing(**existing)
    return facts


def their(*, state: str = "running", written: bool = True, **labels: str) -> dict[str, Any]:
    mounts = {"volumes": ["wiki_data"], "written": ["wiki_data"] if written else []}
    return foreign(name="wiki-app-1", state=state, labels=labels, **mounts)


def test_it_is_mounted_by_its_own_name_and_is_no_volume_of_the_project(desired: dict[str, Any]) -> None:
    declare(desired, external=True)
    made = made_of(desired)
    entry = next(iter(made["services"].values()))
    key = entry["volumes"][0]["source"]
    assert made["volumes"][key] == {"external": True, "name": "wiki_data"}
    assert "volume" not in entry["volumes"][0]
    assert program.docker_name("shop", {"name": "wiki_data", "external": True}) == "wiki_data"
    assert program.docker_name("shop", {"name": "wiki_data"}) == "shop_wiki_data"
    # Another volume is another container.
    before = program.specs(made)
    declare(desired)
    assert program.specs(made_of(desired)) != before


def test_both_kinds_of_one_name_are_two_volumes(desired: dict[str, Any]) -> None:
    declare(desired, external=True)
    desired["projects"][0]["services"][0]["volumes"].append({"name": "wiki_data", "target": "/own"})
    made = made_of(desired)
    sources = [v["source"] for v in next(iter(made["services"].values()))["volumes"][:2]]
    assert len(set(sources)) == 2
    assert [made["volumes"][source] for source in sources] == [{"external": True, "name": "wiki_data"}, {}]


def test_a_missing_one_is_refused_with_and_without_docker(desired: dict[str, Any]) -> None:
    declare(desired, external=True)
    told = "there is no volume wiki_data on this host"
    for facts in (Facts(), on(desired, external={"wiki_data": {}})):
        assert told in faults(desired, facts)
        assert "leave external out" in faults(desired, facts)
    assert faults(desired, on(desired, external={"wiki_data": WIKI})) == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"type": "none", "o": "bind", "device": "/"}, "is /, which hands what belongs to the host"),
        ({"type": "none", "o": "rw,rbind", "device": "/etc/../root"}, "is /root, which hands root's home"),
        ({"type": "overlay", "o": "lowerdir=/srv/a:/etc,upperdir=/srv/u"}, "is /etc, which hands"),
        ({"type": "none", "o": "bind", "device": "/srv/app"}, ""),
        ({"type": "nfs", "o": "addr=192.168.10.9,rw", "device": ":/export/etc"}, ""),
        ({"type": "tmpfs", "device": "tmpfs"}, ""),
    ],
)
def test_one_that_is_the_host_in_disguise_is_refused(
    desired: dict[str, Any], options: dict[str, str], told: str
) -> None:
    declare(desired, external=True)
    said = faults(desired, on(desired, external={"wiki_data": {**WIKI, "Options": options}}))
    assert (told in said) if told else said == ""


def test_two_never_write_to_one(desired: dict[str, Any]) -> None:
    declare(desired, external=True)
    facts = on(desired, external={"wiki_data": WIKI})
    facts.containers.append(their(**{"com.docker.compose.project": "wiki"}))
    assert "writes to the volume wiki_data" in faults(desired, facts)
    assert "docker compose -p wiki down, without --volumes" in faults(desired, facts)
    facts.containers[-1] = their()
    assert "docker rm -f wiki-app-1" in faults(desired, facts)
    for state in ("paused", "restarting"):
        facts.containers[-1] = their(state=state)
        assert "writes to the volume" in faults(desired, facts)
    for harmless in (their(state="exited"), their(written=False)):
        facts.containers[-1] = harmless
        assert faults(desired, facts) == ""
    facts.containers[-1] = their(state="exited")
    facts.existing.returning = {facts.containers[-1]["id"]}
    assert "is stopped, but starts again with Docker" in faults(desired, facts)
    facts.containers[-1] = their()
    declare(desired, external=True, read_only=True)
    assert faults(desired, on(desired, external={"wiki_data": WIKI})) == ""


def test_a_new_one_of_the_name_of_one_that_is_there_is_asked_about(desired: dict[str, Any]) -> None:
    declare(desired)
    facts = on(desired, strangers={"wiki_data"})
    assert "would be a new and empty one, shop_wiki_data" in faults(desired, facts)
    assert "external: true" in faults(desired, facts)
    declare(desired, external=False)
    assert faults(desired, facts) == ""


def test_the_engine_is_asked_for_no_more_than_is_declared(
    desired: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    known: dict[str, dict[str, Any]] = {"/volumes/wiki_data": WIKI}
    monkeypatch.setattr(program, "there", lambda path: asked.append(path) or known.get(path, {}))
    declare(desired)
    mounted = {"id": "a", "labels": {"ringfence.project": "shop"}, "state": "running", "volumes": ["shop_wiki_data"]}
    others = [
        {"id": "a2", "labels": {"ringfence.project": "shop"}, "state": "running", "volumes": [f"shop_{name}"]}
        for s in desired["projects"][0]["services"] for name in [v["name"] for v in s["volumes"] if v.get("name")]
    ]  # fmt: skip
    assert program.look_at_volumes(desired["projects"], [mounted, *others]) == program.Existing()
    assert asked == []
    assert program.look_at_volumes(desired["projects"], others[1:]).strangers == {"wiki_data"}
    declare(desired, external=True)
    asked.clear()
    found = program.look_at_volumes(desired["projects"], others)
    assert found.external == {"wiki_data": WIKI}
    assert asked == ["/volumes/wiki_data"]


def test_what_is_stopped_and_comes_back_is_known_with_what_it_holds(
    desired: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"State": {"StartedAt": "2026-11-01T00:00:00Z"}}
    ports = {"80/tcp": [{"HostIp": "", "HostPort": "8075"}]}
    bind = {"Name": "nas", "Driver": "local", "Options": {"o": "bind,rw", "device": "/srv/nas"}}
    asked: list[str] = []
    known: dict[str, Any] = {
        "/containers/old/json": {**said, "HostConfig": {"RestartPolicy": {"Name": "always"}, "PortBindings": ports}},
        "/containers/gone/json": {**said, "HostConfig": {"RestartPolicy": {"Name": "no"}, "PortBindings": ports}},
        "/volumes": {"Volumes": [WIKI, bind]},
    }
    monkeypatch.setattr(program, "engine", lambda _, path: asked.append(path) or known[path])
    declare(desired, name="", source="/srv/db")
    found = [
        foreign(id="old", name="old", state="exited"), foreign(id="gone", state="exited"),
        foreign(id="new", state="created"), foreign(written=["nas"]),
    ]  # fmt: skip
    existing = program.Existing()
    program.look_at_others(desired["projects"], found, existing)
    assert (existing.returning, existing.held) == ({"old"}, {"8075/tcp": "old"})
    assert existing.directories == {"nas": "/srv/nas"}
    asked.clear()
    program.look_at_others([], found, program.Existing())
    assert asked == []


def test_a_port_of_one_that_comes_back_is_refused(desired: dict[str, Any]) -> None:
    desired["projects"][0]["services"][0]["ports"] = [{"published": 8075, "port": 80, "proto": "tcp"}]
    told = faults(desired, on(desired, held={"8075/tcp": "stp"}))
    assert "port 8075/tcp is published by stp, which is stopped, but starts again with Docker" in told
    assert "docker update --restart=no stp" in told
    desired["projects"][0]["services"][0]["ports"][0]["address"] = "192.0.2.1"
    assert faults(desired, on(desired, held={"8075/tcp": "stp"})) == ""


@pytest.mark.parametrize(
    ("place", "changes", "told"),
    [
        ("", {}, True),
        ("/inside", {}, True),
        ("/..", {}, True),
        ("", {"state": "exited"}, False),
        ("beside", {}, False),
        ("", {"places": []}, False),
    ],
)
def test_two_never_write_to_one_directory(
    desired: dict[str, Any], tmp_path: Path, place: str, changes: dict[str, Any], told: bool
) -> None:
    own = tmp_path / "srv" / "db"
    own.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(own)
    said = {"name": "", "source": str(link), "read_only": False}
    facts = on(desired)
    facts.containers.append(foreign(**{"name": "olddb", "places": [f"{own}{place}"], **changes}))
    declare(desired, **said)
    found = faults(desired, facts)
    assert bool(found) is told
    if told:
        assert f"the container olddb writes to {own}{place}, which meets {link}; two would spoil it" in found
        assert "docker rm -f olddb" in found
        assert "shared: true" in found
    for fine in ({"read_only": True}, {"shared": True}):
        declare(desired, **{**said, **fine})
        assert faults(desired, facts) == ""


MOUNTED = """\
1 0 254:0 / / rw - ext4 /dev/vda rw
2 1 254:1 / /mnt/disk rw - ext4 /dev/vdb rw
3 1 254:1 / /data rw - ext4 /dev/vdb rw
4 1 254:1 /photos /srv/photos rw - ext4 /dev/vdb rw
"""  # /mnt/disk at a second and a part of it at a third place


@pytest.mark.parametrize(
    ("own", "place", "meets"),
    [
        ("/data/wiki", "/mnt/disk", True),
        ("/data", "/mnt/disk/wiki", True),
        ("/srv/photos", "/data", True),
        ("/srv/photos/2020", "/mnt/disk/photos", True),
        ("/mnt", "/data/wiki", True),
        ("/mnt/disk", "/srv", True),
        ("/srv/photos", "/data/wiki", False),
        ("/data/wiki", "/mnt/disk/films", False),
        ("/srv/films", "/data", False),
    ],
)
def test_a_directory_that_is_mounted_twice_is_one(tmp_path: Path, own: str, place: str, meets: bool) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTED)
    table = program.mount_table(tmp_path / "mountinfo")
    assert program.meeting(own, foreign(places=[place]), {}, lambda: table) == (place if meets else "")


def test_what_keeps_no_data_is_written_by_many(desired: dict[str, Any]) -> None:
    for source, place in (("/srv/db", "/"), ("/etc/localtime", "/etc/localtime"), ("/dev/shm", "/dev/shm")):
        assert program.meeting(source, foreign(places=[place]), {}, program.host_mounts) == ""
    assert program.meeting("/srv/db", foreign(written=["nas"]), {"nas": "/srv"}, program.host_mounts) == "/srv"
    assert program.bound_directory(WIKI) == ""


def test_an_external_volume_that_is_a_directory_is_one_too(desired: dict[str, Any]) -> None:
    declare(desired, external=True)
    bind = {**WIKI, "Options": {"type": "none", "o": "bind", "device": "/srv/db"}}
    facts = on(desired, external={"wiki_data": bind})
    facts.containers.append(foreign(name="olddb", places=["/srv/db"]))
    assert "the container olddb writes to /srv/db" in faults(desired, facts)


def test_an_upgrade_copies_it_where_it_is(desired: dict[str, Any]) -> None:
    declare(desired, external=True)
    service = desired["projects"][0]["services"][0]
    service["volumes"].append({"name": "cache", "target": "/cache"})
    service["upgrade"] = {"backup": ["wiki_data", "cache"]}
    assert program.copied_names("shop", service) == ["wiki_data", "shop_cache"]


def test_only_a_name_is_external_and_it_has_no_owner(desired: dict[str, Any]) -> None:
    project = desired["projects"][0]
    for volume in ({"external": True, "owner": "70"}, {"external": True, "name": "", "source": "/srv/x"}):
        declare(desired, **volume)
        told = list(program.service_faults(project, project["services"][0]))
        assert any("external is for a volume by its name" in one for one in told)
