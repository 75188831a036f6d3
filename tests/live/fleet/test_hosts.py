"""A host more, a host less, a run of some hosts only: whom it does not concern is left alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.live.fleet.laptop import inside_of
from tests.live.fleet.test_tunnels import pinging
from tests.live.fleet.tunnel import INTERFACE
from tests.live.labs import Lab, waited_for
from tests.live.runs import Run

pytestmark = pytest.mark.usefixtures("three")
OTHERS = ("atlas", "nas", "edge")
MORE = "pi"


def peers(lab: Lab, host: str) -> set[str]:
    return {*lab.sh(f"wg show {INTERFACE} peers", host).split()}


# In a mesh everybody has a peer more; what the hub passes on to it is the hub's policy.
concerned = {"atlas": {"wireguard"}, "nas": {"wireguard"}, "edge": {"wireguard", "policy"}}


def touched(run: Run, host: str) -> set[str]:
    """The roles whose programs changed something on a host."""
    return {*re.findall(rf"^\[{host}\]\s+ringfence-([a-z]+): ", run.text, re.M)}


def running(lab: Lab) -> dict[str, str]:
    """Since when each container of every host runs."""
    since = "docker ps -q | xargs -r docker inspect -f '{{.Name}} {{.State.StartedAt}}'"
    return {host: lab.sh(since, host) for host in OTHERS}


def test_a_run_of_one_host_leaves_it_with_all_its_peers(lab: Lab) -> None:
    before = {host: peers(lab, host) for host in OTHERS}
    for host in OTHERS:
        assert lab.pyinfra("site", "--limit", host).changed == [], host
        assert lab.ansible("--limit", host).changed == [], host
    assert {host: peers(lab, host) for host in OTHERS} == before


def test_a_host_more_and_a_host_less_disturb_nobody(lab: Lab) -> None:
    since = running(lab)
    before = {host: peers(lab, host) for host in OTHERS}
    lab.lab("up", "--preinstalled", f"--host={MORE}@lan+wan")
    hosts: dict[str, Any] = lab.variables()["lab_hosts"]
    lab.declare(lab_hosts={**hosts, MORE: {**hosts[MORE], "docker": False}})
    try:
        with pinging(lab, ("atlas", "nas"), ("edge", "atlas"), ("nas", "edge")):
            run = lab.pyinfra()
        assert {host: touched(run, host) for host in OTHERS} == concerned
        assert {"guard", "wireguard", "ufw", "policy"} <= touched(run, MORE)
        assert "docker" not in lab.sh("ls /usr/local/sbin", MORE)
        assert waited_for(
            lambda: (
                "yes" in lab.sh(f"ping -c 1 -W 1 {inside_of(lab, 'nas')} >/dev/null && echo yes", MORE, check=False)
            ),
            30,
        )
        lab.must_be_converged()
        assert lab.ansible().changed == []
        assert lab.verify().changed == []
    finally:
        _leaves(lab)
        with pinging(lab, ("atlas", "nas"), ("edge", "atlas")):
            run = lab.pyinfra()
    assert {host: touched(run, host) for host in OTHERS} == concerned
    assert {host: peers(lab, host) for host in OTHERS} == before
    assert running(lab) == since


def _leaves(lab: Lab) -> None:
    """Take a host out of the inventory, as whoever has it would: it is no longer declared, and in no group."""
    lab.undeclare()
    for path, keys in (
        (lab.inventory / "hosts.yml", ("all", "children", "demo", "children", "docker_hosts", "hosts")),
        (lab.inventory / "group_vars" / "demo" / "site_hosts.yml", ("lab_hosts",)),
    ):
        head, _, text = path.read_text().partition("{")
        content = found = json.loads("{" + text)
        for key in keys:
            found = found[key]
        del found[MORE]
        path.write_text(f"{head}{json.dumps(content)}")
