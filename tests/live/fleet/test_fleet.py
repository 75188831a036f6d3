"""One policy over several hosts: what is declared passes between them, in the tunnels and nowhere else."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.live.hearing import heard
from tests.live.labs import BIN, ROOT, Lab, waited_for
from tests.live.proxy.client import Session

INTERFACE = "wg-ringfence"


def address(lab: Lab, host: str, at: str = INTERFACE) -> str:
    """A host's IPv4 address at an interface."""
    return lab.sh(f"ip -4 -br address show {at}", host).split()[2].partition("/")[0]


def test_neither_engine_has_anything_to_change(lab: Lab) -> None:
    assert lab.plan().changed == []
    lab.must_be_converged()
    assert lab.ansible().changed == []


def test_exactly_the_declared_traffic_passes_between_hosts(lab: Lab) -> None:
    run = lab.verify()
    assert run.changed == [], run.text
    assert re.search(r"\d+ cells: \d+ open, \d+ closed, .*0 differences", run.text), run.text


def test_a_database_on_another_host_sees_who_calls(lab: Lab) -> None:
    answer = Session(lab).ask("cloud", "/status.php")
    assert (answer.status, answer.by_application) == (200, True), answer
    addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    own = lab.sh(f"docker inspect -f '{addresses}' nextcloud-nextcloud-1").split()
    assert any(one in answer.body for one in own), answer.body


def plain(lab: Lab, ask: Callable[[], object], mark: bytes = b"X-Ringfence-Mark: films") -> dict[str, bool]:
    """Where on the way from the proxy to the films a mark in what is sent can be read."""
    return {at: mark in heard(lab, at, ask) for at in ("rf-frontend", "eth0", "eth1")}


def test_between_hosts_nothing_passes_in_plain_text(lab: Lab) -> None:
    session = Session(lab, "anna")

    def ask() -> None:
        assert session.ask("media", "/", headers={"X-Ringfence-Mark": "films"}).by_application

    # The application speaks no TLS: the listener on the proxy's own bridge can read it.
    assert plain(lab, ask) == {"rf-frontend": True, "eth0": False, "eth1": False}


def test_without_the_tunnel_nothing_takes_another_way(lab: Lab) -> None:
    session = Session(lab, "anna")
    assert session.ask("media").by_application
    try:
        lab.sh(f"systemctl stop ringfence-wireguard.timer wg-quick@{INTERFACE}")

        def ask() -> None:
            answer = session.ask("media", "/", headers={"X-Ringfence-Mark": "films"})
            assert not answer.by_application, answer

        # Not one packet for it leaves, whatever is in it.
        films = next(s for s in lab.variables()["verify_services"] if s["name"] == "jellyfin")["networks"][0]["address"]
        assert plain(lab, ask, socket.inet_aton(films)) == {"rf-frontend": True, "eth0": False, "eth1": False}
    finally:
        lab.pyinfra()
    assert waited_for(
        lambda: session.ask("media").by_application or Session(lab, "anna").ask("media").by_application, 150
    )
    lab.must_be_converged()


def test_what_a_neighbour_sends_in_another_hosts_name_does_not_arrive(lab: Lab) -> None:
    """A machine of the LAN takes the address that a host has in the tunnel, or a container of it."""
    nas, tunnel = address(lab, "nas", "eth0"), address(lab, "atlas")
    lab.sh(f"ip address add {tunnel}/32 dev eth0", "outside")
    try:
        probe = (
            f"import socket; s = socket.socket(); s.settimeout(3); s.bind(('{tunnel}', 0)); s.connect(('{nas}', 22))"
        )
        assert "timed out" in lab.sh(f'python3 -c "{probe}" 2>&1', "outside", check=False)
    finally:
        lab.sh(f"ip address del {tunnel}/32 dev eth0", "outside")
    # The same door is open for who is there by right.
    assert lab.sh(f"timeout 5 bash -c 'exec 3<>/dev/tcp/{address(lab, 'nas')}/22; head -c 4 <&3'") == "SSH-"


def test_a_hosts_key_is_changed_by_a_number_and_its_peers_follow(lab: Lab) -> None:
    before = lab.sh(f"wg show {INTERFACE} public-key", "nas")
    hosts = lab.variables()["lab_hosts"]
    try:
        lab.declare(lab_hosts={**hosts, "nas": {**hosts["nas"], "vpn": {"key": 2}}})
        plan = lab.plan()
        assert plan.changed == ["wireguard | state"]
        assert lab.pyinfra().changed == plan.changed
        after = lab.sh(f"wg show {INTERFACE} public-key", "nas")
        assert after != before
        assert after.strip() in lab.sh(f"wg show {INTERFACE} peers")
        assert before.strip() not in lab.sh(f"wg show {INTERFACE} peers")
        assert waited_for(lambda: Session(lab).ask("cloud", "/status.php").status == 200, 30)
        lab.must_be_converged()
    finally:
        lab.undeclare()
        lab.pyinfra()


