"""Names carry nothing out: nobody without egress asks anybody beyond the lab, whatever the host's resolv.conf says; and
the addresses that the policy knows a container by are its own for good."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.labs import NO_DOOR, Lab, waited_for

HERE = Path(__file__).parent / "names"
BUSYBOX = "docker.io/library/busybox:1.37"
LOOPBACK = "127.0.0.53"  # a resolver of the host's own, as systemd has one
ASKED = "/run/asked"
COUNT = 40  # names of each container, each asked for by UDP and TCP


def service(*segments: str, **more: Any) -> dict[str, Any]:
    return {
        "host": "atlas",
        "image": BUSYBOX,
        "segments": [*segments],
        "command": ["sleep", "1d"],
        "init": True,
        **more,
    }


SERVICES = {
    "inner": service("iot"),
    "plain": service("frontend"),
    "routed": {
        **service("backend", publish=[{"port": 8000, "from": ["lan"]}], port=8000),
        "command": ["httpd", "-f", "-p", "8000", "-h", "/tmp"],
    },
    "both": service("frontend", "iot", calls=["routed"]),
    "asker": service("hall", egress=[{"to": "lan", "port": 8123}]),
}
CLOSED = [f"{name}-{name}-1" for name in SERVICES if name != "asker"]
ASKER = "asker-asker-1"


# 26.1 and 28.5 ask for names as 29 does.
pytestmark = pytest.mark.engines("20.10", "29", "29-nftables")
# MAC addresses are the engine's matter, whatever its firewall is; 26.1 makes them as 20.10 does, and 28.5 as 29.
OF_THE_ENGINE = pytest.mark.engines("20.10", "29")


@pytest.fixture(scope="module", autouse=True)
def resolvers(lab: Lab) -> Iterator[None]:
    """Resolvers on the host's own loopback, in its LAN and beyond, which write down what they are asked."""
    own = lab.sh("cat /etc/resolv.conf")
    declare(lab)
    lab.pyinfra()
    for host, addresses in (("atlas", LOOPBACK), ("outside", f"{lab.address('outside')} {internet(lab)}")):
        program = base64.b64encode((HERE / "resolver.py").read_bytes()).decode()
        lab.sh(
            f"echo {program} | base64 -d > /run/resolver.py && systemd-run --quiet --collect --unit=resolver"
            f" python3 /run/resolver.py {ASKED} {addresses} &&"
            f" timeout 20 sh -c 'until grep -q ready {ASKED}; do sleep 0.1; done'",
            host,
        )
    program = base64.b64encode((HERE / "ask.py").read_bytes()).decode()
    lab.sh(f"echo {program} | base64 -d > /run/ask.py")
    yield
    lab.sh("cat > /etc/resolv.conf", text=own)  # other tests go on with this host


def declare(lab: Lab, **services: dict[str, Any]) -> None:
    lab.undeclare()
    segments = {**lab.variables()["lab_segments"], "hall": {}}
    lab.declare(lab_segments=segments, lab_services={**SERVICES, **services}, **NO_DOOR)


def internet(lab: Lab) -> str:
    """The address of `outside` that is neither the host's nor in its LAN."""
    return str(lab.variables()["lab_vantages"]["internet"]["address"])


def resolve_by(lab: Lab, server: str) -> None:
    """Let the host's own resolv.conf name a server; a container reads it when it starts."""
    lab.sh(f"printf 'search secret.example\\nnameserver {server}\\n' > /etc/resolv.conf")


def questions(lab: Lab, tag: str) -> list[list[str]]:
    """What arrived at any of the servers for names with a tag: (protocol, address, who asked, name)."""
    lines = [line.split() for host in ("atlas", "outside") for line in lab.sh(f"cat {ASKED}", host).splitlines()]
    return [line for line in lines if line[0] != "ready" and tag in line[3]]


