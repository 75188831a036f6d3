"""What verify expects of each cell, from the declaration and from what runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ringfence.verify import declared as declaration
from ringfence.verify.cells import PROBE_PORT, Cell, Matrix, build, doors
from ringfence.verify.declared import Declared, HostService, Vpn
from ringfence.verify.outside import outside
from ringfence.verify.remote import looking
from ringfence.verify.report import Answers, as_json, judge, junit, matrix_text, text
from ringfence.verify.requests import probe_request
from ringfence.verify.seen import Allow, Container, Seen, read


def service(name: str, ports: list[tuple[str, int]], host: str = "atlas", **networks: int) -> dict[str, Any]:
    subnets = {"front": 20, "back": 21, "iot": 22}
    return {
        "name": name,
        "host": host,
        "project": name,
        "networks": [
            {
                "network": f"rf-{n}",
                "bridge": f"rf-{n}",
                "address": f"172.{subnets[n]}.0.{number}",
                "address6": f"fd00:{subnets[n]}::{number}",
            }
            for n, number in networks.items()
        ],
        "ports": [{"proto": proto, "port": port} for proto, port in ports],
    }


LAN = ["10.213.0.0/24", "fd52:4600::/64"]
VARIABLES: dict[str, Any] = {
    "verify_services": [
        service("web", [("tcp", 80)], front=10, back=10),
        service("db", [("tcp", 5432)], back=20),
        service("broker", [("tcp", 8883)], iot=30),
        service("reader", [], iot=31),
        service("lone", [("udp", 53)], front=40),
    ],
    "verify_published": [
        {"service": "broker", "host": "atlas", "addresses": [], "proto": "tcp", "published": 9883, "port": 8883,
         "places": ["lan"], "sources": LAN},
    ],
    "verify_hosts": [
        {"name": "atlas", "addresses": ["10.213.0.10", "fd52:4600::10", "198.51.100.10"], "services": [
            {"name": "ssh", "proto": "tcp", "port": 22, "sources": LAN},
            {"name": "metrics", "proto": "tcp", "port": 9100, "sources": ["172.20.0.40/32", "fd00:20::40/128"]},
        ]},
    ],
    "verify_flows": [
        {"source": "web", "destination": "db", "proto": "tcp", "port": 5432},
        {"source": "reader", "destination": "lone", "proto": "udp", "port": 53},
        {"source": "reader", "destination": "broker", "proto": "tcp", "port": 8883},
    ],
    "verify_egress": [
        {"source": "web", "to": "internet", "proto": "tcp", "port": 443},
        {"source": "lone", "to": "10.213.0.0/24", "proto": "udp", "port": 53},
    ],
    "verify_vantages": [
        {"name": "lan", "host": "outside", "address": "10.213.0.20", "address6": "fd52:4600::20"},
        {"name": "internet", "host": "outside", "address": "198.51.100.20", "address6": "2001:db8::20"},
    ],
    "lab_places": {"lan": LAN},
}  # fmt: skip
LAB = declaration.read(VARIABLES)


def running(lab: Declared, *, six: bool = True) -> tuple[Container, ...]:
    return tuple(
        Container(
            f"{s.project}-{s.name}-1", 100 + n, 1000 + n, s.project, s.name,
            {a.network: (a.address, a.address6 if six else "") for a in s.networks},
            (("tcp", 9883, 8883),) if s.name == "broker" else (),
        )
        for n, s in enumerate(lab.services)
    )  # fmt: skip


ADDRESSES = (
    ("lan0", "10.213.0.10", 24),
    ("lan0", "fd52:4600::10", 64),
    ("wan0", "198.51.100.10", 27),
    ("rf-front", "172.20.0.1", 24),
    ("rf-back", "172.21.0.1", 24),
    ("docker0", "172.17.0.1", 16),
)
ATLAS = Seen(
    "atlas", ADDRESSES, (("tcp", 22, "sshd"), ("tcp", 9999, "python3"), ("udp", 68, "dhclient")), running(LAB),
    internal=frozenset({"rf-back"}),
)  # fmt: skip
OUTSIDE = Seen(
    "outside",
    (("lan0", "10.213.0.20", 24), ("lan0", "fd52:4600::20", 64),
     ("wan0", "198.51.100.20", 27), ("wan0", "2001:db8::20", 64)),
)  # fmt: skip
SEEN = {"atlas": ATLAS, "outside": OUTSIDE}


def cell(matrix: Matrix, source: str, address: str, proto: str, port: int) -> Cell:
    own = [c for c in matrix.cells if not c.forged]
    found = [c for c in own if (c.source, c.address, c.proto, c.port) == (source, address, proto, port)]
    assert len(found) == 1, (source, address, proto, port, found)
    return found[0]


MATRIX = build(LAB, SEEN)


@pytest.mark.parametrize(
    ("source", "address", "proto", "port", "expected", "reason"),
    [
        # a call, in the shared segment and nowhere else, by its protocol only
        ("web", "172.21.0.20", "tcp", 5432, "open", "web calls db"),
        ("web", "fd00:21::20", "tcp", 5432, "open", "web calls db"),
        ("web", "172.21.0.20", "udp", 5432, "closed", "not declared"),
        ("db", "172.21.0.10", "tcp", 80, "closed", "not declared"),
        ("lone", "172.20.0.10", "tcp", 80, "closed", "not declared"),
        ("lone", "172.21.0.20", "tcp", 5432, "closed", "not declared"),
        # a call across segments
        ("reader", "172.20.0.40", "udp", 53, "open", "reader calls lone"),
        ("web", "172.20.0.40", "udp", 53, "closed", "not declared"),
        # published ports: from the place, by the host; a container's own address is the same service
        ("lan", "10.213.0.10", "tcp", 9883, "open", "broker published as 9883 for lan"),
        ("lan", "fd52:4600::10", "tcp", 9883, "open", "broker published as 9883 for lan"),
        ("lan", "172.20.0.1", "tcp", 9883, "either", "by another address"),
        ("lan", "172.22.0.30", "tcp", 8883, "either", "published as 9883"),
        ("lan", "10.213.0.10", "udp", 9883, "closed", "not declared"),
        ("internet", "198.51.100.10", "tcp", 9883, "closed", "not declared"),
        ("internet", "10.213.0.10", "tcp", 9883, "closed", "not declared"),
        ("internet", "172.22.0.30", "tcp", 8883, "closed", "not declared"),
        ("web", "10.213.0.10", "tcp", 9883, "closed", "not declared"),
        ("web", "172.20.0.1", "tcp", 9883, "closed", "not declared"),
        (
            "reader",
            "10.213.0.10",
            "tcp",
            9883,
            "closed",
            "reader calls broker, but by its own address, not by the host",
        ),
        # the host's own services, from places and from single containers
        ("lan", "10.213.0.10", "tcp", 22, "open", "ssh of atlas"),
        ("lan", "198.51.100.10", "tcp", 22, "either", "ssh of atlas"),
        ("internet", "198.51.100.10", "tcp", 22, "closed", "sshd listens"),
        ("web", "172.20.0.1", "tcp", 22, "closed", "sshd listens"),
        ("lone", "172.20.0.1", "tcp", 9100, "open", "metrics of atlas"),
        ("lone", "10.213.0.10", "tcp", 9100, "either", "metrics of atlas"),
        ("web", "172.20.0.1", "tcp", 9100, "closed", "not declared"),
        ("lan", "10.213.0.10", "tcp", 9999, "closed", "not declared; python3 listens"),
        # egress by port and by place; the LAN is not the internet
        ("web", "198.51.100.20", "tcp", 443, "open", "egress to internet"),
        ("web", "2001:db8::20", "tcp", 443, "open", "egress to internet"),
        ("web", "10.213.0.20", "tcp", 443, "closed", "not declared"),
        ("web", "fd52:4600::20", "tcp", 443, "closed", "not declared"),
        ("web", "198.51.100.20", "tcp", PROBE_PORT, "closed", "not declared"),
        ("web", "198.51.100.20", "udp", 443, "closed", "not declared"),
        ("db", "198.51.100.20", "tcp", 443, "closed", "not declared"),
        ("lone", "10.213.0.20", "udp", 53, "open", "egress to 10.213.0.0/24"),
        ("lone", "198.51.100.20", "udp", 53, "closed", "not declared"),
        # an echo is nobody's but the outsiders', as UFW says
        ("web", "172.21.0.20", "icmp", 0, "closed", "not declared"),
        ("db", "172.21.0.10", "icmp", 0, "closed", "not declared"),
        ("web", "172.20.0.1", "icmp", 0, "closed", "not declared"),
        ("web", "198.51.100.20", "icmp", 0, "closed", "not declared"),
        ("lan", "172.21.0.20", "icmp", 0, "closed", "not declared"),
        ("lan", "10.213.0.10", "icmp", 0, "either", "UFW's own rules"),
        # groups that the host may listen to
        ("lone", "224.0.0.251", "udp", 5353, "closed", "not declared"),
        ("lone", "ff02::c", "udp", 1900, "closed", "not declared"),
    ],
)
def test_expectations(source: str, address: str, proto: str, port: int, expected: str, reason: str) -> None:
    found = cell(MATRIX, source, address, proto, port)
    assert (found.expected, reason in found.reason) == (expected, True), found


def forged(matrix: Matrix) -> set[tuple[str, ...]]:
    return {(c.source, c.destination, c.address, f"{c.proto}/{c.port}", c.forged) for c in matrix.cells if c.forged}


def test_whoever_may_call_is_impersonated_by_its_neighbours_and_by_one_container_elsewhere() -> None:
    found = forged(MATRIX)
    # web calls db in rf-back; lone is its neighbour in rf-front, broker is elsewhere.
    for liar in ("lone", "broker"):
        assert (liar, "db", "172.21.0.20", "tcp/5432", "172.21.0.10") in found
        assert (liar, "db", "fd00:21::20", "tcp/5432", "fd00:21::10") in found
    assert not any(source == "reader" and destination == "db" for source, destination, *_ in found)
    assert all(c.expected == "closed" for c in MATRIX.cells if c.forged)


def test_a_place_is_impersonated_by_every_bridge_and_by_the_wire_of_another_place() -> None:
    found = forged(MATRIX)
    assert ("broker", "atlas", "10.213.0.10", "tcp/22", "10.213.0.20") in found
    assert ("web", "atlas", "10.213.0.10", "tcp/9883", "10.213.0.20") in found
    assert ("web", "atlas", "10.213.0.10", "tcp/9100", "172.20.0.40") in found
    wire = [c for c in MATRIX.cells if c.forged and c.source == "internet"]
    assert {(c.address, c.port, c.forged, c.through) for c in wire} >= {
        ("198.51.100.10", 22, "10.213.0.20", "198.51.100.20"), ("198.51.100.10", 9883, "10.213.0.20", "198.51.100.20"),
    }  # fmt: skip


def test_a_place_that_shares_its_wire_with_another_is_not_impersonated_there() -> None:
    one = replace(ATLAS, addresses=tuple(("lan0", address, prefix) for _, address, prefix in ATLAS.addresses))
    assert not [c for c in build(LAB, {**SEEN, "atlas": one}).cells if c.forged and c.through]


@pytest.mark.parametrize("held", [True, False])
def test_who_is_in_the_hosts_network_lies_about_every_call_where_the_fence_can_tell_it(held: bool) -> None:
    """Where it cannot, it is root of the host that sends: that says nothing of the service."""
    variables = {
        **VARIABLES,
        "verify_services": [*VARIABLES["verify_services"], {**service("hub", []), "network": "host"}],
    }
    hub = Container("hub-hub-1", 9, 9, "hub", "hub", {"host": ("", "")})
    seen = replace(ATLAS, containers=(*running(LAB), hub), fenced=frozenset({"hub"} if held else ()))
    lies = {
        found[1:] for found in forged(build(declaration.read(variables), {**SEEN, "atlas": seen})) if found[0] == "hub"
    }
    calls = {("db", "172.21.0.20", "tcp/5432", "172.21.0.10"), ("broker", "172.22.0.30", "tcp/8883", "172.22.0.31")}
    assert (lies >= calls) if held else not lies


IN_ITS_SLICE = "/ringfence.slice/ringfence-hub.slice/docker-a.scope"


@pytest.mark.parametrize(
    ("groups", "said", "home"),
    [
        ([IN_ITS_SLICE], "", "ringfence.slice/ringfence-hub.slice"),
        (["/ringfence.slice/ringfence-hub.slice"], "", "ringfence.slice/ringfence-hub.slice"),
        (["/system.slice/docker-a.scope"], "hub: runs in /system.slice/docker-a.scope, so nothing", "system.slice"),
        ([IN_ITS_SLICE, "/a.slice/b.scope"], "hub: runs in /a.slice/b.scope, so nothing holds", "a.slice"),
        (
            ["/ringfence.slice/ringfence-hub.slice2/docker-a.scope"],
            "hub: runs in /ringfence.slice/ringfence-hub.slice2/docker-a.scope, so nothing",
            "ringfence.slice/ringfence-hub.slice2",
        ),
        (["/../../x/y"], "hub: runs in /../../x/y, so nothing", "ringfence.slice/ringfence-hub.slice"),
        (["/"], "hub: runs in /, so nothing", ""),
        ([], "hub: in which control group it runs could not be seen", "ringfence.slice/ringfence-hub.slice"),
    ],
)
def test_who_is_in_the_hosts_network_runs_in_its_slice(groups: list[str], said: str, home: str) -> None:
    """By the slice the policy tells it from the host: beside it, what it sends is the host's own."""
    services = [*VARIABLES["verify_services"], {**service("hub", []), "network": "host"}]
    lab = declaration.read({**VARIABLES, "verify_services": services})
    hub = Container("hub-hub-1", 9, 9, "hub", "hub", {"host": ("", "")}, mode="host", groups=tuple(groups))
    seen = {**SEEN, "atlas": replace(ATLAS, containers=(*running(LAB), hub), fenced=frozenset({"hub"}))}
    matrix = build(lab, seen)
    found = [problem for problem in matrix.problems if problem.startswith("hub: ")]
    assert [line for line in found if line.startswith(said)] == found
    assert bool(found) == bool(said)
    asked, names = probe_request(lab, seen, matrix, "atlas", "t")
    assert asked["sources"][names.index("hub")]["slice"] == home
    # Where the host cannot tell control groups, nothing holds it anyway, and that is said elsewhere.
    untold = {**SEEN, "atlas": replace(seen["atlas"], fenced=frozenset())}
    assert not [problem for problem in build(lab, untold).problems if problem.startswith("hub: ")]


