"""Editing the lab, breaking it, and interrupting a run, on one host."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.labs import Lab, waited_for

# Ten lines of YAML at most: a service that is reached from the LAN and calls a database.
NEW_SERVICE: dict[str, Any] = {
    "host": "atlas",
    "image": "docker.io/library/busybox:1.37",
    "segments": ["frontend"],
    "command": ["httpd", "-f", "-p", "8000", "-h", "/data"],
    "init": True,
    "port": 8000,
    "publish": [{"port": 8000, "from": ["lan"]}],
    "volumes": ["data:/data"],
}

METRICS = 9100


@pytest.fixture(scope="module", autouse=True)
def as_declared(lab: Lab) -> None:
    lab.undeclare()
    lab.pyinfra()


def _services(lab: Lab) -> dict[str, Any]:
    lab.undeclare()
    return dict(lab.variables()["lab_services"])


def _apply_edit(lab: Lab) -> list[str]:
    """Run what is declared; the plan must have named exactly the operations that then changed something."""
    planned = lab.plan().changed
    changed = lab.pyinfra().changed
    assert changed == planned
    lab.must_verify()  # asks every role as well whether anything is left to change
    return changed


def test_a_new_service_is_reachable_exactly_as_declared_after_one_run(lab: Lab) -> None:
    lab.declare(lab_services={**_services(lab), "gallery": NEW_SERVICE})
    assert "stack | state" in _apply_edit(lab)
    assert "gallery" in lab.sh("docker ps --format '{{.Names}}'")
    assert "gallery" in lab.sh("nft list table inet ringfence")


def test_a_removed_service_leaves_nothing_but_its_volume(lab: Lab) -> None:
    lab.undeclare()
    assert "stack | state" in _apply_edit(lab)
    assert "gallery" not in lab.sh("docker ps -a --format '{{.Names}}'")
    assert "gallery" not in lab.sh("nft list ruleset")
    assert "gallery" in lab.sh("docker volume ls")


def test_a_moved_segment_takes_its_containers_along(lab: Lab) -> None:
    segments = dict(lab.variables()["lab_segments"])
    lab.declare(lab_segments={**segments, "iot": {**segments["iot"], "subnet": "172.20.99.0/24"}})
    assert {"segments | state", "stack | state"} <= set(_apply_edit(lab))
    lab.undeclare()
    _apply_edit(lab)


def test_a_network_that_is_made_anew_takes_along_what_is_stopped_and_what_restarts_again_and_again(lab: Lab) -> None:
    """Docker neither takes the latter off a network nor connects it; the former is bound to the old network's id."""
    segments, idle = dict(lab.variables()["lab_segments"]), {**NEW_SERVICE, "segments": ["quiet"], "publish": []}

    def declare(*, internet: bool) -> None:
        quiet = {"subnet": "172.20.98.0/24", "internet": internet}
        lab.declare(lab_segments={**segments, "quiet": quiet}, lab_services={**_services(lab), "idle": idle})

    declare(internet=False)
    lab.pyinfra()
    loops = f"--name loops --network rf-quiet --ip 172.20.98.200 --restart always {NEW_SERVICE['image']} sh -c 'exit 1'"
    lab.sh(f"docker stop -t 1 idle-idle-1; docker run -d {loops}")
    try:
        assert waited_for(lambda: int(lab.sh("docker inspect -f '{{.RestartCount}}' loops")) > 4, 60)
        declare(internet=True)
        assert "container loops connected to rf-quiet" in lab.pyinfra().text
        network = lab.sh("docker network inspect -f '{{.Id}}' rf-quiet")
        on = "{{.State.Running}} {{range .NetworkSettings.Networks}}{{.NetworkID}}{{end}}"
        for name in ("loops", "idle-idle-1"):
            assert lab.sh(f"docker inspect -f '{on}' {name}") == f"true {network}"
        lab.must_be_converged()
    finally:
        lab.sh("docker rm -f loops")
    lab.undeclare()
    lab.pyinfra()


def test_a_host_service_for_one_place_is_open_for_that_place(lab: Lab) -> None:
    hosts = dict(lab.variables()["lab_hosts"])
    atlas = dict(hosts["atlas"])
    atlas["services"] = {**atlas["services"], "metrics": {"port": METRICS, "from": ["lan"]}}
    lab.listen(METRICS)
    lab.declare(lab_hosts={**hosts, "atlas": atlas})
    assert _apply_edit(lab) == ["ufw | state"]
    assert str(METRICS) in lab.sh("ufw status")
    lab.undeclare()
    assert _apply_edit(lab) == ["ufw | state"]
    assert str(METRICS) not in lab.sh("ufw status")


