"""Upgrades with a way back: made, taken back, and killed at every step."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit.stack.cases import program
from tests.unit.stack.upgrades import BAD, MANY, NEW, OLD, Host, upgrade, upgrade_until_tried


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def copies(host: Host) -> list[str]:
    return sorted(path.name.partition("-")[2] for path in (program.BACKUPS / "shop/db").iterdir())


def test_a_new_version_that_works_stays_and_its_copy_too(host: Host) -> None:
    upgrade(host, NEW)
    assert (host.running["db"][1], host.content(), host.files()) == (NEW, "new", "new")
    assert not program.journals()
    assert not list(program.JOURNALS.iterdir())
    (archive,) = (program.BACKUPS / "shop/db").glob("*-17/shop_data.tar")
    assert archive.stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (program.BACKUPS, archive.parent)} == {0o700}
    names = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True).stdout.split()
    assert len(names) == MANY + 2


def test_a_new_version_that_does_not_come_up_goes_and_everything_comes_back(host: Host) -> None:
    old = (host.here / "secrets/token").stat().st_mtime_ns
    with pytest.raises(program.Fault) as caught:
        upgrade(host, BAD)
    assert f"project shop: the upgrade of db from {OLD} to {BAD} failed:\nthe words of {BAD}" in str(caught.value)
    assert "the old version runs again, with its files and volumes as they were" in str(caught.value)
    assert (host.running["db"][1], host.content(), host.files()) == (OLD, "old", "old")
    assert (host.here / "secrets/token").stat().st_mtime_ns == old  # no container looks older than it
    assert sorted(path.name for path in (host.here / "config/db/etc/db").iterdir()) == ["..1", "..data", "db.conf"]
    assert not program.journals()
    replaced = host.place.with_name(".ringfence-replaced")
    assert (replaced / "made by the new one").read_text() == "new"
    assert f"kept in {replaced} until the next upgrade" in str(caught.value)
    upgrade(host, NEW)
    assert (host.running["db"][1], host.content()) == (NEW, "new")
    assert not replaced.exists()


def test_what_ran_comes_back_although_its_tag_leads_elsewhere_by_now(host: Host) -> None:
    journal = program.Journal("shop", "stack", services={"db": program.Upgraded("c1", "sha256:17", OLD, OLD, "x")})
    program.private(journal.here)
    assert list(program.pin(journal, {"db": OLD})) == []
    host.images[OLD] = "sha256:new"
    (path,) = program.pin(journal, {"db": OLD})
    assert json.loads(path.read_text()) == {"services": {"db": {"image": "sha256:17"}}}


def test_an_old_version_that_does_not_come_up_either_is_told_of(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(names: set[str], *_: Any, **__: Any) -> None:
        raise program.Fault(f"the words of {host.running['db'][1]}")

    monkeypatch.setattr(program, "wait", never)
    with pytest.raises(program.Fault) as caught:
        upgrade(host, NEW)
    assert f"the words of {NEW}" in str(caught.value)
    assert f"is back, with its files and volumes as they were, but does not come up either: the words of {OLD}" in str(
        caught.value
    )
    assert (host.content(), host.files()) == ("old", "old")
    assert not program.journals()


def test_only_so_many_copies_stay(host: Host) -> None:
    for number in range(4):
        host.images[f"shop/db:{number}"] = f"sha256:{number}"
        (program.BACKUPS / f"shop/db/2026010{number}T000000Z-{number}").mkdir(parents=True)
    upgrade(host, NEW)
    assert copies(host) == ["17", "3"]


def test_volumes_that_cannot_be_copied_leave_the_old_version_running(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program, "copy_volume", full)
    with pytest.raises(program.Fault, match=r"nothing was changed, and the old version runs again: .*No space left"):
        upgrade(host, NEW)
    assert (host.running["db"], host.content(), host.files()) == (("c1", OLD, "running"), "old", "old")
    assert copies(host) == []
    assert not program.journals()


def test_a_failure_after_the_copies_brings_the_old_version_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(host, "commit", full)
    with pytest.raises(program.Fault, match=r"(?s)No space left.*the old version runs again"):
        upgrade(host, NEW)
    assert (host.running["db"][1:], host.content(), host.files()) == ((OLD, "running"), "old", "old")
    assert not host.place.with_name(".ringfence-replaced").exists()  # the new one had not been started


def test_what_cannot_be_put_back_yet_is_put_back_by_the_next_run(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    real = program.put_volume_back

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program, "put_volume_back", full)
    with pytest.raises(program.Fault, match=r"(?s)could not be put back yet: .*No space left.*the next run goes on"):
        upgrade(host, BAD)
    assert "db" not in host.running  # nothing starts on data that are not its own
    (journal,) = program.journals("stack")
    assert program.journals("authelia") == []
    assert program.interruption(journal) == (
        f"! project shop: an upgrade was interrupted (db from {OLD} to {BAD}): finished, or taken back"
    )
    monkeypatch.setattr(program, "put_volume_back", real)
    program.resume(journal, 1)
    assert (host.running["db"][1:], host.content(), host.files()) == ((OLD, "running"), "old", "old")
    assert not program.journals()


@pytest.mark.parametrize("image", [NEW, BAD])
def test_a_run_that_is_killed_anywhere_is_finished_or_taken_back(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = set()
    for kill_at in range(1, 200):
        with monkeypatch.context() as patches:
            host = Host(tmp_path / str(kill_at), patches)
            host.kill_at = kill_at
            try:
                upgrade(host, image)
            except KeyboardInterrupt:
                pass
            except program.Fault:
                break  # it came to its end
            else:
                break
            found = program.journals()
            if host.place.is_dir():
                assert host.content() in ("old", "new"), kill_at
            for journal in found:
                program.resume(journal, 1)
            assert not program.journals(), kill_at
            (running, content, files) = (host.running["db"], host.content(), host.files())
            stays = running[1] not in (OLD, "sha256:17")
            assert (content, files) == (("new", "new") if stays else ("old", "old")), kill_at
            assert not (stays and image == BAD), kill_at
            ends.add((running[1], running[2]))
            assert running[2] == "running" or not found or found[0].phase == program.COPYING, kill_at
    else:
        pytest.fail("it never came to its end")
    assert kill_at > 25
    assert {one for one, _ in ends} == ({OLD, NEW} if image == NEW else {OLD})


def test_a_run_that_takes_something_back_can_be_killed_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kill_after in range(1, 200):
        with monkeypatch.context() as patches:
            host = Host(tmp_path / str(kill_after), patches)
            upgrade_until_tried(host, BAD)
            (journal,) = program.journals()
            host.kill_at = last = host.ops + kill_after
            try:
                program.resume(journal, 1)
            except KeyboardInterrupt:
                if host.place.is_dir():
                    assert host.content() in ("old", "new"), kill_after
            for left in program.journals():
                program.resume(left, 1)
            assert (host.running["db"][1:], host.content(), host.files()) == ((OLD, "running"), "old", "old")
            assert (host.place.with_name(".ringfence-replaced") / "made by the new one").exists()
            if host.ops < last:
                break
    else:
        pytest.fail("it never came to its end")
    assert kill_after > 25
