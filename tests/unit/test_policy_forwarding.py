"""The kernel passes on what a hub is the way for, and the hub keeps its own way out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
VPN: dict[str, Any] = {"interface": "wg-ringfence", "networks": [], "transit": [], "egress": []}
LEAVING = {"name": "phone > internet", "source": "10.99.0.7", "to": "internet"}
# In a network namespace that nobody uses, with a card that has got its way out by a router's advertisement.
SCRIPT = """
import json, subprocess, sys
from pathlib import Path
from ringfence.host.policy.forwarding import ensure_forwarding, forwarding_changes
subprocess.run(["ip", "link", "add", "card", "type", "bridge"], check=True)
def value(key, to=None):
    path = Path("/proc/sys/net") / key
    if to:
        path.write_text(to)
    return path.read_text().strip()
keys = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/card/accept_ra", "ipv6/conf/default/accept_ra")
for key, to in zip(keys, ("0", "0", "1", "0")):
    value(key, to)
wish = {"vpn": json.loads(sys.argv[1])}
before = forwarding_changes(wish)
ensure_forwarding(wish)
print(json.dumps([before, forwarding_changes(wish), [value(key) for key in keys]]))
"""


def made_of(vpn: dict[str, Any]) -> Any:
    command = ["unshare", "--net", sys.executable, "-c", SCRIPT, json.dumps(vpn)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network namespace's own settings are changed")
def test_forwarding_is_switched_on_where_there_is_something_to_pass_on() -> None:
    changes = ["~ sysctl net.ipv4.ip_forward 0 → 1", "~ sysctl net.ipv6.conf.all.forwarding 0 → 1"]
    # Who forwards listens to routers only where it is told to.
    assert made_of(VPN | {"egress": [LEAVING]}) == [changes, [], ["1", "1", "2", "0"]]
    assert made_of(VPN | {"transit": [LEAVING]})[0] == changes
    for nothing in (VPN, {}):
        assert made_of(nothing) == [[], [], ["0", "0", "1", "0"]]
