"""The host program of the role `policy`: reading, comparing and planning, without a host."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles/policy/files/ringfence-policy"

WANT = """\
*filter
:FORWARD ACCEPT [0:0]
:RF-FWD - [0:0]
:RF-backend - [0:0]
-A RF-FWD -i rf-backend -m comment --comment "segment backend" -g RF-backend
-A RF-backend -s 172.21.0.10/32 -d 172.21.0.11/32 -o rf-backend -p tcp -m tcp --dport 5432 -m comment --comment "flow web > db tcp/5432" -j ACCEPT
-A RF-backend -m comment --comment "segment backend" -j DROP
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
:RF-RAW - [0:0]
COMMIT
*nat
:POSTROUTING ACCEPT [0:0]
:RF-NAT - [0:0]
-A RF-NAT -s 172.21.0.0/24 ! -o rf-+ -m comment --comment "segment backend" -j MASQUERADE
COMMIT
"""  # noqa: E501
JUMPS = {
    ":RF-FWD - [0:0]": ":DOCKER-USER - [0:0]\n:RF-FWD - [0:0]\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RF-FWD",
    ":RF-RAW - [0:0]": ":RF-RAW - [0:0]\n-A PREROUTING -j RF-RAW",
    ":RF-NAT - [0:0]": ":RF-NAT - [0:0]\n-A POSTROUTING -j RF-NAT",
}
LIVE = WANT
for _chain, _jump in JUMPS.items():
    LIVE = LIVE.replace(_chain, _jump)
FLOW = next(line for line in WANT.splitlines() if "web > db" in line)


@pytest.fixture(scope="module")
def policy() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("ringfence_policy", str(PROGRAM))
    spec = importlib.util.spec_from_loader("ringfence_policy", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def changes(policy: ModuleType, live: str, want: str = WANT) -> list[str]:
    have = policy.parse_save(live)
    return list(policy.rule_changes(policy.parse_save(want), have) + policy.jump_changes(have))


def test_what_is_as_declared_needs_nothing(policy: ModuleType) -> None:
    assert changes(policy, LIVE) == []


def test_on_a_bare_host_everything_is_pending_and_named(policy: ModuleType) -> None:
    assert changes(policy, "") == [
        "+ chain raw RF-RAW",
        "+ flow web > db tcp/5432",
        "+ segment backend",
        "+ jump raw PREROUTING > RF-RAW",
        "+ jump filter DOCKER-USER > RF-FWD",
        "+ jump filter FORWARD > DOCKER-USER",
        "+ jump nat POSTROUTING > RF-NAT",
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (FLOW + "\n", "", ["+ flow web > db tcp/5432"]),
        ("--dport 5432", "--dport 5433", ["~ flow web > db tcp/5432: not declared: "]),
        (FLOW, f"{FLOW}\n-A RF-backend -j ACCEPT", ["- rule in RF-backend that ringfence did not write: -j ACCEPT"]),
        ("flow web > db tcp", "flow old > db tcp", ["+ flow web > db tcp/5432", "- flow old > db tcp/5432"]),
        ("-A DOCKER-USER -j RF-FWD\n", "", ["+ jump filter DOCKER-USER > RF-FWD"]),
        (
            "-A DOCKER-USER -j RF-FWD",
            "-A DOCKER-USER -j RETURN\n-A DOCKER-USER -j RF-FWD",
            ["~ jump filter DOCKER-USER > RF-FWD: rule 2 → 1, behind: -j RETURN"],
        ),
        (":RF-RAW - [0:0]", ":RF-RAW - [0:0]\n:RF-old - [0:0]", ["- chain raw RF-old"]),
        # Docker puts its own masquerading on top whenever a network is made.
        ("-A POSTROUTING", "-A POSTROUTING -s 10.9.0.0/24 ! -o br-x -j MASQUERADE\n-A POSTROUTING", []),
    ],
)
def test_drift_is_named(policy: ModuleType, before: str, after: str, expected: list[str]) -> None:
    found = changes(policy, LIVE.replace(before, after))
    assert len(found) == len(expected)
    for line in expected:
        assert any(change.startswith(line) for change in found), found


def test_the_order_of_rules_counts(policy: ModuleType) -> None:
    drop = '-A RF-backend -m comment --comment "segment backend" -j DROP'
    swapped = LIVE.replace(FLOW, "FLOW").replace(drop, FLOW).replace("FLOW", drop, 1)
    assert changes(policy, swapped) == ["~ order of the rules in filter RF-backend"]


def test_what_differs_in_one_family_names_it(policy: ModuleType) -> None:
    assert policy.both_families({"v4": ["+ a", "+ b"], "v6": ["+ a"]}) == ["+ a", "+ b (v4)"]
    assert policy.both_families({"v4": ["+ a"]}) == ["+ a"]


def test_one_transaction_removes_stale_chains_and_puts_the_jumps_first(policy: ModuleType) -> None:
    live = LIVE.replace(":RF-RAW - [0:0]", ":RF-RAW - [0:0]\n:RF-old - [0:0]\n-A PREROUTING -j ACCEPT")
    text = policy.restore_input(WANT, policy.parse_save(live))
    raw = text[text.index("*raw") : text.index("*nat")].splitlines()
    assert ":RF-old - [0:0]" in raw
    assert raw[-4:] == ["-D PREROUTING -j RF-RAW", "-I PREROUTING 1 -j RF-RAW", "-X RF-old", "COMMIT"]
    assert ":DOCKER-USER" not in text
    assert "-I DOCKER-USER" not in text  # it is first already


def test_docker_user_is_declared_only_where_it_does_not_exist(policy: ModuleType) -> None:
    text = policy.restore_input(WANT, {})
    assert text.count(":DOCKER-USER - [0:0]") == 1
    assert "-I FORWARD 1 -j DOCKER-USER" in text
    assert text.index(":DOCKER-USER") < text.index("-I DOCKER-USER 1 -j RF-FWD")


def test_a_revoked_flow_loses_its_connections(policy: ModuleType) -> None:
    want = policy.parse_save(WANT.replace(FLOW + "\n", ""))
    cuts = policy.revocations(want, policy.parse_save(LIVE), ["172.21.0.0/24"])
    assert cuts == [["-s", "172.21.0.10/32", "-d", "172.21.0.11/32", "-p", "tcp", "--dport", "5432"]]


def test_a_revoked_published_port_loses_its_connections_by_the_port_the_client_used(policy: ModuleType) -> None:
    rule = (
        "-A RF-backend -s 10.0.0.0/24 -d 172.21.0.10/32 -o rf-backend -p tcp -m tcp --dport 1883 "
        '-m conntrack --ctorigdstport 8883 -m comment --comment "published mqtt 8883 tcp from 10.0.0.0/24" -j ACCEPT'
    )
    live = policy.parse_save(LIVE.replace(FLOW, f"{FLOW}\n{rule}"))
    assert policy.revocations(policy.parse_save(WANT), live, []) == [
        ["-s", "10.0.0.0/24", "-r", "172.21.0.10/32", "-p", "tcp", "--dport", "8883"]
    ]


@pytest.mark.parametrize(
    "live",
    ["", LIVE.replace("-A DOCKER-USER -j RF-FWD\n", ""), LIVE.replace(FLOW, f"{FLOW}\n-A RF-backend -j ACCEPT")],
)
def test_where_the_fence_was_open_every_connection_of_a_segment_goes(policy: ModuleType, live: str) -> None:
    cuts = policy.revocations(policy.parse_save(WANT), policy.parse_save(live), ["172.21.0.0/24"])
    assert cuts == [["-s", "172.21.0.0/24"], ["-d", "172.21.0.0/24"], ["-r", "172.21.0.0/24"]]


def test_only_subnets_with_connections_are_cut(policy: ModuleType) -> None:
    listing = (
        "tcp      6 431999 ESTABLISHED src=10.0.0.5 dst=192.168.1.2 sport=40000 dport=8883 "
        "src=172.22.0.10 dst=10.0.0.5 sport=1883 dport=40000 [ASSURED] mark=0 use=1\n"
    )
    cuts = [["-s", "172.22.0.0/24"], ["-d", "172.22.0.0/24"], ["-r", "172.22.0.0/24"], ["-r", "172.23.0.0/24"]]
    assert policy.worthwhile(cuts, listing) == [["-r", "172.22.0.0/24"]]
    assert policy.worthwhile([["-s", "172.22.0.9/32", "-p", "tcp"]], "") == [["-s", "172.22.0.9/32", "-p", "tcp"]]


def test_nothing_new_cuts_nothing(policy: ModuleType) -> None:
    assert policy.revocations(policy.parse_save(WANT), policy.parse_save(LIVE), ["172.21.0.0/24"]) == []
    fewer = LIVE.replace(FLOW + "\n", "")
    assert policy.revocations(policy.parse_save(WANT), policy.parse_save(fewer), ["172.21.0.0/24"]) == []


def test_bridges_of_others_are_told_apart(policy: ModuleType) -> None:
    around = policy.Surroundings(["br-0123456789ab", "br-lan", "docker0", "vmbr0", "media"])
    around.default_routes = {"br-lan"}
    around.docker_bridges = {"docker0": "bridge", "br-0123456789ab": "x_default", "media": "media"}
    lines = policy.host_lines(around, ["docker0", "br-+"])
    assert [line.split()[3] for line in lines["exempt"]] == ["br-lan", "br-lan"]
    assert [line.split()[3] for line in lines["others"]] == ["media", "media"]
    assert [line.split()[3] for line in lines["bridged"]] == ["br-lan", "vmbr0"]
    text = policy.expand("#@ exempt\n-A RF-OTHER -i docker0 -g RF-CLOSED\n#@ others\n", lines)
    assert "#@" not in text
    assert text.index("br-lan") < text.index("docker0") < text.index("media")


def test_containers_outside_the_fence_are_listed(policy: ModuleType) -> None:
    def container(name: str, *networks: str, mode: str = "") -> dict[str, Any]:
        return {
            "Names": [f"/{name}"],
            "HostConfig": {"NetworkMode": mode},
            "NetworkSettings": {"Networks": {network: {} for network in networks}},
        }

    listed = policy.outside_the_fence(
        [
            container("inside", "rf-a"),
            container("gitea", "gitea_default"),
            container("both", "rf-a", "gitea_default"),
            container("dhcp", "host", mode="host"),
        ]
    )
    assert listed == [
        "outside the fence: container both, in a segment, is also on network gitea_default",
        "outside the fence: container dhcp uses the host's own network",
        "outside the fence: container gitea on network gitea_default",
    ]


def test_refusals_name_the_fix(policy: ModuleType) -> None:
    assert policy.docker_refusals({}, "iptables") == []
    assert "remove it and restart docker" in policy.docker_refusals({"iptables": False}, "")[0]
    assert "not supported yet" in policy.docker_refusals({"firewall-backend": "nftables"}, "")[0]
    assert "not supported yet" in policy.docker_refusals({}, "nftables")[0]
    assert policy.backend_refusal("nf_tables", "*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n") == ""
    refusal = policy.backend_refusal("nf_tables", "*filter\n:DOCKER-USER - [0:0]\nCOMMIT\n")
    assert "DOCKER-USER" in refusal
    assert "update-alternatives" in refusal


def test_a_flow_of_an_unknown_segment_is_refused_by_name(policy: ModuleType) -> None:
    text = WANT.replace(FLOW, FLOW.replace("-A RF-backend", "-A RF-bakcend"))
    refusals = policy.wish_refusals(
        {"segments": [{"name": "x", "bridge": "eth0"}], "rules": {"v4": text, "v6": "*filter\nCOMMIT\n"}}
    )
    assert refusals == [
        "policy_segments.x.bridge: 'eth0' must begin with 'rf-' and have at most 15 characters",
        "flow web > db tcp/5432: bridge 'rf-bakcend' is not in policy_segments (filter, v4)",
    ]


def test_removal_takes_own_chains_and_the_jumps_to_them_only(policy: ModuleType) -> None:
    live = LIVE.replace("-A DOCKER-USER -j RF-FWD", "-A DOCKER-USER -j RF-FWD\n-A DOCKER-USER -s 1.2.3.4/32 -j DROP")
    text = policy.removal_input(policy.parse_save(live))
    assert "-D DOCKER-USER -j RF-FWD" in text
    assert "1.2.3.4" not in text
    assert "-X RF-backend" in text
    assert ":DOCKER-USER" not in text


def test_it_runs_when_an_engine_sends_it() -> None:
    """A loader that the engines use: no module of that name exists on the host, which dataclasses would need."""
    loader = (
        'import json,sys; r=json.load(sys.stdin); exec(compile(r["program"], "ringfence", "exec"), '
        '{"__name__": "__main__", "REQUEST": r})'
    )
    request = {"program": PROGRAM.read_text(encoding="utf-8"), "arguments": ["nonsense"], "desired": {}}
    answer = subprocess.run(
        [sys.executable, "-I", "-c", loader], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert "ringfence-policy check" in answer.stderr
