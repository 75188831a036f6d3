"""The printed rulesets of typical hosts, line by line, so that no change goes unseen.

After a wanted change: RINGFENCE_WRITE_GOLDEN=1 pytest tests/unit/test_policy_golden.py, and read the diff.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ringfence.host.policy.compare import rule_changes
from ringfence.host.policy.nft import in_force, nft_text
from ringfence.host.policy.rule import Around, Rule
from ringfence.host.policy.rules import build
from ringfence.host.policy.slices import tellable
from ringfence.host.policy.sources import sources
from ringfence.host.policy.surroundings import as_listed, tells_bridges
from ringfence.host.policy.xtables import changes, opens, removal_input, restore_input
from ringfence.host.tables import parse_save
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


def endpoints(*names: str) -> list[dict[str, Any]]:
    """The containers "segment.host"."""
    third = {"frontend": 20, "backend": 21, "iot": 22}
    found = []
    for name in names:
        segment, host = name.split(".")
        n = third[segment]
        six = f"fd00:{n}::{host}" if segment != "iot" else ""
        mac = f"02:42:ac:{n:02x}:00:{int(host):02x}"
        found.append(
            {"name": name, "bridge": f"rf-{segment}", "mac": mac, "address": f"172.{n}.0.{host}", "address6": six}
        )
    return found


PLACES = [
    {"name": "lan", "networks": ["192.168.10.0/24", "fd00:10::/64"], "interfaces": []},
    {"name": "vpn", "networks": ["10.99.0.0/24"], "interfaces": ["wg0", "eth0"]},
]
INSIDE = flow("web > db", "backend.10", "backend.11", "tcp", 5432)
CASES: dict[str, dict[str, Any]] = {
    "empty": {},
    "inside-a-bridge": {
        "policy_segments": [BACKEND],
        "policy_endpoints": endpoints("backend.10", "backend.11"),
        "policy_flows": [INSIDE],
    },
    "cross-bridge": {
        "policy_segments": [FRONTEND, BACKEND, IOT],
        "policy_endpoints": endpoints("frontend.10", "backend.10", "backend.11", "backend.12", "iot.10"),
        "policy_flows": [
            flow("web > db", "frontend.10", "backend.11", "tcp", 5432),
            flow("web > dns", "frontend.10", "backend.12", "udp", 53),
            flow("hub > lamp", "backend.10", "iot.10", "tcp", "8000-8010"),
        ],
    },
    "publish": {
        "policy_segments": [FRONTEND],
        "policy_endpoints": endpoints("frontend.10"),
        "policy_places": PLACES,
        "policy_published": [
            published("web 8080", "192.168.10.0/24", "fd00:10::/64"),
            published("open 8080", "any"),
        ],
    },
    "publish-on-addresses": {
        "policy_segments": [FRONTEND],
        "policy_endpoints": endpoints("frontend.10"),
        "policy_places": PLACES,
        "policy_published": [
            {**published("web 8080", "192.168.10.0/24", "fd00:10::/64"), "host_address": "192.168.10.5"},
            {**published("other 8080", "10.99.0.0/24", "any"), "host_address": "10.99.0.1"},
            {**published("six 8080", "fd00:10::/64"), "host_address": "fd00:10:0::5"},
        ],
    },
    "egress": {
        "policy_segments": [FRONTEND],
        "policy_endpoints": endpoints("frontend.10"),
        "policy_places": PLACES,
        "policy_egress": [
            egress("web > internet", "internet", "tcp", 443),
            egress("web > nas", "192.168.10.5/32", "tcp", 445),
            egress("web > nas6", "fd00:10::5/128", "any", "any"),
            egress("web > time", "internet", "udp", 123),
        ],
    },
    "host": {
        "policy_segments": [FRONTEND],
        "policy_endpoints": endpoints("frontend.10"),
        "policy_places": PLACES,
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
        "policy_endpoints": endpoints("frontend.10", "backend.10", "backend.11", "iot.10"),
        "policy_places": PLACES,
        "policy_flows": [INSIDE, flow("web > mosquitto", "frontend.10", "iot.10", "tcp", 1883)],
        "policy_egress": [egress("web > internet", "internet", "tcp", 443)],
        "policy_published": [published("web 8080", "192.168.10.0/24", "10.99.0.0/24")],
    },
    # The hub of a VPN: a call to another host, one from there, one between two others, who publishes for whom.
    "vpn": {
        "policy_segments": [FRONTEND, BACKEND],
        "policy_endpoints": endpoints("frontend.10", "backend.11"),
        "policy_places": [{"name": "vpn", "networks": ["10.99.0.0/24", "fd00:99::/64"], "interfaces": []}],
        "policy_flows": [
            flow("web > far-db", "frontend.10", "backend.11", "tcp", 5432)
            | {"to_bridge": "wg-ringfence", "destination": "172.23.0.11", "destination6": "fd00:23::11"},
            flow("far-web > db", "frontend.10", "backend.11", "tcp", 5432)
            | {"from_bridge": "wg-ringfence", "source": "172.24.0.10", "source6": "fd00:24::10"},
        ],
        "policy_published": [published("web 8080", "10.99.0.7/32")],
        "policy_vpn": {
            "interface": "wg-ringfence",
            "networks": [
                "10.99.0.0/24", "172.23.0.0/24", "172.24.0.0/24", "fd00:23::/64", "fd00:24::/64", "fd00:99::/64",
            ],
            "transit": [
                {"name": "a > b", "source": "172.23.0.5", "source6": "fd00:23::5", "destination": "172.24.0.6",
                 "destination6": "fd00:24::6", "proto": "udp", "port": 53},
                {"name": "ssh", "source": "10.99.0.7/32", "destination": "10.99.0.9", "proto": "tcp", "port": 22},
            ],
            # Two devices ask the router for names, and one sends everything.
            "egress": [
                {"name": "phone > internet", "source": "10.99.0.7", "source6": "fd00:99::7", "to": "internet"},
                *({"name": f"{name} > 192.168.10.1/32", "source": f"10.99.0.{n}", "source6": f"fd00:99::{n}",
                   "to": "192.168.10.1/32", "proto": "udp", "port": 53} for name, n in (("phone", 7), ("laptop", 8))),
            ],
        },
    },
    # A service in the host's network beside one in a segment, which it calls.
    "host-network": {
        "policy_segments": [BACKEND],
        "policy_endpoints": endpoints("backend.11"),
        "policy_slices": [
            {
                "name": "hub",
                "slice": "ringfence-hub.slice",
                "flows": [
                    {"name": "hub > db", "destination": "172.21.0.11", "destination6": "fd00:21::11", "proto": "tcp",
                     "port": 5432},
                ],
                "doors": [{"name": "dns from hub", "proto": "udp", "port": 53}],
                "egress": [
                    {"name": "hub > internet", "to": "internet", "proto": "tcp", "port": 443},
                    {"name": "hub > lan", "to": "192.168.10.0/24", "proto": "icmp", "port": "any"},
                ],
            },
        ],
    },
    # In a tailnet, which knows no containers: what is published for it, and what one of them asks there.
    "tailnet": {
        "policy_segments": [FRONTEND],
        "policy_endpoints": endpoints("frontend.10"),
        "policy_places": [
            {"name": "vpn", "networks": ["100.64.0.0/10", "fd7a:115c:a1e0::/48"], "interfaces": []},
        ],
        "policy_egress": [egress("web > vpn", "100.64.0.0/10", "tcp", 9100)],
        "policy_published": [published("web 8080", "100.64.0.0/10", "fd7a:115c:a1e0::/48")],
        "policy_vpn": {
            "interface": "tailscale0",
            "networks": ["100.64.0.0/10", "fd7a:115c:a1e0::/48"],
            "transit": [],
            "masquerade": True,
        },
    },
}  # fmt: skip
# What only the host knows: a network card, a tunnel, Docker's own bridge and one with an odd name.
AROUND = Around(("eth0", "wg0"), ("docker0", "media"), ("172.17.0.0/16", "10.5.0.0/24"))
HUB = AROUND._replace(uplinks=("eth0", "wg-ringfence", "wg0"))
# Hosts that differ in something else than what is declared.
HOSTS: dict[str, tuple[str, str, Around]] = {
    **{case: (case, "iptables", AROUND) for case in CASES},
    "homelab.nftables": ("homelab", "nftables", AROUND),
    "homelab.old-kernel": ("homelab", "iptables", AROUND._replace(tells=False)),
    "host-network": ("host-network", "iptables", AROUND._replace(slices=True)),
    "vpn": ("vpn", "iptables", HUB),
    "vpn.nftables": ("vpn", "nftables", HUB),
    "unknown-surroundings": ("homelab", "iptables", Around()),
}
OPENS = {
    f"opens.{backend}.{unmanaged}": (backend, unmanaged)
    for backend in ("iptables", "nftables")
    for unmanaged in ("keep", "close")
}


def wish(case: str) -> dict[str, Any]:
    return ROLE.render_json("desired.json.j2", ROLE.variables(CASES[case]))


@cache
def rules(host: str) -> list[Rule]:
    case, backend, around = HOSTS[host]
    return [*sources(wish(case), around, backend), *build(wish(case), around)]


def opened(name: str) -> str:
    backend, unmanaged = OPENS[name]
    return restore_input(opens(unmanaged, AROUND, backend), {}, backend)


def compare_with_golden(name: str, text: str) -> None:
    golden = GOLDEN / name
    if os.environ.get("RINGFENCE_WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("host", HOSTS)
def test_ruleset_is_as_it_was(host: str) -> None:
    compare_with_golden(f"{host}.nft", nft_text(rules(host)))


@pytest.mark.parametrize("name", OPENS)
def test_what_iptables_is_told_is_as_it_was(name: str) -> None:
    compare_with_golden(name, opened(name))


def test_no_golden_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {*(f"{host}.nft" for host in HOSTS), *OPENS}


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


@pytest.fixture(scope="module")
def tells() -> bool:
    """Whether this machine's kernel can load what needs to tell bridges apart."""
    return tells_bridges()


