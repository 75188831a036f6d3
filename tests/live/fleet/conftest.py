"""The example's three hosts, of different releases and engines: a house with a NAS, and a rented host in front."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.live.conftest import fresh
from tests.live.labs import ROOT, Lab

HOSTS = {"nas": "20.10@lan+wan", "edge": "28.5@wan"}
THREE = ROOT / "inventories" / "example" / "group_vars" / "home" / "three.yml"


def declared() -> dict[str, Any]:
    """What the example says of three hosts; films at any hour, as tests are run at any."""
    always = {"from": "00:00", "to": "24:00", "zone": "Europe/Berlin"}
    # From this machine the rented host is called by the house's address outside.
    return {**yaml.safe_load(THREE.read_text(encoding="utf-8")), "lab_hours": {"evening": always}}


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    for lab in fresh("t-fleet", "29", hosts=HOSTS):
        lab.stand(declared())
        lab.pyinfra()
        yield lab
