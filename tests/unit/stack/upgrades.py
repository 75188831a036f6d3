"""A host on which upgrades are tried: a pretended Docker, real files and real archives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.stack.cases import Facts, program, project_of

OLD, NEW, BAD = "shop/db:17", "shop/db:18", "shop/db:bad"
MANY = 20  # files in the volume: half of them is a thing that can be seen


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
