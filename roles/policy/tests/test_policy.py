"""What holds on a host after the role `policy`, whichever engine applied it and whichever back end Docker has."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

OPEN = [("raw", "PREROUTING", "RF-RAW"), ("filter", "DOCKER-USER", "RF-OPEN"), ("filter", "FORWARD", "RF-BRIDGED")]
OPEN_NFTABLES = [("filter", "FORWARD", "RF-OPEN"), ("filter", "FORWARD", "RF-BRIDGED")]


# The engine itself is asked: an older client leaves out what it does not know.
ASK = (
    "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/docker.sock'); "
    "s.sendall(b'GET /info HTTP/1.0\\r\\n\\r\\n'); print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
)


def nftables(host: Host) -> bool:
    """Whether Docker uses its nftables back end here."""
    info = host.check_output("python3 -c %s", ASK)
    assert "HTTP/1.0 200" in info
    return '"Driver":"nftables' in info


def rules(host: Host, command: str, table: str, chain: str = "") -> list[str]:
    """The rules of a chain, or of a whole table, as iptables prints them."""
    return [r for r in host.check_output(f"{command} -t {table} -S {chain}").splitlines() if r.startswith("-A")]


def nft(host: Host, table: str) -> list[str]:
    """The rules of an own table."""
    return [line.strip() for line in host.check_output(f"nft list table {table}").splitlines()]


@pytest.mark.parametrize(
    ("hook", "priority"), [("prerouting", "raw - 10"), ("forward", "mangle"), ("input", "mangle"), ("output", "mangle")]
)
def test_the_deny_stands_where_neither_docker_nor_ufw_writes(host: Host, hook: str, priority: str) -> None:
    assert f"type filter hook {hook} priority {priority}; policy accept;" in nft(host, "inet ringfence")


def test_frames_are_looked_at_before_packets(host: Host) -> None:
    assert "type filter hook prerouting priority dstnat; policy accept;" in nft(host, "bridge ringfence")


@pytest.mark.parametrize("command", ["iptables", "ip6tables"])
def test_what_opens_is_hooked_in_and_nothing_of_earlier_releases_is_left(host: Host, command: str) -> None:
    for table, chain, target in OPEN_NFTABLES if nftables(host) else OPEN:
        assert f"-A {chain} -j {target}" in rules(host, command, table, chain)
    for table in ("mangle", "nat"):
        assert not any("RF-" in rule for rule in rules(host, command, table))


def test_every_segment_ends_in_a_logged_drop(host: Host) -> None:
    bridges = host.check_output("ip -br link show type bridge | grep -o '^rf-[^ ]*'").split()
    assert bridges
    for bridge in bridges:
        chain = f"RF-{bridge.removeprefix('rf-')}"
        text = host.check_output(f"nft list chain inet ringfence {chain}").splitlines()
        assert [line.strip() for line in text if "comment" in line][-1].startswith(f"goto {chain}/drop ")
        text = host.check_output(f"nft list chain inet ringfence {chain}/drop").splitlines()
        own = [line.strip() for line in text if "comment" in line]
        assert own[-1].startswith("drop ")
        assert "group 40" in own[-2]


def test_what_is_loaded_is_what_was_applied(host: Host) -> None:
    assert host.check_output("ringfence-policy status").startswith("in force: ")


@pytest.mark.parametrize("flag", ["nf_call_iptables", "nf_call_ip6tables"])
def test_frames_on_a_segments_bridge_are_filtered_whatever_the_setting_for_all(host: Host, flag: str) -> None:
    values = host.check_output(f"cat /sys/class/net/rf-*/bridge/{flag}").split()
    assert values
    assert set(values) == {"1"}


@pytest.mark.parametrize("name", ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"])
def test_frames_inside_a_bridge_are_filtered(host: Host, name: str) -> None:
    assert host.file(f"/proc/sys/net/bridge/{name}").content_string.strip() == "1"


@pytest.mark.parametrize("unit", ["ringfence-policy", "ringfence-policy-docker", "ringfence-ulogd"])
def test_units_run_and_come_back(host: Host, unit: str) -> None:
    assert host.service(unit).is_enabled
    assert host.service(unit).is_running


def test_the_policy_is_loaded_before_docker_starts(host: Host) -> None:
    before = host.check_output("systemctl show --property Before ringfence-policy.service")
    assert "docker.service" in before


def test_the_persisted_policy_is_private_and_alone(host: Host) -> None:
    assert host.file("/etc/ringfence/policy").mode == 0o700
    assert host.file("/etc/ringfence/policy").listdir() == ["policy.json"]
    assert host.file("/etc/ringfence/policy/policy.json").mode == 0o600


def test_drops_are_written_as_json_and_not_for_everybody(host: Host) -> None:
    log = host.file("/var/log/ringfence/drops.json")
    assert log.mode == 0o640
    lines = log.content_string.splitlines()[-5:]
    assert lines, "nothing has been dropped yet: run deploys/verify.py first, it tries what is closed"
    for line in lines:
        assert json.loads(line)["oob.prefix"].startswith("RF DROP ")
