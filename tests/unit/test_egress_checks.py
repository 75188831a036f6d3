"""Egress to networks that are somebody's is taken, however large; the other ones are in tests/fixtures/invalid."""

from __future__ import annotations

import pytest

from tests.unit.test_networks import compiled


@pytest.mark.parametrize(
    "to",
    [
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "192.168.10.7/32", "100.64.0.0/10", "1.0.0.0/8", "8.8.8.8/32",
        "198.51.100.0/24", "fc00::/7", "fd00:10::/64", "fd00:10::/128", "2001:db8::/32", "64:ff9b::/96",
    ],
)  # fmt: skip
def test_a_network_that_is_somebodys_is_taken(to: str) -> None:
    services = {"app": {"segments": ["front"], "egress": [{"to": to, "port": 443}]}}
    found = compiled(services)
    assert to in {entry["to"] for entry in found["policy_egress"]}
