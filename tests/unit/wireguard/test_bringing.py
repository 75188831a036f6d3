"""The program of the role `wireguard` on real interfaces: what it makes, what it leaves alone, what it takes away."""

from __future__ import annotations

import copy
import json
import re
import shutil
import stat
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.wireguard.conftest import Lab, Node, asking, echo, peer, reaches, secret, sh, track_connections

Hub = Callable[..., tuple[Node, dict[str, Node]]]


def test_a_bare_host_gets_its_interface_and_the_next_run_changes_nothing(lab: Lab) -> None:
    host = lab.node("atlas")
    host.desired["addresses"] = ["10.99.0.1/24", "fd52::1/64"]
    host.desired["keys"] = {"nas": sh("sh", "-c", "wg genkey | wg pubkey").strip()}
    host.desired["peers"] = [peer("nas", "10.99.0.2/32", "172.20.3.0/24", "fd52:3::/64", keepalive=25)]
    i = host.interface
    assert host.check()["changes"] == [
        f"+ key of {i}, made on this host: generation 1",
        f"+ interface {i}: 10.99.0.1/24, fd52::1/64, port 51820",
        "+ peer nas (10.99.0.2/32, 172.20.3.0/24, fd52:3::/64)",
        f"+ {host.etc / i}.conf",
        f"+ wg-quick@{i}.service enabled",
        "+ ringfence-wireguard.timer enabled",
        "+ ringfence-wireguard.timer started",
        f"+ {host.directory}/etc/ringfence/wireguard/desired.json",
    ]
    assert list(host.etc.iterdir()) == []
    assert host.apply()
    host.settled()
    assert host.wg("private-key") == host.private()
    assert host.wg("public-key") == host.key() == (host.etc / "ringfence" / f"{i}.pub").read_text().strip()
    assert host.wg("listen-port") == "51820"
    assert host.routes() == ["172.20.3.0/24", "fd52:3::/64"]
    assert host.apply() == []
    kept = host.directory / "etc" / "ringfence" / "wireguard" / "desired.json"
    modes = {
        host.etc / f"{i}.conf": 0o600, host.etc / "ringfence": 0o700, host.etc / "ringfence" / f"{i}.1.key": 0o600,
        host.etc / "ringfence" / f"{i}.1.pub": 0o644, kept: 0o600, kept.parent: 0o700,
    }  # fmt: skip
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in modes} == modes
    assert json.loads(kept.read_text())["keys"] == {}


def test_peers_come_change_and_go_while_nothing_of_another_ones_traffic_is_lost(hub: Hub) -> None:
    center, _ = hub("calm", "other", "third")
    third = center.desired["peers"].pop()
    center.apply()
    assert reaches(center, "10.99.0.2")
    private = center.private()
    with asking(center, "10.99.0.2", 0.1) as ten, asking(center, "10.99.0.2", 0.01) as hundred:
        steps: list[tuple[Callable[[], Any], list[str]]] = [
            (lambda: center.desired["peers"].append(third), ["+ peer third (10.99.0.4/32, fd52::4/128)"]),
            (lambda: third["allowed"].append("172.21.0.0/24"), ["+ route 172.21.0.0/24", "~ peer third: + 172.21.0.0"]),
            (lambda: third.update(keepalive=25), ["~ peer third: keepalive 0 becomes 25"]),
            (lambda: center.desired["secrets"].pop("third"), ["~ peer third: no preshared key"]),
            (lambda: center.desired["secrets"].update(third=secret()), ["~ peer third: its preshared key"]),
            (lambda: third.update(endpoint="192.0.2.4:51820"), ["~ peer third: endpoint none becomes 192.0.2.4:51820"]),
            (lambda: center.desired["addresses"].append("10.98.0.1/24"), ["+ address 10.98.0.1/24"]),
            (lambda: center.desired.update(mtu=1400), [f"~ mtu of {center.interface}: 1420 becomes 1400"]),
            (lambda: center.desired["addresses"].pop(), ["- address 10.98.0.1/24"]),
            (lambda: center.desired["peers"].pop(), ["- peer third", "- route 172.21.0.0/24"]),
        ]
        for change, said in steps:
            change()
            found = center.check()["changes"]
            for line in said:
                assert any(one.startswith(line) for one in found), (line, found)
            assert center.apply() == found
            assert center.check()["changes"] == []
            assert center.wg("private-key") == private
    assert ten[0][0] == ten[0][1] > 30
    assert hundred[0][0] == hundred[0][1] > 300


