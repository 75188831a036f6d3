"""docs/first-lab.md as a reader does it: every command as it is printed, on a host on which there is nothing yet."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live.conftest import fresh
from tests.live.labs import BIN, ROOT, RUN_SECONDS, Lab, waited_for
from tests.unit.test_invalid_labs import merge

ADMIN = "admin"
# "No engine" is Debian 13 without Docker.
SETUP = (
    f"useradd -m -s /bin/bash {ADMIN}; echo '{ADMIN} ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/{ADMIN};"
    f" install -d -o {ADMIN} ~{ADMIN}/.ssh; install -o {ADMIN} -m 600 ~/.ssh/authorized_keys ~{ADMIN}/.ssh/"
)


# By their paths, which others may know: that a directory is not listed closes nothing.
READABLE = (
    "find /srv/ringfence /opt/ringfence /var/lib/ringfence /etc/ringfence -type f > /tmp/all 2>/dev/null;"
    " chmod 644 /tmp/all;"
    """ su nobody -s /bin/sh -c 'while read -r path; do test ! -r "$path" || echo "$path"; done < /tmp/all'"""
)


class Reader:
    """Somebody with a terminal, a clone of the repository and a key for the host."""

    def __init__(self, clone: Path, lab: Lab) -> None:
        self.clone = clone
        self.lab = lab
        self.variables = clone / "inventories" / "home" / "group_vars" / "all" / "lab.yml"
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "RINGFENCE_LAB"},
            "PATH": f"{clone / '.venv' / 'bin'}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1",
        }  # fmt: skip

    def type(self, *commands: str) -> str:
        """Type commands, and Enter where something is asked; returns what is on the screen."""
        mine, terminal = pty.openpty()
        os.write(mine, b"\n" * 5)
        try:
            done = subprocess.run(
                ["bash", "-ec", "\n".join(commands)], cwd=self.clone, env=self.environment, stdin=terminal,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=RUN_SECONDS, check=False,
            )  # fmt: skip
        finally:
            os.close(mine)
            os.close(terminal)
        assert done.returncode == 0, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def declare(self, variables: dict[str, Any]) -> None:
        """Edit lab.yml."""
        there = yaml.safe_load(self.variables.read_text(encoding="utf-8"))
        self.variables.write_text("---\n" + yaml.safe_dump(merge(there, variables)), encoding="utf-8")

    def sees(self, port: int) -> str:
        """Open a published port in a browser."""
        command = ["curl", "--silent", "--show-error", "--max-time", "20", f"http://{self.lab.address()}:{port}/"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def typed(page: str) -> list[str]:
    """What a page has one type, block by block."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [textwrap.dedent(found[2]) for found in re.finditer(r"^( *)```sh\n(.*?)^ *```$", text, re.M | re.S)]


def example(page: str, number: int) -> dict[str, Any]:
    """One of a page's examples."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [*re.finditer(r"^( *)```yaml\n(.*?)^ *```$", text, re.M | re.S)][number]
    return dict(yaml.safe_load(textwrap.dedent(found[2])))


def listed(planned: str) -> set[tuple[str, str]]:
    """Which operations have something to do, by the lines that the preflight lists: (role, operation)."""
    kinds = (("packages", "+ package "), ("files", "+ file "), ("files", "~ file "))
    return {
        (role, next((kind for kind, words in kinds if line.startswith(words)), "state"))
        for role, line in re.findall(r"^ +\[atlas\] (\w+): ([-+~] .*)$", planned, re.MULTILINE)
    }


def summed_up(planned: str) -> set[tuple[str, str]]:
    """The same by pyinfra's table."""
    return set(re.findall(r"^ +(\w+) \| (\w+) +1 \(atlas\)", planned, re.MULTILINE))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    for lab in fresh("t-new", "none"):
        lab.sh(SETUP)
        yield lab


