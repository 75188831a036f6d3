"""deploys/verify.py itself: it can fail, it can pass, and it says what it could not do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("bash", "env", "ip", "python3", "sh", "ss")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(name) for name in NEEDED), reason="needs root and iproute2"
)
MACHINE = {"name": "box", "addresses": ["10.213.77.1"], "services": []}
SERVICE = {"name": "web", "host": "box", "project": "web", "networks": [], "ports": []}
VANTAGE = {"name": "lan", "host": "outside", "address": "10.213.77.2", "address6": ""}


def verify(
    directory: Path, scripts: dict[str, str] | None = None, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run the deploy on this machine as its only host, cut off from every network and from this machine's Docker.

    Tools may be replaced by ``scripts``: name → lines for a shell.
    """
    tools = directory / "bin"
    tools.mkdir()
    for name in NEEDED:
        # Not a version manager's shim of python3: those look for more than these tools.
        target = Path(sys.executable).resolve() if name == "python3" else shutil.which(name) or ""
        (tools / name).symlink_to(target)
    for name, text in (scripts or {}).items():
        (tools / name).unlink(missing_ok=True)
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    inventory = directory / "inventory.py"
    vantage = f"vantages = [('@local', {{'inventory_hostname': 'box', **{variables!r}}})]"
    inventory.write_text(f"{vantage}\ndocker_hosts = ['elsewhere']\n")
    environment = {
        **os.environ,
        "PATH": str(tools),
        "PYTHONPATH": str(ROOT),
        "RINGFENCE_VERIFY_JSON": str(directory / "report.json"),
        "RINGFENCE_JUNIT": str(directory / "report.xml"),
    }
    pyinfra = Path(sys.executable).with_name("pyinfra")
    return subprocess.run(
        [
            shutil.which("unshare") or "unshare", "-n", str(pyinfra), "--yes", "--limit", "vantages", str(inventory),
            "deploys/verify.py",
        ],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_lab_as_declared_passes_and_says_that_nobody_probed_from_outside(tmp_path: Path) -> None:
    done = verify(tmp_path, verify_hosts=[MACHINE])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 cells: 0 open, 0 closed, 0 differences" in done.stdout
    assert "NOTHING WAS PROBED FROM OUTSIDE" in done.stderr
    assert "it was not read a second time" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["differences"] == []


def test_differences_fail_the_run_and_are_named(tmp_path: Path) -> None:
    done = verify(tmp_path, verify_hosts=[MACHINE], verify_services=[SERVICE], verify_vantages=[VANTAGE])
    assert done.returncode == 1
    differences = json.loads((tmp_path / "report.json").read_text())["differences"]
    assert differences == [
        "web: declared, but no container of it runs on box",
        "lan: its host outside did not take part, so nothing was probed from there",
    ]
    for line in differences:
        assert line in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    suite = ElementTree.fromstring((tmp_path / "report.xml").read_text())
    assert [f.get("message") for f in suite.iter("failure")] == differences


@pytest.mark.parametrize(
    ("tool", "named"),
    [
        ("docker", "box: what Docker runs is not known: docker version --format {{.Server.Version}}: it is stuck"),
        ("ss", "box: the probe failed: ss -ltnupH: it is stuck"),
        ("ip", "box: the probe failed: ip -j address show: it is stuck"),
    ],
)
def test_a_tool_that_fails_on_the_host_is_a_difference_and_not_an_empty_answer(
    tmp_path: Path, tool: str, named: str
) -> None:
    done = verify(tmp_path, {tool: "echo it is stuck >&2; exit 1"}, verify_hosts=[MACHINE])
    assert done.returncode == 1
    assert named in json.loads((tmp_path / "report.json").read_text())["differences"]


def test_the_declaration_is_read_a_second_time_where_a_host_sees_it(tmp_path: Path) -> None:
    lab = {"lab_hosts": {"box": {"addresses": ["10.213.77.1"], "services": {"ssh": {"port": 22, "from": "anywhere"}}}}}
    done = verify(tmp_path, verify_hosts=[MACHINE], **lab)
    assert done.returncode == 1
    differences = json.loads((tmp_path / "report.json").read_text())["differences"]
    assert differences == ["box: host service ssh tcp/22 from any: is declared, but verify was not told of it"]


def test_sites_are_listed_and_one_that_nobody_could_visit_is_named(tmp_path: Path) -> None:
    rule = {"path": "", "factor": "two", "people": [], "groups": ["family"], "places": ["lan"], "networks": ["any"]}
    site = {"name": "cloud.lab.home", "service": "cloud", "addresses": ["10.213.77.1"], "rules": [rule]}
    sites = [{**site, "host": "box"}, {**site, "name": "lost.lab.home", "host": "titan"}]
    done = verify(tmp_path, verify_hosts=[MACHINE], verify_sites=sites, verify_portal="auth.lab.home")
    assert done.returncode == 1
    assert "    everything  group family  two factors  from anywhere  always\n" in done.stdout
    assert "cloud.lab.home: nobody visited it: no vantage has a way to it" in done.stdout
    assert "sites: 0 visits, 1 difference\n0 cells: 0 open, 0 closed, 1 difference\n" in done.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["differences"] == [
        "lost.lab.home: its proxy's host titan is not among verify_hosts, so nobody visited it"
    ]
    assert [one["name"] for one in report["sites"]["declared"]] == ["cloud.lab.home", "lost.lab.home"]


def test_variables_that_cannot_be_read_fail_the_run_without_traceback(tmp_path: Path) -> None:
    done = verify(tmp_path, verify_services=[{"name": "web"}])
    assert done.returncode == 1
    assert "verify_*: not the shape that docs/verify.md describes" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
