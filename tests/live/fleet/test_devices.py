"""A person's device in the VPN: what it reaches, by which tunnel, and how it is cut off."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live.fleet.phone import CAFE, LEAVE, PAGE, TICK, Phone, way_in
from tests.live.fleet.tunnel import INTERFACE, address
from tests.live.labs import Lab, waited_for

HEARSAY = (Path(__file__).parent / "hearsay.py").read_text(encoding="utf-8")
ANYBODY, DECLARED = 8777, 8779  # ports at which somebody says whom he sees
IN_TIME = 5  # seconds


@pytest.fixture
def phone(lab: Lab) -> Iterator[Phone]:
    """A phone in a café, behind NAT."""
    lab.sh(CAFE, "outside", timeout=300)
    found = Phone(lab)
    yield found
    found.down()
    lab.sh(LEAVE, "outside", check=False)


@contextmanager
def telling(lab: Lab, host: str, *doors: str) -> Iterator[None]:
    """Have somebody say whom he sees at a host's doors, PORT@ADDRESS."""
    lab.sh("rm -f /run/heard.*; cat > /run/hearsay.py", host, text=HEARSAY)
    lab.sh(f"systemd-run --quiet --collect --unit=hearsay python3 /run/hearsay.py {' '.join(doors)}", host)
    try:
        yield
    finally:
        lab.sh("systemctl stop hearsay", host, check=False)


def uptime(lab: Lab, file: str = "/proc/uptime") -> float:
    """The time by the clock that all hosts share, or when it was written down."""
    return float(lab.sh(f"cat {file}").split()[0])


def heard(lab: Lab, host: str, port: int) -> float:
    """When a connection to that door was read from last, by the clock that all hosts share; 0 for never."""
    return float(lab.sh(f"cat /run/heard.{port}", host, check=False) or 0)


@contextmanager
def pings(lab: Lab, *others: str) -> Iterator[dict[str, str]]:
    """Have the hub ping others ten times a second; what it says of each is in there in the end."""
    said: dict[str, str] = {}
    for host in others:
        ping = f"exec ping -q -i 0.1 {address(lab, host)} > /run/pings.{host}"
        lab.sh(f"systemd-run --quiet --collect --unit=pings-{host} -p KillSignal=SIGINT sh -c '{ping}'")
    try:
        yield said
    finally:
        for host in others:
            lab.sh(f"systemctl stop pings-{host}", check=False)
            said[host] = lab.sh(f"cat /run/pings.{host}")


def must_not_be_lost(said: dict[str, str]) -> None:
    for host, text in said.items():
        found = re.search(r"(\d+) packets transmitted, (\d+) received", text)
        assert found, (host, text)
        sent, back = int(found[1]), int(found[2])
        assert sent > 30, (host, text)  # a run takes some seconds, at ten a second
        assert sent - back <= 1, (host, text)  # the one that is on its way in the end is not lost


def gone(lab: Lab, key: str) -> None:
    """Have the hub write down when it has no peer of that key any more."""
    watch = f"while wg show {INTERFACE} peers | grep -qF {key}; do sleep 0.05; done; cat /proc/uptime > /run/gone"
    lab.sh(f"rm -f /run/gone; systemd-run --quiet --collect --unit=gone bash -c '{watch}'")


def dropped(lab: Lab, source: str, to: str) -> list[str]:
    """By which names the hub has dropped what goes from one address to another."""
    lines = [json.loads(line) for line in lab.sh("cat /var/log/ringfence/drops.json").splitlines() if f'"{to}"' in line]
    return [line["oob.prefix"] for line in lines if line.get("src_ip") == source and line.get("dest_ip") == to]


def inside(text: str) -> list[str]:
    """The addresses of a configuration, IPv4 and IPv6."""
    return [one.partition("/")[0] for one in text.partition("Address = ")[2].partition("\n")[0].split(", ")]


