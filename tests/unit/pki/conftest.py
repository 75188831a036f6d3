"""The program of the role `pki` in a directory of its own, with the real openssl, and a root for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ringfence.answering import answered
from ringfence.pki import Root, make_root
from tests.programs import ROLES, load

ANSWER = ROLES / "pki" / "answer.py"
ME = str(os.getuid())


@pytest.fixture(scope="session")
def root() -> Root:
    return make_root("lab.home")


class Host:
    """A host with the program, and no Docker unless a test gives it one."""

    def __init__(self, module: Any, directory: Path, root: Root) -> None:
        self.module, self.directory, self.root = module, directory, root
        self.variables: dict[str, Any] = {
            "pki_host": "atlas", "pki_domain": "lab.home", "pki_root": root.certificate, "pki_root_key": root.key,
            "pki_intermediate_days": 365, "pki_leaf_hours": 168.0, "pki_leaves": [leaf("caddy")],
            "pki_metrics": str(directory / "state" / "metrics.prom"),
        }  # fmt: skip
        self.sent: list[dict[str, Any]] = []

    def desired(self) -> dict[str, Any]:
        names = ("host", "domain", "root", "intermediate_days", "leaf_hours", "leaves", "metrics")
        found = {name: self.variables[f"pki_{name}"] for name in names}
        return json.loads(json.dumps({**found, "can_sign": bool(self.variables["pki_root_key"])}))  # type: ignore[no-any-return]

    def check(self) -> dict[str, list[str]]:
        return self.module.check(self.desired())  # type: ignore[no-any-return]

    def apply(self) -> dict[str, Any]:
        """Both halves of a run: the host's, and the controller's where it is asked."""
        desired = self.desired()
        done = self._send(desired)
        if done.get("asks"):
            done = self._send({**desired, "answer": answered(ANSWER, done["asks"], self.variables)})
            assert "asks" not in done
        return done

    def _send(self, desired: dict[str, Any]) -> dict[str, Any]:
        self.sent.append(desired)
        return self.module.apply(desired)  # type: ignore[no-any-return]

    def settled(self) -> None:
        assert self.check() == {"changes": [], "refusals": [], "notices": []}

    def cert(self, name: str) -> Path:
        return self.directory / "leaves" / name / "current" / "cert.pem"

    def key(self, name: str) -> Path:
        return self.cert(name).with_name("key.pem")

    @property
    def ca(self) -> Path:
        path = self.directory / "ca.pem"
        path.write_text(self.root.certificate)
        return path

    def verify(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Judge a leaf as any client does: by the root alone."""
        cert = str(self.cert(name))
        by = ("-x509_strict", "-no-CApath", "-CAfile", str(self.ca), "-untrusted", cert)
        return subprocess.run(
            ["openssl", "verify", *by, *words, cert],
            capture_output=True, text=True, check=False,
        )  # fmt: skip


def leaf(name: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "names": list(names) or [f"{name}.lab.home"], "owner": ME, **more}


UNITS = """#!/bin/sh
# systemctl, as far as the program asks it.
case "$1" in
show) shift 3; [ "$1" != -- ] || shift
    for unit; do printf 'Id=%s\\nUnitFileState=%s\\nActiveState=%s\\nNeedDaemonReload=no\\n\\n' "$unit" \
        "$(cat {state}/enabled 2>/dev/null)" "$(cat {state}/active 2>/dev/null)"; done ;;
enable) echo enabled > {state}/enabled ;;
restart) echo active > {state}/active ;;
disable) rm -f {state}/enabled {state}/active ;;
esac
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Root) -> Host:
    if shutil.which("openssl") is None:
        pytest.fail("openssl is missing on this machine: apt-get install openssl")
    module: Any = load("pki")
    etc, state, run = tmp_path / "etc", tmp_path / "state", tmp_path / "run"
    places = {
        "HOME": etc / "pki", "SIGNER_KEY": etc / "pki/intermediate.key", "SIGNER": etc / "pki/intermediate.pem",
        "ROOT": etc / "pki/root.pem", "DESIRED": etc / "pki/desired.json", "LEAVES": tmp_path / "leaves",
        "READ": state / "read.json", "SCRATCH": run, "LOCK": run / "pki.lock", "WARNED": run / "pki-warned",
        "STABLE": 0.2, "MEMORY": run / "kept", "_RINGFENCE": tmp_path,
    }  # fmt: skip
    for name, value in places.items():
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, value)
    units = tmp_path / "units"
    (units / "bin").mkdir(parents=True)
    (units / "bin" / "systemctl").write_text(UNITS.replace("{state}", str(units)))
    (units / "bin" / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{units / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "booted", lambda: True)
    monkeypatch.setattr(module, "docker_runs", lambda: False)
    # No Docker is on this host, whatever is on the machine that runs the tests.
    which = shutil.which
    monkeypatch.setattr(module.shutil, "which", lambda name, **more: None if name == "dockerd" else which(name, **more))
    return Host(module, tmp_path, root)
