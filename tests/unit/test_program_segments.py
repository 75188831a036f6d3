"""The host program of the role `segments`: comparing and planning, without Docker."""

from __future__ import annotations

import copy
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "roles/segments/files/ringfence-segments"

IOT = {
    "name": "iot", "network": "rf-iot", "bridge": "rf-iot", "subnet": "172.22.0.0/24", "gateway": "172.22.0.1",
    "subnet6": "fd00:22::/64", "gateway6": "fd00:22::1", "internal": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def segments() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("ringfence_segments", str(PROGRAM))
    spec = importlib.util.spec_from_loader("ringfence_segments", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def live(segments: ModuleType, entry: dict[str, Any], ipv6: bool = True) -> dict[str, Any]:
    """What Docker tells of a network made for an entry."""
    network = copy.deepcopy(segments.wanted_network(entry, ipv6))
    network["Id"] = "0123456789abcdef" * 4
    network["Options"]["com.docker.network.enable_ipv4"] = "true"
    return dict(network)


def container(name: str, network: str, address: str = "", **labels: str) -> dict[str, Any]:
    return {
        "Id": f"{name:0<64}",
        "Names": [f"/{name}"],
        "Labels": labels,
        "NetworkSettings": {
            "Networks": {
                network: {
                    "IPAMConfig": {"IPv4Address": address} if address else None,
                    "Aliases": [name, f"{name:0<64}"[:12]],
                }
            }
        },
    }


def compare(segments: ModuleType, declared: list[Any], networks: list[Any], containers: list[Any], **kw: Any) -> Any:
    return segments.compare(declared, networks, containers, **{"ipv6": True, "bridges": None, **kw})


def test_what_is_as_declared_needs_nothing(segments: ModuleType) -> None:
    plan = compare(segments, [IOT], [live(segments, IOT)], [], bridges={"rf-iot"})
    assert (plan.changes, plan.create, plan.remove) == ([], [], [])


def test_a_missing_network_is_made(segments: ModuleType) -> None:
    plan = compare(segments, [IOT, {**IOT, "name": "x", "network": "rf-x", "internal": True}], [], [])
    assert plan.changes == ["+ network rf-iot 172.22.0.0/24", "+ network rf-x 172.22.0.0/24 internal"]
    body = plan.create[0]
    assert body["Options"] == {
        "com.docker.network.bridge.name": "rf-iot",
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
    }
    assert body["IPAM"]["Config"][1] == {"Subnet": "fd00:22::/64", "Gateway": "fd00:22::1"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subnet": "172.30.0.0/24", "gateway": "172.30.0.1"}, "subnet 172.22.0.0/24, fd00:22::/64 → 172.30.0.0/24"),
        ({"gateway": "172.22.0.254"}, "gateway 172.22.0.1 → 172.22.0.254"),
        ({"internal": True}, "internal false → true"),
        ({"bridge": "rf-things"}, "name rf-iot → rf-things"),
        ({"subnet6": ""}, "enableipv6 true → false"),
        ({"name": "things"}, "label ringfence.segment iot → things"),
    ],
)
def test_a_network_is_made_again_only_for_a_reason_that_is_said(
    segments: ModuleType, change: dict[str, Any], reason: str
) -> None:
    plan = compare(segments, [{**IOT, **change}], [live(segments, IOT)], [])
    assert len(plan.changes) == 1
    assert plan.changes[0].startswith("~ network rf-iot: ")
    assert reason in plan.changes[0]
    assert "(re-created)" in plan.changes[0]


@pytest.mark.parametrize("option", ["enable_icc", "enable_ip_masquerade"])
def test_an_option_opened_by_hand_is_seen(segments: ModuleType, option: str) -> None:
    network = live(segments, IOT)
    del network["Options"][f"com.docker.network.bridge.{option}"]
    plan = compare(segments, [IOT], [network], [])
    assert f"{option} unset → false" in plan.changes[0]


def test_a_network_that_trusts_other_interfaces_is_seen(segments: ModuleType) -> None:
    network = live(segments, IOT)
    network["Options"]["com.docker.network.bridge.trusted_host_interfaces"] = "eth0"
    assert "trusted_host_interfaces eth0 → unset" in compare(segments, [IOT], [network], []).changes[0]


def test_a_bridge_that_is_gone_is_made_again(segments: ModuleType) -> None:
    plan = compare(segments, [IOT], [live(segments, IOT)], [], bridges={"eth0"})
    assert "its bridge rf-iot is gone" in plan.changes[0]


def test_the_containers_of_a_re_created_network_go_along(segments: ModuleType) -> None:
    boxes = [container("mqtt", "rf-iot", "172.22.0.10"), container("guest", "rf-iot"), container("far", "other")]
    plan = compare(segments, [{**IOT, "internal": True}], [live(segments, IOT)], boxes)
    assert "re-connected or re-created with it: guest, mqtt" in plan.changes[0]
    assert [(left["name"], left["network"]) for left in plan.reconnect] == [("guest", "rf-iot"), ("mqtt", "rf-iot")]
    body = segments.connection(boxes[0], "rf-iot", plan.create[0])
    assert body == {
        "Container": boxes[0]["Id"],
        "EndpointConfig": {"IPAMConfig": {"IPv4Address": "172.22.0.10"}, "Aliases": ["mqtt"]},
    }


def test_a_fixed_address_that_no_longer_fits_is_not_forced(segments: ModuleType) -> None:
    moved = {**IOT, "subnet": "172.30.0.0/24", "gateway": "172.30.0.1"}
    want = segments.wanted_network(moved, ipv6=False)
    assert segments.connection(container("mqtt", "rf-iot", "172.22.0.10"), "rf-iot", want) is None


def test_an_undeclared_network_of_ours_goes_and_others_stay(segments: ModuleType) -> None:
    foreign = {**live(segments, IOT), "Name": "gitea_default", "Labels": {}}
    boxes = [container("mqtt", "rf-iot", "172.22.0.10")]
    plan = compare(segments, [], [live(segments, IOT), foreign], boxes)
    assert plan.changes == ["- network rf-iot; disconnected: mqtt"]
    assert [network["Name"] for network in plan.remove] == ["rf-iot"]


@pytest.mark.parametrize(
    ("networks", "routes", "expected"),
    [
        ([], [{"dst": "172.22.0.0/16", "dev": "wg0"}], "iot.subnet: 172.22.0.0/24 overlaps 172.22.0.0/16"),
        ([], [{"dst": "172.22.0.7", "dev": "wg0"}], "overlaps 172.22.0.7/32, what this host routes through wg0"),
        ([], [{"dst": "fd00:22::/48", "dev": "eth0"}], "segments_networks.iot.subnet6: fd00:22::/64 overlaps"),
        (["172.22.0.128/25"], [], "docker network 'media'"),
    ],
)  # fmt: skip
def test_a_clash_names_owner_value_and_fix(
    segments: ModuleType, networks: list[str], routes: list[Any], expected: str
) -> None:
    others = [{"Name": "media", "Id": "f" * 64, "IPAM": {"Config": [{"Subnet": s}]}} for s in networks]
    refusals = segments.clashes([IOT], others, routes, ipv6=True)
    assert len(refusals) == 1
    assert expected in refusals[0]
    assert "another subnet" in refusals[0]


def test_what_is_no_clash(segments: ModuleType) -> None:
    routes = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "0.0.0.0/1", "dev": "wg0"},
        {"dst": "172.22.0.0/24", "dev": "rf-iot"},
        {"type": "local", "dst": "172.22.0.1", "dev": "rf-iot"},
        {"dst": "fe80::/64", "dev": "eth0"},
        {"dst": "192.168.1.0/24", "dev": "eth0"},
    ]
    assert segments.clashes([IOT], [live(segments, IOT)], routes, ipv6=True) == []


