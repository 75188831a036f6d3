"""`python -m ringfence pin`: digests of what runs, written behind the images of a lab and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringfence.importing import pin, running
from ringfence.importing.pin import Wanted, decide, unpinned, write
from ringfence.importing.problems import ComposeError

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
LAB: dict[str, Any] = {
    "lab_services": {
        "web": {"host": "atlas", "image": "caddy:2"}, "old": {"host": "nas", "image": "caddy:2"},
        "db": {"host": "atlas", "image": f"postgres:18@{A}"},
    },
    "lab_part_x": {"services": {"new": {"host": "atlas", "image": "ghcr.io/x/y:latest"}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("caddy", "docker.io/library/caddy:latest"), ("x/y:1", "docker.io/x/y:1"),
        ("ghcr.io/x/y", "ghcr.io/x/y:latest"),
        ("localhost:5000/z:2", "localhost:5000/z:2"), (f"caddy@{A}", f"docker.io/library/caddy@{A}"),
    ],
)  # fmt: skip
def test_names_are_completed_as_docker_does(name: str, full: str) -> None:
    assert running.full_name(name) == full


def test_what_has_no_digest_is_found_in_parts_too() -> None:
    assert list(unpinned(LAB, [])) == [
        Wanted("new", "atlas", "ghcr.io/x/y:latest"), Wanted("old", "nas", "caddy:2"),
        Wanted("web", "atlas", "caddy:2"),
    ]  # fmt: skip
    assert list(unpinned(LAB, ["web", "db"])) == [Wanted("web", "atlas", "caddy:2")]
    with pytest.raises(ComposeError, match="'nobody' is not a service of the lab"):
        list(unpinned(LAB, ["nobody"]))


def test_one_that_runs_everywhere_alike_is_pinned_and_others_are_told() -> None:
    wanted = [Wanted("web", "atlas", "caddy:2"), Wanted("old", "nas", "caddy:2"), Wanted("new", "atlas", "x/y:latest"),
              Wanted("own", "atlas", "built:1"), Wanted("gone", "nas", "gone:1")]  # fmt: skip
    found = {
        "atlas": {"docker.io/library/caddy:2": {f"caddy:2@{A}"}, "docker.io/x/y:latest": {f"x/y@{B}"},
                  "docker.io/library/built:1": {""}},
        "nas": {"docker.io/library/caddy:2": {f"caddy:2@{A}"}},
    }  # fmt: skip
    pins, faults = decide(wanted, found)
    assert pins == {"caddy:2": f"caddy:2@{A}", "x/y:latest": f"x/y@{B}"}
    assert faults == [
        "built:1 (own): it was made on the host and has no digest", "gone:1 (gone): nothing runs of it on nas",
    ]  # fmt: skip
    found["nas"]["docker.io/library/caddy:2"] = {f"caddy:2@{B}"}
    _, faults = decide(wanted[:2], found)
    assert faults == [f"caddy:2 (web, old): different ones run, {A}, {B}: write the one to use"]


TEXT = """# caddy:2 is here
web:
  image: caddy:2  # the proxy
  note: "image caddy:2"
old: {image: "caddy:2", host: nas}
other: {image: my/caddy:2}
newer: {image: caddy:2.1}
"""


def test_nothing_but_the_image_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "group_vars" / "all.yml"
    path.parent.mkdir()
    path.write_text(TEXT, encoding="utf-8")
    path.chmod(0o640)
    pins = {"caddy:2": f"caddy:2@{A}", "gone:1": f"gone:1@{B}"}
    lines, missing = write(tmp_path, pins, dry=True)
    assert path.read_text(encoding="utf-8") == TEXT
    assert (lines, missing) == write(tmp_path, pins, dry=False)
    assert lines == [f"group_vars/all.yml: caddy:2 → caddy:2@{A}"]
    assert missing == [f"gone:1: stands in no file of the lab like that; write gone:1@{B}"]
    expected = TEXT.replace("image: caddy:2 ", f"image: caddy:2@{A} ").replace(
        'image: "caddy:2"', f'image: "caddy:2@{A}"'
    )
    assert path.read_text(encoding="utf-8") == expected
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in path.parent.iterdir()] == ["all.yml"]


def test_a_host_is_read_as_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    containers = [{"Config": {"Image": "caddy:2"}, "Image": "1"}, {"Config": {"Image": "built"}, "Image": "2"}]
    known = [{"Id": "1", "RepoDigests": [f"caddy@{A}"]}, {"Id": "2", "RepoDigests": []}]
    said = f"{json.dumps(containers)}\n{json.dumps(known)}\n"
    monkeypatch.setattr(running, "_asked", lambda *_: said)
    assert running.images(Path("hosts.yml"), "atlas") == {
        "docker.io/library/caddy:2": {f"caddy:2@{A}"}, "docker.io/library/built:latest": {""},
    }  # fmt: skip


def test_the_command_says_what_it_could_not_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pin, "lab_directory", lambda: tmp_path)
    monkeypatch.setattr(pin, "hosts_file", lambda directory: directory / "hosts.yml")
    monkeypatch.setattr(pin, "declared", lambda directory: LAB)
    monkeypatch.setattr(pin, "images", lambda file, host: {"docker.io/library/caddy:2": {f"caddy:2@{A}"}})
    monkeypatch.setattr(pin, "settings", lambda given: None)
    (tmp_path / "lab.yml").write_text("web: {image: caddy:2}\n", encoding="utf-8")
    assert pin.main(["--dry"]) == 1
    out, err = capsys.readouterr()
    assert out == f"lab.yml: caddy:2 → caddy:2@{A}\n"
    assert err == "ghcr.io/x/y:latest (new): nothing runs of it on atlas\n"
    assert pin.main(["web", "old"]) == 0
