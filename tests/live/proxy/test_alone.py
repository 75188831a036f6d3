"""Roles of the door copied alone, as somebody does who has a lab: by Ansible and pyinfra, without the compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.labs import BIN, ROOT, Lab
from tests.live.proxy.client import Session
from tests.live.runs import ansible_run, pyinfra_run

# What each needs beside it, as its README says.
BESIDE = {"people": (), "authelia": ("stack",), "caddy": ("stack",)}
PLAY = "- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.include_role: {{name: {role}}}\n"
DEPLOY = "from roles.{role}.deploy import {role}\n\n{role}()\n"


class Copy:
    """A folder with a copy of a role and what it needs, a playbook, a deploy, and the host's variables."""

    def __init__(self, lab: Lab, folder: Path, role: str) -> None:
        self.lab, self.folder, self.role = lab, folder, role
        for name in (role, *BESIDE[role]):
            shutil.copytree(
                ROOT / "roles" / name, folder / "roles" / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        (folder / "play.yml").write_text(PLAY.format(role=role))
        (folder / "mine.py").write_text(DEPLOY.format(role=role))
        self.key, self.known = lab.state / "id_ed25519", lab.state / "known_hosts"

    def declare(self, variables: dict[str, Any]) -> None:
        way = {
            "ansible_host": self.lab.address(), "ansible_user": "root", "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.known}",
            "ansible_python_interpreter": "/usr/bin/python3",
        }  # fmt: skip
        hosts = {"all": {"hosts": {"mine": {**way, **variables}}}}
        (self.folder / "hosts.json").write_text(json.dumps(hosts))
        data = {"ssh_hostname": self.lab.address(), "ssh_user": "root", "ssh_key": str(self.key)}
        data |= {"ssh_known_hosts_file": str(self.known), **variables}
        (self.folder / "inventory.py").write_text(f"docker_hosts = [('mine', {data!r})]\n")

    def ansible(self) -> list[str]:
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONPATH": ""}
        done = self._run([str(BIN / "ansible-playbook"), "-i", "hosts.json", "play.yml"], environment)
        run = ansible_run(done.returncode, done.stdout, done.stderr)
        assert run.code == 0, run.text
        return list(run.changed)

    def pyinfra(self) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # ringfence, as installed from a clone
        done = self._run([str(BIN / "pyinfra"), "--json", "--yes", "inventory.py", "mine.py"], environment)
        run = pyinfra_run(done.returncode, done.stdout, done.stderr)
        assert run.code == 0, run.text
        return list(run.changed)

    def _run(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )


@pytest.fixture
def again(lab: Lab) -> Iterator[None]:
    """What the role was told alone is taken back."""
    yield
    lab.pyinfra()
    lab.must_be_converged()


def own(lab: Lab, role: str, *names: str) -> dict[str, Any]:
    """The variables of a role, as the compiler would give them: here they are somebody's own."""
    variables = lab.variables()
    return {f"{role}_{name}": variables[f"{role}_{name}"] for name in names}


@pytest.mark.usefixtures("again")
def test_people(lab: Lab, tmp_path: Path) -> None:
    copy = Copy(lab, tmp_path, "people")
    users = own(lab, "people", "users")["people_users"]
    copy.declare({"people_users": {**users, "ben": {**users["guest"], "email": "ben@lab.home", "displayname": "Ben"}}})
    assert copy.ansible() != []
    assert "displayname: Ben" in lab.sh("cat /srv/ringfence/people/users.yml")
    assert (copy.ansible(), copy.pyinfra()) == ([], [])
    copy.declare({"people_users": users})
    assert copy.pyinfra() != []
    assert "displayname: Ben" not in lab.sh("cat /srv/ringfence/people/users.yml")
    assert (copy.pyinfra(), copy.ansible()) == ([], [])


@pytest.mark.usefixtures("again")
def test_caddy(lab: Lab, nobody: Session, tmp_path: Path) -> None:
    copy = Copy(lab, tmp_path, "caddy")
    kept = own(lab, "caddy", "networks", "extra_hosts", "domain", "portal", "sites")
    opened = [{**site, "rules": [{"networks": ["any"]}]} for site in kept["caddy_sites"]]
    copy.declare({**kept, "caddy_sites": opened})
    assert copy.ansible() != []
    assert nobody.ask("media").by_application
    assert (copy.ansible(), copy.pyinfra()) == ([], [])
    copy.declare({**kept, "caddy_sites": [{**site, "rules": []} for site in opened]})
    assert copy.pyinfra() != []
    assert nobody.ask("media").status == 403
    assert (copy.pyinfra(), copy.ansible()) == ([], [])


@pytest.mark.usefixtures("again")
def test_authelia(lab: Lab, nobody: Session, tmp_path: Path) -> None:
    copy = Copy(lab, tmp_path, "authelia")
    kept = own(lab, "authelia", "networks", "domain", "name", "places", "rules")
    copy.declare({**kept, "authelia_rules": []})
    assert copy.ansible() != []
    assert nobody.ask("media").status == 403  # nobody may anything
    assert (copy.ansible(), copy.pyinfra()) == ([], [])
    copy.declare(kept)
    assert copy.pyinfra() != []
    assert nobody.ask("media").status == 302
    assert (copy.pyinfra(), copy.ansible()) == ([], [])