def test_a_name_that_is_not_known_in_a_run_keeps_its_last_key(hub: Hub) -> None:
    center, spokes = hub("nas")
    center.apply()
    known = center.wg("peers")
    keys, center.desired["keys"] = center.desired["keys"], {}
    center.settled()
    assert center.apply() == []
    center.desired["peers"] += [peer("new", "10.99.0.9/32")]
    center.desired["peers"][0]["allowed"].append("172.22.0.0/24")
    report = center.check()
    assert report["notices"] == ["peer new: its key is not known yet; it is left out until a run has reached that host"]
    center.apply()
    assert center.wg("peers") == known
    assert "172.22.0.0/24" in center.routes()
    center.desired["peers"][0]["key"] = 2
    assert "peer nas: its key of generation 2 is not known yet: the last one stays" in center.check()["notices"]
    assert center.check()["changes"][:1] == [
        f"~ {center.directory}/etc/ringfence/wireguard/desired.json: not what is declared"
    ]
    spokes["nas"].desired["key"] = 2
    center.desired["keys"] = {**keys, "nas": spokes["nas"].key()}
    assert "~ peer nas: another key" in center.check()["changes"]
    center.apply()
    assert center.wg("peers") == center.desired["keys"]["nas"] != known
    spokes["nas"].apply()
    assert reaches(center, "10.99.0.2")


def test_a_new_generation_is_made_beside_the_old_key_and_used_by_apply_only(hub: Hub) -> None:
    center, spokes = hub("nas")
    center.apply()
    assert reaches(center, "10.99.0.2")
    old, private = center.wg("public-key"), center.private()
    assert center.key() == old
    center.desired["key"] = 2
    new = center.key()
    assert new != old
    assert center.key() == new
    assert (center.wg("public-key"), center.private()) == (old, private)
    assert f"~ key of {center.interface}, made on this host: generation 1 becomes 2" in center.check()["changes"]
    center.apply()
    center.settled()
    assert center.wg("public-key") == new
    assert center.private() == center.wg("private-key") != private
    assert private not in center.conf()
    assert [path.name for path in center.etc.glob("ringfence/*.1.*")] == []
    spokes["nas"].desired["keys"]["hub"] = new
    assert "~ peer hub: another key" in spokes["nas"].check()["changes"]
    spokes["nas"].apply()
    assert reaches(center, "10.99.0.2")


def test_a_removed_peer_is_out_at_once_with_its_connections(hub: Hub) -> None:
    center, spokes = hub("calm", "leaver")
    track_connections(center)
    center.apply()
    assert reaches(center, "10.99.0.2")
    assert reaches(center, "10.99.0.3")
    echo_here = echo(center, "10.99.0.1")
    assert reaches(spokes["leaver"], "10.99.0.1")
    listed = center.must("conntrack", "-L", "-f", "ipv4")
    assert "10.99.0.2" in listed
    assert "src=10.99.0.3" in listed
    assert "dst=10.99.0.3" in listed
    center.desired["peers"].pop()
    center.desired["secrets"].pop("leaver")
    center.apply()
    listed = center.must("conntrack", "-L", "-f", "ipv4")
    assert "10.99.0.2" in listed
    assert "10.99.0.3" not in listed
    assert not reaches(spokes["leaver"], "10.99.0.1", 2)
    assert reaches(center, "10.99.0.2")
    echo_here.kill()
    echo_here.communicate()


