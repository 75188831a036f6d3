"""A run that is killed at any command is finished by the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.wireguard.conftest import Lab, Node, asking, peer, reaches, secret, sh, track_connections

Hub = Callable[..., tuple[Node, dict[str, Node]]]
KILLED = -9


def commands_of_apply(node: Node) -> int:
    node.apply()
    return len(node.commands())


def killed(node: Node, when: str, point: int) -> None:
    done = node.run("apply", **{when: str(point)})
    assert done.returncode in (KILLED, 137), (point, done.returncode, done.stderr)


def finished(node: Node) -> None:
    """The next run brings about the rest, and nothing of the killed one is left."""
    node.apply()
    node.settled()
    assert node.wg("private-key") == node.private()
    assert node.conf().count("PrivateKey") == 1
    assert [path for path in node.directory.rglob(".ringfence-*") if path.is_file()] == []
    assert not (node.directory / "run" / "wireguard-peers").exists()


@pytest.mark.parametrize("when", ["KILL_BEFORE", "KILL_AFTER"])
def test_a_first_run(lab: Lab, when: str) -> None:
    host = lab.node("atlas")
    host.desired["keys"] = {"nas": sh("sh", "-c", "wg genkey | wg pubkey").strip()}
    host.desired["peers"] = [peer("nas", "10.99.1.2/32", "172.20.3.0/24")]
    host.desired["secrets"] = {"nas": secret()}
    count = commands_of_apply(host)
    finished(host)
    wanted, there = host.desired["addresses"], range(1 + (when == "KILL_AFTER"), count + 1, 3)
    assert len(there) > 2
    for point in there:
        host.desired["addresses"] = []
        host.apply()
        host.desired["addresses"] = wanted
        killed(host, when, point)
        finished(host)


@pytest.mark.parametrize("when", ["KILL_BEFORE", "KILL_AFTER"])
def test_a_change(hub: Hub, when: str) -> None:
    """A peer goes, one comes, one changes, the address and the key are others: and one goes on all the time."""
    center, _ = hub("calm", "leaver")
    calm, leaver = center.desired["peers"]
    fresh = sh("sh", "-c", "wg genkey | wg pubkey").strip()
    center.desired["keys"]["fresh"] = fresh
    track_connections(center)

    def become(new: bool) -> None:
        calm["allowed"] = ["10.99.0.2/32", "fd52::2/128", *(["172.20.3.0/24"] if new else [])]
        center.desired["peers"] = [calm, peer("fresh", "10.99.0.8/32", "172.20.8.0/24") if new else leaver]
        center.desired["addresses"] = ["10.99.0.1/24", "fd52::1/64", *(["10.98.0.1/24"] if new else [])]
        center.desired["port"], center.desired["mtu"] = 51820, 1400 if new else 1420
        center.desired["secrets"].pop("leaver", None)

    become(False)
    center.apply()
    become(True)
    count = commands_of_apply(center)
    places = range(1 + (when == "KILL_AFTER"), count + 1, 4)
    assert len(places) > 4
    assert reaches(center, "10.99.0.2", 20)
    with asking(center, "10.99.0.2") as counted:
        for point in places:
            become(False)
            center.apply()
            entry = ("-p", "udp", "-s", "10.99.0.3", "-d", "10.99.0.1", "--sport", "7", "--dport", "9", "-t", "600")
            center.must("conntrack", "-I", *entry)
            become(True)
            killed(center, when, point)
            finished(center)
            assert "10.99.0.3" not in center.must("conntrack", "-L", "-f", "ipv4")
            assert center.wg("peers").split().count(fresh) == 1
    assert counted[0][0] == counted[0][1]


def test_a_change_of_the_key_and_the_end(hub: Hub) -> None:
    center, _ = hub("calm")
    center.apply()
    center.desired["key"] = 2
    count = commands_of_apply(center)
    for point in range(3, count + 1, 4):
        center.desired["key"] += 1
        killed(center, "KILL_AFTER", point)
        finished(center)
    addresses: Any = center.desired["addresses"]
    center.desired["addresses"] = []
    count = commands_of_apply(center)
    for point in range(2, count + 1, 2):
        center.desired["addresses"] = addresses
        center.apply()
        center.desired["addresses"] = []
        killed(center, "KILL_AFTER", point)
        center.apply()
        center.settled()
        assert [path for path in center.etc.rglob("*") if path.is_file()] == []
        assert center.interface not in center.must("ip", "link", "show")
