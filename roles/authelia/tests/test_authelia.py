"""What holds on a host after the role `authelia`, whichever engine applied it."""

from __future__ import annotations

import json
from typing import Any

CONTAINER = "authelia-authelia-1"


def runs(host: Any) -> bool:
    """Whether this is the portal's host."""
    return bool(host.file("/opt/ringfence/stacks/authelia").exists)


def test_it_answers(host: Any) -> None:
    if runs(host):
        assert host.run(f"docker exec {CONTAINER} wget -q -O - http://127.0.0.1:9091/api/health").rc == 0


def test_nothing_of_it_is_published_and_it_may_nothing(host: Any) -> None:
    if not runs(host):
        return
    [found] = json.loads(host.check_output(f"docker inspect {CONTAINER}"))
    assert found["HostConfig"]["PortBindings"] in (None, {})
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["Config"]["User"] == "9091:9091"


def test_no_secret_is_in_its_environment(host: Any) -> None:
    if not runs(host):
        return
    [found] = json.loads(host.check_output(f"docker inspect {CONTAINER}"))
    given = [line for line in found["Config"]["Env"] if line.startswith("AUTHELIA_")]
    assert given
    assert all(line.partition("=")[0].endswith("_FILE") for line in given)