@needs_root
@pytest.mark.parametrize("host", HOSTS)
def test_the_kernel_takes_the_rules_and_shows_each_of_them(host: str, tells: bool) -> None:
    case, backend, around = HOSTS[host]
    mine = around if tells else around._replace(tells=False)
    # No slice of this host's is made: a control group that is not there is taken by no kernel.
    found = tellable([*sources(wish(case), mine, backend), *build(wish(case), mine)], wish(case))
    text = nft_text(found)
    lines = as_listed(text)
    assert len(
        [line for line in lines if line.name and line.text != "chain" and not line.text.startswith("type ")]
    ) == (sum(in_force(rule) is not None for rule in found))
    assert rule_changes(lines, as_listed(text + text)) == []
    # The guard puts back what nft lists.
    listing = loaded("nft -f - && nft --stateless list ruleset", text)
    assert loaded("nft -f - && nft --stateless list ruleset", listing) == listing


@needs_root
@pytest.mark.parametrize("family", ["iptables", "ip6tables"])
@pytest.mark.parametrize("name", OPENS)
def test_what_iptables_shows_is_what_was_wanted(name: str, family: str) -> None:
    backend, unmanaged = OPENS[name]
    want = opens(unmanaged, AROUND, backend)
    tables = parse_save(loaded(f"{family}-restore --noflush && {family}-save", opened(name)))
    assert changes(want, tables, backend) == []
    again = opened(name) + restore_input(want, tables, backend)
    assert parse_save(loaded(f"{family}-restore --noflush && {family}-save", again)) == tables
    gone = parse_save(loaded(f"{family}-restore --noflush && {family}-save", opened(name) + removal_input(tables)))
    assert not any(chain.startswith("RF-") for chains in gone.values() for chain in chains)


