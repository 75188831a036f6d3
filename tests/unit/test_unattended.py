"""Without a terminal nothing asks, and nothing ends in a traceback."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
INVENTORY = """
from ringfence.inventory import chosen, openssh, unattended
unattended.install()
chosen.install()
openssh.install()
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


def test_a_plan_that_would_show_nothing_is_an_error(lab: Path) -> None:
    """With both, pyinfra compares nothing, and it looked as if there were nothing to do and nothing refused."""
    for words in (("--dry", "--yes"), ("-y", "--dry")):
        told(pyinfra(lab, *words, "inventory.py", "deploy.py"), "nothing was looked at", "leave --yes out")
    assert not (lab / "made").exists()


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


@pytest.mark.parametrize("words", [("--limit", "atlsa"), ("--exclude", "atlas"), ("--exclude", "@local")])
def test_a_limit_that_leaves_nobody_is_an_error_with_the_hosts_that_there_are(
    lab: Path, words: tuple[str, ...]
) -> None:
    done = pyinfra(lab, "--yes", *words, "inventory.py", "deploy.py", inventory_hostname="atlas")
    told(done, "leave no host of the inventory, which has atlas")
    assert not (lab / "made").exists()


def test_verify_goes_on_without_a_host_that_is_down_and_asks_nothing(lab: Path) -> None:
    (lab / "deploys").mkdir()
    (lab / "deploys" / "verify.py").write_text(
        "from ringfence.inventory import unattended\nunattended.go_on()\n" + (lab / "deploy.py").read_text()
    )
    ghost = (
        INVENTORY.format(name="@local", data={}) + "down = [('ghost', {'ssh_hostname': '127.0.0.1', 'ssh_port': 1})]"
    )
    (lab / "inventory.py").write_text(ghost, encoding="utf-8")
    done = subprocess.run(
        [str(BIN / "pyinfra"), "inventory.py", "deploys/verify.py"], cwd=lab, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    told(done, "[ghost]")
    assert "continue?" not in done.stderr
    assert (lab / "made").exists()


@pytest.mark.parametrize("name", ["atlas", "atl*", "@local", "docker_hosts"])
def test_a_host_that_is_this_machine_answers_to_its_own_name(lab: Path, name: str) -> None:
    done = pyinfra(lab, "--yes", "--limit", name, "inventory.py", "deploy.py", inventory_hostname="atlas")
    assert done.returncode == 0, done.stderr
    assert (lab / "made").exists()


@pytest.mark.parametrize("deploy", ["site", "remove", "verify"])
def test_pyinfra_refuses_a_limit_with_nobody_whom_it_concerns(tmp_path: Path, deploy: str) -> None:
    (tmp_path / "inventory.py").write_text(
        "docker_hosts = ['atlas']\nothers = [('@local', {'ringfence_skipped': []})]\n", encoding="utf-8"
    )
    done = subprocess.run(
        [str(BIN / "pyinfra"), "--yes", "--limit", "others", str(tmp_path / "inventory.py"), f"deploys/{deploy}.py"],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    told(done, "none of the hosts that --limit and --exclude leave is in the group 'docker_hosts'", "(it has atlas)")


@pytest.mark.parametrize("playbook", ["site", "remove"])
def test_ansible_refuses_it_as_well(tmp_path: Path, playbook: str) -> None:
    hosts = tmp_path / "hosts.yml"
    hosts.write_text(
        "all: {hosts: {outside: {ansible_connection: local}}, children: {docker_hosts: {hosts: {atlas: {}}}},"
        " vars: {ringfence_roles: [], ringfence_lab: x}}\n"
    )
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), "-i", str(hosts), "--limit", "outside", f"playbooks/{playbook}.yml"],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "none of the hosts that --limit leaves is in the group" in " ".join((done.stdout + done.stderr).split())


