"""Roles leave a host: listed first, done when the user has said so, taken back where it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.operations.remove import is_confirmed, lines
from ringfence.remote import role as remote
from ringfence.role import Role
from ringfence.roles import ROLES, role
from tests.programs import load
from tests.roles import make_tiny, state

ROOT = Path(__file__).resolve().parents[2]
GOES = "tiny: - value new"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A host with the role `tiny` on it."""
    make_tiny(tmp_path)
    shutil.copytree(ROOT / "roles" / "guard", tmp_path / "roles" / "guard")
    host = tmp_path / "host"
    host.mkdir()
    (host / "state").write_text("new")
    (host / "ringfence-tiny").write_text("#!/bin/sh\n")
    (host / "tiny.conf").write_text("value = new\n")
    (tmp_path / "mine.py").write_text(
        "from ringfence.operations.remove import remove\nfrom roles.tiny.deploy import ROLE\n"
        "remove(name='remove', roles=[ROLE])\n"
    )
    task = {"include_role": {"name": "guard", "tasks_from": "remove"}, "vars": {"guard_remove": ["tiny"]}}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    return tmp_path


def run(lab: Path, engine: str, *, dry: bool = False, said: str = "") -> subprocess.CompletedProcess[str]:
    """Run the removal with an engine on this machine."""
    if engine == "pyinfra":
        (lab / "inventory.py").write_text("docker_hosts = ['@local']\n")
        words = ["pyinfra", "--dry" if dry else "--yes", *(["--data", f"ringfence_remove={said}"] if said else [])]
        words += ["inventory.py", "mine.py"]
    else:
        (lab / "hosts.yml").write_text("all: {hosts: {atlas: {ansible_connection: local}}}\n")
        words = ["ansible-playbook", "-i", "hosts.yml", "play.yml", *(["--check"] if dry else [])]
        words += ["-e", f"ringfence_remove={said}"] if said else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ANSIBLE_ROLES_PATH": str(lab / "roles"), "LC_ALL": "C.UTF-8"}
    environment.pop("ANSIBLE_CONFIG", None)
    return subprocess.run(
        [str(Path(sys.executable).with_name(words[0])), *words[1:]],
        cwd=lab, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["pyinfra", "ansible"])
@pytest.mark.parametrize("how", ["dry", "unsaid", "no"])
def test_what_would_go_is_listed_and_stays(lab: Path, engine: str, how: str) -> None:
    done = run(lab, engine, dry=how == "dry", said="no" if how == "no" else "")
    said = done.stdout + done.stderr
    assert (done.returncode == 0) == (how == "dry"), said
    assert GOES in said
    assert f"tiny: - file {lab}/host/ringfence-tiny" in said
    assert "its secret stays" in said
    assert "tiny.conf" not in said  # it does not bear ringfence's name
    assert ("ringfence_remove=yes" in said) == (how != "dry" or engine == "pyinfra")
    assert state(lab) == "new"
    assert (lab / "host" / "ringfence-tiny").exists()


