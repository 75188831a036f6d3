"""What holds on a host after the role `policy`, whichever engine applied it."""

from __future__ import annotations

import json

import pytest
from testinfra.host import Host

JUMPS = [("raw", "PREROUTING", "RF-RAW"), ("filter", "FORWARD", "DOCKER-USER"), ("filter", "DOCKER-USER", "RF-FWD")]


@pytest.mark.parametrize("command", ["iptables", "ip6tables"])
@pytest.mark.parametrize(("table", "chain", "target"), JUMPS)
def test_the_fence_comes_first(host: Host, command: str, table: str, chain: str, target: str) -> None:
    rules = host.check_output(f"{command} -t {table} -S {chain}").splitlines()
    assert next(rule for rule in rules if rule.startswith("-A")) == f"-A {chain} -j {target}"


@pytest.mark.parametrize("command", ["iptables", "ip6tables"])
def test_what_leaves_a_segment_is_masqueraded_by_ringfence(host: Host, command: str) -> None:
    assert "-A POSTROUTING -j RF-NAT" in host.check_output(f"{command} -t nat -S POSTROUTING").splitlines()


@pytest.mark.parametrize("command", ["iptables", "ip6tables"])
def test_every_segment_ends_in_a_logged_drop(host: Host, command: str) -> None:
    rules = host.check_output(f"{command} -S").splitlines()
    dispatched = [rule.split()[-1] for rule in rules if rule.startswith("-A RF-FWD -i rf-") and " -g " in rule]
    for chain in dispatched:
        own = [rule for rule in rules if rule.startswith(f"-A {chain} ")]
        assert own[-1].endswith("-j DROP")
        assert "--nflog-group 40" in own[-2]


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


def test_the_persisted_rules_are_private(host: Host) -> None:
    assert host.file("/etc/ringfence/policy").mode == 0o700
    for family in ("v4", "v6"):
        assert host.file(f"/etc/ringfence/policy/rules.{family}").mode == 0o600


def test_drops_are_written_as_json_and_not_for_everybody(host: Host) -> None:
    log = host.file("/var/log/ringfence/drops.json")
    assert log.mode == 0o640
    for line in log.content_string.splitlines()[-5:]:
        assert json.loads(line)["oob.prefix"].startswith("RF DROP ")
