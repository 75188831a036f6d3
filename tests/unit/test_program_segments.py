"""The host program of the role `segments`: comparing and planning, without Docker."""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ringfence.remote.role import LOADER
from tests.programs import load, path_of

IOT = {
    "name": "iot", "network": "rf-iot", "bridge": "rf-iot", "subnet": "172.22.0.0/24", "gateway": "172.22.0.1",
    "subnet6": "fd00:22::/64", "gateway6": "fd00:22::1", "internal": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def segments() -> ModuleType:
    return load("segments")


@pytest.fixture(autouse=True)
def own_files(segments: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(segments, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(segments, "INTERRUPTED", tmp_path / "left.json")


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


TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"


def test_nftables_wants_networks_that_let_marked_packets_in_and_iptables_does_not_care(segments: ModuleType) -> None:
    before = live(segments, IOT)
    (line,) = compare(segments, [IOT], [before], [], nftables=True).changes
    assert "trusted_host_interfaces unset → rf-*" in line
    after = copy.deepcopy(before)
    after["Options"][TRUSTED] = "rf-*"
    assert compare(segments, [IOT], [after], [], nftables=True).changes == []
    assert compare(segments, [IOT], [after], []).changes == []
    after["Options"][TRUSTED] = "eth0"
    assert "eth0 → rf-*" in compare(segments, [IOT], [after], [], nftables=True).changes[0]


def test_inside_an_internal_network_of_nftables_the_policy_alone_decides(segments: ModuleType) -> None:
    """Docker's own drop there knows no mark: no declared flow would pass."""
    icc = "com.docker.network.bridge.enable_icc"
    internal = {**IOT, "internal": True}
    assert segments.wanted_network(internal, True, nftables=True)["Options"][icc] == "true"
    assert segments.wanted_network(IOT, True, nftables=True)["Options"][icc] == "false"
    assert segments.wanted_network(internal, True)["Options"][icc] == "false"
    made = copy.deepcopy(segments.wanted_network(internal, True, nftables=True)) | {"Id": "0"}
    assert "enable_icc true → false" in compare(segments, [internal], [made], []).changes[0]


@pytest.mark.parametrize(
    ("told", "info", "wanted"),
    [
        ("", {"FirewallBackend": {"Driver": "nftables"}}, True),
        ("", {"FirewallBackend": {"Driver": "iptables"}}, False),
        ("", {}, False),
        ("nftables", {"FirewallBackend": {"Driver": "iptables"}}, True),
        ("iptables", {"FirewallBackend": {"Driver": "nftables"}}, False),
    ],
)
def test_the_back_end_is_what_is_planned_else_what_the_engine_says(
    segments: ModuleType, monkeypatch: pytest.MonkeyPatch, told: str, info: dict[str, Any], wanted: bool
) -> None:
    answers = {"/networks": [], "/info": info, "/containers/json?all=1": []}
    engine_of(segments, monkeypatch, answers)
    monkeypatch.setattr(segments, "daemon_config", dict)
    plan = segments.make_plan({"networks": [IOT], "backend": told})
    assert (TRUSTED in plan.create[0]["Options"]) is wanted


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
        "EndpointConfig": {
            "IPAMConfig": {"IPv4Address": "172.22.0.10"}, "MacAddress": "02:42:ac:16:00:0a", "Aliases": ["mqtt"],
        },
    }  # fmt: skip


def test_a_container_keeps_the_mac_address_that_it_has(segments: ModuleType) -> None:
    box, guest = container("mqtt", "rf-iot", "172.22.0.10"), container("guest", "rf-iot")
    for one in (box, guest):
        one["NetworkSettings"]["Networks"]["rf-iot"]["MacAddress"] = "02:00:00:00:00:07"
    want = segments.wanted_network({**IOT, "internal": True}, ipv6=False)
    assert segments.connection(box, "rf-iot", want)["EndpointConfig"]["MacAddress"] == "02:00:00:00:00:07"
    # One that gets another IPv4 address would carry the MAC address of the one that it had.
    assert "MacAddress" not in segments.connection(guest, "rf-iot", want)["EndpointConfig"]


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


# -- what does not answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "out", "said"),
    [(124, "", "took longer"), (1, "", "no netlink"), (127, "", "not installed"), (0, "<html>", "not JSON")],
)
def test_routes_that_cannot_be_read_are_not_no_routes(
    segments: ModuleType, monkeypatch: pytest.MonkeyPatch, code: int, out: str, said: str
) -> None:
    """All of these counted as a host that routes nothing, on which every subnet fits."""
    words = {124: "ip took longer than 30 s", 1: "no netlink", 127: "ip is not installed"}.get(code, "")
    answer = subprocess.CompletedProcess[str]([], code, out, words)
    monkeypatch.setattr(segments, "run", lambda *argv, **_: answer)
    with pytest.raises(segments.Fault, match=said):
        segments.make_plan({"networks": [IOT], "backend": "iptables"})


@pytest.mark.parametrize("text", ["{broken", "[1]"])
def test_a_daemon_json_that_cannot_be_read_does_not_allow_ipv6(
    segments: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    """An unreadable file counted as one that says nothing of ip6tables: unfiltered IPv6."""
    (tmp_path / "daemon.json").write_text(text)
    config = segments.daemon_config
    monkeypatch.setattr(segments, "daemon_config", lambda: config(str(tmp_path / "daemon.json")))
    answers = {"/networks": [], "/containers/json?all=1": []}
    engine_of(segments, monkeypatch, answers)
    with pytest.raises(segments.Fault, match=r"daemon\.json"):
        segments.make_plan({"networks": [IOT], "backend": "iptables"})


def engine_of(segments: ModuleType, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> list[Any]:
    """Put an engine in place that answers questions, and takes every request but those whose answer is a fault."""
    asked: list[Any] = []

    def engine(method: str, path: str, body: Any = None) -> Any:
        asked.append((method, path, body))
        answer = answers.get(path)
        if isinstance(answer, str):
            raise segments.Fault(answer)
        if path.startswith("/containers/") and method == "GET" and path.endswith("/json"):
            return {**copy.deepcopy(answer or {}), "State": {"Running": True, "Restarting": False}}
        return copy.deepcopy(answer)

    monkeypatch.setattr(segments, "engine", engine)
    monkeypatch.setattr(segments, "engine_version", lambda: "29.0.1")
    monkeypatch.setattr(segments, "filter_frames", lambda bridges: None)  # no bridge is made here
    monkeypatch.setattr(segments, "docker_runs", lambda: True)
    monkeypatch.setattr(segments, "host_routes", list)
    return asked


@pytest.mark.parametrize(
    ("refusal", "goes"),
    [("container 3983 is not connected to network rf-iot", True), ("the engine is shutting down", False)],
)
def test_a_network_goes_although_a_container_of_it_never_started(
    segments: ModuleType, monkeypatch: pytest.MonkeyPatch, refusal: str, goes: bool
) -> None:
    """The engine names it among those that are configured for the network, and has nothing to take off it."""
    monkeypatch.setattr(segments, "daemon_config", dict)
    network = live(segments, IOT)
    answers = {
        "/networks": [network], "/containers/json?all=1": [container("mqtt", "rf-iot")],
        f"/networks/{network['Id']}/disconnect": refusal,
    }  # fmt: skip
    asked = engine_of(segments, monkeypatch, answers)
    expected = contextlib.nullcontext() if goes else pytest.raises(segments.Fault, match=refusal)
    with expected:
        segments.apply({"networks": [], "backend": "iptables"})
    assert (("DELETE", f"/networks/{network['Id']}", None) in asked) == goes


# -- containers of a network that is made anew -----------------------------------------------------------------------


@pytest.fixture
def recreated(segments: ModuleType, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Answers of an engine whose network rf-iot has to be made anew with two containers on it."""
    monkeypatch.setattr(segments, "daemon_config", dict)
    boxes = [container("mqtt", "rf-iot", "172.22.0.10"), container("guest", "rf-iot")]
    network = {**live(segments, IOT), "Internal": True}
    return {
        "/networks": [network],
        "/containers/json?all=1": boxes,
        **{f"/containers/{box['Id']}/json": box for box in boxes},
    }


def test_a_container_that_cannot_be_connected_again_is_a_failure_that_the_next_check_finds(
    segments: ModuleType, monkeypatch: pytest.MonkeyPatch, recreated: dict[str, Any]
) -> None:
    """It was one line on standard error, exit code 0, and forgotten."""
    monkeypatch.setattr(segments, "families", lambda: ["v4", "v6"])
    asked = engine_of(segments, monkeypatch, {**recreated, "/networks/rf-iot/connect": "Address already in use"})
    with pytest.raises(segments.Fault, match=r"container guest is off network rf-iot.*Address already in use"):
        segments.apply({"networks": [IOT], "backend": "iptables"})
    tried = [body["Container"][:4] for _, path, body in asked if path.endswith("/connect")]
    assert tried == ["gues", "mqtt"]  # one that fails does not keep the others off
    boxes = copy.deepcopy(recreated["/containers/json?all=1"])
    for box in boxes:
        box["NetworkSettings"]["Networks"] = {}
    again = {**recreated, "/networks": [live(segments, IOT)], "/containers/json?all=1": boxes}
    monkeypatch.setattr(segments, "compare", with_bridges(segments.compare))
    engine_of(segments, monkeypatch, again)
    changes = segments.check({"networks": [IOT], "backend": "iptables"})["changes"]
    assert [line.split(" (")[0] for line in changes] == [
        "+ container guest on network rf-iot",
        "+ container mqtt on network rf-iot",
    ]
    assert segments.apply({"networks": [IOT], "backend": "iptables"})["changes"] == changes
    assert not segments.INTERRUPTED.exists()


def with_bridges(compare: Any) -> Any:
    """Compare as on a host that has the bridges."""
    return lambda declared, networks, containers, ipv6, bridges, **more: compare(
        declared, networks, containers, ipv6, None, **more
    )


def test_what_was_connected_by_hand_or_has_no_network_any_more_is_not_tried_again(segments: ModuleType) -> None:
    left = [{"network": n, "name": "mqtt", "body": {"Container": f"{'mqtt':0<64}"}} for n in ("rf-iot", "rf-gone")]
    on, off = container("mqtt", "rf-iot"), container("mqtt", "other")
    assert segments.still_apart(left, [IOT], [on]) == []
    assert segments.still_apart(left, [IOT], []) == []
    assert segments.still_apart(left, [IOT], [off]) == left[:1]


@pytest.mark.parametrize(
    ("address", "mode", "why"),
    [
        ("172.22.0.10", "rf-iot", "its fixed address does not fit there"),
        ("", "0123456789abcdef" * 4, "it is bound to the network's id"),
    ],
)
def test_a_foreign_container_that_cannot_go_along_is_refused_before_anything_changes(
    segments: ModuleType, address: str, mode: str, why: str
) -> None:
    moved = {**IOT, "subnet": "172.30.0.0/24", "gateway": "172.30.0.1"}
    guest = {**container("guest", "rf-iot", address), "HostConfig": {"NetworkMode": mode}}
    plan = compare(segments, [moved], [live(segments, IOT)], [guest])
    assert why in plan.refusals[0]
    assert "docker network disconnect rf-iot guest" in plan.refusals[0]
    # The role `stack` makes its own anew.
    stacked = {**guest, "Labels": {"ringfence.project": "guest"}}
    plan = compare(segments, [moved], [live(segments, IOT)], [stacked])
    assert (plan.refusals, plan.reconnect) == ([], [])


def test_a_container_that_is_bound_to_a_network_that_goes_is_connected_to_no_other(segments: ModuleType) -> None:
    """Docker then refuses to connect it to any network: "could not find a network matching network mode"."""
    other = {
        **IOT,
        "name": "x",
        "network": "rf-x",
        "bridge": "rf-x",
        "subnet": "172.23.0.0/24",
        "gateway": "172.23.0.1",
    }
    networks = [live(segments, IOT), {**live(segments, other), "Id": "f" * 64}]
    box = {**container("app", "rf-iot"), "HostConfig": {"NetworkMode": "f" * 64}}
    box["NetworkSettings"]["Networks"]["rf-x"] = {"IPAMConfig": None, "Aliases": []}
    plan = compare(segments, [{**IOT, "internal": True}, {**other, "internal": True}], networks, [box])
    assert len(plan.refusals) == 2
    plan = compare(segments, [{**IOT, "internal": True}, other], networks, [box])
    assert [left["network"] for left in plan.reconnect] == ["rf-iot"]


def test_what_the_role_stack_makes_anew_is_no_failure_here(
    segments: ModuleType, monkeypatch: pytest.MonkeyPatch, recreated: dict[str, Any]
) -> None:
    for box in recreated["/containers/json?all=1"]:
        box["Labels"] = {"ringfence.project": "x"}
    monkeypatch.setattr(segments, "families", lambda: ["v4", "v6"])
    engine_of(segments, monkeypatch, {**recreated, "/networks/rf-iot/connect": "no such network"})
    assert segments.apply({"networks": [IOT], "backend": "iptables"})["changes"]
    assert not segments.INTERRUPTED.exists()


class Looping:
    """An engine with one container that starts again and again, as Docker 26 and 28 treat one.

    Attributes:
        state: of the container: "restarting", "running" or "exited".
        ends: whether it ends as soon as it is taken off its network.
        done: what was done, in order.
        on: the network in its configuration, by id.
    """

    def __init__(self, segments: ModuleType, monkeypatch: pytest.MonkeyPatch, **labels: str) -> None:
        self.segments = segments
        self.state, self.ends, self.done, self.on = "restarting", False, list[str](), "old"
        self.box = {**container("loop", "rf-iot", "172.22.0.10", **labels), "HostConfig": {"NetworkMode": "rf-iot"}}
        self.network: dict[str, Any] | None = {**live(segments, IOT), "Internal": True, "Id": "old"}
        self.killed_before = ""
        monkeypatch.setattr(segments, "engine", self.answer)
        monkeypatch.setattr(segments, "engine_version", lambda: "28.5.2")
        monkeypatch.setattr(segments, "filter_frames", lambda bridges: None)
        monkeypatch.setattr(segments, "docker_runs", lambda: True)
        monkeypatch.setattr(segments, "host_routes", list)
        monkeypatch.setattr(segments, "daemon_config", dict)
        monkeypatch.setattr(segments, "families", lambda: ["v4", "v6"])
        monkeypatch.setattr(segments, "compare", with_bridges(segments.compare))

    def answer(self, method: str, path: str, body: Any = None) -> Any:
        word = path.rpartition("/")[2] if method == "POST" else method
        if method == "GET":
            if path == "/networks":
                return [copy.deepcopy(self.network)] if self.network else []
            networks = self.box["NetworkSettings"]["Networks"] if self.on else {}
            box = {**copy.deepcopy(self.box), "NetworkSettings": {"Networks": networks}}
            if path == "/containers/json?all=1":
                return [{**box, "State": self.state}]
            return {**box, "State": {"Running": self.state != "exited", "Restarting": self.state == "restarting"}}
        if word == self.killed_before:
            raise KeyboardInterrupt
        if word == "disconnect":
            if self.state == "restarting":
                raise self.segments.Fault("container loop is not connected to network rf-iot")
            self.on = ""
            if self.ends:
                self.state = "restarting"
        if word == "connect":
            if self.state == "restarting":
                raise self.segments.NotThereError("network sandbox for container loop not found")
            self.on = "new"
        if word == "DELETE":
            assert self.on == "", "its next start would look for the network that goes"
            self.network = None
        if word == "create":
            self.network = {**body, "Id": "new"}
        if word == "stop":
            self.state = "exited"
        if word == "start":
            self.state = "running"
        self.done.append(word)
        return None


WISH = {"networks": [IOT], "backend": "iptables"}


@pytest.mark.parametrize("ends", [False, True], ids=["restarts", "ends meanwhile"])
@pytest.mark.parametrize("labels", [{}, {"ringfence.project": "x"}], ids=["somebody else's", "of the role stack"])
def test_a_container_that_restarts_again_and_again_is_on_the_network_that_was_made_anew(
    segments: ModuleType, monkeypatch: pytest.MonkeyPatch, labels: dict[str, str], ends: bool
) -> None:
    """Docker does not connect it, and gives up starting it where it finds it on a network that is gone."""
    docker = Looping(segments, monkeypatch, **labels)
    docker.ends, docker.state = ends, "running" if ends else "restarting"
    assert segments.apply(WISH)["changes"]
    begun = ["disconnect", "DELETE", "create", "stop"] if ends else ["stop", "disconnect", "DELETE", "create"]
    assert docker.done == [*begun, "connect", "start"]
    assert (docker.on, docker.state) == ("new", "running")
    assert segments.check(WISH)["changes"] == []
    assert not segments.INTERRUPTED.exists()


@pytest.mark.parametrize("before", ["stop", "disconnect", "connect", "start"])
def test_a_container_that_was_stopped_for_its_network_starts_again_after_a_kill(
    segments: ModuleType, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    docker = Looping(segments, monkeypatch)
    docker.killed_before = before
    with pytest.raises(KeyboardInterrupt):
        segments.apply(WISH)
    docker.killed_before = ""
    assert segments.check(WISH)["changes"]
    segments.apply(WISH)
    assert (docker.on, docker.state) == ("new", "running")
    assert segments.check(WISH)["changes"] == []
    assert not segments.INTERRUPTED.exists()


def test_a_network_that_goes_for_good_leaves_no_container_stopped(
    segments: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = Looping(segments, monkeypatch)
    steps, _ = segments.going()
    for step in steps:
        step.do()
    assert docker.done == ["stop", "disconnect", "DELETE", "start"]


# -- the program -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "desired", "code", "said"),
    [
        (["nonsense"], {}, 2, "ringfence-segments check"),
        (["check"], {}, 1, "desired state lacks backend, networks"),
    ],
)
def test_it_runs_when_an_engine_sends_it(arguments: list[str], desired: Any, code: int, said: str) -> None:
    request = {"program": path_of("segments").read_text(encoding="utf-8"), "arguments": arguments, "desired": desired}
    answer = subprocess.run(
        [sys.executable, "-I", "-c", LOADER], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    assert answer.returncode == code
    assert said in answer.stderr
