"""An instance of the lab has further hosts: releases and engines of their own, on the networks that were asked for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from lab.cables import cables, network_of
from lab.networks import get
from lab.plan import Instance
from tests.live.conftest import fresh
from tests.live.labs import BIN, ROOT, Lab, RunError

HOSTS = {"nas": "20.10@lan", "edge": "28.5@wan", "hub": "@lan+wan"}
LATER = "far"
# What each host says of its Debian release and of its Docker.
FOUND = {"atlas": ("13.", "29."), "nas": ("12.", "20.10."), "edge": ("/sid", "28.5."), "hub": ("13.", "")}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    yield from fresh("t-hosts", "29", hosts=HOSTS)


def expected(lab: Lab) -> dict[str, set[str]]:
    """Host → the addresses of all hosts that it reaches: those on its own networks of lan and wan."""
    instance = get(lab.name)
    found: dict[str, set[str]] = {}
    for source in instance.names:
        sides = [side for side in (instance.lan, instance.wan) if source in side.numbers]
        found[source] = {address for side in sides for host in side.numbers for address in side.addresses(host)}
    return found


def answering(lab: Lab, source: str, addresses: set[str], *options: str) -> set[str]:
    """Those of the addresses that answer a host's echo requests."""
    one = f"ping -n -c 2 -i 0.2 -W 2 {' '.join(options)} $a >/dev/null 2>&1 && echo $a"
    return {*lab.sh(f"for a in {' '.join(sorted(addresses))}; do ({one}) & done; wait", source).split()}


def everywhere(instance: Instance) -> set[str]:
    """All addresses of all hosts."""
    return {address for host in instance.names for side in instance.sides_of(host) for address in side.addresses(host)}


def must_reach_exactly_what_is_wired(lab: Lab) -> None:
    wanted, all_of_them = expected(lab), everywhere(get(lab.name))
    supply = get(lab.name).supply
    for source, addresses in wanted.items():
        own = {supply.address(source)} if source in supply.numbers else set()
        assert answering(lab, source, all_of_them) == addresses | own, source
        # Not by way of a router: this machine is on all the networks.
        assert answering(lab, source, addresses, "-t", "1") == addresses, source


def boots(lab: Lab) -> dict[str, str]:
    return {host: lab.sh("cat /proc/sys/kernel/random/boot_id", host) for host in get(lab.name).names}


@pytest.mark.parametrize("host", FOUND)
def test_a_host_has_its_release_and_its_engine(lab: Lab, host: str) -> None:
    release, engine = FOUND[host]
    assert release in lab.sh("cat /etc/debian_version", host)
    assert lab.ssh("hostname", host) == f"{host}\n"
    if engine:
        version = "docker version --format {{.Server.Version}}"
        assert lab.sh(f"systemctl start docker && {version}", host, timeout=300).startswith(engine)
        assert "/var/lib/docker" in lab.sh("findmnt -n -o TARGET /var/lib/docker", host)
    else:
        assert lab.sh("command -v docker dockerd", host, check=False) == ""


def test_hosts_see_each_other_on_the_networks_that_they_share_and_nowhere_else(lab: Lab) -> None:
    must_reach_exactly_what_is_wired(lab)


def test_this_machine_is_no_way_from_one_network_to_the_other(lab: Lab) -> None:
    instance = get(lab.name)
    ways = {
        "edge": (instance.lan.subnets, instance.wan.gateways),
        "nas": (instance.wan.subnets, instance.lan.gateways),
    }
    words = [
        (host, f"route {{}} {subnet} via {gateway}")
        for host, (subnets, gateways) in ways.items()
        for subnet, gateway in zip(subnets, gateways, strict=True)
    ]
    for host, way in words:
        lab.sh(f"ip {way.format('replace')}", host)
    try:
        assert answering(lab, "edge", {*instance.lan.addresses("nas"), *instance.lan.addresses("atlas")}) == set()
        assert answering(lab, "nas", {*instance.wan.addresses("edge"), *instance.wan.addresses("atlas")}) == set()
    finally:
        for host, way in words:
            lab.sh(f"ip {way.format('del')}", host)


def test_both_engines_find_every_host_to_provision(lab: Lab) -> None:
    names = {"atlas", *HOSTS}
    for command in (
        [str(BIN / "ansible"), "-i", "inventory.py", "docker_hosts", "-m", "ansible.builtin.raw", "-a", "hostname"],
        [str(BIN / "pyinfra"), "--yes", "--limit", "docker_hosts", "inventory.py", "exec", "--", "hostname"],
    ):
        done = subprocess.run(
            command, cwd=ROOT, env=lab.environment, capture_output=True, text=True, timeout=300, check=False
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert names <= {*said.replace("[", " ").replace("]", " ").split()}, said
    # A host on the wan alone is managed from a place that its declaration knows.
    assert f"{lab.controller('edge')}/32" in lab.variables()["lab_places"]["home"]


def test_one_host_is_off_and_on_again_while_the_others_stay(lab: Lab) -> None:
    before = boots(lab)
    lab.lab("poweroff", "--host", "nas")
    assert not lab.reaches(22, host="nas")
    assert f"nas {lab.address('nas')} exited  engine 20.10  on lan" in lab.lab("status")
    with pytest.raises(RunError, match="nas is down"):
        lab.sh("true", "nas")
    assert answering(lab, "atlas", {*get(lab.name).lan.addresses("nas")}) == set()
    lab.lab("start", "--host", "nas")
    assert lab.ssh("hostname", "nas") == "nas\n"
    after = boots(lab)
    assert {host for host in after if after[host] != before[host]} == {"nas"}
    lab.lab("reboot", "--host", "edge")
    assert boots(lab)["edge"] != after["edge"]
    must_reach_exactly_what_is_wired(lab)


@pytest.mark.parametrize("verb", ["reboot", "poweroff"])
def test_a_host_that_is_off_has_no_cable(lab: Lab, verb: str) -> None:
    """Its network namespace outlives it: its rules would go first, while what its containers had to say still left."""
    with network_of(get(lab.name).container("edge")) as network:
        assert network
        assert sorted(cables(network)) == ["eth0", "eth1"]
        lab.lab(verb, "--host", "edge")
        assert cables(network) == []
    lab.lab("start", "--host", "edge")
    must_reach_exactly_what_is_wired(lab)


def test_what_differs_from_what_is_there_is_refused_and_what_is_new_is_added(lab: Lab) -> None:
    before = boots(lab)
    for word, message in (("nas=29", "has engine 20.10, not 29"), ("edge@lan", "is on wan, not on lan")):
        with pytest.raises(RunError, match=f"{message}: first `./run lab down {lab.name}`"):
            lab.lab("up", "--host", word)
    lab.lab("up", "--host", f"{LATER}@wan")
    after = boots(lab)
    assert after.pop(LATER)
    assert after == before
    assert lab.ssh("hostname", LATER) == f"{LATER}\n"
    # Two hosts are on the supply now: each gets out by it, and none sees the other there.
    must_reach_exactly_what_is_wired(lab)


def test_a_host_on_the_wan_alone_gets_packages(lab: Lab) -> None:
    lab.sh("cd /var/tmp && apt-get -qq download netbase && ls netbase_*.deb", LATER, timeout=300)


def test_afterwards_nothing_is_left(lab: Lab) -> None:
    lab.lab("down")
    for listing in (["ps", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q"]):
        command = ["docker", *listing, "--filter", f"label=ringfence.lab={lab.name}"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert f"rf-lab-{lab.name}\n" not in tables
    assert not lab.state.exists()
