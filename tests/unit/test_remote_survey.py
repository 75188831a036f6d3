"""The survey that runs on hosts, run here on a temporary directory."""

from __future__ import annotations

import getpass
import grp
import hashlib
import os
from pathlib import Path

import pytest

from ringfence.facts.remote_survey import file_difference, missing_packages, survey

ANSWERS = """
import json
print(json.dumps({"changes": ["+ " + REQUEST["desired"]["value"]], "refusals": [], "notices": []}))
"""


def _want(path: Path, content: str = "hello", mode: str = "0644") -> dict[str, str]:
    return {
        "path": str(path),
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "mode": mode,
        "user": getpass.getuser(),
        "group": grp.getgrgid(os.getgid()).gr_name,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_text("hello", encoding="utf-8")
    path.chmod(0o644)
    return path


def test_a_file_as_wanted_has_no_difference(file: Path) -> None:
    assert file_difference(_want(file)) is None


def test_each_difference_of_a_file_is_named(file: Path, tmp_path: Path) -> None:
    assert file_difference(_want(tmp_path / "nowhere")) == "missing"
    assert file_difference(_want(file, content="other")) == "content"
    assert file_difference(_want(file, mode="0600")) == "mode"
    assert file_difference({**_want(file), "user": "nobody"}) == "owner"
    assert file_difference(_want(tmp_path)) == "not a regular file"


def test_a_link_is_not_followed(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    assert file_difference(_want(link)) == "not a regular file"


def test_only_missing_packages_are_named() -> None:
    assert missing_packages(["dpkg", "ringfence-no-such-package"]) == ["ringfence-no-such-package"]


def test_programs_are_asked_with_their_desired_state() -> None:
    want = {"packages": [], "files": [], "program": ANSWERS, "desired": {"value": "x"}}
    assert survey({"a": want})["a"]["changes"] == ["+ x"]


def test_a_program_that_fails_is_a_refusal_not_a_silence() -> None:
    want = {"packages": [], "files": [], "program": "raise SystemExit('broken')", "desired": {}}
    assert "broken" in survey({"a": want})["a"]["refusals"][0]
