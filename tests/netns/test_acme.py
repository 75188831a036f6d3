"""Public certificates: the role's Caddyfile gets them from a real ACME server, by HTTP-01 through its own port 80."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.caddy.proxy import program

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and unshare for a network of its own"
)


def test_the_proxy_gets_public_certificates_for_its_sites(tmp_path: Path) -> None:
    program()  # downloaded while there is a network
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, str(Path(__file__).with_name("acme.py")), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert set(seen["signed"]) == {"cloud.lab.home", "auth.lab.home"}
    assert all("Intermediate" in signer for signer in seen["signed"].values()), seen
    assert seen["unknown"] == ""
    # Port 80 is for the CA's questions and leads everybody else to https.
    assert seen["plain"] == [308, "https://cloud.lab.home/x?y=1"]
    assert seen["challenge"][0] in (308, 404)