def test_a_phone_reaches_what_it_may_until_it_is_lost(lab: Lab, phone: Phone) -> None:
    way = way_in(lab)
    variables = lab.variables()
    hosts, services = variables["lab_hosts"], variables["lab_services"]
    nas = {**hosts["nas"], "services": {"ssh": {"port": 22, "from": ["lan", "phone"]}}}
    broker = {**services["mosquitto"], "publish": [{"port": 8883, "from": ["phone"]}]}
    films = {**services["jellyfin"], "access": {"groups": ["family"], "factor": "one", "from": ["phone"]}}
    media = f"media.{variables['lab_domain']}"
    atlas, edge, far = (address(lab, host) for host in ("atlas", "edge", "nas"))
    try:
        lab.declare(
            lab_devices={"phone": {"owner": "anna", **yaml.safe_load(way.line)}},
            lab_hosts={**hosts, "nas": nas},
            lab_services={**services, "mosquitto": broker, "jellyfin": films},
        )
        lab.pyinfra()
        phone.up(way.text)
        assert waited_for(lambda: phone.reaches(far, 22), 30)  # through the hub
        assert phone.reaches(atlas, 8883)
        assert phone.reaches(atlas, 22)  # from all of the VPN
        # A site for the phone alone: it is sent to sign in, anybody else is not even asked who he is.
        assert phone.visits(media, atlas) == "302"
        by_lan = f"python3 - {media} {address(lab, 'atlas', 'eth0')}"
        assert lab.sh(by_lan, "outside", text=PAGE).strip() == "403"
        assert not phone.reaches(far, 5432)
        assert not phone.reaches(edge, 8096)
        for service in ("nextcloud-db", "jellyfin", "nextcloud"):
            own = next(s for s in variables["verify_services"] if s["name"] == service)["networks"][0]["address"]
            assert not phone.reaches(own, 5432)
            assert not phone.reaches(own, 80)
        verified = lab.verify()
        assert verified.changed == []
        assert "phone: reaches nothing beyond atlas" in verified.text
        # Lost: its connections end with the run.
        phone.sh(f"bash -c 'exec 3<>/dev/tcp/{far}/22; sleep 300' >/dev/null 2>&1 & sleep 1")
        own = inside(way.text)[0]
        assert own in lab.sh("conntrack -L 2>/dev/null")
        lab.undeclare()
        lab.pyinfra()
        assert own not in lab.sh("conntrack -L 2>/dev/null")
        assert way.key not in lab.sh(f"wg show {INTERFACE} peers")
        assert not phone.reaches(far, 22)
        assert not phone.reaches(atlas, 22)
    finally:
        lab.undeclare()
        lab.pyinfra()


def with_phone(lab: Lab, before: dict[str, Any], **phone: Any) -> None:
    """Declare the phone, if anything is said of it, and a door of the NAS for it; and a router to ask for names."""
    hosts = before["lab_hosts"]
    doors = {**hosts["nas"]["services"], "hearsay": {"port": DECLARED, "from": ["phone"]}}
    lab.declare(
        lab_vpn={**before["lab_vpn"], "dns": [before["lab_vantages"]["lan"]["address"]]},
        lab_hosts={**hosts, "nas": {**hosts["nas"], "services": doors}} if phone else hosts,
        lab_devices={"phone": {"owner": "anna", **phone}} if phone else {},
    )