def test_a_host_that_is_down_stops_nobody_else(lab: Lab) -> None:
    lab.lab("poweroff", "--host=edge")
    try:
        run = lab.pyinfra(check=False)
        assert "edge" in run.text
        peers = lab.sh(f"wg show {INTERFACE} peers").split()
        assert len(peers) == 2  # its key stays known
        assert Session(lab).ask("cloud", "/status.php").status == 200
    finally:
        lab.lab("start", "--host=edge")
    assert waited_for(lambda: Session(lab, "anna").ask("media").by_application, 90, 1)


# -- a device

CAFE = """\
set -e
apt-get -q -y install --no-install-recommends wireguard-tools wireguard-go nftables 2>&1 >/dev/null
ip netns add phone
ip link add cafe type veth peer name wlan netns phone
ip address add 10.77.0.1/24 dev cafe; ip link set cafe up
ip -n phone address add 10.77.0.2/24 dev wlan; ip -n phone link set wlan up; ip -n phone link set lo up
ip -n phone route add default via 10.77.0.1
sysctl -q -w net.ipv4.ip_forward=1
nft add table ip cafe
nft 'add chain ip cafe nat { type nat hook postrouting priority 100; }'
nft 'add rule ip cafe nat ip saddr 10.77.0.0/24 oifname "eth1" masquerade'
"""
LEAVE = "ip netns pids phone | xargs -r kill; ip netns del phone; nft delete table ip cafe; ip link del cafe"


@pytest.fixture
def phone(lab: Lab) -> Iterator[Callable[[str, int], bool]]:
    """A phone in a café, behind NAT: whether it reaches a port of an address."""
    lab.sh(CAFE, "outside", timeout=300)

    def reaches(to: str, port: int) -> bool:
        asked = f"timeout 4 bash -c 'exec 3<>/dev/tcp/{to}/{port}'"
        return "yes" in lab.sh(f"ip netns exec phone {asked} 2>/dev/null && echo yes", "outside", check=False)

    yield reaches
    lab.sh(LEAVE, "outside", check=False)


def test_a_phone_reaches_what_it_may_until_it_is_lost(lab: Lab, phone: Callable[[str, int], bool]) -> None:
    command = [str(BIN / "pyinfra"), "--yes", "--data", "device=phone", "inventory.py", "deploys/device.py"]
    done = subprocess.run(command, cwd=ROOT, env=lab.environment, capture_output=True, text=True, check=True)
    said = done.stdout
    text = said[said.index("[Interface]") : said.index("PersistentKeepalive")] + "PersistentKeepalive = 5\n"
    key = re.search(r'phone: {key: "(\S+)"}', said)
    assert key, said
    variables = lab.variables()
    hosts, services = variables["lab_hosts"], variables["lab_services"]
    nas = {**hosts["nas"], "services": {"ssh": {"port": 22, "from": ["lan", "phone"]}}}
    broker = {**services["mosquitto"], "publish": [{"port": 8883, "from": ["phone"]}]}
    atlas, edge, far = (address(lab, host) for host in ("atlas", "edge", "nas"))
    try:
        lab.declare(
            lab_devices={"phone": {"owner": "anna", "key": key[1]}},
            lab_hosts={**hosts, "nas": nas},
            lab_services={**services, "mosquitto": broker},
        )
        lab.pyinfra()
        up = "install -m 600 /dev/stdin /run/phone.conf && ip netns exec phone wg-quick up /run/phone.conf 2>&1"
        lab.sh(up, "outside", text=text)
        assert waited_for(lambda: phone(far, 22), 30)  # through the hub
        assert phone(atlas, 8883)
        assert phone(atlas, 22)  # from all of the VPN
        assert not phone(far, 5432)
        assert not phone(edge, 8096)
        for service in ("nextcloud-db", "jellyfin", "nextcloud"):
            own = next(s for s in variables["verify_services"] if s["name"] == service)["networks"][0]["address"]
            assert not phone(own, 5432)
            assert not phone(own, 80)
        assert lab.verify().changed == []
        # Lost: its connections end with the run.
        lab.sh(
            f"ip netns exec phone bash -c 'exec 3<>/dev/tcp/{far}/22; sleep 300' >/dev/null 2>&1 & sleep 1", "outside"
        )
        inside = text.partition("Address = ")[2].partition("/")[0]
        assert inside in lab.sh("conntrack -L 2>/dev/null")
        lab.undeclare()
        lab.pyinfra()
        assert inside not in lab.sh("conntrack -L 2>/dev/null")
        assert key[1] not in lab.sh(f"wg show {INTERFACE} peers")
        assert not phone(far, 22)
        assert not phone(atlas, 22)
    finally:
        lab.sh("ip netns exec phone wg-quick down /run/phone.conf 2>&1; rm -f /run/phone.conf", "outside", check=False)
        lab.undeclare()
        lab.pyinfra()