def test_a_forged_packet_that_arrives_is_named_with_the_address_that_it_claims() -> None:
    one = next(c for c in MATRIX.cells if c.forged and c.source == "lone" and c.address == "172.21.0.20")
    answers = perfect(MATRIX)
    report = judge(MATRIX, replace(answers, arrivals={**answers.arrivals, one.number: ["atlas db"]}))
    assert report.differences == (
        "lone → db tcp/5432 as 172.21.0.10 IPv4 (172.21.0.20): expected closed (the address is another's), "
        "got open (the packet arrived)",
    )
    lies = sum(bool(c.forged) for c in MATRIX.cells)
    assert f"\n{lies} packets said that they come from another's address: 1 arrived\n" in text(report)


def test_v6_is_closed_where_the_engine_has_none() -> None:
    matrix = build(LAB, {**SEEN, "atlas": replace(ATLAS, containers=running(LAB, six=False))})
    assert cell(matrix, "web", "fd00:21::20", "tcp", 5432).expected == "closed"
    assert cell(matrix, "lan", "fd52:4600::10", "tcp", 9883).expected == "closed"
    assert cell(matrix, "web", "2001:db8::20", "tcp", 443).expected == "closed"
    assert cell(matrix, "web", "172.21.0.20", "tcp", 5432).expected == "open"
    assert cell(matrix, "lan", "fd52:4600::10", "tcp", 22).expected == "open"