def test_a_full_tunnel_leads_to_the_internet_by_the_hub_and_nowhere_else(lab: Lab, phone: Phone) -> None:
    before = lab.variables()
    vantages = before["lab_vantages"]
    router, router6 = vantages["lan"]["address"], vantages["lan"]["address6"]
    internet, internet6 = vantages["internet"]["address"], vantages["internet"]["address6"]
    lan, _, wan, wan6 = before["lab_hosts"]["atlas"]["addresses"]
    nas, nas_lan = address(lab, "nas"), address(lab, "nas", "eth0")
    lab.sh("cat > /run/tick.py", "outside", text=TICK)
    outside = [f"{ANYBODY}@{one}" for one in (router, router6, internet, internet6)]
    with_phone(lab, before)
    try:
        way = way_in(lab, "tunnel=full")
        assert "AllowedIPs = 0.0.0.0/0, ::/0\n" in way.text
        assert f"DNS = {router}\n" in way.text
        declared = yaml.safe_load(way.line)
        assert declared == {"key": way.key, "tunnel": "full"}
        with_phone(lab, before, **declared)
        with (
            telling(lab, "outside", *outside, f"dns@{router}"),
            telling(lab, "nas", f"{DECLARED}@0.0.0.0", f"{ANYBODY}@0.0.0.0"),
        ):
            with pings(lab, "nas", "edge") as said:
                lab.pyinfra()
            must_not_be_lost(said)
            phone.up(way.text)
            assert waited_for(lambda: bool(phone.seen_by(internet, ANYBODY)), 30)
            # The internet sees the hub, and so does the router.
            assert phone.seen_by(internet, ANYBODY) == wan
            assert phone.seen_by(internet6, ANYBODY) == wan6
            assert phone.asks(router) == [lan, lan]
            # Nothing else: neither what the router has besides names, nor other machines, nor what is not declared.
            assert lab.sh(f"timeout 4 bash -c 'exec 3<>/dev/tcp/{router}/{ANYBODY}; head -n 1 <&3'").strip() == lan
            for to, port in ((router, ANYBODY), (router6, ANYBODY), (nas_lan, DECLARED), (nas_lan, 22), (nas, ANYBODY)):
                assert phone.seen_by(to, port) == "", (to, port)
            own, _ = inside(way.text)
            assert "RF DROP from other hosts" in dropped(lab, own, router)
            assert phone.seen_by(nas, DECLARED) == own
            verified = lab.verify()
            assert verified.changed == []
            assert "phone: reaches the internet" in verified.text

            _mended(lab)
            assert phone.seen_by(internet, ANYBODY) == wan

            # Lost, while it is being used: over the hub to another host, and out.
            phone.ticks(internet, ANYBODY, 300)
            phone.ticks(nas, DECLARED, 300)
            assert waited_for(lambda: heard(lab, "outside", ANYBODY) > 0 < heard(lab, "nas", DECLARED), 10)
            with_phone(lab, before)
            gone(lab, way.key)
            with pings(lab, "nas", "edge") as said:
                lab.pyinfra()
            must_not_be_lost(said)
            time.sleep(IN_TIME + 2)  # in which somebody may still be heard
            cut = uptime(lab, "/run/gone")
            for host, port in (("outside", ANYBODY), ("nas", DECLARED)):
                last = heard(lab, host, port)
                print(f"last heard at {host}: {last - cut:+.2f} s from when the peer was gone")
                assert cut - 2 < last < cut + IN_TIME, (host, last - cut)

            # Let in again; then with a split tunnel, and the hub does not let it out, whatever it writes into its own
            # AllowedIPs: what is open ends, the rest goes on.
            with_phone(lab, before, **declared)
            lab.pyinfra()
            assert waited_for(lambda: phone.seen_by(internet, ANYBODY) == wan, 60)
            lab.sh(f"systemctl stop tick-{ANYBODY} tick-{DECLARED}", "outside", check=False)
            began = uptime(lab)
            phone.ticks(internet, ANYBODY, 300)
            phone.ticks(nas, DECLARED, 300)
            assert waited_for(lambda: heard(lab, "outside", ANYBODY) > began < heard(lab, "nas", DECLARED), 10)
            with_phone(lab, before, key=way.key)
            assert lab.pyinfra().changed == ["policy | state"]
            ended = uptime(lab)
            time.sleep(IN_TIME + 2)
            assert heard(lab, "outside", ANYBODY) < ended + IN_TIME
            assert heard(lab, "nas", DECLARED) > ended + IN_TIME
            assert phone.asks(router) == [lan, lan]
            assert phone.seen_by(internet, ANYBODY) == phone.seen_by(internet6, ANYBODY) == ""
            assert set(dropped(lab, own, internet)) == {"RF DROP from other hosts"}
            # Nor does it let out who says that he is a device.
            _posing(lab, own)
    finally:
        lab.sh(f"systemctl stop tick-{ANYBODY} tick-{DECLARED}", "outside", check=False)
        phone.down()
        lab.undeclare()
        lab.pyinfra()


def _mended(lab: Lab) -> None:
    """What makes the way out is put back when somebody takes it away."""
    lab.unwatch()
    lab.sh("nft flush chain inet ringfence RF-NAT; sysctl -q -w net.ipv4.ip_forward=0")
    said = lab.sh("ringfence-policy status 2>&1", check=False)
    assert "~ ways out of the vpn: missing in RF-NAT" in said
    assert "~ sysctl net.ipv4.ip_forward 0 → 1" in said
    lab.sh("systemctl start ringfence-watch.service", timeout=120)
    assert "masquerade" in lab.sh("nft list chain inet ringfence RF-NAT")
    assert lab.sh("sysctl -n net.ipv4.ip_forward").strip() == "1"
    lab.sh("systemctl start ringfence-watch.timer")


def _posing(lab: Lab, device: str) -> None:
    """A machine of the LAN that takes a device's address and the hub for its router gets nothing out."""
    marker = "192.0.2.77"  # nobody is there, so that nothing else goes there
    lab.sh(f"ip address add {device}/32 dev eth0; ip route add {marker} via {address(lab, 'atlas', 'eth0')}", "outside")
    try:
        lab.sh(f"ping -c 1 -W 1 -I {device} {marker}", "outside", check=False)
        assert waited_for(lambda: set(dropped(lab, device, marker)) == {"RF DROP forged"}, 5)
    finally:
        lab.sh(f"ip route del {marker}; ip address del {device}/32 dev eth0", "outside", check=False)
