"""Nobody is locked out: neither by a mistake nor by force, with either engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab, Run, RunError

ENGINES: dict[str, Callable[[Lab], Run]] = {
    "pyinfra": lambda lab: lab.pyinfra(check=False),
    "ansible": lambda lab: lab.ansible(check=False),
}
# What the host looks like to somebody who would be locked out, and to the firewall.
STATE = "iptables-save | grep -- '-A ufw-user-input'; cat /etc/ufw/user.rules; sshd -T | sort"
GUARD_SECONDS = 60
# There while a change waits for its confirmation.
PENDING = "/var/lib/ringfence/guard/pending.json"


# On either of Docker's firewall back ends: what the guard takes back stands in other places there.
HOSTS = {"26.1": ("t-lockout", "26.1", "iptables"), "29-nftables": ("t-lockout-nft", "29", "nftables")}


@pytest.fixture(scope="module", params=HOSTS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    name, engine, backend = HOSTS[request.param]
    for lab in fresh(name, engine):
        if backend == "nftables":  # in a file of its own: the tests' edits replace each other
            path = lab.inventory / "group_vars" / "demo" / "backend.yml"
            path.write_text("---\ndocker_firewall_backend: nftables\n", encoding="utf-8")
        lab.pyinfra()
        assert ("docker-bridges" in lab.ssh("nft list tables || true")) == (backend == "nftables")
        yield lab


@pytest.fixture(params=ENGINES)
def run(request: pytest.FixtureRequest) -> Callable[[Lab], Run]:
    return ENGINES[request.param]


def _without_ssh(lab: Lab) -> dict[str, Any]:
    hosts = dict(lab.variables()["lab_hosts"])
    atlas = {**hosts["atlas"], "services": {}}
    return {"lab_hosts": {**hosts, "atlas": atlas}}


def _narrowed(lab: Lab) -> dict[str, Any]:
    hosts = dict(lab.variables()["lab_hosts"])
    services = dict(hosts["atlas"]["services"])
    services["ssh"] = {**services["ssh"], "from": ["desk"]}
    outside = lab.address("outside")
    return {
        "lab_places": {**lab.variables()["lab_places"], "desk": [f"{outside}/32"]},
        "lab_hosts": {**hosts, "atlas": {**hosts["atlas"], "services": services}},
    }


@pytest.mark.parametrize("mistake", [_without_ssh, _narrowed], ids=["ssh-left-out", "place-narrowed"])
def test_a_mistake_is_refused_before_anything_is_changed(
    lab: Lab, run: Callable[[Lab], Run], mistake: Callable[[Lab], dict[str, Any]]
) -> None:
    lab.undeclare()
    before = lab.ssh(STATE)
    lab.declare(**mistake(lab))
    refused = run(lab)
    assert refused.code != 0
    # The owner, the value, and the fix.
    assert "lab_hosts.atlas.services" in refused.text
    assert "TCP port 22" in refused.text
    assert lab.controller() in refused.text
    assert refused.changed == []
    assert lab.ssh(STATE) == before
    lab.undeclare()


def test_a_forced_change_is_taken_back_within_a_minute(lab: Lab, run: Callable[[Lab], Run]) -> None:
    lab.undeclare()
    before = lab.ssh(STATE)
    lab.declare(**_without_ssh(lab), ufw_force=True, guard_seconds=30)
    started = time.monotonic()
    forced = run(lab)
    assert forced.code != 0
    lab.wait_for_ssh(GUARD_SECONDS)
    assert time.monotonic() - started < GUARD_SECONDS + 60  # the run itself included
    assert lab.ssh(STATE) == before
    lab.undeclare()
    lab.must_verify()


def test_a_change_after_which_a_port_that_must_stay_open_does_not_answer_is_taken_back(
    lab: Lab, run: Callable[[Lab], Run]
) -> None:
    lab.undeclare()
    before = lab.ssh(STATE)
    hosts = dict(lab.variables()["lab_hosts"])
    services = {**hosts["atlas"]["services"], "metrics": {"port": 9100, "from": ["lan"]}}
    lab.declare(
        lab_hosts={**hosts, "atlas": {**hosts["atlas"], "services": services}}, guard_ports=[4443], guard_seconds=300
    )
    refused = run(lab)
    assert refused.code != 0
    assert "4443" in refused.text
    assert "must stay open" in refused.text
    # At once: the guard's own timer would take five minutes.
    assert "the old state is back" in refused.text
    assert lab.ssh(STATE) == before
    lab.undeclare()
    lab.must_verify()


def _shut_ssh_out(lab: Lab, seconds: int) -> None:
    """Open the guard's window and close SSH; raises RunError unless both are so afterwards."""
    # The rule is the first of UFW's, so that it is known to be there; this connection lives on.
    lab.ssh(
        f"ringfence-guard arm --seconds {seconds} --reason test && test -e {PENDING} &&"
        " ufw prepend deny from any to any port 22 proto tcp &&"
        " iptables -S ufw-user-input 1 | grep -- '--dport 22 -j DROP'"
    )
    if lab.reaches(22):
        raise RunError("SSH still answers: the drill would show nothing")


def test_a_controller_that_dies_inside_the_window_leaves_the_old_state(lab: Lab) -> None:
    lab.undeclare()
    before = lab.ssh(STATE)
    _shut_ssh_out(lab, 15)
    lab.wait_for_ssh(GUARD_SECONDS)
    assert lab.ssh(STATE) == before
    assert lab.ssh(f"ls {PENDING}", check=False) == ""


def test_a_reboot_inside_the_window_leaves_the_old_state(lab: Lab) -> None:
    before = lab.ssh(STATE)
    _shut_ssh_out(lab, 300)
    lab.lab("poweroff")
    lab.lab("start")
    lab.wait_for_ssh(GUARD_SECONDS)
    assert lab.ssh(STATE) == before
    assert lab.ssh(f"ls {PENDING}", check=False) == ""
    lab.must_verify()
