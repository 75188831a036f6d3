"""The hosts of which the fence is taken: a firewall back end each, and the engine that applies to it in these tests.

What the two engines do differently has nothing to do with the back end.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab, without_door

# Docker's version, its firewall back end, and who applies.
HOSTS = {"26.1": ("26.1", "iptables", "pyinfra"), "29-nftables": ("29", "nftables", "ansible")}


@pytest.fixture(scope="package", params=HOSTS)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A host that was provisioned once."""
    engine, backend, _ = HOSTS[request.param]
    behind = without_door() if backend == "nftables" else {}  # what stands in the door leaves and comes back on one
    for lab in fresh(f"t-{backend}", engine, watched=True, docker_firewall_backend=backend, **behind):
        lab.pyinfra()
        assert ("docker-bridges" in lab.sh("nft list tables || true")) == (backend == "nftables")
        yield lab


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """Who applies: "pyinfra" or "ansible"."""
    return HOSTS[request.node.callspec.params["lab"]][2]
