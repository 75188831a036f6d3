"""Docker becomes a newer one under a running lab: the ring stays shut, before and after a run takes notice."""

from __future__ import annotations

import json
import subprocess

import pytest

from lab import docker29
from lab.plan import Instance
from tests.live.engines.ring.attack import Attack, declare, must_hold, must_live, start
from tests.live.engines.ring.scenarios import watched
from tests.live.labs import Lab

OLD, NEW = "26.1", "29"
pytestmark = pytest.mark.engines(OLD)


@pytest.fixture(scope="module")
def attack(lab: Lab) -> Attack:
    declare(lab, **watched(lab))
    lab.pyinfra()
    return start(lab)


def _replace_the_engine(lab: Lab) -> None:
    """Put the newer engine in the place of Debian's, as a package of it would; containers run on meanwhile."""
    container = Instance(lab.name, 0, OLD).container("atlas")
    for program in docker29.PROGRAMS:
        path = str(docker29.program(program))
        subprocess.run(["docker", "cp", path, f"{container}:/usr/bin/{program}"], check=True)
    units = [name for name in docker29.UNITS if name != "daemon.json"]
    for name in units:
        text = (docker29.MODULE / name).read_text()
        lab.sh(f"cat > {docker29.UNITS[name]} <<'END'\n{text}\nEND")
    needed = json.loads((docker29.MODULE / "daemon.json").read_text())
    merged = json.loads(lab.sh("cat /etc/docker/daemon.json")) | needed
    lab.sh(
        f"cat > /etc/docker/daemon.json <<'END'\n{json.dumps(merged)}\nEND\n"
        "rm -f /usr/sbin/dockerd /usr/sbin/docker-proxy; systemctl daemon-reload; systemctl restart docker",
        timeout=180,
    )


# The tests of this file follow one host, in order, with the attack going on.


def test_nothing_arrives_while_the_engine_is_replaced(attack: Attack) -> None:
    found = attack.during(_replace_the_engine, open_again=False)
    assert attack.lab.sh("docker version --format '{{.Server.Version}}'").startswith(NEW)
    must_hold(attack, found)
    must_live(attack, found)


def test_nothing_arrives_while_a_run_takes_notice(attack: Attack) -> None:
    must_hold(attack, attack.during(lambda lab: lab.pyinfra(), open_again=False))


def test_with_the_newer_engine_exactly_what_is_declared_passes(attack: Attack) -> None:
    attack.lab.engine = NEW  # it filters IPv6, so that segments have it now
    anew = start(attack.lab)
    must_hold(anew, anew.during(lambda lab: lab.must_be_converged()))
