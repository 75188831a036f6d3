"""Without a terminal nothing asks, and nothing ends in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
INVENTORY = """
from ringfence.inventory import unattended
unattended.install()
docker_hosts = [({name!r}, {data!r})]
"""


def pyinfra(lab: Path, *words: str, name: str = "@local", **data: Any) -> subprocess.CompletedProcess[str]:
    (lab / "inventory.py").write_text(INVENTORY.format(name=name, data=data), encoding="utf-8")
    return subprocess.run(
        [str(BIN / "pyinfra"), *words], cwd=lab, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    (tmp_path / "deploy.py").write_text(
        f"from pyinfra.operations import files\n\nfiles.file(path={str(tmp_path / 'made')!r})\n", encoding="utf-8"
    )
    return tmp_path


def told(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stderr
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert "internal exception" not in done.stderr


def test_a_plan_that_nobody_can_agree_to_changes_nothing_and_says_what_to_type(lab: Path) -> None:
    told(pyinfra(lab, "inventory.py", "deploy.py"), "nothing was changed", "pyinfra --yes", "--dry")
    assert not (lab / "made").exists()
    assert pyinfra(lab, "--dry", "inventory.py", "deploy.py").returncode == 0
    assert pyinfra(lab, "--yes", "inventory.py", "deploy.py").returncode == 0
    assert (lab / "made").exists()


def test_a_key_that_cannot_be_read_is_a_line_of_its_host(lab: Path) -> None:
    locked, broken = lab / "locked", lab / "broken"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "hush", "-f", str(locked)], check=True)
    broken.write_text("no key")
    asked = ("--yes", "inventory.py", "deploy.py")
    for key, word in (
        ("/nonexistent/key", "No such private key file: /nonexistent/key"),
        (str(locked), "ansible_private_key_passphrase"),
        (str(broken), "Invalid private key file"),
    ):
        told(pyinfra(lab, *asked, name="atlas", ssh_hostname="127.0.0.1", ssh_key=key), "[atlas]", word)


def test_pyinfra_still_asks_by_the_names_that_are_laid_over() -> None:
    """A release of pyinfra that asks in another way fails here."""
    import pyinfra.connectors as connectors

    folder, calls = Path(connectors.__file__).parent, (" getpass(", " input(", "click.confirm(", "click.prompt(")
    asking = {
        path.relative_to(folder.parents[1]).as_posix()
        for where in (folder.parent, folder.parents[1] / "pyinfra_cli")
        for path in where.rglob("*.py")
        if any(call in path.read_text(encoding="utf-8") for call in calls)
    }  # fmt: skip
    assert asking == {
        "pyinfra/connectors/ssh_util.py", "pyinfra/connectors/sshuserclient/client.py", "pyinfra/connectors/util.py",
        "pyinfra_cli/cli.py",
    }  # fmt: skip


@pytest.mark.parametrize("playbook", ["site", "remove"])
def test_ansible_refuses_an_inventory_that_nothing_would_be_done_for(tmp_path: Path, playbook: str) -> None:
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("all: {hosts: {atlas: {ansible_connection: local}}, vars: {ringfence_roles: []}}\n")
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), "-i", str(hosts), f"playbooks/{playbook}.yml"],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "no group 'docker_hosts'" in done.stdout + done.stderr


@pytest.mark.parametrize("deploy", ["site", "remove", "verify"])
def test_pyinfra_refuses_it_as_well(tmp_path: Path, deploy: str) -> None:
    (tmp_path / "inventory.py").write_text("others = ['@local']\n", encoding="utf-8")
    done = subprocess.run(
        [str(BIN / "pyinfra"), "--yes", str(tmp_path / "inventory.py"), f"deploys/{deploy}.py"],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    told(done, "no group 'docker_hosts'")
