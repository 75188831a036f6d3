"""Upgrades with a way back: planned, made, taken back, and killed at every step."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.stack.cases import Facts, container, converged, program, project_of

OLD, NEW, BAD = "shop/db:17", "shop/db:18", "shop/db:bad"
MANY = 20  # files in the volume: half of them is a thing that can be seen


# -- what is planned


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


# -- a host


class Host:
    """Docker with one project: `db` has a volume and writes to it as soon as it starts, `app` has none."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = tmp_path / "volumes/shop_data/_data"
        self.place.mkdir(parents=True)
        for number in range(MANY):
            (self.place / f"{number}").write_text("old")
        (self.place / "link").symlink_to("0")
        self.place.chmod(0o750)
        self.images = {OLD: "sha256:17", NEW: "sha256:18", BAD: "sha256:bad"}
        self.running = {"db": ("c1", OLD, "running"), "app": ("a1", "app:1", "running")}
        self.count = 1
        self.said: list[str] = []
        self.ops = 0
        self.kill_at = 0
        for name, value in {
            "ROOT": tmp_path / "stacks", "JOURNALS": tmp_path / "upgrades", "BACKUPS": tmp_path / "backups",
            "FOR_ALL": tmp_path,
        }.items():  # fmt: skip
            monkeypatch.setattr(program, name, value)
        for name in ("own", "there", "wait", "settle"):
            monkeypatch.setattr(program, name, getattr(self, name))
        # Whatever changes something can be the last thing that a run does.
        for name in ("engine", "compose_up", "remove"):
            monkeypatch.setattr(program, name, self.step(getattr(self, name)))
        for name in ("replace_file", "discard", "must", "swap"):
            monkeypatch.setattr(program, name, self.step(getattr(program, name)))
        monkeypatch.setattr(Path, "rename", self.step(Path.rename))
        self.here = tmp_path / "stacks/shop"
        (self.here / "config/db/etc/db/..1").mkdir(parents=True)
        (self.here / "config/db/etc/db/..1/db.conf").write_text("old")
        program.swap(self.here / "config/db/etc/db", "..1")
        (self.here / "secrets").mkdir()
        (self.here / "secrets/token").write_text("old")
        self.commit(OLD, "old")
        self.ops = 0

    def step(self, do: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*words: Any, **more: Any) -> Any:
            self.die()
            answer = do(*words, **more)
            self.die()
            return answer

        return stepped

    def die(self) -> None:
        self.ops += 1
        if self.ops == self.kill_at:
            raise KeyboardInterrupt

    def commit(self, image: str, text: str) -> None:
        """What apply writes."""
        made = {"services": {"db": {"image": image}, "app": {"image": "app:1"}}}
        (self.here / "compose.yaml").write_text("---\n" + json.dumps(made))
        (self.here / "secrets/token").write_text(text)
        if text == "new":
            (self.here / "files/db").mkdir(parents=True, exist_ok=True)
            (self.here / "files/db/added").write_text("new")
            tree = self.here / "config/db/etc/db"
            (tree / "..2").mkdir(exist_ok=True)
            (tree / "..2/db.conf").write_text("new")
            program.swap(tree, "..2")

    # what the program asks of Docker

    def own(self, project: str, service: str) -> list[dict[str, Any]]:
        if service not in self.running:
            return []
        identity, image, state = self.running[service]
        labels = {"com.docker.compose.image": self.images.get(image, image)}
        return [{
            "id": identity, "name": f"shop-{service}-1", "image": image, "state": state, "status": "", "labels": labels,
        }]  # fmt: skip

    def there(self, path: str) -> dict[str, Any]:
        if path.startswith("/volumes/"):
            return {"Name": "shop_data", "Driver": "local", "Options": None, "Mountpoint": str(self.place)}
        if path.startswith("/images/"):
            image = path.removeprefix("/images/").removesuffix("/json")
            return {"Id": self.images[image]} if image in self.images else {}
        return next({"Config": {"Image": one[1]}} for one in self.running.values() if one[0] in path)

    def engine(self, method: str, path: str, body: Any = None, timeout: float = 0) -> None:
        for service, (identity, image, _) in self.running.items():
            if identity in path:
                self.running[service] = (identity, image, "exited" if "/stop" in path else "running")
                if "/start" in path:
                    self.start(service)

    def remove(self, container: dict[str, Any]) -> None:
        self.running = {name: one for name, one in self.running.items() if one[0] != container["id"]}

    def compose_up(self, project: str, services: list[str], seconds: float, directory: Path, *files: Path) -> None:
        text = (directory / "compose.yaml").read_text().removeprefix("---\n")
        entries = json.loads(text)["services"]
        for file in files:
            entries |= json.loads(file.read_text())["services"]
        for service in services:
            self.count += 1
            self.running[service] = (f"c{self.count}", entries[service]["image"], "running")
            self.start(service)

    def start(self, service: str) -> None:
        if service == "db":
            assert self.place.is_dir(), "Docker would refuse to start it"
            image = self.running["db"][1]
            if image not in (OLD, self.images[OLD]):
                for path in self.place.iterdir():
                    if not path.is_symlink():
                        path.write_text("new")
                (self.place / "made by the new one").write_text("new")
            else:
                assert self.content() == "old", "the old version runs on data that are not its own"

    def wait(self, names: set[str], seconds: float, ends: bool = False) -> None:
        for service, (_, image, state) in self.running.items():
            if f"shop-{service}-1" in names and (image == BAD or state != "running"):
                raise program.Fault(f"the words of {image}")

    def settle(self, project: dict[str, Any], names: list[str]) -> None:
        pass

    # what the tests ask

    def content(self) -> str:
        """Which version's data the volume has; "half" if it is neither's."""
        texts = {path.read_text() for path in self.place.iterdir() if not path.is_symlink()}
        count = len(list(self.place.iterdir()))
        mode = self.place.stat().st_mode & 0o777
        whole = len(texts) == 1 and count in (MANY + 1, MANY + 2) and mode == 0o750
        return texts.pop() if whole and str((self.place / "link").readlink()) == "0" else "half"

    def files(self) -> str:
        """Which version's files the project has."""
        added = (self.here / "files/db/added").exists()
        texts = {(self.here / "secrets/token").read_text(), (self.here / "config/db/etc/db/db.conf").read_text()}
        images = {json.loads((self.here / "compose.yaml").read_text()[4:])["services"]["db"]["image"]}
        found = (texts, images, added)
        return (
            {True: "new", False: "old"}[added] if found in (({"old"}, {OLD}, False), ({"new"}, images, True)) else "?"
        )


