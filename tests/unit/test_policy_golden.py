"""The printed rulesets of typical hosts, line by line, so that no change goes unseen: iptables, ip6tables, nftables.

After a wanted change: RINGFENCE_WRITE_GOLDEN=1 pytest tests/unit/test_policy_golden.py, and read the diff.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ringfence.host.policy.compare import rule_changes, settled
from ringfence.host.policy.nft import TABLE, nft_text, read_nft
from ringfence.host.policy.places import Rules, jump_changes, placed
from ringfence.host.policy.rules import Around, build
from ringfence.host.policy.xtables import iptables_rules, read_tables, restore_input
from ringfence.host.tables import parse_save
from ringfence.role import Role

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/policy"
ROLE = Role(str(ROOT / "roles/policy/deploy.py"))
MEDIA = ("v4", "v6", "nft")

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
    "host": {
        "policy_segments": [FRONTEND],
        "policy_host": [
            {"name": "ssh from any", "bridge": "", "source": "", "source6": "", "proto": "tcp", "port": 22},
            {
                "name": "dns from web", "bridge": "rf-frontend", "source": "172.20.0.10", "source6": "fd00:20::10",
                "proto": "udp", "port": 53,
            },
        ],
    },
    "unmanaged-close": {"policy_segments": [BACKEND], "policy_unmanaged": "close"},
    "homelab": {
        "policy_segments": [FRONTEND, BACKEND, IOT],
        "policy_flows": [INSIDE, flow("web > mosquitto", "frontend.10", "iot.10", "tcp", 1883)],
        "policy_egress": [egress("web > internet", "internet", "tcp", 443)],
        "policy_published": [published("web 8080", "192.168.10.0/24", "10.99.0.0/24")],
    },
}  # fmt: skip
# What only the host knows: a LAN bridge, one of virtual machines, Docker's own and one with an odd name.
AROUND = Around(("br-lan",), ("media",), ("br-lan", "vmbr0"), ("docker0", "media"), ("172.17.0.0/16", "10.5.0.0/24"))


def wish(case: str) -> dict[str, Any]:
    return ROLE.render_json("desired.json.j2", ROLE.variables(CASES[case]))


@cache
def rules(case: str, backend: str) -> Rules:
    around = AROUND if case == "unmanaged-close" else Around()
    return placed(build(wish(case), around, backend), backend, ("v4", "v6"))


def printed(case: str, medium: str) -> str:
    if medium == "nft":
        return nft_text(rules(case, "nftables"), there=False)
    return restore_input(iptables_rules(rules(case, "iptables"), medium), {}, "iptables")


def segments(case: str) -> dict[str, str]:
    return {segment["bridge"]: segment["name"] for segment in wish(case)["segments"]}


@pytest.mark.parametrize("medium", MEDIA)
@pytest.mark.parametrize("case", CASES)
def test_ruleset_is_as_it_was(case: str, medium: str) -> None:
    text = printed(case, medium)
    golden = GOLDEN / f"{case}.{medium}"
    if os.environ.get("RINGFENCE_WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text


def test_no_golden_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{case}.{medium}" for case in CASES for medium in MEDIA}


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("iptables-restore") or not shutil.which("nft"),
    reason="needs root, iptables and nftables: loads the rules",
)


def loaded(command: str, text: str) -> str:
    """What a network namespace that nobody uses shows when a ruleset has been loaded into it."""
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", command], input=text, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_root
@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize("case", CASES)
def test_what_the_kernel_shows_is_read_as_what_was_wanted(case: str, backend: str) -> None:
    want = rules(case, backend)
    for medium, program in (("v4", "iptables"), ("v6", "ip6tables")):
        text = restore_input(iptables_rules(want, medium), {}, backend)
        tables = parse_save(loaded(f"{program}-restore --noflush && {program}-save", text))
        own = {place: found for place, found in want.items() if place.medium == medium}
        assert own
        assert rule_changes(settled(own), settled(read_tables(tables, medium))) == []
        assert jump_changes(tables, backend) == []
        again = restore_input(iptables_rules(want, medium), tables, backend)
        assert parse_save(loaded(f"{program}-restore --noflush && {program}-save", text + again)) == tables
    if backend == "nftables":
        text = nft_text(want, there=False)
        listing = json.loads(loaded(f"nft -f - && nft -j list table inet {TABLE}", text))
        own = {place: found for place, found in want.items() if place.medium == "nft"}
        assert own
        assert rule_changes(settled(own), settled(read_nft(listing, segments(case)))) == []


@pytest.mark.parametrize("case", CASES)
def test_every_rule_says_what_it_is_for(case: str) -> None:
    for backend in ("iptables", "nftables"):
        found = [rule for own in rules(case, backend).values() for rule in own]
        assert found
        assert all(rule.name for rule in found)


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize("case", CASES)
def test_every_chain_that_a_packet_of_a_segment_cannot_leave_ends_in_a_drop(case: str, backend: str) -> None:
    final = {*(f"RF-{segment['name']}" for segment in wish(case)["segments"]), "RF-IN", "RF-CLOSED", "RF-DROP"}
    ends = {place.chain: own[-1].verdict for place, own in rules(case, backend).items() if place.chain in final}
    assert ends == dict.fromkeys(final, "drop")


@pytest.mark.parametrize("case", CASES)
def test_both_back_ends_deny_by_the_same_rules(case: str) -> None:
    """One list: what stands in mangle on one back end is what the own table of the other has."""
    own = rules(case, "nftables")
    for medium in ("v4", "v6"):
        for place, wanted in rules(case, "iptables").items():
            if place.medium == medium and place.table in ("mangle", "nat"):
                twin = [rule for rule in own[place._replace(medium="nft")] if rule.family in ("", medium)]
                assert [rule._replace(family="") for rule in twin] == wanted


def test_no_name_breaks_out_of_a_comment() -> None:
    odd = {**INSIDE, "name": 'x" -j ACCEPT\n-A RF-FWD -j ACCEPT\\ é'}
    wanted = {**wish("inside-a-bridge"), "flows": [odd]}
    for backend in ("iptables", "nftables"):
        found = placed(build(wanted, Around(), backend), backend, ("v4", "v6"))
        text = nft_text(found, False) + restore_input(iptables_rules(found, "v4"), {}, backend)
        plain = placed(build(wish("inside-a-bridge"), Around(), backend), backend, ("v4", "v6"))
        same = nft_text(plain, False) + restore_input(iptables_rules(plain, "v4"), {}, backend)
        assert len(text.splitlines()) == len(same.splitlines())
        assert re.sub(r'"[^"\n]*"', '""', text) == re.sub(r'"[^"\n]*"', '""', same)
