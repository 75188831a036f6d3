"""Three hosts of different releases and engines: a house with a NAS, and a rented host; one policy over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.conftest import fresh
from tests.live.labs import Lab

HOSTS = {"nas": "20.10@lan", "edge": "28.5@wan"}
VPN = {"hub": "atlas", "secret": "0123456789abcdef0123456789abcdef"}


def declared(lab: Lab) -> dict[str, Any]:
    """The demo with its cloud's database on the NAS and its films on the rented host."""
    variables = lab.variables()
    hosts, services = dict(variables["lab_hosts"]), dict(variables["lab_services"])
    # The rented host finds the house by its address on the internet.
    hosts["atlas"] = {**hosts["atlas"], "vpn": {"endpoint": hosts["atlas"]["addresses"][2]}}
    services["nextcloud"] = {key: value for key, value in services["nextcloud"].items() if key != "depends"}
    services["nextcloud-db"] = {**services["nextcloud-db"], "host": "nas", "stack": "nextcloud-db"}
    services["jellyfin"] = {**services["jellyfin"], "host": "edge"}
    places = {name: networks for name, networks in variables["lab_places"].items() if name != "vpn"}
    always = {"from": "00:00", "to": "24:00", "zone": "Europe/Berlin"}
    return {
        "lab_vpn": VPN,
        "lab_places": places,
        "lab_hosts": hosts,
        "lab_services": services,
        "lab_hours": {"evening": always},
    }


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    for lab in fresh("t-fleet", "29", hosts=HOSTS):
        lab.stand(declared(lab))
        lab.pyinfra()
        yield lab
