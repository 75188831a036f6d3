"""Three hosts of different releases and engines: a house with a NAS, and a rented host; one policy over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.live.conftest import fresh
from tests.live.labs import ROOT, Lab
from tests.live.pages import example
from tests.unit.test_invalid_labs import merge

HOSTS = {"nas": "20.10@lan+wan", "edge": "28.5@wan"}
VPN = {"hub": "atlas", "secret": "0123456789abcdef0123456789abcdef"}
EXAMPLE = ROOT / "inventories" / "example" / "group_vars" / "home" / "three.yml"
# Tests are run at any hour.
ALWAYS = {"lab_hours": {"evening": {"from": "00:00", "to": "24:00", "zone": "Europe/Berlin"}}}


def declared(lab: Lab) -> dict[str, Any]:
    """The demo with its cloud's database on the NAS and its films on the rented host; the house has the hub."""
    variables = lab.variables()
    hosts, services = dict(variables["lab_hosts"]), dict(variables["lab_services"])
    # The rented host finds the house by its address on the internet.
    hosts["atlas"] = {**hosts["atlas"], "vpn": {"endpoint": hosts["atlas"]["addresses"][2]}}
    services["jellyfin"] = {**services["jellyfin"], "host": "edge"}
    # docs/hosts.md: the README's services, with the database on the other host.
    services |= merge(example("README.md")["lab_services"], example("docs/hosts.md")["lab_services"])
    own = {"house_storage": "nas", "vault_wiki_db": "of-ones-own", **ALWAYS}
    return {"lab_vpn": VPN, "lab_hosts": hosts, "lab_services": services, **own}


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    for lab in fresh("t-fleet", "29", hosts=HOSTS):
        lab.stand({"house_storage": "nas"})
        lab.stand(declared(lab))
        lab.pyinfra()
        yield lab


@pytest.fixture(scope="package")
def three(lab: Lab) -> Lab:
    """The same hosts from now on as the example declares them: the rented one has the proxy and the hub."""
    lab.stand({**yaml.safe_load(EXAMPLE.read_text(encoding="utf-8")), **ALWAYS})
    lab.pyinfra()
    return lab
