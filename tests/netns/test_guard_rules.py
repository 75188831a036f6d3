"""What the guard reads of the kernel's rules is what the kernel takes back: in a real network namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The one that every kernel takes.
POLICY = ROOT / "tests/golden/policy/homelab.old-kernel.nft"
OLD = """
iptables -t mangle -N RF-FWD; iptables -t mangle -A RF-FWD -j DROP; iptables -t mangle -A FORWARD -j RF-FWD
iptables -N ufw-user-input; iptables -A INPUT -j ufw-user-input; iptables -P INPUT DROP
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(name) for name in ("unshare", "nft", "iptables")),
    reason="needs root, nft and iptables",
)

# Two states; each is brought back from the other, and from nothing at all.
PROGRAM = """
import json, subprocess, sys
from ringfence.host.guard.live import kernel_state, must_load_again, restore_kernel
def become(text, *command):
    subprocess.run("nft flush ruleset; iptables-save >/dev/null", shell=True, check=True)
    subprocess.run(command, input=text, text=True, check=True)
    return kernel_state()
asked = json.load(sys.stdin)
old, new = become(asked["old"], "sh", "-e"), become(asked["new"], "nft", "-f", "-")
nothing = become("", "true")
must_load_again(new)
answers = []
for wanted, present in ((old, asked["new"]), (new, asked["old"]), (new, ""), (nothing, asked["new"])):
    become(present, *(("nft", "-f", "-") if present == asked["new"] else ("sh", "-e")))
    answers.append({"failures": restore_kernel(wanted), "same": own(kernel_state()) == own(wanted)})
print(json.dumps([sorted(new["nft"]), answers]))
"""
OWN = """
def own(state):
    rules = {f: {t: (p["chains"], p["jumps"], p["policies"]) for t, p in state[f].items() if p["chains"]} for f in "46"}
    return rules, state["nft"]
"""


def test_a_policy_comes_back_as_it_was() -> None:
    asked = {"old": OLD, "new": POLICY.read_text(encoding="utf-8")}
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", OWN + PROGRAM],
        input=json.dumps(asked), env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tables, answers = json.loads(done.stdout)
    assert tables == ["bridge ringfence", "inet ringfence"]
    wanted: list[dict[str, Any]] = [{"failures": [], "same": True}] * 4
    assert answers == wanted
