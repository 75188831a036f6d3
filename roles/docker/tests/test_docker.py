"""What holds on a host after the role `docker`, whichever engine applied it."""

from __future__ import annotations

import json
from typing import Any


def test_the_engine_runs_now_and_after_a_boot(host: Any) -> None:
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_compose_v2_answers(host: Any) -> None:
    assert host.run("docker compose version --short").rc == 0


def test_daemon_json_limits_logs_and_has_room_for_networks(host: Any) -> None:
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert config["log-opts"]["max-size"]
    assert sum(2 ** (p["size"] - int(p["base"].split("/")[1])) for p in config["default-address-pools"]) >= 200
    assert config.get("iptables", True) is True
    # What the policy lets pass is marked on that back end, and Docker has to know the mark.
    nftables = config.get("firewall-backend", "iptables") == "nftables"
    assert config.get("bridge-accept-fwmark", "") == ("0x10000000/0x10000000" if nftables else "")


def test_the_running_daemon_has_read_it(host: Any) -> None:
    info = json.loads(host.check_output("docker info --format '{{json .}}'"))
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert info["LiveRestoreEnabled"] is config.get("live-restore", False)
    pools = [{"Base": p["base"], "Size": p["size"]} for p in config["default-address-pools"]]
    assert info["DefaultAddressPools"] == pools


def test_the_program_is_installed(host: Any) -> None:
    assert host.file("/usr/local/sbin/ringfence-docker").mode == 0o755
