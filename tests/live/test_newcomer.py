"""docs/first-lab.md as a reader does it: every command as it is printed, on a host on which there is nothing yet."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live.conftest import fresh
from tests.live.labs import BIN, ROOT, RUN_SECONDS, Lab, waited_for
from tests.live.pages import example, typed
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

    def declare(self, variables: dict[str, Any], *, whole: tuple[str, ...] = ()) -> None:
        """Edit lab.yml.

        Args:
            variables: what is added to what is there.
            whole: services of which what is there is taken away before.
        """
        there = yaml.safe_load(self.variables.read_text(encoding="utf-8"))
        for name in whole:
            del there["lab_services"][name]
        self.variables.write_text("---\n" + yaml.safe_dump(merge(there, variables)), encoding="utf-8")

    def forget(self, variable: str, entry: str) -> None:
        """Take an entry out of lab.yml."""
        there = yaml.safe_load(self.variables.read_text(encoding="utf-8"))
        del there[variable][entry]
        self.variables.write_text("---\n" + yaml.safe_dump(there), encoding="utf-8")

    def vantage(self, name: str) -> None:
        """Have a machine outside in hosts.yml from which is probed."""
        path = self.variables.parents[2] / "hosts.yml"
        hosts = yaml.safe_load(path.read_text(encoding="utf-8"))
        way = {"ansible_host": self.lab.address(name), "ansible_user": "root", "ansible_become": False}
        hosts["all"]["children"]["vantages"] = {"hosts": {name: way}}
        path.write_text("---\n" + yaml.safe_dump(hosts), encoding="utf-8")

    def sees(self, port: int) -> str:
        """Open a published port in a browser."""
        return self._curl(f"http://{self.lab.address()}:{port}/")

    def visits(self, name: str, path: str) -> str:
        """Open a site in a browser that trusts the lab's root."""
        root = self.clone / "lab-root.crt"
        return self._curl(
            "--cacert", str(root), "--resolve", f"{name}:443:{self.lab.address()}", f"https://{name}{path}"
        )

    @staticmethod
    def _curl(*words: str) -> str:
        command = ["curl", "--silent", "--show-error", "--max-time", "20", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout


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
    reader.declare(example("README.md") | {"vault_wiki_db": "of-ones-own"})
    for number in range(3):
        reader.declare(example("docs/model.md", number))
    reader.declare(
        {
            "lab_places": {"vpn": ["10.99.0.0/24"]},  # as the pages go on from what others say
            "lab_resolvers": [str(reader.lab.variables()["lab_resolvers"][0])],
            "ufw_rules": example("docs/inventory.md")["ufw_rules"],
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


OF_NEXTCLOUD = ("nextcloud", "nextcloud-db")


def in_place_of_dots() -> dict[str, Any]:
    """The services of which pages show a part, as the example has them."""
    path = ROOT / "inventories" / "example" / "group_vars" / "home" / "services.yml"
    services = yaml.safe_load(path.read_text(encoding="utf-8"))["lab_services"]
    return {name: {**services[name], "host": "atlas"} for name in OF_NEXTCLOUD}


def test_the_pages_that_go_on_from_there_run_as_they_are_printed(reader: Reader) -> None:
    """One lab has all of it: adopt.md, tls.md, identity.md, vpn.md and verify.md, with this host's own addresses."""
    lab = reader.lab
    (reader.clone / "password").write_text("a vault's", encoding="utf-8")
    reader.environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(reader.clone / "password")
    make, show = typed("docs/tls.md")[:2]
    reader.type(LAB, make.replace("LAB", "home"))
    vault = {"vault_lab_vpn": "0123456789abcdef" * 4, "vault_nextcloud_oidc": "of-ones-own" * 3}
    reader.declare({"lab_domain": "lab.home", **vault, "vault_nextcloud_db_password": "of-ones-own-as-well"})
    reader.declare(example("docs/tls.md"))
    reader.declare(example("docs/identity.md"))
    # Postgres, both sides proved; and people have one account.
    reader.declare({"lab_services": in_place_of_dots()})
    reader.declare(example("docs/tls.md", 1))
    reader.declare(example("docs/identity.md", 1))
    own = {"PGSSLCERT": "/run/tls/current/cert.pem", "PGSSLKEY": "/run/tls/current/key.pem"}
    reader.declare({"lab_services": {"nextcloud": {"environment": own}}})
    # A project that was there has its data in a volume of Docker's.
    reader.declare(example("docs/adopt.md"), whole=("wiki-db",))
    there, then = "/var/lib/docker/volumes/wiki-db_data/_data", "/var/lib/docker/volumes/wiki_data/_data"
    lab.sh(
        "docker stop $(docker ps -q --filter name=^wiki-db-); docker volume create wiki_data; mkdir -p /srv/wiki/dumps"
    )
    lab.sh(f"cp -a {there}/. {then}/")
    # The VPN has the place that was written by hand.
    reader.forget("lab_places", "vpn")
    page, router = example("docs/vpn.md"), {"dns": lab.variables()["lab_resolvers"]}
    page["lab_hosts"]["atlas"]["addresses"] = [lab.address()]
    reader.declare({**page, "lab_vpn": {**page["lab_vpn"], **router}})
    reader.declare(example("docs/vpn.md", 1))
    reader.declare(example("docs/vpn.md", 2))
    reader.vantage("outside")
    reader.declare(example("docs/verify.md", 1))
    reader.declare({"lab_vantages": {"lan": lab.variables()["lab_vantages"]["lan"]}})

    site, verify = APPLY.strip().splitlines()
    reader.type(LAB, site)
    assert " cells: " in (said := reader.type(LAB, verify))
    assert said.count(", 0 differences") == 2, said
    assert "No changes" in reader.type(LAB, site.replace("pyinfra", "pyinfra --yes"))
    reader.type(LAB, show)
    assert waited_for(lambda: "database wiki" in reader.sees(8081), 60), reader.sees(8081)
    assert waited_for(lambda: "database nextcloud" in reader.visits("cloud.lab.home", "/status.php"), 60)
    assert lab.sh("docker inspect -f '{{range .Mounts}}{{.Name}} {{end}}' wiki-db-wiki-db-1").split()[:1] == [
        "wiki_data"
    ]
    assert "zgPtZ0lT0rFGQkB3cKh6ZdqXc8sVv4Yk1i7mWm2uE1A=" in lab.sh("wg show all peers")