def test_v6_out_is_closed_where_the_only_leg_with_v6_is_internal() -> None:
    web, *rest = ATLAS.containers
    web = replace(web, networks={"rf-front": ("172.20.0.10", ""), "rf-back": ("172.21.0.10", "fd00:21::10")})
    matrix = build(LAB, {**SEEN, "atlas": replace(ATLAS, containers=(web, *rest))})
    assert cell(matrix, "web", "2001:db8::20", "tcp", 443).expected == "closed"
    assert cell(matrix, "web", "198.51.100.20", "tcp", 443).expected == "open"


def test_nobody_probes_itself_and_no_probe_is_sent_where_it_could_wander_off() -> None:
    assert not any(c.source == c.destination for c in MATRIX.cells)
    far = replace(OUTSIDE, addresses=(("wg0", "10.213.0.20", 32), ("wan0", "198.51.100.20", 32)))
    matrix = build(LAB, {**SEEN, "outside": far})
    declared = set(LAB.machines[0].addresses)
    assert {c.address for c in matrix.cells if c.source in ("lan", "internet")} <= declared


def test_a_containers_moved_attachment_is_named() -> None:
    *others, broker, reader, lone = ATLAS.containers
    moved = replace(broker, networks={"rf-front": ("172.20.0.99", "")})
    matrix = build(LAB, {**SEEN, "atlas": replace(ATLAS, containers=(*others, moved, reader, lone))})
    assert "broker: is attached to rf-front (172.20.0.99); declared is only rf-iot" in matrix.problems
    assert "broker: is not attached to rf-iot, where it is declared with 172.22.0.30" in matrix.problems
    assert cell(matrix, "web", "172.20.0.99", "tcp", 8883).expected == "closed"


def test_a_service_without_container_and_an_absent_host_are_named() -> None:
    gone = replace(ATLAS, containers=ATLAS.containers[1:])
    assert build(LAB, {**SEEN, "atlas": gone}).problems == ("web: declared, but no container of it runs on atlas",)
    assert (
        "atlas: this host did not take part, so nothing is known about it" in build(LAB, {"outside": OUTSIDE}).problems
    )


