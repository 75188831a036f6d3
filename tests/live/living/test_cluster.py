"""A host that is a swarm's is adopted: what its services publish is asked about, works on, and is named once."""

from __future__ import annotations

import json

import pytest

from tests.live.labs import Lab, waited_for
from tests.live.living.crowd import IMAGE

pytestmark = pytest.mark.engines("28.5")
# A service at a port of its task's host, and one at a port of every host of the swarm: the latter answers only where
# the kernel has IPVS, so what is tried of it is that it is named.
SERVICES = " && ".join(
    f"docker service create --quiet --name {name} --publish {port} {IMAGE} httpd -f -p 80 -h /bin >/dev/null"
    for name, port in {"shop": "mode=host,published=9999,target=80", "mesh": "9998:80"}.items()
)
TASK = "docker ps --no-trunc --filter label=com.docker.swarm.service.name=shop --format '{{.ID}}'"
ANSWERS = {"ufw_unmanaged": "close", "ufw_unmanaged_ports": {"9999/tcp": "keep"}}


@pytest.fixture(scope="module", autouse=True)
def theirs(lab: Lab) -> None:
    lab.sh(f"docker swarm init --advertise-addr {lab.address()} >/dev/null && {SERVICES}", timeout=90)


# The tests of this file follow one host, in order.


def test_what_a_swarm_publishes_is_asked_about(lab: Lab) -> None:
    assert lab.reaches(9999)
    task = lab.sh(TASK)
    told = lab.pyinfra(check=False)
    assert told.code != 0
    assert told.changed == []
    for port in ("9999/tcp", "2377/tcp", "7946/tcp", "7946/udp"):
        assert port in told.text, (port, told.text)
    assert "the restart stops 2 containers; they are started again" in told.text
    assert lab.sh(TASK) == task


def test_it_works_on_with_the_answers_and_is_named_once(lab: Lab) -> None:
    lab.declare(**ANSWERS)
    lab.pyinfra()  # restarts Docker, and with it, as the plan says, what a swarm runs
    assert waited_for(lambda: lab.reaches(9999), 60)
    assert not lab.reaches(2377)
    assert json.loads(lab.sh("docker info --format '{{json .Swarm.LocalNodeState}}'")) == "active"
    verified = lab.verify()
    assert verified.code == 0, verified.text
    for words in ("task of the swarm service shop", "atlas: swarm service mesh; publishes tcp/9998"):
        assert verified.text.count(words) == 1, (words, verified.text)
    assert lab.ansible().changed == []


def test_it_goes_on_so_after_a_reboot(lab: Lab) -> None:
    lab.lab("reboot")
    lab.wait_for_ssh()
    assert waited_for(lambda: lab.reaches(9999), 60)
    lab.must_verify()
    lab.must_be_converged()
