"""Docker 29's nftables back end is detected and refused with the reason, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab, Run

SWITCH = """
sed -i 's/^{/{"firewall-backend": "nftables", /' /etc/docker/daemon.json
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""
INSTALLED = "dpkg-query -f '${Package}\\n' -W; ls /usr/local/sbin /etc/ringfence 2>&1; true"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    for lab in fresh("t-nftables", "29"):
        lab.ssh(SWITCH)
        yield lab


@pytest.mark.parametrize("engine", ["pyinfra", "ansible"])
def test_the_nftables_back_end_is_refused_before_anything_is_changed(lab: Lab, engine: str) -> None:
    runs: dict[str, Callable[[], Run]] = {
        "pyinfra": lambda: lab.pyinfra(check=False),
        "ansible": lambda: lab.ansible(check=False),
    }
    before = lab.ssh(INSTALLED)
    refused = runs[engine]()
    assert refused.code != 0
    assert "nftables" in refused.text
    assert "firewall-backend" in refused.text
    assert refused.changed == []
    assert lab.ssh(INSTALLED) == before
