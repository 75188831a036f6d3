"""The tunnels through reboots and moves: they come back by themselves, and nothing is on the wire without them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lab.networks import get
from tests.live.fleet.laptop import inside_of
from tests.live.fleet.tunnel import INTERFACE
from tests.live.fleet.underlay import Underlay
from tests.live.labs import Lab, waited_for
from tests.live.proxy.client import Session

pytestmark = pytest.mark.usefixtures("three")
BACK = 150  # seconds: WireGuard's own timers take two minutes where a peer is new and only keeps alive
HUB, NAS = "edge", "nas"
# Pings, of three seconds (on a busy machine): one end has another key already, and the other does not know.
SWITCHED = 30


def works(lab: Lab) -> bool:
    """Whether a request passes all three hosts: the proxy's, the application's, the database's."""
    return Session(lab).ask("cloud", "/status.php").status == 200


@contextmanager
def nothing_outside_the_tunnels(lab: Lab) -> Iterator[Underlay]:
    with Underlay(lab) as underlay:
        yield underlay
    assert underlay.outside_the_tunnels() == {}
    inside = {packet[:2] for packet in underlay.packets}
    assert inside, "nothing was heard at all"


@contextmanager
def pinging(lab: Lab, *ways: tuple[str, str], lost: int = 0) -> Iterator[None]:
    """Ping ten times a second from one host to another, in the VPN; afterwards each must have been answered."""
    name = "pinging"
    for host, to in ways:
        command = f"ping -n -q -i 0.1 {inside_of(lab, to)}"
        lab.sh(
            f"systemd-run --quiet --unit={name}-{to} --property=StandardOutput=file:/run/{name}-{to}"
            f" --property=KillSignal=SIGINT {command}",
            host,
        )
    try:
        yield
        # Where keys change, packets wait in line for the next handshake: who is answered now comes behind them.
        for host, to in ways:
            lab.sh(f"ping -n -c 1 -W 30 {inside_of(lab, to)}", host)
    finally:
        for host, to in ways:
            lab.sh(f"systemctl stop {name}-{to}; systemctl reset-failed {name}-{to} 2>/dev/null", host, check=False)
    for host, to in ways:
        said = lab.sh(f"cat /run/{name}-{to}", host)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        assert found, said
        assert int(found[1]) > 20, said
        # The one that is on its way when it stops is not lost.
        assert int(found[1]) - int(found[2]) <= 1 + lost, f"{host} to {to}: {said}"


def test_between_hosts_nothing_but_the_tunnels_is_on_the_wire(lab: Lab) -> None:
    with nothing_outside_the_tunnels(lab) as underlay:
        assert works(lab)
        session = Session(lab, "anna")
        assert session.ask("media", "/").by_application
    assert {("edge", "atlas"), ("atlas", "edge"), ("atlas", "nas"), ("nas", "atlas")} <= {
        p[:2] for p in underlay.packets
    }


@pytest.mark.parametrize("host", [HUB, NAS])
def test_a_host_that_restarts_finds_the_others_again(lab: Lab, host: str) -> None:
    """Probed all the while: what the tunnels do not carry yet goes no other way."""
    with nothing_outside_the_tunnels(lab):
        lab.lab("reboot", f"--host={host}")
        assert waited_for(lambda: works(lab), BACK)
    lab.must_be_converged()


def test_without_its_tunnel_a_caller_gets_nowhere(lab: Lab) -> None:
    """The tunnel of the database's host is down; its application asks and asks."""
    try:
        with nothing_outside_the_tunnels(lab):
            lab.sh(f"systemctl stop ringfence-wireguard.timer wg-quick@{INTERFACE}")
            for _ in range(5):
                assert not works(lab)
    finally:
        lab.pyinfra()
    assert waited_for(lambda: works(lab), BACK)
    lab.must_be_converged()


def public_keys(lab: Lab) -> dict[str, str]:
    return {host: lab.sh(f"wg show {INTERFACE} public-key", host).strip() for host in ("atlas", NAS, HUB)}


def must_know_each_other(lab: Lab) -> None:
    keys = public_keys(lab)
    for host, own in keys.items():
        assert {*lab.sh(f"wg show {INTERFACE} peers", host).split()} == {*keys.values()} - {own}, host


def test_every_key_is_changed_and_no_ping_among_the_others_is_lost(lab: Lab) -> None:
    """One host after the other; then all of them in one run, where both ends of a tunnel change within a second."""
    before = public_keys(lab)
    hosts = lab.variables()["lab_hosts"]
    try:
        for host, others in {NAS: ("atlas", HUB), HUB: ("atlas", NAS), "atlas": (HUB, NAS)}.items():
            hosts = {**hosts, host: {**hosts[host], "vpn": {**hosts[host].get("vpn", {}), "key": 2}}}
            lab.declare(lab_hosts=hosts)
            plan = lab.plan()
            with pinging(lab, others):
                run = lab.pyinfra()
            assert run.changed == plan.changed == ["wireguard | state"]
            must_know_each_other(lab)
        assert not {*before.values()} & {*public_keys(lab).values()}
        lab.must_be_converged()
    finally:
        lab.undeclare()
        with pinging(lab, ("atlas", NAS), ("atlas", HUB), (HUB, NAS), lost=SWITCHED):
            lab.pyinfra()
    must_know_each_other(lab)
    assert works(lab)


NAME = "edge.dyn.example"


@pytest.fixture
def dynamic(lab: Lab) -> Iterator[Callable[[str], None]]:
    """The hub is found by a name, whose address is what it is set to."""

    def lead_to(address: str) -> None:
        for host in ("atlas", NAS):
            named = f"echo '{address} {NAME}' >> /run/hosts" if address else "true"
            lab.sh(f"grep -vF {NAME} /etc/hosts > /run/hosts; {named}; cat /run/hosts > /etc/hosts", host)

    lead_to(lab.address(HUB))
    hosts = lab.variables()["lab_hosts"]
    lab.declare(lab_hosts={**hosts, HUB: {**hosts[HUB], "vpn": {"endpoint": NAME}}})
    lab.pyinfra()
    yield lead_to
    lab.undeclare()
    lab.pyinfra()
    lead_to("")


def test_a_hub_whose_address_changes_is_followed_by_its_name(lab: Lab, dynamic: Callable[[str], None]) -> None:
    wan = get(lab.name).wan
    old, new = lab.address(HUB), str(wan.subnet[wan.numbers[HUB] + 3])
    length = wan.subnet.prefixlen
    device = lab.sh(f"ip -br -4 address | grep -F ' {old}/' | cut -d' ' -f1 | cut -d@ -f1", HUB).strip()
    assert works(lab)

    def moves(leaves: str, comes: str) -> None:
        # In this order: with the first address of a network the kernel takes the others of it, too.
        lab.sh(f"ip address del {leaves}/{length} dev {device}; ip address add {comes}/{length} dev {device}", HUB)
        dynamic(comes)

    def reached(host: str) -> bool:
        return "yes" in lab.sh(f"ping -n -c 1 -W 1 {inside_of(lab, HUB)} >/dev/null && echo yes", host, check=False)

    try:
        moves(old, new)
        for host in ("atlas", NAS):
            assert waited_for(lambda host=host: reached(host), 2 * BACK), host  # type: ignore[misc]
            assert new in lab.sh(f"wg show {INTERFACE} endpoints", host)
    finally:
        moves(new, old)
    assert waited_for(lambda: works(lab), 2 * BACK)