# (what is done to the host, what verify has to name), each on top of those before it.
DAMAGES = (
    # A rule of a declared flow is removed by hand.
    (
        "nft delete rule inet ringfence RF-backend handle"
        " $(nft -a list chain inet ringfence RF-backend |"
        " grep 'nextcloud > nextcloud-db' | grep -o '[0-9]*$' | head -1)",
        "flow nextcloud > nextcloud-db",
    ),
    # A container is moved to another segment.
    (
        "docker network disconnect rf-iot $(docker ps -q -f label=com.docker.compose.service=mosquitto) &&"
        " docker network connect rf-frontend $(docker ps -q -f label=com.docker.compose.service=mosquitto)",
        "mosquitto: is attached to rf-frontend",
    ),
    # A port is opened by hand, with somebody listening.
    (
        "ufw allow 9999/tcp && systemd-run --unit=opened python3 -m http.server 9999",
        "lan → atlas tcp/9999",
    ),
)
# The same, of what takes whole layers away.
LAYERS = (
    # The whole policy is unhooked.
    ("nft delete table inet ringfence", "segment backend"),
    # What opens declared flows against Docker's own drops is gone.
    ("iptables -F DOCKER-USER", "jump filter DOCKER-USER > RF-OPEN"),
    # Docker's bridge filter, on which the closing inside a bridge depends, is switched off.
    ("sysctl -w net.bridge.bridge-nf-call-iptables=0", "bridge-nf-call-iptables"),
)


@pytest.mark.parametrize("damages", [DAMAGES, LAYERS], ids=["single things", "whole layers"])
def test_verify_names_all_that_was_broken(lab: Lab, damages: tuple[tuple[str, str], ...]) -> None:
    lab.undeclare()
    lab.unwatch()
    for damage, _ in damages:
        lab.sh(damage)
    broken = lab.verify()
    assert broken.code != 0
    for _, named in damages:
        assert any(named in line for line in broken.changed), (named, broken.changed)


def test_a_run_repairs_what_was_broken(lab: Lab) -> None:
    # What somebody opened in UFW by hand is theirs: a run names it and stops, until it is gone or declared.
    assert "9999" in lab.pyinfra(check=False).text
    lab.sh("systemctl stop opened; ufw --force delete allow 9999/tcp")
    lab.pyinfra()
    lab.must_verify()


# What each role's program changes early: from then on it has begun.
DRILLS: tuple[tuple[str, str, bool], ...] = (
    ("base", "cat /etc/sysctl.d/60-ringfence.conf", False),
    ("ufw", "cat /etc/ufw/user.rules", False),
    ("docker", "cat /etc/docker/daemon.json", True),
    ("policy", "iptables -S; nft list table inet ringfence", True),
    ("segments", "ls /sys/class/net", False),
    ("stack", "cat /opt/ringfence/stacks/gallery/compose*.yaml", True),
)


@pytest.mark.parametrize("number", range(len(DRILLS)), ids=[role for role, _, _ in DRILLS])
def test_a_killed_run_is_repaired_by_the_next(lab: Lab, number: int) -> None:
    role, sign, poweroff = DRILLS[number]
    _declare_something_everywhere(lab, number + 1)
    lab.kill_during(role, sign, poweroff=poweroff)
    lab.pyinfra()
    if poweroff:
        lab.must_verify()
    else:
        assert lab.plan().changed == []


def test_a_port_that_a_power_cut_left_taken_is_freed_by_the_next_run(lab: Lab) -> None:
    """A cut in the middle of a container's start: Docker keeps the port for it, and gives it to nobody any more."""
    lab.sh(
        "docker stop -t 1 gallery-gallery-1; pkill -STOP -x containerd"
    )  # the start goes no further than the network
    lab.sh("docker start gallery-gallery-1 >/dev/null 2>&1 &")
    assert waited_for(lambda: "--dport 8000 " in lab.sh("iptables -t nat -S DOCKER"), 30, 0.1)
    lab.lab("poweroff")
    lab.lab("start")
    lab.wait_for_ssh()
    assert "already allocated" in lab.sh("docker start gallery-gallery-1 2>&1", check=False)
    # The unit that puts the policy in order after Docker's start is slow here: the run has to wait for it.
    lab.sh(
        "mkdir -p /run/systemd/system/ringfence-policy-docker.service.d;"
        " printf '[Service]\\nExecStartPre=/bin/sleep 5\\n'"
        " >/run/systemd/system/ringfence-policy-docker.service.d/slow.conf; systemctl daemon-reload"
    )
    planned = lab.plan()
    assert "port 8000/tcp is still taken for a container that is gone" in planned.text
    assert lab.pyinfra().changed == planned.changed == ["docker | state", "stack | state"]
    lab.sh("rm -r /run/systemd/system/ringfence-policy-docker.service.d; systemctl daemon-reload")
    lab.must_be_converged()


def _declare_something_everywhere(lab: Lab, number: int) -> None:
    """An edit that gives every role something to do, with every number something else."""
    services = _services(lab)
    hosts = dict(lab.variables()["lab_hosts"])
    segments = dict(lab.variables()["lab_segments"])
    atlas = dict(hosts["atlas"])
    atlas["services"] = {**atlas["services"], "metrics": {"port": METRICS + number, "from": ["lan"]}}
    lab.listen(METRICS + number)
    lab.declare(
        lab_hosts={**hosts, "atlas": atlas},
        lab_segments={**segments, "extra": {"subnet": f"172.20.{100 + number}.0/24"}},
        lab_services={**services, "gallery": {**NEW_SERVICE, "segments": ["extra"]}},
        base_sysctls={"net.ipv4.conf.all.log_martians": str(number % 2)},
        docker_daemon={"max-concurrent-downloads": 3 + number},
    )
