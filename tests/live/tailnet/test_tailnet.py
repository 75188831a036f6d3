"""A host in a tailnet: what is declared for it answers there and nowhere else, and tailscaled opens no side door."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from tests.live.labs import Lab, RunError, waited_for
from tests.live.tailnet.tailnet import NETNS, Tailnet

pytestmark = pytest.mark.tailnet
INSIDE = ("100.64.0.1", "fd7a:115c:a1e0::1")
OPEN = 7777  # where somebody listens, and nobody is meant to come in
LIFTED = (("RF-PRE", "saddr"), ("RF-OUT", "daddr"))  # where the policy drops what says that it is of the tailnet
PRINTER = """\
set -e
ip netns add printer
ip link add wire type veth peer name eth0 netns printer
ip address add 10.88.0.1/24 dev wire; ip link set wire up
ip -n printer address add 10.88.0.2/24 dev eth0; ip -n printer link set eth0 up
ip -n printer route add default via 10.88.0.1
ip netns exec printer python3 -m http.server 9100 >/dev/null 2>&1 & sleep 1
"""


@pytest.fixture(scope="module", autouse=True)
def somebody(lab: Lab, tailnet: Tailnet) -> None:
    lab.listen(OPEN)


@pytest.fixture
def diverting(lab: Lab, tailnet: Tailnet) -> Iterator[None]:
    """As tailscaled is without the flag that docs/vpn.md asks for."""
    tailnet.tailscale("atlas", "set --netfilter-mode=on")
    try:
        yield
    finally:
        tailnet.tailscale("atlas", "set --netfilter-mode=off")


@contextlib.contextmanager
def neighbour(lab: Lab, host: str, own: str) -> Iterator[None]:
    """Give a host one more address in the LAN."""
    lab.sh(f"ip address add {own} dev eth0", host)
    try:
        yield
    finally:
        lab.sh(f"ip address del {own} dev eth0", host)


def test_neither_engine_has_anything_to_change(lab: Lab, tailnet: Tailnet) -> None:
    assert lab.plan().changed == []
    lab.must_be_converged()
    assert lab.ansible().changed == []


def test_the_tailnet_talks_directly_by_the_port_that_is_open_for_it(tailnet: Tailnet) -> None:
    assert waited_for(lambda: ":41641" in tailnet.tailscale("laptop", "ping --c=3 100.64.0.1", check=False), 60, 2)


@pytest.mark.parametrize("to", INSIDE)
def test_what_is_declared_for_the_tailnet_answers_there(tailnet: Tailnet, to: str) -> None:
    assert waited_for(lambda: tailnet.reaches(to, 22), 30, 1)
    assert tailnet.reaches(to, 8883)  # for the whole tailnet
    assert tailnet.reaches(to, 8096)  # for this laptop


@pytest.mark.parametrize("to", INSIDE)
def test_nothing_else_answers_there(tailnet: Tailnet, to: str) -> None:
    assert not tailnet.reaches(to, OPEN)


def test_it_answers_by_no_other_way(lab: Lab, tailnet: Tailnet) -> None:
    for own in lab.variables()["lab_hosts"]["atlas"]["addresses"]:
        for port in (22, 8883, 8096):
            assert not tailnet.reaches(own, port, source="::" if ":" in own else "0.0.0.0"), (own, port)


def test_a_neighbour_with_an_address_of_the_tailnet_reaches_nothing(lab: Lab, tailnet: Tailnet) -> None:
    """Somebody in the LAN who says that he is the laptop."""
    with neighbour(lab, "outside", "100.64.0.2/32"):
        for port in (22, 8883, 8096, OPEN):
            assert not tailnet.reaches(lab.address(), port, source="100.64.0.2"), port


def test_a_provider_that_numbers_with_the_same_addresses_is_outside(lab: Lab, tailnet: Tailnet) -> None:
    """Its customers are neighbours, to whom an answer would find back. Policy and UFW each close it alone."""
    lift = [f"nft insert rule inet ringfence {chain} ip {way} 100.99.0.2 accept" for chain, way in LIFTED]
    with neighbour(lab, "atlas", "100.99.0.1/24"), neighbour(lab, "outside", "100.99.0.2/24"):

        def reached() -> list[bool]:
            return [tailnet.reaches("100.99.0.1", port, source="100.99.0.2") for port in (22, OPEN)]

        try:
            assert reached() == [False, False]
            lab.sh("ufw insert 1 allow from 100.99.0.2")
            assert reached() == [False, False]  # by the policy
            lab.sh("; ".join(lift))
            assert reached() == [True, True]
            lab.sh("ufw --force delete 1")
            assert reached() == [False, False]  # by UFW
        finally:
            lab.sh("ufw delete allow from 100.99.0.2", check=False)
            lab.pyinfra()


def test_a_container_asks_in_the_tailnet_what_it_may_as_its_host(lab: Lab, tailnet: Tailnet) -> None:
    serve = "import socket; s = socket.create_server(('', {0})); c, who = s.accept(); print(who[0], flush=True)"
    for port in (9100, 9101):
        code = serve.format(port)
        lab.sh(f'{NETNS} timeout 90 python3 -c "{code}" > /run/asked-{port} 2>&1 &', "outside")
        listens = f"{NETNS} ss -Hltn sport = :{port}"
        assert waited_for(lambda asked=listens: lab.sh(asked, "outside"), 30), port  # type: ignore[misc]
    process = lab.sh("docker inspect -f '{{.State.Pid}}' films-films-1").strip()
    inside = f"nsenter --target {process} --net timeout 5 bash -c"
    for port in (9101, 9100):
        lab.sh(f"{inside} 'exec 3<>/dev/tcp/100.64.0.2/{port}' 2>&1", check=False)
    asked = "cat /run/asked-{0}"
    assert waited_for(lambda: lab.sh(asked.format(9100), "outside") == "100.64.0.1\n", 10)
    assert lab.sh(asked.format(9101), "outside") == ""


def test_all_that_is_declared_passes_and_nothing_else(lab: Lab, tailnet: Tailnet) -> None:
    run = lab.verify()
    assert run.changed == [], run.text


def test_a_side_door_is_refused_and_shut(lab: Lab, tailnet: Tailnet, diverting: None) -> None:
    assert waited_for(lambda: "-A INPUT -j ts-input" in lab.sh("iptables -S INPUT"), 30, 1)
    assert waited_for(lambda: tailnet.reaches(INSIDE[0], OPEN), 30, 1)  # past UFW
    for verb in (lab.plan, lab.pyinfra):
        with pytest.raises(RunError, match=r"leads to ts-input(.|\n)*tailscale set --netfilter-mode=off"):
            verb()
    # What nobody asked for is put back without a person.
    lab.sh("systemctl start ringfence-watch.service")
    assert "ts-input" not in lab.sh("iptables -S INPUT; ip6tables -S INPUT")
    for to in INSIDE:
        assert not tailnet.reaches(to, OPEN)
        assert tailnet.reaches(to, 22)
    assert "-j ts-input" in lab.sh("journalctl --since -5min -t ringfence-watch -t ringfence-ufw -u ringfence-watch")


def test_what_tailscaled_would_forward_is_dropped(lab: Lab, tailnet: Tailnet, diverting: None) -> None:
    """The host offers a network behind it to the tailnet, and tailscaled lets forward what comes for it."""
    lab.sh(PRINTER)
    lift = "nft insert rule inet ringfence RF-VPN ip daddr 10.88.0.2 accept"
    try:
        tailnet.tailscale("atlas", "set --advertise-routes=10.88.0.0/24")
        [node] = [n for n in json.loads(tailnet.control("nodes list --output json")) if n["given_name"] == "atlas"]
        tailnet.control(f"nodes approve-routes --identifier {node['id']} --routes 10.88.0.0/24")
        tailnet.tailscale("laptop", "set --accept-routes")
        assert waited_for(lambda: "tailscale0" in lab.sh(f"{NETNS} ip route get 10.88.0.2", "outside"), 60, 1)
        assert waited_for(lambda: "-A FORWARD -j ts-forward" in lab.sh("iptables -S FORWARD"), 30, 1)
        assert not tailnet.reaches("10.88.0.2", 9100)
        lab.sh(lift)
        assert tailnet.reaches("10.88.0.2", 9100)
    finally:
        lab.sh("ip netns pids printer | xargs -r kill; ip netns del printer; ip link del wire", check=False)
        tailnet.tailscale("laptop", "set --accept-routes=false")
        tailnet.tailscale("atlas", "set --advertise-routes=")


def test_rules_that_iptables_cannot_read_stop_the_run(lab: Lab, tailnet: Tailnet) -> None:
    tailnet.start("atlas", firewall="nftables")
    try:
        tailnet.tailscale("atlas", "set --netfilter-mode=on")
        assert waited_for(lambda: "jump ts-input" in lab.sh("nft list chain ip filter INPUT"), 30, 1)
        with pytest.raises(RunError, match=r"tailscale set --netfilter-mode=off"):
            lab.plan()
    finally:
        tailnet.tailscale("atlas", "set --netfilter-mode=off")
        tailnet.start("atlas")


def test_a_tailscaled_without_an_interface_stops_the_run(lab: Lab, tailnet: Tailnet) -> None:
    tailnet.start("atlas", flags="--tun=userspace-networking")
    try:
        assert waited_for(lambda: tailnet.reaches(INSIDE[0], OPEN), 30, 1)  # past UFW
        with pytest.raises(RunError, match=r"--tun=userspace-networking"):
            lab.plan()
    finally:
        tailnet.start("atlas")


def test_in_the_end_there_is_nothing_to_change(lab: Lab, tailnet: Tailnet) -> None:
    assert "ts-" not in lab.sh("iptables-save -t filter; ip6tables-save -t filter")
    lab.pyinfra()
    lab.must_be_converged()
    assert waited_for(lambda: tailnet.reaches(INSIDE[0], 22), 30, 1)
