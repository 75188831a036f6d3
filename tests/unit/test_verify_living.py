"""A host that people live on: rules of its user's own, and containers that nothing fences."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringfence.verify.cells import Matrix, build
from ringfence.verify.outside import is_listed, outside
from ringfence.verify.own_rules import with_own_rules
from ringfence.verify.remote import looking, others
from ringfence.verify.remote.commands import ProbeFailedError
from ringfence.verify.report import Answers, judge
from ringfence.verify.second_reading import differences
from ringfence.verify.seen import Container, Other
from tests.unit.test_verify_cells import ATLAS, LAB, SEEN, cell

COMPILED = {"name": "ssh-from-lan", "action": "allow", "proto": "tcp", "port": "22", "source": "10.213.0.0/24"}
SAMBA = {"name": "samba", "proto": "tcp", "port": "445,9999", "source": "10.213.0.0/24"}


PROFILES = {"atlas": {"own": (("9999,8631", "tcp"), ("9998", "udp"))}}


def with_rules(*rules: dict[str, Any]) -> Matrix:
    return build(with_own_rules(LAB, {"atlas": [COMPILED, *rules]}, PROFILES), SEEN)


def test_a_rule_of_the_users_own_is_declared_for_whom_it_names_and_nobody_else() -> None:
    """As docs/inventory.md has it: whatever listened there was a difference."""
    matrix = with_rules(SAMBA)
    for port in (445, 9999):
        one = cell(matrix, "lan", "10.213.0.10", "tcp", port)
        assert (one.expected, one.reason) == ("open", "samba of atlas (ufw_rules)")
        assert cell(matrix, "lan", "10.213.0.10", "udp", port).expected == "closed"
        assert cell(matrix, "internet", "198.51.100.10", "tcp", port).expected == "closed"
        # The policy denies what a segment's containers send to their host, whatever UFW lets in.
        assert cell(matrix, "web", "172.20.0.1", "tcp", port).expected == "closed"
    assert cell(with_rules(), "lan", "10.213.0.10", "tcp", 9999).expected == "closed"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"port": "", "source": "any"}, "open"),
        ({"port": "9990:9999", "proto": "tcp", "source": "any"}, "open"),
        ({"port": "9990:9998", "proto": "tcp", "source": "any"}, "closed"),
        ({"port": "9999", "interface": "lan0"}, "either"),
        ({"port": "9999", "action": "deny"}, "closed"),
        ({"port": "9999", "action": "reject"}, "closed"),
        ({"port": "9999", "action": "limit"}, "either"),  # let in, until it comes too often
        ({"port": "9999", "direction": "out"}, "closed"),
        ({"port": "9999", "direction": "route"}, "closed"),
        ({"port": "9999", "destination": "10.213.0.0/24"}, "open"),
        ({"port": "9999", "destination": "192.0.2.9"}, "closed"),
        ({"application": "own"}, "open"),
        ({"application": "another"}, "closed"),
    ],
)
def test_each_kind_of_rule_is_read_as_ufw_reads_it(rule: dict[str, Any], expected: str) -> None:
    assert cell(with_rules({"name": "own", **rule}), "lan", "10.213.0.10", "tcp", 9999).expected == expected


def test_the_first_rule_that_matches_decides() -> None:
    deny = {"name": "not", "port": "9999", "action": "deny"}
    assert cell(with_rules(deny, SAMBA), "lan", "10.213.0.10", "tcp", 9999).expected == "closed"
    assert cell(with_rules(SAMBA, deny), "lan", "10.213.0.10", "tcp", 9999).expected == "open"
    by_one = {**deny, "interface": "lan0"}
    assert cell(with_rules(by_one, SAMBA), "lan", "10.213.0.10", "tcp", 9999).expected == "either"
    out = {**deny, "direction": "out"}
    assert cell(with_rules(out, SAMBA), "lan", "10.213.0.10", "tcp", 9999).expected == "open"


def test_a_profile_opens_its_ports_and_no_others() -> None:
    matrix = with_rules({"name": "own", "application": "own", "source": "10.213.0.0/24"})
    assert cell(matrix, "lan", "10.213.0.10", "tcp", 8631).expected == "open"
    assert cell(matrix, "lan", "10.213.0.10", "udp", 9998).expected == "open"
    assert cell(matrix, "lan", "10.213.0.10", "udp", 9999).expected == "closed"
    assert cell(matrix, "lan", "10.213.0.10", "tcp", 9998).expected == "closed"


def test_profiles_are_read_as_ufw_has_them(tmp_path: Path) -> None:
    (tmp_path / "cups").write_text("[CUPS]\ntitle=printing\ndescription=it prints\nports=631\n")
    (tmp_path / "mine").write_text("[Two]\ntitle=a\ndescription=b\nports=80,443/tcp|53/udp\n")
    (tmp_path / "none").write_text("no profile")
    assert looking.ufw_profiles(tmp_path) == {
        "CUPS": [["631", "any"]], "Two": [["80,443", "tcp"], ["53", "udp"]],
    }  # fmt: skip


def test_what_a_segment_publishes_is_not_opened_by_a_rule() -> None:
    matrix = with_rules({"name": "own", "proto": "tcp", "port": "9883"})
    assert cell(matrix, "internet", "198.51.100.10", "tcp", 9883).expected == "closed"


def test_the_second_reading_has_nothing_to_say_of_it() -> None:
    lab: dict[str, Any] = {"lab_hosts": {}, "lab_services": {}}
    assert differences(lab, with_own_rules(LAB, {"atlas": [SAMBA]})) == differences(lab, LAB)


# -- containers that nothing fences ------------------------------------------------------------------------------------

HOME = Container("home-assistant", 900, 9000, "", "", {"host": ("", "")}, mode="host")
BESIDE = Container("sidecar", 901, 9001, "", "", {}, mode="container:900")
TASK = Container("shop.1.abc", 902, 9002, "", "", {"ingress": ("10.0.0.4", "")}, task="shop")


def test_a_container_in_the_hosts_network_is_listed_once_and_not_tried() -> None:
    """It reached whatever the host reaches: twenty differences."""
    atlas = replace(
        ATLAS,
        containers=(*ATLAS.containers, HOME, BESIDE, TASK),
        others=(Other("web (of root)", "podman's container"), Other("shop", "swarm service", (("tcp", 9999),))),
    )
    seen = {**SEEN, "atlas": atlas}
    matrix = build(LAB, seen)
    assert "(home-assistant)" not in matrix.sources
    assert "(sidecar)" not in matrix.sources
    assert "(shop.1.abc)" in matrix.sources, "a task has a network of its own"
    one = cell(matrix, "lan", "10.213.0.10", "tcp", 9999)
    assert (one.expected, one.reason) == (
        "either",
        "published by shop (swarm service), which ringfence does not manage",
    )
    assert outside(LAB, seen, judge(matrix, Answers({}, {}, {}))) == [
        "atlas: container home-assistant (the host's network: as the host itself, nothing fences it)",
        "atlas: container sidecar (another's network)",
        "atlas: container shop.1.abc (task of the swarm service shop; ingress)",
        "atlas: podman's container web (of root)",
        "atlas: swarm service shop; publishes tcp/9999",
    ]


def test_what_the_policy_says_of_them_is_not_said_twice() -> None:
    assert is_listed("outside the fence: container their-home uses the host's own network")
    assert is_listed("outside the fence: container their-web on network theirs, more")
    assert not is_listed("outside the fence: container web, in a segment, is also on network theirs")


def test_podmans_containers_are_found_by_their_monitors(tmp_path: Path) -> None:
    for number, comm, words in (
        ("11", "conmon", ("/usr/bin/conmon", "--api-version", "1", "-c", "0123456789abcdef", "-n", "web")),
        ("12", "conmon", ("/usr/bin/conmon", "-c", "0123456789abcdef")),
        ("13", "sleep", ("sleep", "-n", "other")),
    ):
        (tmp_path / number).mkdir()
        (tmp_path / number / "comm").write_text(f"{comm}\n")
        (tmp_path / number / "cmdline").write_text("\0".join((*words, "")))
    (tmp_path / "self").mkdir()
    sockets = [
        {"proto": "tcp", "port": 8080, "process": "rootlessport"}, {"proto": "tcp", "port": 22, "process": "sshd"},
    ]  # fmt: skip
    found = others.podman(sockets, tmp_path)
    assert sorted(one["name"].split()[0] for one in found) == ["(any", "0123456789ab", "web"]
    assert [one["published"] for one in found if one["published"]] == [[{"proto": "tcp", "port": 8080}]]


def test_a_swarms_ports_are_asked_only_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [
        {"Protocol": "tcp", "PublishedPort": port, "PublishMode": mode}
        for port, mode in ((80, "ingress"), (81, "host"))
    ]
    told = {"ls": "a\n", "inspect": json.dumps([{"Spec": {"Name": "shop"}, "Endpoint": {"Ports": ports}}])}
    asked: list[str] = []

    def docker(*argv: str) -> str:
        asked.append(argv[2])
        return told[argv[2]]

    monkeypatch.setattr(others, "asked", docker)
    assert others.swarm([{"name": "bridge"}]) == []
    assert asked == []
    gateway = [{"name": "docker_gwbridge"}]
    assert others.swarm(gateway) == [
        {"name": "shop", "kind": "swarm service", "published": [{"proto": "tcp", "port": 80}]}
    ]

    def worker(*argv: str) -> str:
        raise ProbeFailedError("docker service ls: This node is not a swarm manager.")

    monkeypatch.setattr(others, "asked", worker)
    assert others.swarm(gateway) == []


def test_the_mode_is_told_only_where_a_container_has_no_network_of_its_own() -> None:
    for mode in ("host", "none", "container:0123"):
        assert looking.alien(mode) == mode
    for mode in ("hosted", "bridge", "default", "theirs"):
        assert looking.alien(mode) == ""
