"""What verify says of devices, which take no part in it, and what it reads a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.compile import compile_lab
from ringfence.verify import declared, devices
from ringfence.verify.second_reading import differences

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures/valid/three-hosts.yml"


@pytest.fixture
def lab() -> dict[str, Any]:
    found = dict(yaml.safe_load(FIXTURE.read_text(encoding="utf-8")))
    found["lab_vpn"]["dns"] = ["192.168.10.1", "192.168.10.6"]
    found["lab_devices"]["phone"]["tunnel"] = "full"
    return found


def told(lab: dict[str, Any]) -> dict[str, Any]:
    return {**lab, **compile_lab(lab).hosts["edge"]}


def test_each_device_is_told_with_its_ways_out(lab: dict[str, Any]) -> None:
    lab["lab_devices"]["laptop"] = {"key": "bGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGxsbGw="}
    lines = list(devices.notices(declared.read(told(lab))))
    never = "beyond edge; it takes no part in this run, so nothing was tried as it"
    assert lines == [
        f"laptop: reaches 192.168.10.1 tcp/53, 192.168.10.1 udp/53 {never}",
        f"phone: reaches the internet, 192.168.10.1 tcp/53, 192.168.10.1 udp/53 {never}",
    ]
    lab["lab_vpn"]["dns"] = []
    del lab["lab_devices"]["phone"]["tunnel"]
    assert f"phone: reaches nothing {never}" in devices.notices(declared.read(told(lab)))
    assert list(devices.notices(declared.Declared())) == []


def test_a_way_out_that_the_compiler_loses_or_makes_up_is_named(lab: dict[str, Any]) -> None:
    data = told(lab)
    assert differences(lab, declared.read(data)) == []
    ways = data["verify_vpn"]["egress"]
    assert len(ways) == 3
    for lost in range(len(ways)):
        fewer = [way for number, way in enumerate(ways) if number != lost]
        [line] = differences(lab, declared.read({**data, "verify_vpn": {**data["verify_vpn"], "egress": fewer}}))
        assert line.startswith("phone: way out ")
        assert line.endswith("is declared, but verify was not told of it")
    more = [*ways, {"source": "tv", "to": "internet", "proto": "any", "port": "any"}]
    assert differences(lab, declared.read({**data, "verify_vpn": {**data["verify_vpn"], "egress": more}})) == [
        "tv: way out internet any/any: verify was told of it, but it is not declared"
    ]
