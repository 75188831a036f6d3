"""A host in a real tailnet, provisioned by ringfence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import fresh
from tests.live.labs import NO_DOOR, Lab
from tests.live.pages import example
from tests.live.tailnet.tailnet import NETNS, Tailnet


def declared(lab: Lab) -> dict[str, Any]:
    """SSH and a broker for the tailnet, films for the laptop alone; whoever runs this comes by a way of its own."""
    variables, page = lab.variables(), example("docs/vpn.md", 4)
    host, services = variables["lab_hosts"]["atlas"], variables["lab_services"]
    ssh = page["lab_hosts"]["atlas"]["services"]["ssh"]
    films = {
        **{key: services["jellyfin"][key] for key in ("host", "image", "port", "volumes", "tmpfs")},
        "segments": ["frontend"],
        "publish": [{"port": 8096, "from": ["laptop"]}],
        "egress": [{"to": "vpn", "port": 9100}],
    }
    return {
        "lab_vpn": page["lab_vpn"],
        "lab_places": {"lan": variables["lab_places"]["lan"], "controller": [f"{lab.controller()}/32"]},
        "lab_hosts": {"atlas": {**host, "services": {"ssh": {**ssh, "from": [*ssh["from"], "controller"]}}}},
        "lab_devices": {
            "laptop": {**page["lab_devices"]["anna-phone"], "addresses": ["100.64.0.2", "fd7a:115c:a1e0::2"]}
        },
        "lab_services": {
            "films": films,
            "broker": {**services["mosquitto"], "publish": [{"port": 8883, "from": ["vpn"]}]},
        },
        **NO_DOOR,
    }


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    if not os.environ.get("RINGFENCE_TAILNET"):
        pytest.skip("RINGFENCE_TAILNET does not say where tailscaled and headscale are (lab/tailnet.py)")
    for lab in fresh("t-tailnet", "28.5"):
        lab.stand({**declared(lab), "watch_seconds": 900})
        yield lab


@pytest.fixture(scope="package")
def tailnet(lab: Lab) -> Tailnet:
    """The host joined first, the laptop second: what is declared for the laptop is its address."""
    tailnet = Tailnet(lab, Path(os.environ["RINGFENCE_TAILNET"]))
    tailnet.found()
    tailnet.start("atlas")
    assert tailnet.join("atlas", "--netfilter-mode=off")[0] == "100.64.0.1"
    tailnet.start("outside", NETNS)
    assert tailnet.join("laptop", "--netfilter-mode=off")[0] == "100.64.0.2"
    lab.pyinfra()
    return tailnet