def test_a_call_across_segments_is_open_where_the_callee_has_its_default_route() -> None:
    lone = replace(LAB.services[4], networks=(LAB.services[4].networks[0], LAB.services[1].networks[0]))
    two = replace(LAB, services=(*LAB.services[:4], lone))
    there = {"atlas": replace(ATLAS, containers=running(two), internal=frozenset()), "outside": OUTSIDE}
    matrix = build(two, there)
    back, front = lone.networks[1].address, lone.networks[0].address
    assert cell(matrix, "reader", back, "udp", 53).expected == "open"
    assert cell(matrix, "reader", front, "udp", 53).expected == "closed"
    assert "by rf-back, which has its default route" in cell(matrix, "reader", front, "udp", 53).reason
    internal = {**there, "atlas": replace(there["atlas"], internal=frozenset({"rf-back"}))}
    assert cell(build(two, internal), "reader", front, "udp", 53).expected == "open"


def test_what_is_declared_and_has_no_way_is_a_difference_and_not_taken_for_closed() -> None:
    assert MATRIX.problems == ()
    shut = replace(ATLAS, internal=frozenset({"rf-front", "rf-back", "rf-iot"}))
    assert build(LAB, {**SEEN, "atlas": shut}).problems == (
        "reader: declared to call lone at udp/53, but no network leads there (the ones that run are internal, or not "
        "shared)",
        "web: declared to reach internet at tcp/443, but each network that it runs in is internal",
        "lone: declared to reach 10.213.0.0/24 at udp/53, but each network that it runs in is internal",
    )


def test_a_lab_without_services_is_probed_all_the_same() -> None:
    lab = declaration.read(
        {**VARIABLES, "verify_services": [], "verify_published": [], "verify_flows": [], "verify_egress": []}
    )
    matrix = build(lab, {**SEEN, "atlas": replace(ATLAS, containers=())})
    assert {c.source for c in matrix.cells} == {"lan", "internet"}
    assert build(Declared(), {}).cells == ()


THEIRS = Container("their-web", 7, 77, "", "", {"theirs": ("172.30.0.2", "")}, (("tcp", 8123, 80),))


def test_what_is_not_managed_may_not_reach_in_and_keeps_its_own_ports() -> None:
    atlas = replace(ATLAS, containers=(*ATLAS.containers, THEIRS), unmanaged=("theirs",))
    matrix = build(LAB, {**SEEN, "atlas": atlas})
    assert cell(matrix, "(their-web)", "172.21.0.20", "tcp", 5432).expected == "closed"
    assert cell(matrix, "(their-web)", "10.213.0.10", "tcp", 9883).expected == "closed"
    assert not any(c.source == "(their-web)" and c.port == 22 and not c.forged for c in matrix.cells)
    assert cell(matrix, "lan", "10.213.0.10", "tcp", 8123).expected == "either"
    # Its network has no IPv6: by it the host's own process answers, which UFW denies unless the user keeps it.
    by_six = [c for c in matrix.cells if c.source == "lan" and c.port == 8123 and c.family == 6]
    assert {c.expected for c in by_six} == {"closed"}
    kept = replace(atlas, allows=(Allow("tcp", "8123", "::/0", "::/0"),))
    six = [c for c in build(LAB, {**SEEN, "atlas": kept}, keep_rules=["atlas"]).cells if c.port == 8123]
    assert {c.expected for c in six if c.source == "lan" and c.family == 6} == {"either"}
    assert cell(matrix, "web", "10.213.0.10", "tcp", 8123).expected == "closed"
    lines = outside(LAB, {**SEEN, "atlas": atlas}, judge(matrix, Answers({}, {}, {})))
    assert lines == ["atlas: container their-web (theirs; publishes tcp/8123)", "atlas: network theirs"]


def test_kept_ufw_rules_are_not_judged_only_where_the_user_keeps_them() -> None:
    atlas = replace(ATLAS, allows=(Allow("tcp", "9990:9999", "any"), Allow("any", "22", "198.51.100.0/24")))
    kept = build(LAB, {**SEEN, "atlas": atlas}, keep_rules=["atlas"])
    assert cell(kept, "lan", "10.213.0.10", "tcp", 9999).expected == "either"
    assert cell(kept, "internet", "198.51.100.10", "tcp", 22).expected == "either"
    assert cell(kept, "web", "172.20.0.1", "tcp", 22).expected == "closed"
    assert cell(build(LAB, {**SEEN, "atlas": atlas}), "lan", "10.213.0.10", "tcp", 9999).expected == "closed"
    # What a segment publishes is judged whatever else the host lets in.
    other = replace(atlas, allows=(Allow("tcp", "9883", "any"),), containers=(*ATLAS.containers, THEIRS))
    kept_port = build(LAB, {**SEEN, "atlas": other}, keep_rules=["atlas"])
    assert cell(kept_port, "internet", "198.51.100.10", "tcp", 9883).expected == "closed"
    assert cell(kept_port, "(their-web)", "10.213.0.10", "tcp", 9883).expected == "closed"
    opened = next(c for c in kept.cells if c.source == "lan" and c.port == 9999)
    report = judge(kept, Answers({opened.number: ("open", "")}, {}, {}))
    assert outside(LAB, {**SEEN, "atlas": atlas}, report) == [
        "atlas: tcp/9999 is let in by a UFW rule of the host (ufw_foreign: keep): open for lan"
    ]


