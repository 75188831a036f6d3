"""What passes through `compose:` reaches real containers byte for byte, and a service may end when it is done."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.labs import Lab
from tests.live.living.test_adopted import answered

pytestmark = pytest.mark.engines("29")

BUSYBOX = "docker.io/library/busybox:1.37"
# No two braces: those are Ansible's, as everywhere in an inventory.
ODD = "$HOME ${X:-y} $$ '\" \\ %}{\nyes: [0x10] # ~ é"
SAYS = {"app.odd": ODD, "app.yes": "yes", "app.number": "0x10"}


def service(**changes: Any) -> dict[str, Any]:
    return {"host": "atlas", "image": BUSYBOX, "segments": ["backend"], "stack": "app", **changes}


SERVICES = {
    "migrate": service(
        command=["sh", "-c", "echo ran >> /data/ran"], volumes=["data:/data"], compose={"restart": "no"}
    ),
    "app": service(
        command=["-c", "test -s /data/ran && echo here > /tmp/up && exec sleep 999999"],
        volumes=["data:/data:ro"],
        depends=["migrate"],
        health=["test", "-s", "/tmp/up"],
        compose={
            "entrypoint": ["/bin/sh"],
            "hostname": "my-app",
            "labels": SAYS,
            "working_dir": "/data",
            "restart": "on-failure:3",
            "shm_size": "32m",
            "oom_score_adj": 321,
            "stop_grace_period": "1s",
            "sysctls": {"net.core.somaxconn": 321, "net.ipv4.ip_unprivileged_port_start": 0},
            "ulimits": {"nofile": {"soft": 1234, "hard": 2345}},
            "logging": {"driver": "local"},
            "healthcheck": {"interval": "7s", "start_interval": "1s", "retries": 9},
            "tty": True,
        },
    ),
}


# The tests of this file follow one host, in order.


def test_what_passes_reaches_the_container(lab: Lab) -> None:
    answered(lab, lab_services=SERVICES)
    lab.pyinfra()
    [found] = json.loads(lab.sh("docker inspect app-app-1"))
    config, host = found["Config"], found["HostConfig"]
    assert {name: config["Labels"][name] for name in SAYS} == SAYS
    assert (config["Hostname"], config["WorkingDir"], config["Entrypoint"]) == ("my-app", "/data", ["/bin/sh"])
    assert config["Tty"] is True
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert (host["ShmSize"], host["OomScoreAdj"], host["LogConfig"]["Type"]) == (32 << 20, 321, "local")
    assert config["Healthcheck"]["Interval"] == 7_000_000_000
    assert config["Healthcheck"]["Retries"] == 9
    said = lab.sh("docker exec app-app-1 sh -c 'hostname; cat /proc/sys/net/core/somaxconn; ulimit -n; ulimit -Hn'")
    assert said.split() == ["my-app", "321", "1234", "2345"]
    assert host["CapDrop"] == ["ALL"]  # and the fence is what it was
    assert "no-new-privileges:true" in host["SecurityOpt"]


def test_one_that_has_ended_is_done_for_both_engines_and_for_verify(lab: Lab) -> None:
    assert "Exited (0)" in lab.sh("docker ps -a --filter name=app-migrate-1 --format '{{.Status}}'")
    assert lab.ansible("--tags", "stack").changed == []
    lab.must_be_converged()
    lab.must_verify()
    assert lab.sh("docker exec app-app-1 cat /data/ran") == "ran\n"  # it was never started again


def test_one_that_failed_is_not_done(lab: Lab) -> None:
    failing = SERVICES["migrate"] | {"command": ["sh", "-c", "echo cannot migrate; exit 3"]}
    answered(lab, lab_services={**SERVICES, "migrate": failing})
    run = lab.pyinfra(check=False)
    assert run.code != 0
    assert "migrate" in run.text
