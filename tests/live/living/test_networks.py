"""Services in the host's network, in another's and in none: fenced as declared, judged from inside at the receiver."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.verify.cells import PROBE_PORT
from tests.live.labs import Lab, waited_for
from tests.live.living.crowd import IMAGE
from tests.live.living.test_adopted import answered

pytestmark = pytest.mark.engines("29")
WEB = ["httpd", "-f", "-p", "80", "-h", "/bin"]
SLEEP = ["sleep", "1000000"]


def service(**changes: Any) -> dict[str, Any]:
    return {"host": "atlas", "image": IMAGE, "init": True, "command": SLEEP, **changes}


def services(lab: Lab) -> dict[str, Any]:
    outside = f"{lab.address('outside')}/32"
    return {
        "broker": service(segments=["backend"], command=["httpd", "-f", "-p", "1880", "-h", "/bin"], port=1880),
        "secret": service(segments=["backend"], command=WEB, port=80),
        # In the host's network, as root: by its user nothing would tell it from the host.
        "hub": service(
            network="host", command=["httpd", "-f", "-p", "8124", "-h", "/bin"], port=8124, calls=["broker"],
            publish=[{"port": 8124, "from": ["lan"]}], egress=[{"to": outside, "port": 8443}],
        ),
        # The lab's pool and its prefix are in there, and the places: outside is open, what is inside is not.
        "wide": service(
            network="host", egress=[{"to": to, "port": "any"} for to in ("10.0.0.0/8", "172.16.0.0/12", "fd00::/9")],
        ),
        "quiet": service(network="host"),
        "client": service(segments=["backend"], calls=["hub"]),
        "tunnel": service(
            segments=["frontend"], stack="media", publish=[{"port": 8090, "from": ["lan"]}],
            egress=[{"to": outside, "port": "any"}, {"to": outside, "proto": "icmp"}],
        ),
        "torrent": service(
            network="tunnel", stack="media", command=["httpd", "-f", "-p", "8090", "-h", "/bin"], calls=["broker"],
            port=8090, capabilities=["NET_RAW"],  # its ping needs it
        ),
        "alone": service(network="none"),
        # One port on two addresses of the host, each its own service's.
        "lans": service(
            segments=["backend"], command=["httpd", "-f", "-p", "8091", "-h", "/bin"],
            publish=[{"port": 8091, "address": lab.address(), "from": ["lan"]}],
        ),
        "selfs": service(
            segments=["backend"], command=["httpd", "-f", "-p", "80", "-h", "/bin"],
            publish=[{"port": 80, "published": 8091, "address": "self"}],
        ),
    }  # fmt: skip


def reached(lab: Lab, container: str, address: str, port: int) -> bool:
    """Whether a container opens a connection, tried by its own program in its own control group and namespaces."""
    ask = f"docker exec {container} timeout 3 nc -w 2 {address} {port} < /dev/null && echo open"
    return "open" in lab.sh(ask, check=False)


def address_of(lab: Lab, container: str) -> str:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return lab.sh(f"docker inspect -f '{form}' {container}").strip()


def test_they_run_where_they_are_declared_and_exactly_what_is_declared_passes(lab: Lab) -> None:
    answered(lab, lab_services=services(lab))
    lab.pyinfra()
    assert lab.reaches(8124)
    assert lab.reaches(8090), "published by whose network it shares"
    assert lab.reaches(8091)
    bound = lab.sh("docker ps --format '{{.Names}} {{.Ports}}' | grep 8091").split()
    assert any(word.startswith(f"{lab.address()}:8091->8091") for word in bound), bound
    assert any(word.startswith("127.0.0.1:8091->80") for word in bound), bound
    lab.must_verify()
    opened = lab.opened()
    assert {(source, host, port) for source, host, _, port, _ in opened if port == 8091} == {("lan", "atlas", 8091)}
    assert {
        ("hub", "broker", "tcp", 1880, 4),
        ("tunnel", "broker", "tcp", 1880, 4),
        ("hub", "lan", "tcp", 8443, 4),
    } <= opened
    assert ("client", "atlas", "tcp", 8124, 4) in opened
    assert ("tunnel", "lan", "icmp", 0, 4) in opened
    assert not {entry for entry in opened if entry[0] in ("hub", "client") and entry[2] == "icmp"}
    assert not {
        entry for entry in opened if entry[:2] in (("hub", "secret"), ("tunnel", "secret"), ("client", "broker"))
    }
    assert ("wide", "lan", "tcp", PROBE_PORT, 4) in opened
    assert not {entry for entry in opened if entry[0] in ("wide", "quiet") and entry[1] in ("broker", "secret", "hub")}
    lab.must_be_converged()
    assert lab.ansible("--tags", "stack,policy,ufw").changed == []


def test_wide_egress_leads_outside_and_to_nothing_inside(lab: Lab) -> None:
    broker, outside = address_of(lab, "broker-broker-1"), lab.address("outside")
    theirs = lab.sh("docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web-app-1").strip()
    assert reached(lab, "wide-wide-1", outside, 22)
    assert not reached(lab, "quiet-quiet-1", outside, 22)
    # A service of the lab, a container of others, and what the host publishes by its own address.
    for address, port in ((broker, 1880), (theirs, 80), (lab.address(), 8090), (lab.address(), 22)):
        assert not reached(lab, "wide-wide-1", address, port), (address, port)
    assert reached_by_host(lab, broker, 1880)
    assert reached_by_host(lab, theirs, 80)


def test_one_in_the_hosts_network_is_held_although_it_is_root_there(lab: Lab) -> None:
    broker, secret = address_of(lab, "broker-broker-1"), address_of(lab, "secret-secret-1")
    assert lab.sh("docker exec hub-hub-1 id -u") == "0\n"
    assert reached(lab, "hub-hub-1", broker, 1880)
    assert reached(lab, "hub-hub-1", "broker", 1880), "by its name"
    assert reached(lab, "hub-hub-1", "127.0.0.1", 8124)
    assert not reached(lab, "hub-hub-1", secret, 80)
    assert not reached(lab, "hub-hub-1", lab.address("outside"), 22)
    # The host itself reaches both, and so would the container if nothing told it.
    assert reached_by_host(lab, secret, 80)
    assert reached(lab, "client-client-1", "hub", 8124)


def reached_by_host(lab: Lab, address: str, port: int) -> bool:
    ask = f"python3 -c \"import socket; socket.create_connection(('{address}', {port}), 2)\" && echo open"
    return "open" in lab.sh(ask, check=False)


def test_verify_sees_a_fence_that_does_not_hold_it(lab: Lab) -> None:
    lab.unwatch()
    chain = "inet ringfence RF-OUT/hub"
    lab.sh(f"nft insert rule {chain} accept")
    try:
        assert any("hub" in line and "secret" in line for line in lab.verify().changed)
    finally:
        lab.pyinfra()
    lab.must_verify()


def test_verify_sees_that_one_runs_beside_its_slice(lab: Lab) -> None:
    lab.unwatch()
    stray = "/sys/fs/cgroup/system.slice/stray"
    pid = lab.sh("docker inspect -f '{{.State.Pid}}' hub-hub-1").strip()
    own = lab.sh(f"sed -n 's/^0:://p' /proc/{pid}/cgroup").strip()
    lab.sh(f"mkdir {stray} && echo {pid} > {stray}/cgroup.procs")
    try:
        found = lab.verify().changed
    finally:
        lab.sh(f"echo {pid} > /sys/fs/cgroup{own}/cgroup.procs && rmdir {stray}")
        lab.pyinfra()
    assert any("hub: runs in /system.slice/stray, so nothing holds what it sends" in line for line in found), found
    assert any("hub → secret" in line and "got open" in line for line in found), "it is tried from where it runs"
    lab.must_verify()


def test_it_poses_as_nobody_and_verify_tries_that(lab: Lab) -> None:
    lab.unwatch()
    number = "nft -a list chain inet ringfence RF-OUT/hub | sed -n 's/.*fib saddr type != local drop.*# handle //p'"
    lab.sh(f"nft delete rule inet ringfence RF-OUT/hub handle $({number})")
    try:
        assert any("hub → broker tcp/1880 as " in line for line in lab.verify().changed)
    finally:
        lab.pyinfra()


def test_who_shares_a_network_comes_back_with_it(lab: Lab) -> None:
    space = "readlink /proc/$(docker inspect -f '{{.State.Pid}}' media-NAME-1)/ns/net"
    both = [space.replace("NAME", name) for name in ("tunnel", "torrent")]
    lab.sh("docker restart -t 1 media-tunnel-1", timeout=60)
    assert lab.sh(both[0]) != lab.sh(both[1]), "Docker leaves it in the network that is gone"
    assert any("torrent" in line for line in lab.verify().changed)
    done = lab.pyinfra()
    assert done.changed
    assert lab.sh(both[0]) == lab.sh(both[1])
    assert waited_for(lambda: lab.reaches(8090), 30)
    lab.must_be_converged()
    # And with a change of the one whose network it is.
    changed = services(lab)
    changed["tunnel"]["environment"] = {"CHANGED": "yes"}
    answered(lab, lab_services=changed)
    lab.pyinfra()
    assert lab.sh(both[0]) == lab.sh(both[1])
    assert waited_for(lambda: lab.reaches(8090), 30)
    lab.must_be_converged()


def test_one_without_a_network_has_none(lab: Lab) -> None:
    assert lab.sh("docker exec alone-alone-1 ip -o addr show scope global") == ""
    assert not reached(lab, "alone-alone-1", lab.address(), 22)


def test_echoes_pass_where_they_are_declared(lab: Lab) -> None:
    ping = f"docker exec media-torrent-1 ping -c 1 -W 2 {lab.address('outside')}"
    assert "1 packets received" in lab.sh(ping, check=False)
    without = services(lab)
    without["tunnel"]["egress"] = without["tunnel"]["egress"][:1]
    answered(lab, lab_services=without)
    lab.pyinfra()
    assert "0 packets received" in lab.sh(ping, check=False)
    answered(lab, lab_services=services(lab))
    lab.pyinfra()


def test_what_undoes_the_fence_of_one_in_the_hosts_network_is_confirmed_or_refused(lab: Lab) -> None:
    asked = services(lab)
    asked["hub"]["capabilities"] = ["NET_RAW", "NET_ADMIN"]
    answered(lab, lab_services=asked)
    told = lab.pyinfra(check=False)
    answered(lab, lab_services=services(lab))
    assert told.code != 0
    assert "lab_services.hub.capabilities: 'NET_ADMIN' hands the host's network" in told.text, told.text
    assert "'NET_RAW' lets it past the fence" in told.text, told.text


def test_after_a_reboot_the_fence_stands_before_the_container(lab: Lab) -> None:
    lab.lab("reboot")
    lab.wait_for_ssh()
    assert waited_for(lambda: lab.reaches(8124) and lab.reaches(8090), 90)
    secret = address_of(lab, "secret-secret-1")
    assert not reached(lab, "hub-hub-1", secret, 80)
    lab.must_be_converged()
    lab.must_verify()