@pytest.fixture(scope="module")
def reader(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    clone = tmp_path_factory.mktemp("clone") / "ringfence"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, clone / name, follow_symlinks=False)
    (clone / ".venv").symlink_to(BIN.parent)
    return Reader(clone, lab)


# The tests of this file follow one reader, in order.

NEW, LOOK, APPLY = typed("docs/first-lab.md")
LAB = "export RINGFENCE_LAB=home"


def test_a_lab_is_made_by_one_command_and_is_empty(reader: Reader) -> None:
    said = reader.type(NEW.replace("192.168.1.5", reader.lab.address()).replace("--user admin", f"--user {ADMIN}"))
    assert "look them through" in said
    # How this machine comes to the host: "with your usual key".
    key, known = reader.lab.state / "id_ed25519", reader.lab.state / "known_hosts"
    reader.declare(
        {"ansible_ssh_private_key_file": str(key), "ansible_ssh_common_args": f"-o UserKnownHostsFile={known}"}
    )
    assert yaml.safe_load(reader.variables.read_text())["lab_services"] == {}


def test_a_forgotten_become_is_one_sentence(reader: Reader) -> None:
    reader.declare({"ansible_become": False})
    for command in (LOOK.strip(), "ansible-playbook --check -e ansible_become=false playbooks/site.yml"):
        with pytest.raises(AssertionError) as told:
            reader.type(LAB, command)
        assert f"this run is {ADMIN} on the host, not root: set `ansible_become: true`" in str(told.value)
        assert "Permission" not in str(told.value)
    reader.declare({"ansible_become": True})


def test_it_is_looked_at_applied_and_proved(reader: Reader) -> None:
    planned = reader.type(LAB, LOOK)
    assert "    lab home\n" in planned
    assert "docker: + engine's package docker.io" in planned
    assert listed(planned) == summed_up(planned)
    applied = reader.type(LAB, APPLY)
    assert " 0 differences" in applied
    assert "None will be made: this looks at the hosts" in applied
    assert "NOTHING WAS PROBED FROM OUTSIDE" in applied
    assert "closed from everywhere" not in applied
    assert reader.lab.sh("docker ps -q") == ""


def test_what_the_pages_show_is_declared_and_runs_as_it_is_printed(reader: Reader) -> None:
    text = reader.variables.read_text(encoding="utf-8")
    assert "lab_services: {}" in text
    reader.lab.sh("mkdir -p /srv/films; echo one > /srv/films/film")
    reader.declare(example("README.md", 0) | {"vault_wiki_db": "of-ones-own"})
    for number in range(3):
        reader.declare(example("docs/model.md", number))
    reader.declare(
        {
            "lab_places": {"vpn": ["10.99.0.0/24"]},  # as the pages go on from what others say
            "lab_resolvers": [str(reader.lab.variables()["lab_resolvers"][0])],
            "ufw_rules": example("docs/inventory.md", 0)["ufw_rules"][:3],
        }
    )
    site, verify = APPLY.strip().splitlines()
    (told,) = typed("docs/first-lab.md")[2:]
    assert told == APPLY
    applied = reader.type(LAB, "ansible-playbook playbooks/site.yml")
    assert "the lab home]" in applied
    assert "[ERROR]" not in applied
    assert "the address book has changed" in applied
    assert " 0 differences" in reader.type(LAB, verify)
    assert "No changes" in reader.type(LAB, site.replace("pyinfra", "pyinfra --yes"))
    assert waited_for(lambda: "database wiki" in reader.sees(8081), 60), reader.sees(8081)
    assert reader.sees(8080)
    assert reader.lab.sh("docker exec films-films-1 cat /films/film") == "one\n"
    assert reader.lab.sh(READABLE).split() == ["/etc/ringfence/ulogd.conf"]
    assert "/Caddyfile" in reader.lab.sh("cat /tmp/all")
    assert "respond hello" in reader.lab.sh("docker exec hello-hello-1 cat /etc/caddy/Caddyfile")
