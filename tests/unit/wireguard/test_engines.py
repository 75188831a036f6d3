"""The role alone, with either engine, on a host that is a network namespace."""

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

from tests.programs import ROLES
from tests.unit.wireguard.conftest import IP, Lab, Node, peer, secret, sh

ROOT = Path(__file__).resolve().parents[3]
ENGINES = ("pyinfra", "ansible")


def copied(node: Node) -> Path:
    """Copy the role so that what it does to a host it does to a node."""
    site = node.directory / "site"
    role = site / "roles" / "wireguard"
    shutil.copytree(ROLES / "wireguard", role, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(node.program, role / "files" / "ringfence-wireguard")
    constants = yaml.safe_load((role / "vars" / "main.yml").read_text())
    for file in constants["wireguard_files"]:
        file |= {"dest": str(node.directory / "host" / Path(file["dest"]).name), "owner": getpass.getuser()}
        file["group"] = grp.getgrgid(os.getgid()).gr_name
    # It would watch over this machine, of which the node is a part: tests/live/fleet has it.
    constants["wireguard_guarded"] = False
    (role / "vars" / "main.yml").write_text(yaml.safe_dump(constants))
    (site / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "roles": ["wireguard"]}]))
    return site


def run(node: Node, site: Path, engine: str, **variables: Any) -> str:
    """Run the role with an engine; returns all that it said, with its exit code in front."""
    if engine == "pyinfra":
        (site / "inventory.py").write_text(f"docker_hosts = [('@local', {variables!r})]\n", encoding="utf-8")
        command = ["pyinfra", "--yes", "-vvv", "inventory.py", "roles/wireguard/deploy.py"]
    else:
        there = {"ansible_connection": "local", "ansible_become": False, **variables}
        (site / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"atlas": there}}}), encoding="utf-8")
        command = ["ansible-playbook", "-i", "hosts.yml", "play.yml", "-vvvv", "--diff"]
    environment = {
        **os.environ, "PATH": f"{node.directory / 'bin'}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8",
        "ANSIBLE_NOCOLOR": "1", "ANSIBLE_ROLES_PATH": str(site / "roles"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    environment.pop("ANSIBLE_CONFIG", None)
    if engine == "ansible":
        environment.pop("PYTHONPATH")  # copied alone: ansible-core is all that there is
    done = subprocess.run(
        [IP, "netns", "exec", node.namespace, str(Path(sys.executable).with_name(command[0])), *command[1:]],
        cwd=site, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"{done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_brings_it_about_tells_no_secret_and_the_other_finds_nothing_to_do(lab: Lab, engine: str) -> None:
    node = lab.node("atlas")
    site = copied(node)
    nas = sh("sh", "-c", "wg genkey | wg pubkey").strip()
    variables: dict[str, Any] = {
        "wireguard_interface": node.interface, "wireguard_addresses": ["10.99.0.1/24"],
        "wireguard_peers": [peer("nas", "10.99.0.2/32", "172.20.3.0/24", endpoint="192.0.2.9:51820", keepalive=25)],
        "wireguard_secrets": {"nas": secret()}, "wireguard_keys": {"nas": nas},
    }  # fmt: skip
    said = run(node, site, engine, **variables)
    assert said.startswith("0\n"), said
    assert "peer nas" in said
    assert node.wg("private-key") == node.private()
    assert node.wg("preshared-keys").split()[1] == variables["wireguard_secrets"]["nas"]
    for other in ENGINES:
        again = run(node, site, other, **variables)
        assert again.startswith("0\n"), again
        assert "peer nas" not in again
        said += again
    for one in (node.private(), variables["wireguard_secrets"]["nas"]):
        assert one not in said
    # No VPN any more, and then nothing at all.
    gone = run(node, site, engine, **{**variables, "wireguard_addresses": []})
    assert gone.startswith("0\n"), gone
    assert f"- interface {node.interface}" in gone
    assert node.interface not in node.must("ip", "link", "show")
    assert [path for path in node.etc.rglob("*") if path.is_file()] == []
    nothing = run(node, site, engine)
    assert nothing.startswith("0\n"), nothing
    assert "- interface" not in nothing
