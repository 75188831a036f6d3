"""What happens to a host while its ring is attacked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.live.engines.ring.attack import edit
from tests.live.engines.ring.declared import DATABASE, OTHER, PUBLISHED_UDP, RESTING, SEGMENTS, SERVICES
from tests.live.labs import Lab

AFTER_RULES = "/etc/ufw/after.rules"
# As ufw-docker writes it: ufw empties the chain whenever it reads this.
BLOCK = "*filter\\n:DOCKER-USER - [0:0]\\n-A DOCKER-USER -j RETURN\\nCOMMIT\\n"
NETWORKS = 10
UNUSED = 61009  # a port of nobody
REMADE = ("idler", "vault")


@dataclass(frozen=True)
class Scenario:
    """One thing that happens.

    Attributes:
        act: does it, and returns when it is done.
        open_again: whether all that is declared works afterwards without a run.
        ufw_holds: whether UFW's own rules stand meanwhile; if not, what others send to the host itself is not judged.
        ends: places that are made anew by it: declared connections from and to them end, all others must live on.
        everywhere: whether it is done on every engine, or on `ALL_OF_IT` only.
    """

    name: str
    act: Callable[[Lab], object]
    open_again: bool = True
    ufw_holds: bool = True
    ends: tuple[str, ...] = ()
    everywhere: bool = True


def on_the_host(command: str) -> Callable[[Lab], object]:
    return lambda lab: lab.sh(command, timeout=180)


def _engine_killed(lab: Lab) -> None:
    """Kill the engine; systemd starts another one."""
    lab.sh(
        # Drills before have started it often enough for systemd to give up on it.
        "systemctl reset-failed docker docker.socket 2>/dev/null;"
        " was=$(systemctl show -P MainPID docker); systemctl kill -s KILL docker;"
        " timeout 90 sh -c \"while systemctl show -P MainPID docker | grep -qxE '0|$was' ||"
        ' ! docker version >/dev/null 2>&1; do sleep 0.1; done"',
        timeout=120,
    )


def _network_made_anew(lab: Lab) -> None:
    """Have a run make the network of a segment with a container in it anew, and another run undo that."""
    for internet in (True, False):
        edited: dict[str, Any] = {**SEGMENTS, "green": {**SEGMENTS["green"], "internet": internet}}
        edit(lab, lab_segments=edited)
        was = lab.sh("docker network inspect -f '{{.Id}}' rf-green")
        lab.pyinfra()
        assert lab.sh("docker network inspect -f '{{.Id}}' rf-green") != was, "the run made no network anew"


def _policy_changed(lab: Lab) -> None:
    """Have a run allow one more egress, another one take it back, and a third one find nothing to do."""
    more = [*SERVICES["caller"]["egress"], {"to": "lan", "port": UNUSED}]
    for services in ({**SERVICES, "caller": {**SERVICES["caller"], "egress": more}}, SERVICES):
        edit(lab, lab_services=services)
        assert lab.pyinfra().changed
    assert lab.pyinfra().changed == []


# A container that is made anew by its project, as a person does it.
_ANEW = "docker compose -p {0} -f /opt/ringfence/stacks/{0}/compose.yaml up -d --force-recreate 2>&1"


def _containers_made_anew(lab: Lab) -> None:
    for name in REMADE:
        lab.sh(_ANEW.format(name), timeout=120)


def _package_reinstalled(lab: Lab) -> None:
    """Reinstall the engine's package; where the engine itself is none (29), the package of what runs its containers."""
    lab.sh(
        "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update >/dev/null; dpkg -s docker.io >/dev/null 2>&1 &&"
        " package=docker.io || package=containerd; apt-get -qq -y install --reinstall $package 2>&1 &&"
        " timeout 60 sh -c 'until docker version >/dev/null 2>&1; do sleep 0.1; done'",
        timeout=300,
    )


# Where Docker's proxy answers, it is the host itself that is reached.
_OLD_RULE = f"ufw {{0}} {DATABASE}/tcp && ufw {{0}} {OTHER}/tcp && ufw {{0}} {PUBLISHED_UDP}/udp"
_REST = f"{RESTING['image']} {' '.join(RESTING['command'])}"


def _reboot(lab: Lab) -> None:
    lab.lab("reboot")
    lab.wait_for_ssh()


ALL_OF_IT = ("26.1", "29")
OFTEN = 25  # seconds, as on everybody's host; several hosts at once have little time for it


def watched(lab: Lab) -> dict[str, int]:
    """How often the host's own timer looks after the fence: on some of the hosts it may lend a hand."""
    return {"watch_seconds": OFTEN} if lab.engine in ALL_OF_IT else {}


# In order, on one host: what one leaves behind is mended by a later one.
SCENARIOS = (
    Scenario("systemctl restart docker", on_the_host("systemctl restart docker")),
    Scenario("dockerd killed", _engine_killed),
    Scenario(
        "networks made and removed by hand",
        on_the_host(f"for n in $(seq {NETWORKS}); do docker network create by-hand && docker network rm by-hand; done"),
        everywhere=False,
    ),
    Scenario(
        "a container of others started, published and attached",
        on_the_host(
            f"docker run -d --name theirs {_REST} && docker run -d --name their-web -p 8099:80 {_REST} &&"
            " docker network connect rf-red theirs && docker network connect rf-blue theirs &&"
            " docker network disconnect rf-red theirs && docker rm -f theirs their-web"
        ),
        everywhere=False,
    ),
    Scenario("containers made anew", _containers_made_anew, ends=REMADE, everywhere=False),
    Scenario("the policy changed by runs, and a run that changes nothing", _policy_changed, everywhere=False),
    Scenario("a network made anew by a run", _network_made_anew, ends=("vault",), everywhere=False),
    Scenario("the engine's package reinstalled", _package_reinstalled, everywhere=False),
    Scenario("a rule of UFW that lets everybody in to what is published", on_the_host(_OLD_RULE.format("allow"))),
    Scenario("that rule taken back", on_the_host(_OLD_RULE.format("delete allow"))),
    Scenario("ufw reload", on_the_host("ufw reload"), everywhere=False),
    Scenario("ufw disable and enable", on_the_host("ufw disable; ufw --force enable"), everywhere=False),
    Scenario(
        "ufw reload with a block for DOCKER-USER",
        on_the_host(
            f"cp -p {AFTER_RULES} /root/after.rules && printf '{BLOCK}' >> {AFTER_RULES} && ufw reload;"
            f" code=$?; mv /root/after.rules {AFTER_RULES}; exit $code"
        ),
        open_again=False,
    ),
    Scenario(
        "iptables -F DOCKER-USER",  # where Docker has none, its own tables
        on_the_host(
            "if nft list table ip docker-bridges >/dev/null 2>&1;"
            " then nft 'flush table ip docker-bridges; flush table ip6 docker-bridges';"
            " else iptables -F DOCKER-USER; ip6tables -F DOCKER-USER; fi"
        ),
        open_again=False,
    ),
    Scenario(
        "iptables -F",  # with policies that let in whoever does it
        on_the_host("for t in iptables ip6tables; do $t -P INPUT ACCEPT; $t -P FORWARD ACCEPT; $t -F; done"),
        open_again=False,
        ufw_holds=False,
    ),
    Scenario("a run that mends all this", lambda lab: lab.pyinfra(), ufw_holds=False),
    Scenario("reboot", _reboot, ends=(*SERVICES, "outside")),
)