@pytest.mark.parametrize("host", HOSTS)
def test_every_rule_says_what_it_is_for(host: str) -> None:
    assert rules(host)
    assert all(rule.name for rule in rules(host))


@pytest.mark.parametrize("host", HOSTS)
def test_every_chain_that_a_packet_of_a_segment_cannot_leave_ends_in_a_drop(host: str) -> None:
    names = [segment["name"] for segment in wish(HOSTS[host][0])["segments"]]
    final = {f"RF-{name}/{end}" for name in names for end in ("drop", "in", "host")}
    final |= {"RF-IN", "RF-DROP", "RF-FORGED", "RF-OUT", *(["RF-FRAME/drop"] if names else [])}
    final |= {"RF-VPN/drop", "RF-ASTRAY"} & {rule.chain for rule in rules(host)}
    ends = {rule.chain: rule.verdict for rule in rules(host) if rule.chain in final}
    assert ends == dict.fromkeys(final, "drop")
    onward = {f"RF-{name}": f"goto RF-{name}/drop" for name in names}
    vpn = {"RF-VPN", "RF-VPN/out"} & {rule.chain for rule in rules(host)}
    onward |= dict.fromkeys(vpn, "goto RF-VPN/drop")
    assert {rule.chain: rule.verdict for rule in rules(host) if rule.chain in onward} == onward


@pytest.mark.parametrize("host", HOSTS)
def test_no_protocol_is_looked_up_beside_something_else(host: str) -> None:
    # With a range of ports, nft 1.0.6 (Debian 12) turns its one byte round, which Linux refuses since 6.12.117.
    assert [rule.name for rule in rules(host) if "meta l4proto" in rule.keys] == []


def test_docker_is_told_of_flows_only_where_it_would_drop_them() -> None:
    assert {rule.chain for rule in rules("homelab")} - {rule.chain for rule in rules("homelab.nftables")} == {"RF-RAW"}


def test_no_name_breaks_out_of_a_comment() -> None:
    odd = {**INSIDE, "name": 'x" accept\n  accept\\ é'}
    texts = []
    for flow_ in (odd, INSIDE):
        wanted = {**wish("inside-a-bridge"), "flows": [flow_]}
        texts.append(nft_text([*sources(wanted, AROUND, "iptables"), *build(wanted, AROUND)]))
    assert len(texts[0].splitlines()) == len(texts[1].splitlines())
    assert re.sub(r'"[^"\n]*"', '""', texts[0]) == re.sub(r'"[^"\n]*"', '""', texts[1])
