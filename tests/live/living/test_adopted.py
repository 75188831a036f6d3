"""A crowded host is adopted: it says who would lose what, and loses nothing that its owner does not give up."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.labs import Lab, Run
from tests.live.living.conftest import IDLE
from tests.live.living.crowd import STARTED, STATE, UPDATES, by_an_alias, everything_works

pytestmark = pytest.mark.engines("26.1", "29")
# By which engine a host is adopted, and whether UFW is in force with an open policy before.
BY = {"26.1": "pyinfra", "29": "ansible"}
GIVEN_UP = frozenset({"what somebody started at port 9000"})
# What its owner answers: nginx is declared, one port is given up, all else is kept.
ANSWERS: dict[str, Any] = {
    "ufw_foreign": "keep",
    "ufw_unmanaged": "keep",
    "ufw_unmanaged_ports": {"9000/tcp": "close"},
    "base_theirs": {"/etc/apt/apt.conf.d/20auto-upgrades": "leave"},
}


def run(lab: Lab, *, check: bool = True) -> Run:
    """A whole run by the engine that adopts the host, over its owner's alias behind a jump host."""
    with by_an_alias(lab):
        return lab.pyinfra(check=check) if BY[lab.engine] == "pyinfra" else lab.ansible(check=check)


def answered(lab: Lab, **more: Any) -> None:
    """Declare what the owner answers, and more."""
    lab.undeclare()
    hosts = dict(lab.variables()["lab_hosts"])
    own = {**hosts["atlas"]["services"], "web": {"port": 80, "from": ["lan"]}}
    hosts["atlas"] = {**hosts["atlas"], "services": own}
    lab.declare(**{"lab_hosts": hosts, **ANSWERS, **more})


def test_it_is_told_who_loses_what_before_anything_is_changed(lab: Lab) -> None:
    if lab.engine == "29":  # in force, and yet it denies nobody anything
        lab.sh("ufw default allow incoming >/dev/null && ufw --force enable >/dev/null")
    everything_works(lab)
    before = lab.sh(STATE)
    told = run(lab, check=False)
    assert told.code != 0, told.text
    assert "Traceback" not in told.text
    text = told.text.replace('\\"', '"').replace("\\n", "\n")
    for words in (
        "8123/tcp on every address, httpd", "9000/tcp on every address, python3", "80/tcp on every address, nginx",
        "8080/tcp on every address, the container web-app-1 of the compose project web", "ufw-docker",
        "whoever reaches the host by IPv6, where docker-proxy answers for it", "546/udp on fe80::",
        "112/ip (protocol vrrp) on every address, python3", "in lab_hosts.atlas.services",
        "ufw_unmanaged: keep", "base_theirs", UPDATES.strip(),
    ):  # fmt: skip
        assert words in text, (words, text)
    assert "22/tcp on" not in text, "sshd is declared"
    assert lab.sh(STATE) == before


def test_a_port_that_is_held_is_refused_with_who_holds_it(lab: Lab) -> None:
    before = lab.sh(STATE)
    ports = [{"port": 80, "from": ["lan"]}, {"port": 8080, "from": ["lan"]}, {"port": 5353, "from": ["lan"]}]
    lab.declare(lab_services={"idle": {**IDLE, "publish": ports}}, **ANSWERS)
    told = run(lab, check=False)
    assert told.code != 0, told.text
    assert "80/tcp, which idle publishes, is held by nginx" in told.text, told.text
    assert "8080/tcp, which idle publishes, is held by the container web-app-1" in told.text, told.text
    assert "5353/tcp" not in told.text
    assert lab.sh(STATE) == before


def test_with_the_answers_it_is_adopted_and_loses_what_was_given_up_alone(lab: Lab) -> None:
    answered(lab)
    before = lab.sh(STARTED)
    run(lab)
    everything_works(lab, GIVEN_UP)
    assert lab.sh(STARTED) == before, "a container of theirs was started again"
    daemon = lab.sh("cat /etc/docker/daemon.json")
    assert '"max-size": "5m"' in daemon
    assert '"shutdown-timeout": 20' in daemon
    assert lab.sh("cat /etc/apt/apt.conf.d/20auto-upgrades") == UPDATES


def test_it_verifies_and_names_what_is_outside_the_fence_once(lab: Lab) -> None:
    verified = lab.verify()
    assert verified.code == 0, verified.text
    lines = [line.strip() for line in verified.text.splitlines()]
    for words in (
        "atlas: container web-app-1 (web_default; publishes tcp/8080)", "atlas: container web-db-1 (web_default)",
        "atlas: container edge-proxy-1 (edge_default)", "atlas: container home-assistant-1 (the host's network",
        "atlas: podman's container pods",
    ):  # fmt: skip
        assert sum(words in line for line in lines) == 1, (words, verified.text)
    opened = lab.opened()
    assert ("lan", "atlas", "tcp", 80, 4) in opened
    assert ("lan", "atlas", "tcp", 9000, 4) not in opened


def test_neither_engine_has_anything_to_change(lab: Lab) -> None:
    lab.must_be_converged()
    assert lab.ansible().changed == []


@pytest.mark.parametrize("what", ["ufw reload", "reboot"])
def test_it_goes_on_so(lab: Lab, what: str) -> None:
    if what == "reboot":
        lab.lab("reboot")
        lab.wait_for_ssh()
    else:
        lab.sh("ufw reload")
        # ufw-docker's block empties a chain of Docker's, where the timer puts back what is ringfence's.
        lab.sh("systemctl start ringfence-watch.service", timeout=120)
    everything_works(lab, GIVEN_UP)
    lab.must_verify()
    lab.must_be_converged()


@pytest.mark.engines("26.1")  # what was brought about is kept on the host, whatever its engine
def test_a_fence_that_somebody_flushed_is_put_back_without_a_question(lab: Lab) -> None:
    lab.unwatch()
    lab.sh("ufw --force disable >/dev/null; ufw delete allow 80/tcp >/dev/null; iptables -F INPUT; nft flush ruleset")
    lab.sh("systemctl restart docker", timeout=60)
    run(lab)
    everything_works(lab, GIVEN_UP)
    lab.must_verify()