def ask(lab: Lab, tag: str, *containers: str, count: int = COUNT) -> dict[str, tuple[int, int, float]]:
    """Ask from containers' own namespaces; returns for each: asked, resolved, seconds until the last answer."""
    wanted = {c: [f"{tag}-{c}-{number}.example" for number in range(count)] for c in containers}
    return {
        c: (int(asked), int(resolved), last)
        for c, (asked, resolved, last) in json.loads(
            lab.sh(f"python3 /run/ask.py {shlex.quote(json.dumps(wanted))}", timeout=120)
        ).items()
    }


# The tests of this file follow one host, in order.


def test_without_the_dead_end_questions_arrive_from_the_host_itself(lab: Lab) -> None:
    """The control: the same questions from a container in the same segment that Docker's resolver serves as usual."""
    for server in (LOOPBACK, lab.address("outside"), internet(lab)):
        resolve_by(lab, server)
        lab.sh(f"docker run -d --name control --network rf-frontend {BUSYBOX} sleep 1d")
        tag = f"control-{server.replace('.', '-')}"
        asked, resolved, _ = ask(lab, tag, "control")["control"]
        lab.sh("docker rm -f control")
        arrived = questions(lab, tag)
        if server == LOOPBACK or lab.engine in ("28.5", "29"):  # older ones ask others from the container itself
            assert (resolved, len(arrived)) == (asked, asked), server
            assert {line[1] for line in arrived} == {server}
        else:
            assert arrived == [], server


def test_no_question_of_a_service_without_egress_arrives_anywhere(lab: Lab) -> None:
    for server in (LOOPBACK, lab.address("outside"), internet(lab)):
        resolve_by(lab, server)
        lab.sh(f"docker restart -t 0 {' '.join(CLOSED)}", timeout=120)
        tag = f"closed-{server.replace('.', '-')}"
        for container, (asked, resolved, last) in ask(lab, tag, *CLOSED).items():
            assert (asked, resolved) == (2 * COUNT, 0), (container, server)
            assert last < 1 or lab.engine == "20.10", container  # that one answers nothing
        # Whoever counts is alive, and what came before this question has been written down.
        assert ask(lab, f"{tag}-alive", ASKER, count=1)[ASKER][1] == 2
        assert waited_for(lambda tag=tag: len(questions(lab, f"{tag}-alive")) == 2, 10)
        assert [line for line in questions(lab, tag) if "-alive-" not in line[3]] == []


def test_names_of_the_lab_resolve_at_once_and_others_fail_soon(lab: Lab) -> None:
    def took(container: str, name: str) -> float:
        """Seconds until a program has resolved a name or given up."""
        word = f"time -p timeout 60 docker exec {container} nc -w 1 {name} 9 < /dev/null"
        return float(lab.sh(f"bash -c {shlex.quote(word)} 2>&1 | grep ^real", check=False).split()[1])

    # A call across segments by name, and a neighbour's name.
    assert "routed" in lab.sh("docker exec both-both-1 cat /etc/hosts")
    _, neighbour = addresses(lab, "plain-plain-1")["plain-plain-1", "rf-frontend"]
    assert neighbour in lab.sh("docker exec both-both-1 nslookup plain 2>&1", check=False)
    assert took("plain-plain-1", "nobody.example") < (4 if lab.engine == "20.10" else 1.5)
    for container in (*CLOSED, ASKER):
        assert "secret.example" not in lab.sh(f"docker exec {container} cat /etc/resolv.conf")


def test_a_service_with_egress_resolves_from_its_own_network_under_the_policy(lab: Lab) -> None:
    resolve_by(lab, LOOPBACK)
    lab.sh(f"docker restart -t 0 {ASKER}", timeout=60)
    asked, resolved, _ = ask(lab, "open", ASKER)[ASKER]
    assert (asked, resolved) == (2 * COUNT, 2 * COUNT)
    assert {(line[1], line[2]) for line in questions(lab, "open")} == {(lab.address("outside"), lab.address())}
    # The way is the container's: with the egress taken from the policy alone nothing arrives.
    declare(lab, asker={**SERVICES["asker"], "egress": []})
    lab.pyinfra("../roles/policy/deploy")
    assert ask(lab, "shut", ASKER)[ASKER][1] == 0
    assert questions(lab, "shut") == []
    declare(lab)
    lab.pyinfra()