def _leaving(lab: Path, **changes: Any) -> dict[str, Any]:
    return Role(str(lab / "roles" / "tiny" / "deploy.py")).leaving() | changes


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directories of the host that belong to ringfence as a whole."""
    for name in ("CONFIGURATION", "RUNTIME"):
        monkeypatch.setattr(remote, name, tmp_path / name)
        (tmp_path / name / "policy").mkdir(parents=True)
    return tmp_path


def test_a_role_leaves_with_what_it_made_and_its_files(lab: Path, elsewhere: Path) -> None:
    (elsewhere / "RUNTIME" / "ringfence-policy.lock").touch()
    (elsewhere / "RUNTIME" / "other.lock").touch()
    leaving = [_leaving(lab)]
    listed = remote.removal(leaving)
    assert lines(listed) == [GOES, f"tiny: - file {lab}/host/ringfence-tiny"]
    remote.remove(leaving, None)
    assert state(lab) == ""
    assert (lab / "host" / "ringfence-tiny").exists()  # until nothing is to be taken back any more
    remote.clear(leaving)
    assert sorted(path.name for path in (lab / "host").iterdir()) == ["tiny.conf"]
    assert not (elsewhere / "CONFIGURATION").exists()
    assert [path.name for path in (elsewhere / "RUNTIME").glob("*.lock")] == ["other.lock"]
    assert lines(remote.removal(leaving)) == []


GUARD = """#!/bin/sh
echo "$1" >> {log}
"""


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "import time\ntime.sleep(60)"], ids=["fails", "hangs"])
def test_what_fails_inside_the_window_is_taken_back(lab: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    guard = lab / "guard"
    guard.write_text(GUARD.format(log=lab / "log"))
    guard.chmod(0o755)
    monkeypatch.setattr(remote, "GUARD", str(guard))
    with pytest.raises(remote.Fault, match="role tiny: ringfence-tiny remove"):
        remote.remove([_leaving(lab, guarded=True, program=program)], {"name": "x", "seconds": 5, "limit": 1})
    assert (lab / "log").read_text().split() == ["arm", "restore"]


def test_without_the_guard_nothing_is_taken_away_that_can_cut_off(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "GUARD", str(lab / "nowhere"))
    with pytest.raises(remote.Fault, match="apply the role guard first"):
        remote.remove([_leaving(lab, guarded=True)], {"name": "x", "seconds": 5, "limit": 5})
    assert state(lab) == "new"


def test_the_guard_leaves_last(lab: Path, elsewhere: Path) -> None:
    leaving = [_leaving(lab, role="guard", files=[])]
    remote.remove(leaving, None)
    assert state(lab) == "new"
    remote.clear(leaving)
    assert state(lab) == ""


@pytest.mark.parametrize("name", [name for name in ROLES if f"{name}_program" not in role(name).constants])
def test_every_program_knows_the_verb(name: str) -> None:
    leaving = role(name).leaving()
    assert leaving["program"]
    assert f"/usr/local/sbin/ringfence-{name}" in leaving["files"]
    assert all("ringfence" in path for path in leaving["files"])
    wrong = subprocess.run(
        [sys.executable, "-", "remove", "--dyr"],
        input=leaving["program"], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert wrong.returncode == 1, "a misspelt --dry must not remove anything"
    assert "remove, or `remove --dry`" in wrong.stderr.replace("`remove`,", "remove,")


@pytest.mark.parametrize(
    ("said", "is_meant"),
    [("yes", True), (True, True), ("Yes ", True), ("", False), (None, False), ("no", False), (False, False)],
)
def test_only_a_plain_yes_is_one(said: object, is_meant: bool) -> None:
    assert is_confirmed(said) is is_meant


# -- docker


def test_daemon_json_is_as_it_was_before_and_keeps_what_data_depends_on() -> None:
    docker = load("docker")
    pools = [{"base": "172.24.0.0/13", "size": 24}]
    written = {
        "default-address-pools": pools, "bip": "172.17.0.1/16", "live-restore": True, "userland-proxy": False,
        "data-root": "/srv/docker", "log-driver": "json-file",
    }  # fmt: skip
    config = {**written, "log-driver": "local", "dns": ["9.9.9.9"]}
    back = docker.put_back(config, written, {"userland-proxy": True, "dns": ["9.9.9.9"]})
    assert back == {
        "bip": "172.17.0.1/16", "data-root": "/srv/docker",  # Docker's networks and data
        "userland-proxy": True,  # as before
        "log-driver": "local", "dns": ["9.9.9.9"],  # somebody else's
    }  # fmt: skip
    assert (
        docker.differing(config, back) == "default-address-pools → unset, live-restore → unset, userland-proxy → true"
    )


# -- stack


def test_projects_can_be_started_on_networks_that_the_fence_takes_over_again() -> None:
    stack = load("stack")
    attached = {"rf-back": {"id": "nb", "address": "172.21.0.9", "address6": ""}, "none": {}}
    facts = stack.Facts(
        containers=[
            {"labels": {"ringfence.project": "shop"}, "networks": attached}, {"labels": {}, "networks": {"x": {}}},
        ],
        networks={
            "rf-back": {
                "internal": True, "v6": True, "subnets": ["172.21.0.0/24", "fd00::/64"],
                "labels": {"ringfence.segment": "back"}, "bridge": "rf-back",
            },
            "x": {"internal": False, "v6": False, "subnets": [], "labels": {}, "bridge": "br-x"},
        },
    )  # fmt: skip
    text = stack.start_script(["shop"], facts)
    make = (
        "docker network create --label ringfence.segment=back --internal --ipv6"
        " --subnet 172.21.0.0/24 --subnet fd00::/64 --opt com.docker.network.bridge.name=rf-back rf-back"
    )
    assert f"docker network inspect rf-back >/dev/null 2>&1 || {make} >/dev/null" in text
    assert "docker compose -p shop --project-directory /opt/ringfence/stacks/shop" in text
    assert " x" not in text
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0


@pytest.mark.parametrize("name", ["stack", "segments"])
def test_what_docker_keeps_is_not_left_behind_because_docker_does_not_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = load(name)
    monkeypatch.setattr(program, "docker_runs", lambda: False)
    monkeypatch.setattr(program, "search_path", lambda: str(tmp_path))
    assert program.going()[0] == []  # no engine, no containers
    (tmp_path / "dockerd").write_text("#!/bin/sh\n")
    (tmp_path / "dockerd").chmod(0o755)
    with pytest.raises(program.Fault, match="systemctl start docker"):
        program.going()