def test_what_somebody_has_changed_is_put_back(hub: Hub) -> None:
    center, spokes = hub("nas")
    center.desired["peers"][0]["allowed"].append("172.23.0.0/24")
    center.apply()
    i, stranger = center.interface, sh("sh", "-c", "wg genkey | wg pubkey").strip()
    nas = center.desired["keys"]["nas"]
    for command, line in {
        f"ip route del 172.23.0.0/24 dev {i}": f"+ route 172.23.0.0/24 over {i}",
        f"ip route add 172.29.0.0/24 dev {i}": f"- route 172.29.0.0/24 over {i}",
        f"ip address del fd52::1/64 dev {i}": f"+ address fd52::1/64 of {i}",
        f"ip address add 10.97.0.1/24 dev {i}": f"- address 10.97.0.1/24 of {i}",
        f"ip link set mtu 1300 dev {i}": f"~ mtu of {i}: 1300 becomes 1420",
        f"ip link set down dev {i}": f"~ {i}: is down",
        f"wg set {i} peer {stranger} allowed-ips 172.28.0.0/24": f"- peer {stranger} (not declared)",
        f"wg set {i} peer {nas} remove": "+ peer nas (10.99.0.2/32, 172.23.0.0/24, fd52::2/128)",
        f"wg set {i} peer {nas} allowed-ips 10.99.0.2/32": "~ peer nas: + 172.23.0.0/24, + fd52::2/128",
        f"wg set {i} listen-port 51999": f"~ port of {i}: 51999 becomes 51820",
        f"wg genkey | wg set {i} private-key /dev/stdin": f"~ {i}: another private key",
        f"echo x >> {center.etc}/{i}.conf": f"~ {center.etc}/{i}.conf: not what is declared",
        f"chmod 644 {center.etc}/{i}.conf": f"~ {center.etc}/{i}.conf: not what is declared",
        f"ip link delete dev {i}": f"+ interface {i}: 10.99.0.1/24, fd52::1/64, port 51820",
    }.items():
        center.must("sh", "-c", command)
        assert line in center.check()["changes"], command
        center.apply()
        center.settled()
    # A peer notices that the host has begun anew when what it sends stays without an answer for 15 seconds.
    answering = echo(center, "10.99.0.1")
    assert reaches(spokes["nas"], "10.99.0.1", 40)
    answering.kill()
    answering.communicate()


def test_a_unit_is_started_only_where_the_interface_is_gone(hub: Hub) -> None:
    center, _ = hub("nas")
    center.apply()
    assert any(line.startswith("systemctl restart wg-quick@") for line in center.commands())
    center.desired["peers"][0]["keepalive"] = 9
    center.desired["key"] = 2
    center.apply()
    assert not any(line.startswith("systemctl restart wg-quick@") for line in center.commands())


def test_without_addresses_everything_goes_and_nothing_is_done_where_nothing_is(hub: Hub) -> None:
    center, spokes = hub("nas")
    center.apply()
    center.desired["addresses"] = []
    i, keys = center.interface, center.etc / "ringfence"
    expected = [
        "- ringfence-wireguard.timer stopped and disabled",
        f"- wg-quick@{i}.service stopped and disabled",
        f"- interface {i}",
        f"- {center.etc}/{i}.conf",
        *(f"- {keys}/{i}{name}" for name in (".key", ".pub", ".1.key", ".1.pub")),
        f"- {center.directory}/etc/ringfence/wireguard/desired.json",
    ]
    assert center.check() == {"changes": expected, "refusals": [], "notices": []}
    assert json.loads(center.run("remove", "--dry").stdout)["changes"] == expected
    assert center.apply() == expected
    center.settled()
    assert [path for path in center.etc.rglob("*") if path.is_file()] == []
    assert list((center.state / "units").iterdir()) == []
    assert i not in center.must("ip", "link", "show")
    assert center.asked("make")["shared"] is None
    assert center.apply() == []
    # The role leaves in the same way.
    spoke = spokes["nas"]
    assert spoke.run("remove").returncode == 0
    assert [path for path in spoke.etc.rglob("*") if path.is_file()] == []
    assert spoke.interface not in spoke.must("ip", "link", "show")
    assert json.loads(spoke.run("remove", "--dry").stdout)["changes"] == []


def test_another_name_takes_the_interface_of_the_old_one_away(hub: Hub) -> None:
    center, _ = hub("nas")
    center.apply()
    old, new = center.interface, f"{center.interface}b"
    center.desired["interface"] = center.interface = new
    assert f"- interface {old}" in center.check()["changes"]
    center.apply()
    center.settled()
    assert f"{old}:" not in center.must("ip", "-o", "link", "show")
    assert center.wg("listen-port") == "51820"


