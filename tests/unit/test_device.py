"""What a device is shown of its way into the VPN."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.compile import compile_lab
from ringfence.compile.book import Book
from ringfence.compile.wireguard import preshared
from ringfence.device import Pair, configuration, new_pair, with_key
from ringfence.model import LabError
from ringfence.model.vpn import is_key
from ringfence.operations.device import shown

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures/valid/three-hosts.yml"
HUB = "aHViaHViaHViaHViaHViaHViaHViaHViaHViaHViaDE="


@pytest.fixture
def lab() -> dict[str, Any]:
    return dict(yaml.safe_load(FIXTURE.read_text(encoding="utf-8")))


def test_it_has_what_the_app_needs_and_the_hub_expects(lab: dict[str, Any]) -> None:
    pair = new_pair()
    read = configparser.ConfigParser()
    read.read_string(configuration(lab, Book(), "tablet", pair, HUB).text)
    mine, hub = dict(read["Interface"]), dict(read["Peer"])
    assert (mine["privatekey"], hub["publickey"]) == (pair.private, HUB)
    # Once it is declared, the hub knows it by the very address and secret.
    compiled = compile_lab(with_key(lab, "tablet", pair))
    [peer] = [peer for peer in compiled.hosts["edge"]["wireguard_peers"] if peer["name"] == "tablet"]
    assert (mine["address"], peer["public_key"]) == (", ".join(peer["allowed"]), pair.public)
    assert hub["presharedkey"] == compiled.hosts["edge"]["wireguard_secrets"]["tablet"]
    assert hub["presharedkey"] == preshared(lab["lab_vpn"]["secret"], "edge", "tablet")
    assert (hub["endpoint"], hub["persistentkeepalive"]) == ("203.0.113.5:51820", "25")
    assert hub["allowedips"].startswith("10.99.0.0/24, ")
    assert "dns" not in mine


def test_a_key_that_the_device_made_stays_there(lab: dict[str, Any]) -> None:
    lab["lab_vpn"]["dns"] = ["192.168.10.1"]
    text = configuration(lab, Book(), "tablet", Pair(new_pair().public), HUB).text
    assert "PrivateKey = # the one that the device has made\n" in text
    assert "DNS = 192.168.10.1\n" in text


def allowed(text: str) -> list[str]:
    return text.partition("AllowedIPs = ")[2].partition("\n")[0].split(", ")


def test_what_is_asked_for_names_is_in_the_tunnel(lab: dict[str, Any]) -> None:
    before = allowed(configuration(lab, Book(), "tablet", new_pair(), HUB).text)
    # A router; and a host of the lab, which has an address in the VPN.
    lab["lab_vpn"]["dns"] = ["192.168.10.1", "192.168.10.6"]
    made = configuration(lab, Book(), "tablet", new_pair(), HUB)
    assert allowed(made.text) == [*before, "192.168.10.1/32"]
    numbers = compile_lab(with_key(lab, "tablet", new_pair())).book.vpn
    assert f"DNS = 192.168.10.1, 10.99.0.{numbers['nas']}\n" in made.text
    assert made.tunnel == "split"


def test_everything_goes_through_a_full_tunnel(lab: dict[str, Any]) -> None:
    lab["lab_vpn"]["dns"] = ["192.168.10.1"]
    pair = new_pair()
    given = configuration(lab, Book(), "tablet", pair, HUB, "full")
    lab["lab_devices"]["tablet"] = {"addresses": ["192.168.10.71"], "key": new_pair().public, "tunnel": "full"}
    declared = configuration(lab, Book(), "tablet", pair, HUB)
    for made in (given, declared):
        assert allowed(made.text) == ["0.0.0.0/0", "::/0"]
        assert "DNS = 192.168.10.1\n" in made.text
        assert f'  tablet: {{key: "{pair.public}", tunnel: full}}' in shown("tablet", pair, made, known=False)
    assert allowed(configuration(lab, Book(), "tablet", pair, HUB, "split").text) != ["0.0.0.0/0", "::/0"]


def test_a_full_tunnel_without_anybody_to_ask_is_refused(lab: dict[str, Any]) -> None:
    with pytest.raises(LabError, match=r"lab_devices\.tablet\.tunnel: .*declare lab_vpn\.dns"):
        configuration(lab, Book(), "tablet", new_pair(), HUB, "full")


def test_a_lab_without_a_vpn_has_no_way_in(lab: dict[str, Any]) -> None:
    with pytest.raises(LabError, match="lab_vpn"):
        configuration({key: value for key, value in lab.items() if key != "lab_vpn"}, Book(), "x", new_pair(), HUB)


def test_a_pair_is_one() -> None:
    one, other = new_pair(), new_pair()
    assert len({one.public, one.private, other.public, other.private}) == 4
    assert all(is_key(key) for key in (one.public, one.private))


def test_it_is_shown_with_the_line_that_lets_it_in(lab: dict[str, Any]) -> None:
    pair = new_pair()
    made = configuration(lab, Book(), "tablet", pair, HUB)
    said = shown("tablet", pair, made, known=False)
    assert made.text in said
    assert f'  tablet: {{key: "{pair.public}"}}' in said
    assert "\N{FULL BLOCK}" in said or "\N{LOWER HALF BLOCK}" in said
    assert "is cut off then" in shown("tablet", pair, made, known=True)
    without = shown("tablet", Pair(pair.public), made, known=False)
    assert len(without.splitlines()) < len(said.splitlines()) - 10