def test_what_ctrl_c_ends_does_not_end_with_0(lab: Path) -> None:
    begun = lab / "begun"
    os.mkfifo(begun)
    (lab / "deploy.py").write_text(
        f"from pyinfra.operations import server\n\nserver.shell(commands=['echo > {begun}; sleep 10'])\n",
        encoding="utf-8",
    )
    (lab / "inventory.py").write_text(INVENTORY.format(name="@local", data={}), encoding="utf-8")
    run = subprocess.Popen(
        [str(BIN / "pyinfra"), "--yes", "inventory.py", "deploy.py"], cwd=lab, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    heard = os.open(begun, os.O_RDONLY | os.O_NONBLOCK)
    assert select.select([heard], [], [], 30)[0], "it never began"
    os.close(heard)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    # Where a shell has started the tests in the background, what the run has started ignores it and is waited for.
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said


def test_pyinfra_still_chooses_by_the_names_that_are_laid_over() -> None:
    found = find_spec("pyinfra_cli")  # not imported: its package makes the threads of its process gevent's
    assert found is not None
    assert found.origin is not None
    there = Path(found.origin).parent
    text = (there / "cli.py").read_text(encoding="utf-8")
    assert text.count("_get_inventory_pattern_matches(inventory, ") == 2
    assert "initial_limit = _apply_inventory_exclude(inventory, initial_limit, exclude)" in text
    assert "signal.signal(signal.SIGINT, _handle_interrupt)" in (there / "main.py").read_text(encoding="utf-8")


CONFIG = """
Match host matched exec "test %h = matched"
  HostName 192.0.2.7
  Port 2207
Match host matched exec "echo no >&2; false"
  User nobody
Host jumpless
  HostName 192.0.2.8
  ProxyJump none
Host *
  ProxyJump bastion
"""


def test_openssh_and_pyinfra_read_one_file_in_one_way(lab: Path) -> None:
    (lab / ".ssh").mkdir()
    (lab / ".ssh" / "config").write_text(CONFIG, encoding="utf-8")
    (lab / "inventory.py").write_text(
        INVENTORY.format(name="@local", data={})
        + "import json\n"
        + "from pyinfra.connectors.sshuserclient.client import get_ssh_config\n"
        + f"read = get_ssh_config({str(lab / '.ssh' / 'config')!r})\n"
        + "print(json.dumps({name: dict(read.lookup(name)) for name in ('matched', 'jumpless', 'other')}))\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [str(BIN / "pyinfra"), "--dry", "inventory.py", "deploy.py"], cwd=lab, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith("{"))
    for name, found in json.loads(line).items():
        said = subprocess.run(
            ["ssh", "-F", str(lab / ".ssh" / "config"), "-G", name], capture_output=True, text=True, check=True
        )
        openssh = dict(one.split(" ", 1) for one in said.stdout.splitlines() if " " in one)
        assert found["hostname"] == openssh["hostname"]
        assert str(found.get("port", 22)) == openssh["port"]
        assert found.get("proxyjump") == openssh.get("proxyjump")
        assert "user" not in found


def test_a_proxy_command_that_fails_is_a_line_of_its_host(lab: Path) -> None:
    (lab / "config").write_text("Host atlas\n  ProxyCommand sh -c 'exit 1'\n", encoding="utf-8")
    done = pyinfra(lab, "--yes", "inventory.py", "deploy.py", name="atlas", ssh_config_file=str(lab / "config"))
    # By when the command has ended paramiko says one of two things of it.
    [line] = [line for line in done.stderr.splitlines() if "[atlas]" in line]
    assert "ProxyCommand" in line or "No existing session" in line, done.stderr
    told(done, "[atlas]")
    assert "Exception" not in done.stderr
    assert "ProcessLookupError" not in done.stderr


def test_pyinfra_still_reads_openssh_by_the_names_that_are_laid_over() -> None:
    import paramiko.config
    from pyinfra.connectors.sshuserclient import config

    assert "paramiko.config.invoke = FakeInvoke" in Path(config.__file__).read_text(encoding="utf-8")
    assert "invoke.run(" in Path(paramiko.config.__file__).read_text(encoding="utf-8")
    assert "lookup" not in vars(config.SSHConfig) or getattr(config.SSHConfig.lookup, "__module__", "").startswith(
        "ringfence"
    )