def test_no_secret_is_in_an_argument_or_in_an_output(hub: Hub) -> None:
    center, spokes = hub("one", "two")
    nodes = [center, *spokes.values()]
    for node in nodes:
        (node.state / "snapshot").touch()
    center.apply()
    secrets = {center.private(), *center.desired["secrets"].values(), *(spoke.private() for spoke in spokes.values())}
    center.desired |= {"key": 2, "mtu": 1400}
    center.desired["secrets"]["one"] = secret()
    center.desired["peers"].pop()
    center.key()
    center.apply()
    center.run("status")
    center.run("follow")
    center.desired["addresses"] = ["10.99.0.1/24", "nonsense"]
    center.run("apply")
    secrets |= {center.private(), *center.desired["secrets"].values()}
    assert len(secrets) == 7
    seen = (center.state / "cmdlines").read_text(errors="replace") + "\n".join(center.history)
    assert "addconf" in seen
    said = "\n".join(text for node in nodes for text in node.outputs)
    assert [one for one in secrets if one in seen or one in said] == []
    left = [path for node in nodes for path in (node.directory / "run").rglob("*") if path.is_file()]
    assert [path for path in left if any(one in path.read_text() for one in secrets)] == []


@pytest.mark.parametrize("how", ["fails", "hangs", "lies"])
def test_a_tool_that_does_not_answer_is_an_error_and_never_an_empty_answer(hub: Hub, how: str) -> None:
    center, _ = hub("nas")
    center.apply()
    before = center.wg("dump")
    body = {"fails": "echo broken >&2; exit 3", "hangs": "sleep 99", "lies": "echo nonsense"}[how]
    (center.directory / "bin" / "wg").write_text(f"#!/bin/sh\n{body}\n")
    center.program.write_text(center.program.read_text().replace("ASKED = 15", "ASKED = 0.5"))
    for verb in ("check", "apply"):
        done = center.run(verb)
        assert done.returncode == 1
        assert re.search({"fails": "broken", "hangs": "took longer", "lies": "cannot be read"}[how], done.stderr)
        assert "Traceback" not in done.stderr
    assert center.wg("private-key") == before.split("\t")[0]
    assert center.wg("peers") == center.desired["keys"]["nas"]


def test_status_names_the_peers(hub: Hub) -> None:
    center, _ = hub("nas")
    center.apply()
    assert reaches(center, "10.99.0.2")
    first, line = center.run("status").stdout.splitlines()
    assert first.startswith(f"{center.interface}  10.99.0.1/24, fd52::1/64  port 51820  public key {center.key()}")
    assert re.fullmatch(r"nas +heard \d+ s ago +\d+ \w+ in, \d+ \w+ out, 192\.0\.2\.2:51820", line)


def test_an_endpoint_that_is_a_name_is_followed(hub: Hub) -> None:
    center, spokes = hub("nas")
    center.apply()
    spoke = spokes["nas"]
    names = spoke.directory / "names"
    names.write_text("192.0.2.77 STREAM vpn.example.org\n")
    (spoke.directory / "bin" / "getent").write_text(f"#!/bin/sh\n[ -s {names} ] && cat {names}\n")
    spoke.desired["peers"][0]["endpoint"] = "vpn.example.org:51820"
    assert "~ peer hub: endpoint 192.0.2.1:51820 becomes vpn.example.org:51820" in spoke.check()["changes"]
    spoke.apply()
    spoke.settled()
    assert spoke.wg("endpoints").split()[1] == "192.0.2.77:51820"
    assert "# Endpoint = vpn.example.org:51820" in spoke.conf()
    # Nobody is heard from there; the name moves.
    spoke.program.write_text(spoke.program.read_text().replace("SILENT = 150", "SILENT = 0"))
    names.write_text("")
    first, second = spoke.run("follow"), spoke.run("follow")
    assert "peer hub: vpn.example.org cannot be looked up (nobody knows it)" in first.stderr
    assert (first.returncode, second.returncode, second.stderr) == (0, 0, "")
    names.write_text("192.0.2.1 STREAM vpn.example.org\n192.0.2.1 DGRAM\n")
    assert "peer hub: vpn.example.org:51820 is 192.0.2.1:51820" in spoke.run("follow").stderr
    assert reaches(spoke, "10.99.0.2") or reaches(center, "10.99.0.2")
    spoke.settled()
    # It comes up at boot without anybody to ask for names.
    names.write_text("")
    spoke.must("ip", "link", "delete", "dev", spoke.interface)
    names.write_text("192.0.2.1 STREAM vpn.example.org\n")
    assert "brought up again" in spoke.run("follow").stderr
    assert reaches(center, "10.99.0.2", 40)


