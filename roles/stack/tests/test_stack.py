"""What holds on a host after the role `stack`, whichever engine applied it."""

from __future__ import annotations

import json
from typing import Any

ROOT = "/opt/ringfence/stacks"


def containers(host: Any) -> list[dict[str, Any]]:
    """Ringfence's containers as Docker tells them; there must be some, or else nothing would be checked."""
    identities = host.check_output("docker ps --all --quiet --filter label=ringfence.project").split()
    assert identities, "no project is on this host"
    return list(json.loads(host.check_output(f"docker inspect {' '.join(identities)}")))


def files(host: Any, *tests: str) -> list[str]:
    """Files below the projects' directory, at least one."""
    found = host.check_output(f"find {ROOT} -type f {' '.join(tests)}").split()
    assert found, f"no file {' '.join(tests)} in {ROOT}"
    return list(found)


def test_every_container_runs(host: Any) -> None:
    for container in containers(host):
        assert container["State"]["Status"] == "running", container["Name"]
        assert container["State"].get("Health", {}).get("Status") != "unhealthy", container["Name"]


def test_every_container_is_hardened(host: Any) -> None:
    # An engine whose machine has no pids controller drops the limit and says so.
    counts_processes = host.check_output("docker info --format '{{.PidsLimit}}'") == "true"
    for container in containers(host):
        limits = container["HostConfig"]
        assert limits["CapDrop"] == ["ALL"], container["Name"]
        assert "no-new-privileges:true" in limits["SecurityOpt"], container["Name"]
        assert not counts_processes or limits["PidsLimit"] > 0, container["Name"]
        assert limits["RestartPolicy"]["Name"] == "unless-stopped", container["Name"]
        assert not limits["Privileged"], container["Name"]
        assert limits["NetworkMode"] != "host", container["Name"]


def test_every_container_has_its_fixed_addresses(host: Any) -> None:
    for container in containers(host):
        networks = container["NetworkSettings"]["Networks"]
        assert networks, container["Name"]
        for network, leg in networks.items():
            if network == "none":
                continue
            assert network.startswith("rf-"), container["Name"]
            assert leg["IPAddress"] == leg["IPAMConfig"]["IPv4Address"], container["Name"]


def test_secrets_are_readable_by_their_owner_alone(host: Any) -> None:
    for path in files(host, "-path '*/secrets/*'"):
        assert host.file(path).mode & 0o077 == 0, path


def test_compose_files_are_not_public(host: Any) -> None:
    for path in files(host, "-name 'compose*.yaml'"):
        file = host.file(path)
        assert (file.user, file.mode) == ("root", 0o640), path


def test_no_other_user_comes_to_files_of_projects(host: Any) -> None:
    assert host.file(ROOT).mode == 0o700
