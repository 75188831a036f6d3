"""The ring on Docker 29's nftables back end, and both ways between its back ends, with the attack going on."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.live.engines.ring.attack import Attack, begun, declare, edit, must_hold, must_live, start
from tests.live.engines.ring.control import must_hold_against_raw_sockets, take_the_fence_away
from tests.live.engines.ring.scenarios import SCENARIOS, Scenario, watched
from tests.live.labs import Lab

pytestmark = pytest.mark.engines("29")


@pytest.fixture(scope="module")
def attack(lab: Lab) -> Attack:
    declare(lab, **watched(lab))
    lab.pyinfra()
    return start(lab)


def _must_stay_shut_while_it_becomes(attack: Attack, backend: str) -> None:
    """Have one run change the engine's back end with containers running; the next changes nothing."""
    edit(attack.lab, docker_firewall_backend=backend)
    must_hold(attack, attack.during(lambda lab: lab.pyinfra()))
    assert ("docker-bridges" in attack.lab.sh("nft list tables")) == (backend == "nftables")
    attack.lab.must_be_converged()


# The tests of this file follow one host, in order, with the attack going on.


def test_nothing_arrives_while_the_back_end_becomes_nftables(attack: Attack) -> None:
    _must_stay_shut_while_it_becomes(attack, "nftables")


def test_without_the_fence_every_probe_arrives(attack: Attack) -> None:
    assert take_the_fence_away(attack) == set()


def test_a_run_puts_the_fence_back(attack: Attack) -> None:
    attack.lab.pyinfra()
    attack.from_now_on()
    must_hold(attack, attack.during(lambda lab: lab.must_be_converged()))


def test_exactly_the_declared_traffic_passes(attack: Attack) -> None:
    found = attack.during(lambda lab: lab.must_verify())
    # Its own probes arrive where they are declared, and are none of these.
    found.arrived = Counter({probe: n for probe, n in found.arrived.items() if probe in attack.names})
    must_hold(attack, found)


@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one.everywhere], ids=lambda scenario: scenario.name)
def test_nothing_arrives_that_is_not_declared(attack: Attack, scenario: Scenario) -> None:
    found = attack.during(scenario.act, open_again=scenario.open_again)
    must_hold(attack, found, ufw_holds=scenario.ufw_holds)
    must_live(attack, found, scenario.ends)


def test_ansible_finds_nothing_to_change(attack: Attack) -> None:
    assert attack.lab.ansible().changed == []


def test_nothing_arrives_that_raw_sockets_can_send(attack: Attack) -> None:
    must_hold_against_raw_sockets(attack.lab)
    begun(attack)


def test_nothing_arrives_while_the_back_end_becomes_iptables_again(attack: Attack) -> None:
    _must_stay_shut_while_it_becomes(attack, "iptables")
    assert "RF-OPEN" in attack.lab.sh("iptables -S DOCKER-USER")