def test_a_kept_rule_lets_in_whom_it_names_only() -> None:
    every = replace(ATLAS, allows=(Allow("any", "any", "any"),))
    matrix = build(LAB, {**SEEN, "atlas": every}, keep_rules=["atlas"])
    assert cell(matrix, "lan", "10.213.0.10", "tcp", 9999).expected == "either"
    # What a segment's container sends to its host is denied whatever UFW lets in.
    assert cell(matrix, "web", "10.213.0.10", "tcp", 9999).expected == "closed"
    for rule in (Allow("any", "any", "any", "any", "tailscale0"), Allow("any", "any", "any", "192.0.2.1/32")):
        matrix = build(LAB, {**SEEN, "atlas": replace(ATLAS, allows=(rule,))}, keep_rules=["atlas"])
        assert cell(matrix, "lan", "10.213.0.10", "tcp", 9999).expected == "closed", rule


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("allow tcp 22 0.0.0.0/0 any 10.0.0.0/8 in", ("tcp", "22", "10.0.0.0/8", "0.0.0.0/0", "")),
        ("limit any any 192.0.2.1 any ::/0 in_tailscale0", ("any", "any", "::/0", "192.0.2.1", "tailscale0")),
        ("allow tcp 80,443 ::/0 any ::/0 WWW%20Full - in", ("tcp", "80,443", "::/0", "::/0", "")),
        ("allow any any 0.0.0.0/0 any 0.0.0.0/0 out", None),
        ("route:allow any any 0.0.0.0/0 any 0.0.0.0/0 in_eth0!out_eth1", None),
        ("deny tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", None),
    ],
)
def test_what_ufw_lets_in_is_read(
    line: str, found: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking.shutil, "which", lambda _: None)
    for comment, by in (("", "ufw_foreign: keep"), (f" comment={b'rf:kept-22-tcp'.hex()}", "ufw_unmanaged: keep")):
        (tmp_path / "user.rules").write_text(f"### tuple ### {line}{comment}\n")
        allows = [tuple(entry.values()) for entry in looking.ufw_allows(tmp_path)]
        assert allows == ([(*found, f"a UFW rule of the host ({by})")] if found else [])


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("-p tcp -m tcp --dport 22 -j ACCEPT", ("tcp", "22", "0.0.0.0/0", "0.0.0.0/0", "")),
        ("-s 10.0.0.0/8 -i eth0 -p udp --dport 1:9 -j ACCEPT", ("udp", "1:9", "10.0.0.0/8", "0.0.0.0/0", "eth0")),
        ("-d 192.0.2.1/32 -p tcp -m multiport --dports 1,2 -j ACCEPT", ("tcp", "1,2", "0.0.0.0/0", "192.0.2.1/32", "")),
        ("! -s 10.0.0.0/8 -m comment --comment 'a b' -j ACCEPT", ("any", "any", "0.0.0.0/0", "0.0.0.0/0", "")),
        ("-i lo -j ACCEPT", None),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", None),
        ("-p udp --sport 67 --dport 68 -j ACCEPT", None),
        ("-p icmp --icmp-type echo-request -j ACCEPT", None),
        ("-p tcp --dport 22 -j DROP", None),
    ],
)
def test_what_is_let_in_beside_ufw_is_read(
    rule: str, found: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking.shutil, "which", lambda name: name if name == "iptables-save" else None)
    monkeypatch.setattr(looking, "run", lambda *_: f"*filter\n-A INPUT {rule}\n-A ufw-user-input -j ACCEPT\nCOMMIT\n")
    (tmp_path / "before.rules").write_text(f"*filter\n-A ufw-before-input {rule}\n-A ufw-before-forward -j ACCEPT\n")
    allows = [tuple(entry.values()) for entry in looking.ufw_allows(tmp_path)]
    of_file = f"{tmp_path}/before.rules (ufw_foreign: keep)"
    beside = "a rule of INPUT beside UFW (ufw_foreign: keep)"
    assert allows == ([(*found, of_file), (*found, beside)] if found else [])


@pytest.mark.parametrize(
    ("rule", "sources"),
    [
        ("-s 192.0.2.1,192.0.2.2 -p tcp --dport 22 -j ACCEPT", ["192.0.2.1", "192.0.2.2"]),
        ("-s nas.lan,192.0.2.2 -p tcp --dport :1024 --jump ACCEPT", ["192.0.2.2"]),
        ("-s nas.lan -p tcp --dport 22 -j ACCEPT", []),
        ("-p tcp --dport ssh -j ACCEPT", ["0.0.0.0/0"]),
        ("-p tcp --dport no-such -j ACCEPT", []),
        ("--protocol tcp --source 192.0.2.1 --destination-port 22 --jump ACCEPT", ["192.0.2.1"]),
        (
            "-i eth0 -j mine\n-A mine -s 192.0.2.1 -j more\n-A more -s 192.0.2.2 -p tcp --dport 22 -j ACCEPT",
            ["192.0.2.2"],
        ),
        ("-j mine\n-A mine -j mine\n-A other -p tcp --dport 22 -j ACCEPT", []),
        ("-p tcp --dport 22 -j ACCEPT -m comment --comment 'of one", []),
    ],
)
def test_whatever_somebody_wrote_into_ufws_own_files_is_read_or_excuses_nothing(
    rule: str, sources: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking.shutil, "which", lambda _: None)
    (tmp_path / "before.rules").write_bytes(f"# f\xfcr mich\n-A ufw-before-input {rule}\n".encode("latin-1"))
    found = looking.ufw_allows(tmp_path)
    assert [one["source"] for one in found] == sources
    atlas = replace(ATLAS, allows=tuple(Allow(*one.values()) for one in found))
    matrix = build(LAB, {**SEEN, "atlas": atlas}, keep_rules=["atlas"])
    assert cell(matrix, "lan", "10.213.0.10", "tcp", 9999).expected == "closed"


def test_what_keeps_a_port_open_is_named() -> None:
    by = "a UFW rule of the host (ufw_unmanaged: keep)"
    atlas = replace(ATLAS, allows=(Allow("tcp", "9999", "0.0.0.0/0", "0.0.0.0/0", "", by),))
    matrix = build(LAB, {**SEEN, "atlas": atlas}, keep_rules=["atlas"])
    opened = next(c for c in matrix.cells if c.source == "lan" and c.port == 9999 and c.family == 4)
    report = judge(matrix, Answers({opened.number: ("open", "")}, {}, {}))
    assert outside(LAB, {**SEEN, "atlas": atlas}, report) == [f"atlas: tcp/9999 is let in by {by}: open for lan"]
    # By the other family nothing is kept.
    assert {c.expected for c in matrix.cells if c.source == "lan" and c.port == 9999 and c.family == 6} <= {"closed"}


def test_a_vantage_without_its_address_proves_nothing() -> None:
    lines = build(LAB, {**SEEN, "atlas": ATLAS}).problems
    assert not any("does not have the address" in line for line in lines)
    wrong = replace(LAB, vantages=tuple(replace(v, address="10.213.0.77") for v in LAB.vantages))
    lines = build(wrong, {**SEEN, "atlas": ATLAS}).problems
    assert any("does not have the address 10.213.0.77, so nothing was tried from it" in line for line in lines)


