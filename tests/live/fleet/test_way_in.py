"""SSH by the VPN alone: who closes it, what happens where the VPN does not come up, and what a lost hub leaves."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.fleet.laptop import Laptop, inside_of, laptop
from tests.live.fleet.tunnel import INTERFACE
from tests.live.labs import Lab, RunError, waited_for
from tests.live.pages import example
from tests.live.proxy.client import Session

pytestmark = pytest.mark.usefixtures("three")
TAKEN_BACK = 60  # seconds


@pytest.fixture(scope="module")
def admin(three: Lab) -> Iterator[Laptop]:
    with laptop(three) as found:
        yield found
    three.undeclare()


def closed(lab: Lab, admin: Laptop) -> dict[str, Any]:
    """What is declared where SSH is for the VPN alone."""
    services = example("docs/vpn.md", 3)["lab_hosts"]["atlas"]["services"]
    assert services == {"ssh": {"port": 22, "from": ["vpn"]}}
    hosts = {name: {**host, "services": services} for name, host in lab.variables()["lab_hosts"].items()}
    return {"lab_devices": admin.devices, "lab_hosts": hosts}


def test_who_does_not_come_by_the_vpn_does_not_close_the_other_door(lab: Lab, admin: Laptop) -> None:
    before = {"lab_devices": admin.devices}
    lab.declare(**closed(lab, admin))
    try:
        run = lab.pyinfra(check=False)
        assert run.code != 0
        assert "lab_hosts" in run.text, run.text
        assert lab.reaches(22, host="nas")
    finally:
        lab.declare(**before)
    lab.must_be_converged()


def test_a_vpn_that_does_not_come_up_is_taken_back_and_the_other_door_is_open(lab: Lab, admin: Laptop) -> None:
    """In one run the LAN's door is closed, and the hub gets a key that the laptop does not know."""
    before = {"lab_devices": admin.devices}
    own = lab.sh(f"wg show {INTERFACE} public-key", "edge")
    with admin.controller() as remote:
        declared = closed(lab, admin)
        declared["lab_hosts"]["edge"] = {**declared["lab_hosts"]["edge"], "vpn": {"key": 2}}
        remote.declare(**declared)
        # Of all hosts, so that nothing is left that could report.
        with pytest.raises(RunError, match="the old state is back"):
            admin.pyinfra(remote)
        ended = time.monotonic()
        for host in ("nas", "atlas", "edge"):
            assert waited_for(lambda host=host: lab.reaches(22, host=host), TAKEN_BACK), host  # type: ignore[misc]
            assert waited_for(lambda host=host: admin.reaches(inside_of(lab, host)), TAKEN_BACK), host  # type: ignore[misc]
        assert time.monotonic() - ended < TAKEN_BACK
        assert lab.sh(f"wg show {INTERFACE} public-key", "edge") == own
    lab.declare(**before)
    lab.pyinfra()
    lab.must_be_converged()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"port": 51900}, "lab_vpn.port: the tunnels move"),
        ({"secret": "f" * 64}, "wireguard_secrets: their preshared"),
    ],
)
def test_what_the_tunnels_outlive_for_a_while_is_not_changed_by_them(
    lab: Lab, admin: Laptop, change: dict[str, Any], says: str
) -> None:
    with admin.controller() as remote:
        remote.declare(lab_devices=admin.devices, lab_vpn={**lab.variables()["lab_vpn"], **change})
        with pytest.raises(RunError, match=says) as refused:
            admin.pyinfra(remote)
    assert "Starting operation: guard" not in str(refused.value)


def test_ssh_is_closed_to_all_but_the_vpn(lab: Lab, admin: Laptop) -> None:
    declared = closed(lab, admin)
    with admin.controller() as remote:
        remote.declare(**declared)
        run = admin.pyinfra(remote)
        assert run.code == 0, run.text
        assert any(change.startswith("ufw") for change in run.changed)
        for host in ("atlas", "nas", "edge"):
            assert not lab.reaches(22, host=host), host
            assert admin.reaches(inside_of(lab, host)), host
        assert not admin.reaches(lab.address("edge"))  # the laptop's own way on the wan
        again = admin.pyinfra(remote)
        assert (again.code, again.changed) == (0, []), again.text


def back(lab: Lab) -> None:
    """Start the hub again; it has slept through everything and lets in nobody but the VPN, so its console does."""
    subprocess.run(["docker", "start", f"rf-{lab.name}-edge"], check=True, capture_output=True)
    for home in lab.variables()["lab_places"]["home"]:
        command = f"ufw prepend allow proto tcp from {home} to any port 22 >/dev/null && echo done"
        assert waited_for(lambda command=command: "done" in lab.sh(command, "edge", check=False), 60)  # type: ignore[misc]
    lab.lab("start", "--host=edge")


def test_without_the_hub_the_console_lets_the_lan_in_again(lab: Lab, admin: Laptop) -> None:
    """The hub is gone for good, and with it the only way in: docs/vpn.md says what is typed at the console."""
    lan = str(lab.variables()["lab_places"]["lan"][0])
    lab.lab("poweroff", "--host=edge")
    try:
        for host in ("atlas", "nas"):
            lab.sh("systemctl stop ringfence-watch.timer", host)
            lab.sh(f"ufw prepend allow proto tcp from {lan} to any port 22", host)
            assert lab.reaches(22, host=host), host
        hosts = {name: host for name, host in lab.variables()["lab_hosts"].items() if name != "edge"}
        hosts["atlas"] = {**hosts["atlas"], "vpn": {"endpoint": hosts["atlas"]["addresses"][0]}}
        proxy = {**lab.variables()["lab_proxy"], "host": "atlas"}
        lab.declare(lab_hosts=hosts, lab_vpn={**lab.variables()["lab_vpn"], "hub": "atlas"}, lab_proxy=proxy)
        run = lab.pyinfra("site", "--limit", "atlas", "--limit", "nas")
        assert run.code == 0, run.text
        # The rule that was made by hand is the declared one now: there is nothing to take away.
        rules = [line for line in lab.sh("ufw status", "nas").splitlines() if line.startswith("22/tcp") and lan in line]
        assert [line.partition("# ")[2] for line in rules] == ["rf:ssh-from-lan"]
        assert lab.reaches(22, host="nas")
        assert "ringfence-watch.timer" in lab.sh("systemctl list-timers --no-legend", "nas")
        assert waited_for(lambda: Session(lab).ask("cloud", "/status.php").status == 200, 60)
    finally:
        back(lab)


def test_the_hub_that_was_lost_is_the_hub_again(lab: Lab, admin: Laptop) -> None:
    lab.declare(lab_devices=admin.devices)
    lab.pyinfra()
    lab.must_be_converged()
    assert waited_for(lambda: Session(lab).ask("cloud", "/status.php").status == 200, 150)
    assert waited_for(lambda: admin.reaches(inside_of(lab, "nas")), 60)
    assert not admin.reaches(lab.address("edge"))