def test_an_interface_that_did_not_come_up_at_boot_does_later_and_one_that_was_stopped_stays_down(hub: Hub) -> None:
    center, _ = hub("nas")
    center.apply()
    unit = center.state / "units" / f"wg-quick@{center.interface}.service.active"
    center.must("ip", "link", "delete", "dev", center.interface)
    unit.write_text("failed\n")
    assert "brought up again" in center.run("follow").stderr
    center.settled()
    center.must("ip", "link", "delete", "dev", center.interface)
    unit.write_text("inactive\n")
    assert center.run("follow").stderr == ""
    assert center.interface not in center.must("ip", "link", "show")


def test_a_start_that_fails_once_is_made_again(lab: Lab) -> None:
    host = lab.node("atlas")
    systemctl, failed = host.directory / "systemctl", host.state / "failed"
    once = f"restart:wg-quick@*) [ -e {failed} ] || {{ touch {failed}; exit 1; }};"
    systemctl.write_text(systemctl.read_text().replace("restart:wg-quick@*)", once))
    done = host.run("apply")
    assert done.returncode == 0, done.stderr
    assert "did not start, tried once more" in done.stderr
    host.settled()


def test_a_network_of_this_hosts_own_is_refused(lab: Lab) -> None:
    host = lab.node("atlas")
    host.must("ip", "route", "add", "172.30.0.0/16", "via", "192.0.2.200")
    host.desired["keys"] = {"nas": sh("sh", "-c", "wg genkey | wg pubkey").strip()}
    for allowed in ("192.0.2.0/24", "192.0.2.128/25", "172.30.0.0/16"):
        host.desired["peers"] = [peer("nas", allowed)]
        [refusal] = host.check()["refusals"]
        assert refusal.startswith(f"wireguard_peers.nas.allowed: {allowed} is this host's own, over eth0")
        assert host.run("apply").returncode == 1
    host.desired["peers"] = [peer("nas", "192.0.0.0/16", "172.30.1.0/24")]
    assert host.check()["refusals"] == []


def test_somebody_elses_interface_is_left_alone(lab: Lab) -> None:
    host = lab.node("atlas")
    conf = host.etc / f"{host.interface}.conf"
    conf.write_text("[Interface]\n")
    done = host.run("apply")
    assert done.returncode == 1
    assert f"{conf} is there and not ringfence's" in done.stderr
    conf.unlink()
    host.must("ip", "link", "add", host.interface, "type", "bridge")
    done = host.run("apply")
    assert done.returncode == 1
    assert "set wireguard_interface to another name" in done.stderr
    host.desired["addresses"] = []
    host.settled()


def test_a_peer_that_need_not_be_kept_alive_any_more_is_not(hub: Hub) -> None:
    center, _ = hub("nas")
    center.desired["peers"][0]["keepalive"] = 25
    center.apply()
    center.desired["peers"][0]["keepalive"] = 0
    assert "~ peer nas: keepalive 25 becomes 0" in center.apply()
    assert center.wg("persistent-keepalive").split()[1] == "off"
    center.settled()


def test_the_way_in_is_not_taken_away(hub: Hub) -> None:
    center, _ = hub("laptop", "nas")
    center.apply()
    center.desired["peers"].pop(0)
    login = {"SSH_CONNECTION": "10.99.0.2 50000 10.99.0.1 22"}
    done = center.run("apply", **login)
    assert done.returncode == 1
    assert "this run came by the peer that is to go (10.99.0.2)" in done.stderr
    assert json.loads(center.run("check").stdout)["refusals"] == []
    center.desired["addresses"] = []
    assert json.loads(center.run("check", **login).stdout)["refusals"] != []
    assert center.run("remove", "--dry", **login).returncode == 1