def test_a_family_that_a_vantage_has_not_is_counted_as_not_tried() -> None:
    without = replace(LAB, vantages=tuple(replace(v, address6="") for v in LAB.vantages))
    matrix = build(without, {**SEEN, "atlas": ATLAS})
    names = {v.name for v in LAB.vantages}
    assert not [c for c in matrix.cells if c.source in names and c.family == 6]
    assert sum(matrix.untried.values()) > sum(build(LAB, {**SEEN, "atlas": ATLAS}).untried.values())


def closed(matrix: Matrix) -> list[Cell]:
    return [c for c in matrix.cells if c.expected == "closed"]


@pytest.mark.parametrize("at_most", [40, 100, 200, 300])
def test_too_many_cells_are_thinned_but_never_the_open_ones(at_most: int) -> None:
    few = build(LAB, SEEN, at_most=at_most)
    assert len(few.cells) <= at_most
    assert few.skipped == len(closed(MATRIX)) - len(closed(few))
    opened = {(c.source, c.address, c.proto, c.port) for c in MATRIX.cells if c.expected == "open"}
    assert opened == {(c.source, c.address, c.proto, c.port) for c in few.cells if c.expected == "open"}
    assert [c.number for c in few.cells] == list(range(len(few.cells)))
    assert len(closed(few)) >= at_most // 2


def test_thinning_drops_what_is_not_judged_first_and_then_further_addresses_of_the_same_question() -> None:
    few = build(LAB, SEEN, at_most=len(MATRIX.cells) - 1)
    assert {c.expected for c in few.cells} == {"open", "closed"}
    assert few.skipped == 0
    questions = {(c.source, c.destination, c.proto, c.port, bool(c.forged), c.family) for c in closed(MATRIX)}
    few = build(LAB, SEEN, at_most=len(questions) + len(MATRIX.cells) - len(closed(MATRIX)))
    assert {(c.source, c.destination, c.proto, c.port, bool(c.forged), c.family) for c in closed(few)} == questions
    assert len(closed(few)) == len(questions) < len(closed(MATRIX))


def two_hosts(**more: Any) -> tuple[Declared, dict[str, Seen]]:
    """The lab with a second host, which has a service `far` in a segment that is on the first one as well."""
    variables = json.loads(json.dumps(VARIABLES))
    far = service("far", [("tcp", 8080)], host="borea", front=50)
    far["networks"][0].update(address="172.30.0.50", address6="fd00:30::50")
    variables["verify_services"].append(far)
    variables["verify_hosts"].append({"name": "borea", "addresses": ["10.213.0.11"], "services": []})
    variables["verify_egress"].append({"source": "far", "to": "10.213.0.0/24", "proto": "tcp", "port": 9883})
    for name, entries in more.items():
        variables[name] += entries
    container = Container("far", 1, 2, "far", "far", {"rf-front": ("172.30.0.50", "fd00:30::50")})
    addresses = (("lan0", "10.213.0.11", 24), ("rf-front", "172.30.0.1", 16))
    return declaration.read(variables), {
        **SEEN,
        "borea": Seen("borea", addresses, (("tcp", 22, "sshd"),), (container,)),
    }


def routed(seen: dict[str, Seen]) -> dict[str, Seen]:
    """The same hosts, where atlas has a route to what is inside of borea."""
    routes = (
        ("172.20.0.0/24", "", "rf-front"),
        ("172.16.0.0/12", "10.213.0.1", "eth0"),
        ("172.30.0.0/16", "10.213.0.11", "eth0"),
    )
    return {**seen, "atlas": replace(seen["atlas"], routes=routes)}


def test_another_hosts_published_port_needs_egress_and_a_door() -> None:
    matrix = build(*two_hosts())
    assert cell(matrix, "far", "10.213.0.10", "tcp", 9883).expected == "open"
    assert cell(matrix, "far", "198.51.100.10", "tcp", 9883).expected == "closed"


def test_what_is_inside_of_another_host_is_tried_only_where_a_way_leads_and_counted_else() -> None:
    lab, seen = two_hosts()
    matrix = build(lab, seen)
    assert not any(
        c.source == "far" and c.address.startswith("172.") and c.destination != "borea" for c in matrix.cells
    )
    # Five containers of atlas, TCP, UDP and an echo, IPv4 and IPv6; the other way round the ports of four services.
    assert matrix.untried["atlas", "far"] == 5 * 3 * 2
    assert matrix.untried["borea", "db"] == 3 * 2
    report = judge(matrix, perfect(matrix))
    assert report.differences == ()
    assert f"{sum(matrix.untried.values())} not tried" in report.summary
    (line,) = [line for line in text(report).splitlines() if "from borea no way leads" in line]
    assert "to the inner addresses of atlas, broker, db, lone, reader, web (" in line
    assert line in as_json(report)["untried"]


def test_where_a_route_leads_into_another_host_its_containers_are_tried_and_closed() -> None:
    lab, seen = two_hosts()
    matrix = build(lab, routed(seen))
    found = cell(matrix, "web", "172.30.0.50", "tcp", 8080)
    assert (found.host, found.expected, found.reason) == ("atlas", "closed", "not declared")
    assert ("atlas", "far") in matrix.untried  # IPv6: there is no route for it
    assert cell(matrix, "web", "172.30.0.1", "tcp", 22).expected == "closed"
    others = replace(seen["atlas"], routes=(("172.30.0.0/16", "10.213.0.1", "eth0"),))
    assert not any(
        c.address == "172.30.0.50" and c.host == "atlas" for c in build(lab, {**seen, "atlas": others}).cells
    )


