"""What holds on a host after the role `segments`, whichever engine applied it."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

OPTION = "com.docker.network.bridge."


def networks(host: Host) -> list[dict[str, Any]]:
    """Ringfence's networks as Docker tells them; there must be some, or else nothing would be checked."""
    names = host.check_output("docker network ls --quiet --filter label=ringfence.segment").split()
    assert names, "no segment is on this host"
    return list(json.loads(host.check_output(f"docker network inspect {' '.join(names)}")))


def test_nothing_is_open_inside_a_segment(host: Host) -> None:
    for network in networks(host):
        # On the nftables back end the policy alone decides inside an internal network.
        nftables = network["Options"].get(f"{OPTION}trusted_host_interfaces") == "rf-*"
        expected = ("true", "false") if nftables and network["Internal"] else ("false",)
        assert network["Options"][f"{OPTION}enable_icc"] in expected, network["Name"]


def test_callers_keep_their_address(host: Host) -> None:
    for network in networks(host):
        assert network["Options"][f"{OPTION}enable_ip_masquerade"] == "false", network["Name"]


def test_names_of_network_bridge_and_segment_agree(host: Host) -> None:
    for network in networks(host):
        assert network["Name"] == network["Options"][f"{OPTION}name"] == f"rf-{network['Labels']['ringfence.segment']}"
        assert len(network["Name"]) <= 15
        assert host.interface(network["Name"]).exists


def test_no_ipv6_where_the_engine_does_not_filter_it(host: Host) -> None:
    version = int(host.check_output("docker version --format '{{.Server.Version}}'").split(".")[0])
    assert version >= 27 or not any(network["EnableIPv6"] for network in networks(host))
