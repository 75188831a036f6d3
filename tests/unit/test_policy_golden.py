"""The rendered rulesets of typical hosts, line by line, so that no change of the templates goes unseen.

After a wanted change: RINGFENCE_WRITE_GOLDEN=1 pytest tests/unit/test_policy_golden.py, and read the diff.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ringfence.role import Role

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/policy"
ROLE = Role(str(ROOT / "roles/policy/deploy.py"))

FRONTEND = {"name": "frontend", "bridge": "rf-frontend", "subnet": "172.20.0.0/24", "subnet6": "fd00:20::/64"}
BACKEND = {"name": "backend", "bridge": "rf-backend", "subnet": "172.21.0.0/24", "subnet6": "fd00:21::/64"}
IOT = {"name": "iot", "bridge": "rf-iot", "subnet": "172.22.0.0/24", "subnet6": ""}


def flow(name: str, caller: str, callee: str, proto: str, port: int | str) -> dict[str, Any]:
    """A flow between "segment.host" and "segment.host"; the third octet is the segment's."""
    third = {"frontend": 20, "backend": 21, "iot": 22}
    (source, a), (destination, b) = caller.split("."), callee.split(".")
    six = "iot" not in (source, destination)
    return {
        "name": name,
        "from_bridge": f"rf-{source}",
        "to_bridge": f"rf-{destination}",
        "source": f"172.{third[source]}.0.{a}",
        "source6": f"fd00:{third[source]}::{a}" if six else "",
        "destination": f"172.{third[destination]}.0.{b}",
        "destination6": f"fd00:{third[destination]}::{b}" if six else "",
        "proto": proto,
        "port": port,
    }


def egress(name: str, to: str, proto: str, port: int | str) -> dict[str, Any]:
    source = {"bridge": "rf-frontend", "source": "172.20.0.10", "source6": "fd00:20::10"}
    return {"name": name, "to": to, "proto": proto, "port": port, **source}


def published(name: str, *sources: str) -> dict[str, Any]:
    container = {"bridge": "rf-frontend", "destination": "172.20.0.10", "destination6": "fd00:20::10"}
    return {"name": name, "proto": "tcp", "port": 80, "published": 8080, "sources": list(sources), **container}


INSIDE = flow("web > db", "backend.10", "backend.11", "tcp", 5432)
CASES: dict[str, dict[str, Any]] = {
    "empty": {},
    "inside-a-bridge": {"policy_segments": [BACKEND], "policy_flows": [INSIDE]},
    "cross-bridge": {
        "policy_segments": [FRONTEND, BACKEND, IOT],
        "policy_flows": [
            flow("web > db", "frontend.10", "backend.11", "tcp", 5432),
            flow("web > dns", "frontend.10", "backend.12", "udp", 53),
            flow("hub > lamp", "backend.10", "iot.10", "tcp", "8000-8010"),
        ],
    },
    "publish": {
        "policy_segments": [FRONTEND],
        "policy_published": [
            published("web 8080", "192.168.10.0/24", "fd00:10::/64"),
            published("open 8080", "any"),
        ],
    },
    "egress": {
        "policy_segments": [FRONTEND],
        "policy_egress": [
            egress("web > internet", "internet", "tcp", 443),
            egress("web > nas", "192.168.10.5/32", "tcp", 445),
            egress("web > nas6", "fd00:10::5/128", "any", "any"),
            egress("web > time", "internet", "udp", 123),
        ],
    },
    "unmanaged-close": {"policy_segments": [BACKEND], "policy_unmanaged": "close"},
    "homelab": {
        "policy_segments": [FRONTEND, BACKEND, IOT],
        "policy_flows": [INSIDE, flow("web > mosquitto", "frontend.10", "iot.10", "tcp", 1883)],
        "policy_egress": [egress("web > internet", "internet", "tcp", 443)],
        "policy_published": [published("web 8080", "192.168.10.0/24", "10.99.0.0/24")],
    },
}


@pytest.mark.parametrize("family", ["v4", "v6"])
@pytest.mark.parametrize("case", CASES)
def test_ruleset_is_as_it_was(case: str, family: str) -> None:
    text = ROLE.render(f"rules.{family}.j2", ROLE.variables(CASES[case]))
    golden = GOLDEN / f"{case}.{family}"
    if os.environ.get("RINGFENCE_WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("iptables-restore"), reason="needs root and iptables: loads the rules"
)
@pytest.mark.parametrize("golden", sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_the_kernel_takes_every_ruleset(golden: Path) -> None:
    command = "ip6tables-restore" if golden.suffix == ".v6" else "iptables-restore"
    text = golden.read_text(encoding="utf-8")
    done = subprocess.run(
        ["unshare", "--net", command], input=text, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr


def test_every_rule_says_what_it_is_for() -> None:
    for golden in GOLDEN.iterdir():
        for line in golden.read_text(encoding="utf-8").splitlines():
            if line.startswith("-A"):
                assert '--comment "' in line, f"{golden.name}: {line}"


def test_a_segment_that_nobody_declared_a_flow_for_ends_in_a_drop() -> None:
    for golden in GOLDEN.iterdir():
        lines = golden.read_text(encoding="utf-8").splitlines()
        for chain in (line.split()[0][1:] for line in lines if line.startswith(":RF-")):
            rules = [line for line in lines if line.startswith(f"-A {chain} ")]
            if chain.removeprefix("RF-").islower() or chain in ("RF-IN", "RF-CLOSED"):
                assert rules[-1].endswith("-j DROP"), f"{golden.name}: {chain}"
