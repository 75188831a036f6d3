"""The ring stays shut whatever happens to the host: no way is tried less than 50 times a second all the while."""

from __future__ import annotations

import pytest

from tests.live.engines.ring.attack import Attack, declare, must_hold, must_live, start
from tests.live.engines.ring.bans import ban, banned_first, unban
from tests.live.engines.ring.control import must_hold_against_raw_sockets, take_the_fence_away
from tests.live.engines.ring.scenarios import ALL_OF_IT, SCENARIOS, Scenario, watched
from tests.live.labs import Lab

pytestmark = pytest.mark.engines("20.10", "26.1", "28.5", "29")  # `test_nftables` has the other back end


@pytest.fixture(scope="module")
def attack(lab: Lab) -> Attack:
    # Docker's proxy, which is on where a user's own containers publish ports, is one more way in on old engines.
    declare(lab, **watched(lab), **({"docker_daemon": {"userland-proxy": True}} if lab.engine == "20.10" else {}))
    lab.pyinfra()
    lab.must_be_converged()  # also where an engine was there, and running, before the first run
    found = start(lab)
    # By which families Docker answers at the host: where it were fewer, cells would be missing.
    assert found.addresses.published == (1 if lab.engine == "26.1" else 2)
    return found


# The tests of this file follow one host, in order, with the attack going on.


def test_without_the_fence_every_probe_arrives(attack: Attack) -> None:
    assert take_the_fence_away(attack) == set()


def test_a_run_puts_the_fence_back(attack: Attack) -> None:
    attack.lab.pyinfra()
    attack.from_now_on()
    must_hold(attack, attack.during(lambda lab: lab.must_be_converged()))


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(scenario, id=scenario.name, marks=() if scenario.everywhere else pytest.mark.engines(*ALL_OF_IT))
        for scenario in SCENARIOS
    ],
)
def test_nothing_arrives_that_is_not_declared(attack: Attack, scenario: Scenario) -> None:
    found = attack.during(scenario.act, open_again=scenario.open_again)
    must_hold(attack, found, ufw_holds=scenario.ufw_holds)
    must_live(attack, found, scenario.ends)


@pytest.mark.engines("26.1", "28.5")  # DOCKER-USER is jumped to by FORWARD itself, and since 28 by a chain of Docker's
def test_bans_of_others_hold_and_are_no_drift(attack: Attack) -> None:
    lab = attack.lab
    flow = next(name for name in attack.allowed if "> db tcp/5432 v4" in name)
    ban(lab, attack.allowed[flow].bind)
    attack.wait_until(dead=[flow])
    lab.must_be_converged()
    lab.sh("systemctl restart docker", timeout=180)
    attack.wait_until(dead=[flow])
    lab.must_be_converged()
    assert banned_first(lab)
    unban(lab)
    attack.wait_until(alive=[flow])
    must_hold(attack, attack.during(lambda lab: None))


@pytest.mark.engines("20.10", "26.1", "29")  # 28.5 drops before routing, in `raw`, what 29 drops there
def test_nothing_arrives_that_raw_sockets_can_send(attack: Attack) -> None:
    must_hold_against_raw_sockets(attack.lab)
