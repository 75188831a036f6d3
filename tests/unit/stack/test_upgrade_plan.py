"""Upgrades with a way back: what is planned and what is refused."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.stack.cases import converged, program
from tests.unit.stack.upgrades import OLD


@pytest.fixture
def backed(desired: dict[str, Any]) -> dict[str, Any]:
    """The service `web` says that its volume is copied."""
    desired["projects"][0]["services"][0]["upgrade"] = {"backup": ["data"], "keep": 2}
    return desired


def test_what_a_service_says_of_upgrades_changes_no_container(desired: dict[str, Any], backed: dict[str, Any]) -> None:
    assert program.make_plan(backed, converged(desired)).changes == []


def test_another_image_is_announced_with_its_copies(backed: dict[str, Any]) -> None:
    facts = converged(backed)
    backed["projects"][0]["services"][0]["image"] = "docker.io/library/nginx:1.30"
    plan = program.make_plan(backed, facts)
    assert plan.changes[1:] == [
        "~ container shop-web-1: its declaration changed",
        "~ container shop-web-1: data copied before its image changes",
    ]
    assert (plan.work["shop"].force, plan.work["shop"].upgrade) == (["web"], ["web"])


def test_a_tag_that_moved_is_another_image(backed: dict[str, Any]) -> None:
    facts = converged(backed)
    facts.images["docker.io/library/nginx:1.29"] = "sha256:two"
    assert program.make_plan(backed, facts).work["shop"].upgrade == ["web"]


def test_other_changes_and_other_services_copy_nothing(backed: dict[str, Any]) -> None:
    facts = converged(backed)
    backed["projects"][0]["services"][0]["environment"] = {"NEW": "1"}
    backed["projects"][0]["services"][2]["image"] = "docker.io/library/busybox:1.38"
    work = program.make_plan(backed, facts).work["shop"]
    assert (work.force, work.upgrade) == (["web", "lonely"], [])


def test_another_name_of_the_same_image_copies_nothing(backed: dict[str, Any]) -> None:
    facts = converged(backed)
    backed["projects"][0]["services"][0]["image"] = "nginx:1.29"
    facts.images["nginx:1.29"] = "sha256:one"
    assert program.make_plan(backed, facts).work["shop"].upgrade == []


def test_what_it_depends_on_goes_together_with_it_as_far_as_it_changes(backed: dict[str, Any]) -> None:
    project = backed["projects"][0]
    assert program.with_depends(project, ["web"], {"web", "db", "lonely"}) == {"web", "db"}
    assert program.with_depends(project, ["web"], {"web", "lonely"}) == {"web"}


@pytest.mark.parametrize(
    ("upgrade", "more", "told"),
    [
        ({"backup": ["dta"]}, {}, "upgrade: 'dta' is no named volume of the service (there are: data)"),
        ({"backup": ["data"], "keep": 0}, {}, "upgrade: keep: 0 is not a number of copies (write 1 or more)"),
        (
            {"backup": ["data"]},
            {"volumes": [{"name": "data", "target": "/d"}]},
            "the volume 'data' is written by cron as well, which would go on while it is copied",
        ),
    ],
)
def test_what_cannot_be_copied_is_refused(upgrade: dict[str, Any], more: dict[str, Any], told: str) -> None:
    volumes = [{"name": "data", "target": "/data"}]
    db = {"name": "db", "image": OLD, "volumes": volumes, "upgrade": upgrade}
    given = {"projects": [{"name": "shop", "services": [db, {"name": "cron", "image": OLD, **more}]}]}
    assert told in "\n".join(program.unfit(program.whole(given)))


def test_a_neighbour_that_only_reads_is_no_hindrance() -> None:
    db = {"name": "db", "image": OLD, "volumes": [{"name": "data", "target": "/d"}], "upgrade": {"backup": ["data"]}}
    reader = {"name": "r", "image": OLD, "volumes": [{"name": "data", "target": "/d", "read_only": True}]}
    assert program.unfit(program.whole({"projects": [{"name": "shop", "services": [db, reader]}]})) == []


# -- volumes and their copies


def test_too_little_room_is_refused_before_anything_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Statvfs:
        f_frsize, f_bavail = 1 << 20, 1000

    monkeypatch.setattr(os, "statvfs", lambda path: Statvfs)
    place = tmp_path / "volumes/shop_data/_data"
    place.mkdir(parents=True)
    assert program.lacking({place: 400 << 20}, tmp_path / "backups/not/yet", {}) == []
    (refusal,) = program.lacking({place: 600 << 20}, tmp_path / "backups", {})
    assert "has 1000 MiB free, and the copies before an upgrade need 1324 MiB: make room" in refusal
    assert program.lacking({place: 600 << 20}, tmp_path / "backups", {place: 500 << 20}) == []


def test_a_volume_that_is_no_directory_of_the_host_is_refused(
    backed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = converged(backed)
    backed["projects"][0]["services"][0]["image"] = "docker.io/library/nginx:1.30"
    plan = program.make_plan(backed, facts)
    said = {"Name": "shop_data", "Driver": "local", "Options": {"type": "nfs"}, "Mountpoint": "/x"}
    monkeypatch.setattr(program, "there", lambda path: said)
    (refusal,) = program.no_room(backed, plan, 1)[0]
    assert "the volume shop_data is not a directory of this host" in refusal


def test_a_volume_that_is_not_there_yet_needs_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "there", lambda path: {})
    assert program.volumes_of(["shop_data"]) == []


def test_a_size_that_takes_too_long_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    assert program.size_of(tmp_path, 20) >= 100_000
    hung = subprocess.CompletedProcess([], program.HUNG, "", "")
    monkeypatch.setattr(program, "run", lambda *_, **__: hung)
    assert program.size_of(tmp_path, 1) is None


@pytest.mark.parametrize(
    ("reference", "tag"),
    [
        ("docker.io/library/postgres:18.6", "18.6"),
        ("localhost:5000/postgres", "latest"),
        ("postgres@sha256:0123456789abcdef", "0123456789ab"),
        ("postgres:18@sha256:0123456789abcdef", "18"),
        ("sha256:0123", "0123"),
    ],
)
def test_copies_are_named_after_their_time_and_version(reference: str, tag: str) -> None:
    assert program.copy_name(reference, 0) == f"19700101T000000Z-{tag}"


def test_a_container_that_ends_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "there", lambda path: {"RestartCount": 3})
    assert program.gave_up({"id": "c", "state": "restarting"})
    assert program.gave_up({"id": "c", "state": "exited"})
    assert not program.gave_up({"id": "c", "state": "running"})
    monkeypatch.setattr(program, "there", lambda path: {"RestartCount": 1})
    assert not program.gave_up({"id": "c", "state": "restarting"})


def test_a_volume_of_tars_comes_back_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "v/_data"
    (place / "deep/er").mkdir(parents=True)
    (place / "deep/er/file").write_bytes(os.urandom(1000))
    (place / "deep/er/file").chmod(0o4711)
    os.link(place / "deep/er/file", place / "hard")
    (place / "soft").symlink_to("/nowhere")
    with (place / "sparse").open("wb") as handle:
        handle.truncate(1 << 26)
    if not os.getuid():
        os.chown(place / "deep", 70, 71)
    before = listing(place)
    volume = program.Volume("v", place)
    program.copy_volume(volume, tmp_path / "v.tar")
    assert (tmp_path / "v.tar").stat().st_size < 1 << 20
    (place / "deep/er/file").write_text("other")
    (place / "more").write_text("")
    program.put_volume_back(volume, tmp_path / "v.tar")
    assert listing(place) == before
    assert (place / "hard").stat().st_ino == (place / "deep/er/file").stat().st_ino
    program.forget_replaced(volume)
    assert [path.name for path in place.parent.iterdir()] == ["_data"]


def listing(place: Path) -> str:
    words = ["find", str(place), "-printf", "%P %m %U:%G %s %T@ %l\n"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return "\n".join(sorted(found.splitlines()))