def test_a_host_tries_the_others_from_its_address_in_the_vpn() -> None:
    lab, seen = two_hosts()
    inside = {"atlas": ("10.99.0.1", "fd99::1"), "borea": ("10.99.0.2", "fd99::2"), "phone": ("10.99.0.3", "fd99::3")}
    ssh = HostService("ssh", "tcp", 22, ("10.99.0.0/24",))
    port = HostService("vpn", "udp", 51820, ("any",), outside=True)
    machines = tuple(replace(m, services=(ssh, port)) if m.name == "borea" else m for m in lab.machines)
    lab = replace(lab, machines=machines, vpn=Vpn("wg0", ("10.99.0.0/24",), inside))
    for host in ("atlas", "borea"):
        own = (("wg0", inside[host][0], 24), ("wg0", inside[host][1], 64), ("docker0", "172.17.0.1", 16))
        seen[host] = replace(seen[host], addresses=(*seen[host].addresses, *own))
    seen["atlas"] = replace(seen["atlas"], routes=(("172.30.0.0/16", "", "wg0"),))
    matrix = build(lab, seen)
    name = "atlas in the VPN"
    assert cell(matrix, name, "10.99.0.2", "tcp", 22).expected == "open"
    assert cell(matrix, name, "10.99.0.2", "udp", 22).expected == "closed"
    assert cell(matrix, name, "10.99.0.2", "udp", 51820).expected == "either"
    assert cell(matrix, name, "172.30.0.50", "tcp", 8080).expected == "closed"
    # Every host has that address, and so itself.
    assert not any(c.address == "172.17.0.1" for c in matrix.cells if c.source == name)
    # Not what is its own; and a device is not a host that could try anything.
    assert {c.destination for c in matrix.cells if c.source == name} == {"borea", "far"}
    assert "borea in the VPN" in matrix.sources
    assert "phone in the VPN" not in matrix.sources


def test_a_call_to_another_host_is_expected_where_a_way_leads_and_a_difference_where_none_does() -> None:
    # `web` is in a segment of the same name on its own host: that is another network.
    lab, seen = two_hosts(verify_flows=[{"source": "web", "destination": "far", "proto": "tcp", "port": 8080}])
    found = cell(build(lab, routed(seen)), "web", "172.30.0.50", "tcp", 8080)
    assert (found.expected, found.reason) == ("open", "web calls far")
    assert build(lab, seen).problems == (
        "web: declared to call far at tcp/8080, but no network leads there (the ones that run are internal, or not "
        "shared)",
    )


def test_a_segment_on_two_hosts_is_two_networks_with_one_name() -> None:
    lab, seen = two_hosts(verify_flows=[{"source": "lone", "destination": "far", "proto": "tcp", "port": 8080}])
    seen = routed(seen)
    networks = {"rf-front": ("172.30.0.50", ""), "rf-back": ("172.30.1.50", "")}
    both = replace(seen["borea"], containers=(replace(seen["borea"].containers[0], networks=networks),))
    matrix = build(lab, {**seen, "borea": both})
    # `lone` is in `front` as well, but on atlas: the reply comes by the network with the default route.
    assert cell(matrix, "lone", "172.30.1.50", "tcp", 8080).expected == "open"
    assert cell(matrix, "lone", "172.30.0.50", "tcp", 8080).expected == "closed"
    # The other way round what counts is the source's own host: there `rf-front` is internal, here it is not.
    shut = replace(seen["atlas"], internal=frozenset({"rf-front"}))
    assert (
        cell(build(lab, {**seen, "atlas": shut, "borea": both}), "lone", "172.30.1.50", "tcp", 8080).expected
        == "closed"
    )


def test_a_container_of_others_goes_out_as_its_host() -> None:
    lab, seen = two_hosts()
    borea = replace(seen["borea"], containers=(*seen["borea"].containers, THEIRS))
    matrix = build(lab, {**seen, "borea": borea})
    assert cell(matrix, "(their-web)", "10.213.0.10", "tcp", 9883).expected == "either"
    assert cell(matrix, "(their-web)", "10.213.0.10", "udp", 9883).expected == "closed"


def test_requests_route_vantages_by_the_host_next_to_them() -> None:
    request, names = probe_request(LAB, SEEN, MATRIX, "outside", "token")
    lan = request["sources"][names.index("lan")]
    assert lan["ways"]["172.21.0.20"] == "10.213.0.10"
    assert lan["ways"]["198.51.100.10"] == "10.213.0.10"
    assert "10.213.0.10" not in lan["ways"]
    request, names = probe_request(LAB, SEEN, MATRIX, "atlas", "token")
    assert request["sources"][names.index("web")] == {"pid": 100, "space": 1000}
    assert doors(LAB, LAB.vantages[:1]) == [
        {"address": "10.213.0.20", "ports": [443]},
        {"address": "fd52:4600::20", "ports": [443]},
    ]


def test_a_host_answer_is_read() -> None:
    seen = read("atlas", {
        "addresses": [{"device": "lan0", "address": "10.213.0.10", "prefix": 24}],
        "sockets": [{"proto": "tcp", "address": "", "port": 22, "process": "sshd"}] * 2,
        "containers": [], "networks": [{"name": "rf-back", "internal": True, "segment": "back"},
                                       {"name": "theirs", "internal": False, "segment": ""},
                                       {"name": "bridge", "internal": False, "segment": ""}],
        "time": 1000.5, "ufw": [], "engine": "26.1.5", "complaints": [],
        "routes": [{"network": "172.30.0.0/16", "gateway": "10.213.0.11", "device": "eth0"}],
    })  # fmt: skip
    assert seen.sockets == (("tcp", 22, "sshd"),)
    assert seen.clock == 1000.5
    assert seen.routes == (("172.30.0.0/16", "10.213.0.11", "eth0"),)
    assert (seen.internal, seen.unmanaged) == (frozenset({"rf-back"}), ("theirs",))


def test_variables_of_the_wrong_shape_are_named() -> None:
    with pytest.raises(ValueError, match="verify_"):
        declaration.read({"verify_services": [{"name": "x"}]})


# --- judging -------------------------------------------------------------------------------------------------------


def perfect(matrix: Matrix) -> Answers:
    """What hosts answer that do exactly what is declared."""
    results, arrivals = {}, {}
    for one in matrix.cells:
        opened = one.expected == "open"
        results[one.number] = ("open", "x") if opened and one.proto == "tcp" else ("timeout", "")
        if opened and one.proto == "udp":
            arrivals[one.number] = ["atlas"]
    return Answers(results, arrivals, {})


