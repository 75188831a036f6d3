"""Directories that are swapped at once: what is seen is the old or the new, never a mixture."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ringfence.host.swapping import DATA, File, look_into, new_generation, swap


def put(directory: Path, files: dict[str, str]) -> str:
    """Write files as the next generation and swap to it."""
    generation = new_generation(directory)
    generation.mkdir(parents=True)
    for path, content in files.items():
        (generation / path).parent.mkdir(parents=True, exist_ok=True)
        (generation / path).write_text(content)
    swap(directory, generation.name)
    return generation.name


def shown(directory: Path) -> dict[str, str]:
    """What somebody sees who has the directory mounted."""
    found = {}
    for name in sorted(path.name for path in directory.iterdir() if not path.name.startswith("..")):
        top = directory / name
        files = [top] if top.is_file() else [path for path in top.resolve().rglob("*") if path.is_file()]
        for path in files:
            inside = name if path == top else f"{name}/{path.relative_to(top.resolve())}"
            found[inside] = path.read_text()
    return found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"a": "1"}),
        ({"a": "1"}, {"a": "2"}),
        ({"a": "1"}, {}),
        ({"a": "1", "b/c": "1"}, {"b/d": "2"}),
        ({"a": "a file"}, {"a/b": "below a directory"}),
        ({"a/b": "below a directory"}, {"a": "a file"}),
    ],
)
def test_after_a_swap_the_new_files_are_seen_and_nothing_else(
    tmp_path: Path, before: dict[str, str], after: dict[str, str]
) -> None:
    old = put(tmp_path / "d", before)
    assert shown(tmp_path / "d") == before
    new = put(tmp_path / "d", after)
    assert shown(tmp_path / "d") == after
    seen = look_into(tmp_path / "d")
    assert {path: file.content.decode() for path, file in seen.files.items()} == after
    assert (seen.generation, seen.others, seen.whole) == (new, [old], True)
    swap(tmp_path / "d", old)  # the old ones come back in the same way
    assert shown(tmp_path / "d") == before


def test_who_reads_meanwhile_never_sees_a_mixture(tmp_path: Path) -> None:
    put(tmp_path, {"one": "0", "two/three": "0"})
    done = threading.Event()
    torn: list[tuple[str, str]] = []

    def reader() -> None:
        while not done.is_set():
            # A program that opens its directory reads one generation, however many swaps happen meanwhile.
            at = (tmp_path / DATA).resolve()
            pair = (at / "one").read_text(), (at / "two/three").read_text()
            if pair[0] != pair[1]:
                torn.append(pair)

    thread = threading.Thread(target=reader)
    thread.start()
    for number in range(200):
        put(tmp_path, {"one": str(number), "two/three": str(number)})
    done.set()
    thread.join()
    assert torn == []


def test_a_directory_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert look_into(tmp_path / "nothing") == ("", {}, 0.0, True, [])


@pytest.mark.parametrize("damage", ["link", "file", "directory", "generation", "data"])
def test_what_was_changed_by_hand_is_seen(tmp_path: Path, damage: str) -> None:
    name = put(tmp_path, {"a": "1"})
    if damage == "link":
        (tmp_path / "a").unlink()
    elif damage == "file":
        (tmp_path / "b").write_text("by hand")
    elif damage == "directory":
        (tmp_path / "a").unlink()
        (tmp_path / "a").mkdir()
    elif damage == "generation":
        (tmp_path / name / "a").write_text("by hand")
    else:
        (tmp_path / DATA).unlink()
        (tmp_path / DATA).symlink_to("/etc")
    seen = look_into(tmp_path)
    assert not seen.whole or seen.generation != name or seen.files["a"].content != b"1"
    put(tmp_path, {"a": "1"})
    assert shown(tmp_path) == {"a": "1"}
    assert look_into(tmp_path).whole


def test_what_is_no_file_is_told_apart(tmp_path: Path) -> None:
    name = put(tmp_path, {"a": "1"})
    (tmp_path / name / "a").unlink()
    (tmp_path / name / "a").symlink_to("/etc/shadow")
    file = look_into(tmp_path).files["a"]
    assert (file.content, file.mode) == (b"", -1)
    assert File(b"", -1, 0)[:2] == file[:2]