def test_who_came_by_the_tunnels_does_not_change_what_they_outlive_for_a_while(hub: Hub) -> None:
    """A session outlives its preshared key: the run would confirm over it, and be out two minutes later."""
    center, _ = hub("laptop", "nas")
    center.apply()
    center.desired["port"] = 51821
    center.desired["secrets"] = {"laptop": secret(), "nas": secret()}
    login = {"SSH_CONNECTION": "10.99.0.2 50000 10.99.0.1 22"}
    refusals = json.loads(center.run("check", **login).stdout)["refusals"]
    assert [line.partition(":")[0] for line in refusals] == ["wireguard_port", "wireguard_secrets"]
    assert all("came by them (10.99.0.2): connect to this host another way" in line for line in refusals)
    assert center.run("apply", **login).returncode == 1
    # Who comes another way does.
    assert json.loads(center.run("check", SSH_CONNECTION="192.0.2.7 50000 192.0.2.1 22").stdout)["refusals"] == []
    center.apply()


def test_files_that_were_put_back_are_what_runs(hub: Hub) -> None:
    """What the guard does: a change that nobody confirms leaves nothing of itself, endpoints and keys included."""
    center, _ = hub("laptop", "nas")
    office = sh("sh", "-c", "wg genkey | wg pubkey").strip()  # which never calls, and so never moves by itself
    center.desired["peers"].append(peer("office", "10.99.0.9/32", public_key=office, endpoint="192.0.2.77:51820"))
    center.apply()

    def runs() -> dict[str, list[str]]:
        asked = ("private-key", "listen-port", "preshared-keys", "allowed-ips")
        return {what: sorted(center.wg(what).splitlines()) for what in asked}

    before = runs()
    places = [center.etc, center.directory / "etc" / "ringfence"]
    for number, place in enumerate(places):
        shutil.copytree(place, center.directory / f"snapshot{number}", symlinks=True)
    desired = copy.deepcopy(center.desired)
    center.desired |= {"port": 51900, "key": 2, "secrets": {"laptop": secret(), "nas": secret()}, "mtu": 1300}
    center.desired["peers"][-1]["endpoint"] = "192.0.2.78:51900"
    center.desired["peers"].pop(1)
    center.apply()
    assert center.wg("listen-port") == "51900"
    for number, place in enumerate(places):
        shutil.rmtree(place)
        shutil.copytree(center.directory / f"snapshot{number}", place, symlinks=True)
    done = center.run("restored")
    assert done.returncode == 0, done.stderr
    assert runs() == before
    assert f"{office}\t192.0.2.77:51820" in center.wg("endpoints")
    center.desired = desired
    center.settled()


def test_files_of_no_tunnel_that_were_put_back_leave_none(hub: Hub) -> None:
    center, _ = hub("nas")
    center.apply()
    shutil.rmtree(center.directory / "etc" / "ringfence")
    done = center.run("restored")
    assert done.returncode == 0, done.stderr
    assert center.interface not in center.must("ip", "link", "show")
    assert [path for path in center.etc.rglob("*") if path.is_file()] == []


def test_a_copied_key_is_noticed(hub: Hub) -> None:
    center, _ = hub("nas")
    center.apply()
    center.desired["keys"]["nas"] = center.key()
    [refusal] = center.check()["refusals"]
    assert "wireguard_peers.nas: has this host's own key" in refusal


def test_an_own_address_that_changes_takes_others_of_its_network_not_along(lab: Lab) -> None:
    host = lab.node("atlas")
    host.desired["addresses"] = ["10.99.0.1/24", "10.99.0.2/24"]
    host.desired["keys"] = {"nas": sh("sh", "-c", "wg genkey | wg pubkey").strip()}
    host.desired["peers"] = [peer("nas", "10.99.0.9/32", "172.20.0.0/16")]
    host.apply()
    host.desired["addresses"] = ["10.99.0.2/24", "10.99.0.3/24"]
    host.apply()
    host.settled()
    began = time.monotonic()
    host.check()
    assert time.monotonic() - began < 10
