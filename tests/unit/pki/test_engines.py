"""The role alone, with either engine, on a host that is a directory: every byte that is sent there is looked at."""

from __future__ import annotations

import getpass
import grp
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.pki import Root, make_root
from tests.programs import ROLES
from tests.unit.pki.conftest import UNITS, leaf

ROOT = Path(__file__).resolve().parents[3]
ENGINES = ("pyinfra", "ansible")
# What is sent to the host's python is noted before it is run.
TEE = """#!/bin/sh
case "$*" in *json.load*) ;; *) exec {python} "$@" ;; esac
cat > {sent}.now; cat {sent}.now >> {sent}; exec {python} "$@" < {sent}.now
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """The copied role; what it does to a host it does below ``host``."""
    role, host, bin_ = tmp_path / "roles" / "pki", tmp_path / "host", tmp_path / "bin"
    shutil.copytree(ROLES / "pki", role, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "booted").mkdir()
    program = role / "files" / "ringfence-pki"
    text = program.read_text(encoding="utf-8")
    for there, here in {
        "/etc/ringfence": host / "etc", "/srv/ringfence/pki": host / "leaves", "/var/lib/ringfence": host / "state",
        "/run/ringfence": host / "run", "/run/systemd/system": tmp_path / "booted",
    }.items():  # fmt: skip
        assert f'Path("{there}' in text
        text = text.replace(f'Path("{there}', f'Path("{here}')
    program.write_text(text.replace('shutil.which("dockerd"', 'shutil.which("no-dockerd"'), encoding="utf-8")
    constants = yaml.safe_load((role / "vars" / "main.yml").read_text())
    for file in constants["pki_files"]:
        file |= {"dest": str(host / Path(file["dest"]).name), "owner": getpass.getuser()}
        file["group"] = grp.getgrgid(os.getgid()).gr_name
    (role / "vars" / "main.yml").write_text(yaml.safe_dump(constants))
    bin_.mkdir()
    scripts = {
        "systemctl": UNITS.replace("{state}", str(tmp_path)),
        "python3": TEE.format(sent=tmp_path / "sent", python=sys.executable),
    }
    for name, script in scripts.items():
        (bin_ / name).write_text(script)
        (bin_ / name).chmod(0o755)
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "roles": ["pki"]}]))
    return tmp_path


def run(lab: Path, engine: str, *words: str, **variables: Any) -> str:
    """Run the role with an engine; returns all that it said, with its exit code in front."""
    variables = {"pki_packages": [], "pki_metrics": str(lab / "host" / "metrics.prom"), **variables}
    if engine == "pyinfra":
        (lab / "inventory.py").write_text(f"docker_hosts = [('@local', {variables!r})]\n", encoding="utf-8")
        command = ["pyinfra", *(words or ["--yes"]), "-vvv", "inventory.py", "roles/pki/deploy.py"]
    else:
        there = {"ansible_connection": "local", "ansible_become": False, **variables}
        (lab / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"atlas": there}}}), encoding="utf-8")
        check = ["--check", "--diff"] if words else []
        command = ["ansible-playbook", "-i", "hosts.yml", "play.yml", "-vvvv", *check]
    environment = {
        **os.environ, "PATH": f"{lab / 'bin'}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_ROLES_PATH": str(lab / "roles"),
    }  # fmt: skip
    environment.pop("ANSIBLE_CONFIG", None)
    if engine == "pyinfra":
        environment["PYTHONPATH"] = str(ROOT)
    else:
        environment.pop("PYTHONPATH", None)  # copied alone: ansible-core is all that there is
    done = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]],
        cwd=lab, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"{done.returncode}\n{done.stdout}\n{done.stderr}"


def wishes(root: Root, **changes: Any) -> dict[str, Any]:
    return {
        "pki_host": "atlas", "pki_domain": "lab.home", "pki_root": root.certificate, "pki_root_key": root.key,
        "pki_leaves": [leaf("caddy")], **changes,
    }  # fmt: skip


def secrets_of(root: Root) -> list[str]:
    """The lines of the key, as text and as JSON has them."""
    return [line for line in root.key.splitlines() if not line.startswith("-----")]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_roots_key_stays_on_the_controller(lab: Path, root: Root, engine: str) -> None:
    said = run(lab, engine, **wishes(root))
    assert said.startswith("0\n"), said
    cert = lab / "host" / "leaves" / "caddy" / "current" / "cert.pem"
    (lab / "ca.pem").write_text(root.certificate)
    verify = ["openssl", "verify", "-x509_strict", "-CAfile", str(lab / "ca.pem"), "-untrusted", str(cert), str(cert)]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
    sent = (lab / "sent").read_text()
    assert "ringfence intermediate" in sent, "nothing was noted of what was sent"
    assert '"answer": {"intermediate"' in sent
    everywhere = [path for path in lab.rglob("*") if path.is_file() and path.name not in ("inventory.py", "hosts.yml")]
    for secret in secrets_of(root):
        assert secret not in said
        assert [path for path in everywhere if secret in path.read_text(errors="replace")] == []
    # The host's own key is in no request and in no output either.
    own = (lab / "host" / "etc" / "pki" / "intermediate.key").read_text().splitlines()[1]
    assert own not in said + sent
    # The other engine, and this one again, find nothing to do, and ask nothing.
    for other in ENGINES:
        (lab / "sent").unlink()
        again = run(lab, other, **wishes(root))
        assert again.startswith("0\n"), again
        assert "certificate caddy" not in again
        assert '"answer"' not in (lab / "sent").read_text().replace('\\"answer\\"', "").replace(".get(\\", "")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_key_that_does_not_fit_is_named_with_the_fix(lab: Path, root: Root, engine: str) -> None:
    other = make_root("lab.home")
    said = run(lab, engine, **wishes(root, pki_root_key=other.key))
    assert not said.startswith("0\n")
    assert "pki_root_key does not belong to pki_root" in " ".join(said.split())
    assert not (lab / "host" / "leaves").exists()
    for secret in [*secrets_of(other), *secrets_of(root)]:
        assert secret not in said
    # The next run, with the right one, finishes it.
    assert run(lab, engine, **wishes(root)).startswith("0\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_key_is_refused_before_anything_is_changed(lab: Path, root: Root, engine: str) -> None:
    said = run(lab, engine, **wishes(root, pki_root_key=""))
    assert not said.startswith("0\n")
    assert "pki_root_key: empty" in said
    assert not (lab / "host").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_dry_run_says_what_would_be_signed_and_asks_nothing(lab: Path, root: Root, engine: str) -> None:
    said = run(lab, engine, "--dry", **wishes(root))
    assert said.startswith("0\n"), said
    assert "+ intermediate of atlas, signed by the root" in said
    assert "+ certificate caddy (caddy.lab.home)" in said
    assert not (lab / "host").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_role_that_asks_and_has_nobody_to_answer_is_an_error(lab: Path, root: Root, engine: str) -> None:
    (lab / "roles" / "pki" / "answer.py").unlink()
    said = run(lab, engine, **wishes(root))
    assert not said.startswith("0\n")
    assert "answer" in said
