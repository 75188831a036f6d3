"""One role alone, as pyinfra's users run it: copied, by its own file, with what it would change in plain sight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.roles import make_tiny, state

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    make_tiny(tmp_path)
    return tmp_path


def pyinfra(lab: Path, *words: str, group: str = "docker_hosts", **variables: Any) -> subprocess.CompletedProcess[str]:
    (lab / "inventory.py").write_text(f"{group} = [('@local', {variables!r})]\n", encoding="utf-8")
    return subprocess.run(
        [str(Path(sys.executable).with_name("pyinfra")), *words],
        cwd=lab, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


ALONE = ("inventory.py", "roles/tiny/deploy.py")


def test_a_roles_own_file_applies_the_role(lab: Path) -> None:
    done = pyinfra(lab, "--yes", *ALONE, tiny_value="first")
    assert done.returncode == 0, done.stderr
    assert state(lab) == "first"
    assert (lab / "host" / "tiny.conf").read_text() == "value = first\n"
    # The second run finds nothing to do.
    assert "value:" not in pyinfra(lab, "--yes", *ALONE, tiny_value="first").stderr


def test_a_deploy_that_imports_the_role_applies_it_once(lab: Path) -> None:
    (lab / "mine.py").write_text("from roles.tiny.deploy import tiny\n\ntiny()\n", encoding="utf-8")
    done = pyinfra(lab, "--yes", "inventory.py", "mine.py")
    assert done.returncode == 0, done.stderr
    assert state(lab) == "new"
    assert done.stderr.count("Starting operation: tiny | state") == 1


def test_an_import_alone_applies_nothing(lab: Path) -> None:
    (lab / "mine.py").write_text("import roles.tiny.deploy\n", encoding="utf-8")
    assert pyinfra(lab, "--yes", "inventory.py", "mine.py").returncode == 0
    assert state(lab) == ""


def test_a_host_outside_the_group_is_left_alone(lab: Path) -> None:
    (lab / "both.py").write_text(
        "docker_hosts = [('never-reached', {'ssh_hostname': '127.0.0.1', 'ssh_port': 1})]\nothers = ['@local']\n",
        encoding="utf-8",
    )
    done = pyinfra(lab, "--yes", "both.py", "roles/tiny/deploy.py")
    assert "Grand total" in done.stderr
    assert "[@local] Error" not in done.stderr
    assert state(lab) == ""
    # Where it is the only one that is chosen, the run says so.
    done = pyinfra(lab, "--yes", "--limit", "@local", "both.py", "roles/tiny/deploy.py")
    assert done.returncode != 0
    assert "so nothing would be done (it has never-reached)" in done.stderr
    assert state(lab) == ""


def test_an_inventory_without_the_group_is_no_silent_run(lab: Path) -> None:
    done = pyinfra(lab, "--yes", *ALONE, group="others")
    assert done.returncode != 0
    assert "no group 'docker_hosts'" in done.stderr
    assert "tiny()" in done.stderr
    assert state(lab) == ""


def test_a_host_that_the_lab_does_not_have_is_refused_and_keeps_everything(lab: Path) -> None:
    done = pyinfra(lab, "--yes", *ALONE, ringfence_undeclared=True)
    assert done.returncode != 0
    assert "@local is in the group 'docker_hosts', and lab_hosts does not have it" in done.stderr
    assert "declare it in lab_hosts" in done.stderr
    assert state(lab) == ""


def test_a_dry_run_of_one_role_says_what_would_change_and_changes_nothing(lab: Path) -> None:
    done = pyinfra(lab, "--dry", *ALONE, tiny_value="first", tiny_notices=["mind the gap"])
    assert done.returncode == 0, done.stderr
    for line in (
        f"tiny: + file {lab}/host/tiny.conf (missing)",
        "tiny: ~ value:  becomes first",
        "tiny: mind the gap",
    ):
        assert done.stderr.count(line) == 1, done.stderr
    assert not (lab / "host").exists()


@pytest.mark.parametrize("mode", ["--dry", "--yes"])
def test_a_refusal_of_one_role_stops_the_run_with_its_words(lab: Path, mode: str) -> None:
    done = pyinfra(lab, mode, *ALONE, tiny_refusals=["the port is taken (free it)"])
    assert done.returncode != 0
    assert "tiny: the port is taken (free it)" in done.stderr
    assert not (lab / "host").exists()


def test_a_failing_step_stops_the_run_with_its_words(lab: Path) -> None:
    done = pyinfra(lab, "--yes", *ALONE, tiny_value="broken")
    assert done.returncode != 0
    assert "wiki could not be attached to its network again" in done.stderr
    assert "ringfence-tiny apply failed" in done.stderr


def test_no_output_of_a_run_holds_a_secret(lab: Path) -> None:
    done = pyinfra(lab, "--yes", "-vvv", "--diff", *ALONE, tiny_secret="correct horse battery staple")
    assert done.returncode == 0, done.stderr
    assert (lab / "host" / "secret").read_text() == "correct horse battery staple\n"
    assert "correct horse" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["tiny_valeu", "tiny_values", "tinyy_value"])
def test_a_variable_that_is_almost_the_roles_is_refused_before_anything_is_planned(lab: Path, name: str) -> None:
    """Its default would hold in its place: of a list of projects, none of them."""
    done = pyinfra(lab, "--dry", *ALONE, **{name: "first"})
    assert done.returncode != 0
    assert f"'{name}' is no variable of it (did you mean 'tiny_value'?" in done.stderr
    assert "~ value" not in done.stderr
    assert pyinfra(lab, "--dry", *ALONE, tiny_of_my_own="x", value="y").returncode == 0