SERVICE = {
    "name": "db", "image": OLD, "volumes": [{"name": "data", "target": "/data"}],
    "upgrade": {"backup": ["data"], "keep": 2}, "config": {"/etc/db": {"db.conf": "x"}}, "depends": ["app"],
}  # fmt: skip


def upgrade(host: Host, image: str, more: list[str] | None = None) -> None:
    """What apply does for one project: copies, files, the new version."""
    project = project_of({**SERVICE, "image": image}, {"name": "app", "image": "app:1"})
    plan = program.Plan(work={"shop": program.Work(force=["db"], settle=["db"])})
    facts = Facts(containers=[{**host.own("shop", "db")[0], "created": 1.0}])
    facts.containers[0]["labels"] |= {"ringfence.project": "shop", "com.docker.compose.service": "db"}
    journal = program.upgrade_of(project, plan, facts, "stack")
    assert journal
    begun: list[Any] = []
    with program.taken_back(begun, 1):
        program.begin(journal)
        begun.append(journal)
        host.commit(image, "new")
    program.bring_up(project, plan.work["shop"], 1, journal)


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
    host.images[OLD] = "sha256:new"
    host.own = lambda project, service, own=host.own: [  # type: ignore[method-assign]
        {**one, "labels": {"com.docker.compose.image": "sha256:17"}} for one in own(project, service)
    ]
    program.own = host.own
    host.wait = lambda names, seconds, ends=False: None  # type: ignore[method-assign]
    journal = program.Journal("shop", "stack", services={"db": program.Upgraded("c1", "sha256:17", OLD, OLD, "x")})
    program.private(journal.here)
    (path,) = program.pin(journal, {"db": OLD})
    assert json.loads(path.read_text()) == {"services": {"db": {"image": "sha256:17"}}}
    host.images[OLD] = "sha256:17"
    assert list(program.pin(journal, {"db": OLD})) == []


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
        monkey = f"2026010{number}T000000Z"
        (program.BACKUPS / f"shop/db/{monkey}-{number}").mkdir(parents=True)
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


def upgrade_until_tried(host: Host, image: str) -> None:
    """A run that was killed while it waited for the new version."""
    wait = program.wait

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    program.wait = killed
    try:
        with pytest.raises(KeyboardInterrupt):
            upgrade(host, image)
    finally:
        program.wait = wait


# -- room


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
    assert program.volumes_of("shop", ["data"]) == []


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


def test_container(desired: dict[str, Any]) -> None:
    assert container(converged(desired), "shop-web-1")["image"] == "docker.io/library/nginx:1.29"