@pytest.mark.engines("20.10", "29")  # the oldest and the newest: what verify does is the same with all
def test_verify_hears_who_asks(lab: Lab) -> None:
    resolve_by(lab, LOOPBACK)
    lab.must_verify()
    mac, address = addresses(lab, "plain-plain-1")["plain-plain-1", "rf-frontend"]
    lab.sh("docker rm -f plain-plain-1")
    lab.sh(
        "docker run -d --name plain-plain-1 --label com.docker.compose.project=plain --label"
        " com.docker.compose.service=plain --cap-drop ALL --network rf-frontend"
        f" --ip {address} --mac-address {mac} {BUSYBOX} sleep 1d"
    )
    heard = f"plain → names: a question left atlas for {LOOPBACK} by lo; expected: none, it may ask nobody"
    assert heard in lab.verify().changed
    lab.sh("docker rm -f plain-plain-1")
    lab.pyinfra()


def addresses(lab: Lab, *containers: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(container, network) → (MAC address, IPv4 address), as the engine tells."""
    names = " ".join(containers or (*CLOSED, ASKER))
    told = json.loads(lab.sh(f"docker inspect {names}"))
    return {
        (one["Name"].lstrip("/"), network): (leg["MacAddress"], leg["IPAddress"])
        for one in told
        for network, leg in one["NetworkSettings"]["Networks"].items()
    }


def derived(lab: Lab, *containers: str) -> bool:
    found = addresses(lab, *containers).values()
    return all(mac == ":".join(f"{b:02x}" for b in (2, 66, *map(int, ip.split(".")))) for mac, ip in found)


@OF_THE_ENGINE
def test_every_mac_address_follows_from_the_ipv4_address_whatever_restarts(lab: Lab) -> None:
    before = addresses(lab)
    assert len(before) == len(SERVICES) + 1
    assert derived(lab)
    lab.sh(f"docker restart -t 0 {' '.join(CLOSED)}", timeout=120)
    assert addresses(lab) == before
    lab.sh("systemctl restart docker", timeout=180)
    assert waited_for(lambda: addresses(lab) == before, 60)
    lab.must_be_converged()


@OF_THE_ENGINE
def test_a_container_that_goes_along_with_its_network_keeps_its_mac_address(lab: Lab) -> None:
    before = addresses(lab, "both-both-1")
    inner = {
        **SERVICES["inner"],
        "publish": [{"port": 8001, "from": ["lan"]}],
    }  # so that its network is no internal one
    declare(lab, inner=inner)
    lab.pyinfra("../roles/segments/deploy")
    # Docker 28 takes no MAC address when it connects a container; the role stack makes that one anew.
    assert addresses(lab, "both-both-1") == before or lab.engine == "28.5"
    lab.pyinfra()
    assert derived(lab)
    declare(lab)
    lab.pyinfra()
    assert derived(lab)


@OF_THE_ENGINE
def test_a_container_with_another_mac_address_is_made_anew(lab: Lab) -> None:
    network, (_, address) = "rf-iot", addresses(lab, "both-both-1")["both-both-1", "rf-iot"]
    lab.sh(f"docker network disconnect {network} both-both-1")
    lab.sh(f"docker network connect --ip {address} {network} both-both-1")
    if derived(lab, "both-both-1"):
        assert lab.engine == "20.10"
        return
    assert lab.plan().changed == ["stack | state"]
    lab.pyinfra()
    assert derived(lab)
    lab.must_be_converged()