def with_outcome(one: Cell, outcome: str) -> Answers:
    answers = perfect(MATRIX)
    return replace(answers, results={**answers.results, one.number: (outcome, "y")})


def test_a_lab_that_does_what_it_declares_has_no_differences() -> None:
    report = judge(MATRIX, perfect(MATRIX))
    assert report.differences == ()
    opened = sum(c.expected == "open" for c in MATRIX.cells)
    cells = len(MATRIX.cells)
    # There is no way from `internet` to addresses inside over IPv6: atlas has none of its own on that side.
    assert report.summary == f"{cells} cells: {opened} open, {cells - opened} closed, 16 not tried, 0 differences"
    drawn = matrix_text(report)
    assert "✗" not in drawn.replace("✗ DIFFERENCE", "")
    assert "db:5432" in drawn


def test_every_single_wrong_answer_is_a_difference() -> None:
    for one in MATRIX.cells:
        if one.expected == "either":
            continue
        answers = perfect(MATRIX)
        wrong = ("timeout", "") if one.expected == "open" else ("open", "")
        arrivals = {n: w for n, w in answers.arrivals.items() if n != one.number}
        answers = replace(answers, results={**answers.results, one.number: wrong}, arrivals=arrivals)
        (line,) = judge(MATRIX, answers).differences
        assert line.startswith(f"{one.source} → {one.destination} {one.door} IPv{one.family} ({one.address})")


def test_a_refusal_is_an_answer() -> None:
    closed = cell(MATRIX, "lone", "172.21.0.20", "tcp", 5432)
    (line,) = judge(MATRIX, with_outcome(closed, "refused")).differences
    assert "expected closed (not declared), got refused (reset came back: the packet passed" in line
    opened = cell(MATRIX, "web", "172.21.0.20", "tcp", 5432)
    (line,) = judge(MATRIX, with_outcome(opened, "refused")).differences
    assert "expected open (web calls db), got refused" in line


def test_a_datagram_that_arrives_where_it_should_not_is_a_difference() -> None:
    one = cell(MATRIX, "web", "172.20.0.40", "udp", 53)
    answers = perfect(MATRIX)
    report = judge(MATRIX, replace(answers, arrivals={**answers.arrivals, one.number: ["atlas lone"]}))
    assert report.differences == (
        "web → lone udp/53 IPv4 (172.20.0.40): expected closed (not declared), got open (the datagram arrived)",
    )


def test_addresses_of_one_difference_share_its_line() -> None:
    answers = perfect(MATRIX)
    mine = {c.number: ("open", "") for c in MATRIX.cells if c.source == "lan" and c.port == 9999}
    (line,) = judge(MATRIX, replace(answers, results={**answers.results, **mine})).differences
    assert line.startswith(
        "lan → atlas tcp/9999 IPv4+IPv6 (10.213.0.10, fd52:4600::10, 198.51.100.10, 172.20.0.1 and 2 more)"
    )
    assert "not declared; python3 listens" in line


def test_what_was_not_tried_or_heard_is_not_taken_for_closed() -> None:
    one = cell(MATRIX, "web", "10.213.0.20", "tcp", 443)
    for outcome in ("failed: Too many open files", "was not tried"):
        assert "got unknown" in judge(MATRIX, with_outcome(one, outcome)).differences[0]
    answers = replace(perfect(MATRIX), errors={"web": "the container was restarted meanwhile"}, deaf=("atlas",))
    lines = judge(MATRIX, answers).differences
    assert "web: could not be probed from: the container was restarted meanwhile" in lines
    assert any("atlas: its listener ended too early" in line for line in lines)


def test_drift_is_a_difference_and_what_lies_outside_is_not() -> None:
    report = judge(MATRIX, perfect(MATRIX), ["atlas: policy: + rule flow web > db tcp/5432"])
    assert report.differences == ("atlas: policy: + rule flow web > db tcp/5432",)
    shown = text(replace(report, outside=("atlas: network theirs",)))
    assert "outside the fence (running, but not ringfence's):\n  atlas: network theirs\n" in shown
    assert shown.endswith("1 difference")


def test_what_the_roles_say_has_a_heading_of_its_own() -> None:
    report = judge(MATRIX, perfect(MATRIX), notices=["atlas: base: net.x is not offered by this kernel"])
    assert report.differences == ()
    shown = text(report)
    assert "notices:\n  atlas: base: net.x is not offered by this kernel\n" in shown
    assert "outside the fence" not in shown
    assert as_json(report)["notices"] == ["atlas: base: net.x is not offered by this kernel"]
    assert as_json(report)["outside"] == []


def test_the_matrix_shows_names_marks_and_differences() -> None:
    one = cell(MATRIX, "db", "172.21.0.10", "tcp", 80)
    drawn = matrix_text(judge(MATRIX, with_outcome(one, "open"))).splitlines()
    header = next(line for line in drawn if line.endswith("web:80"))
    column = header.index("web:80")
    marks = {line.split()[0]: line[column : column + 1] for line in drawn if line.split()[0] in ("db", "broker", "web")}
    assert (marks["db"], marks["broker"], marks["web"].strip()) == ("✗", "·", "")
    assert any(line.startswith("closed from everywhere: ") for line in drawn)


def test_where_nobody_probed_from_outside_nothing_is_closed_from_everywhere() -> None:
    """What no container reaches may be open to the LAN, which was not asked."""
    matrix = build(replace(LAB, vantages=()), SEEN)
    drawn = matrix_text(judge(matrix, perfect(matrix)))
    assert "\nclosed from every container: " in drawn
    assert "everywhere" not in drawn


def test_reports_for_machines() -> None:
    one = cell(MATRIX, "db", "172.21.0.10", "tcp", 80)
    report = judge(MATRIX, with_outcome(one, "open"), ["atlas: ufw: + rule ssh"])
    data = json.loads(json.dumps(as_json(report)))
    assert len(data["differences"]) == 2
    assert next(c for c in data["cells"] if c["wrong"])["destination"] == "web"
    suite = ElementTree.fromstring(junit(report))
    assert suite.get("failures") == "2"
    assert [f.get("message") for f in suite.iter("failure")] == [
        "got open (connected from y); not declared",
        "atlas: ufw: + rule ssh",
    ]