def test_somebody_elses_network_of_the_same_name_is_refused(segments: ModuleType) -> None:
    foreign = {**live(segments, IOT), "Labels": {}}
    (refusal,) = segments.clashes([IOT], [foreign], [], ipv6=False)
    assert "docker network rm rf-iot" in refusal


def test_ipv6_only_where_the_engine_filters_it(segments: ModuleType) -> None:
    assert "does not filter IPv6" in segments.ipv6_hindrance("20.10.24+dfsg1", {}, True)
    assert "does not filter IPv6" in segments.ipv6_hindrance("26.1.5+dfsg1", {}, True)
    assert segments.ipv6_hindrance("28.5.2", {}, True) == ""
    assert "ip6tables" in segments.ipv6_hindrance("29.0.1", {"ip6tables": False}, True)
    assert "without IPv6" in segments.ipv6_hindrance("29.0.1", {}, False)
    assert segments.wanted_network(IOT, ipv6=False)["EnableIPv6"] is False


def test_it_runs_when_an_engine_sends_it() -> None:
    loader = (
        'import json,sys; r=json.load(sys.stdin); exec(compile(r["program"], "ringfence", "exec"), '
        '{"__name__": "__main__", "REQUEST": r})'
    )
    request = {"program": PROGRAM.read_text(encoding="utf-8"), "arguments": ["nonsense"], "desired": {}}
    answer = subprocess.run(
        [sys.executable, "-I", "-c", loader], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert "ringfence-segments check" in answer.stderr
