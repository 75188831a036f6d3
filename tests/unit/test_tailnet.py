"""A tailnet in place of own WireGuard: the place `vpn`, by tailscaled's interface and by no other way."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pyinfra.api.exceptions import DeployError

from lab.tailnet import PROGRAMS
from ringfence.compile import compile_lab
from ringfence.compile.compiler import Compiled
from ringfence.operations.device import show
from ringfence.verify.declared import read
from ringfence.verify.second_reading import differences

LAB = Path(__file__).resolve().parents[1] / "fixtures" / "valid" / "tailnet.yml"
NETWORKS = ["100.64.0.0/10", "fd7a:115c:a1e0::/48"]


@pytest.fixture
def lab() -> dict[str, Any]:
    return dict(yaml.safe_load(LAB.read_text(encoding="utf-8")))


@pytest.fixture
def compiled(lab: dict[str, Any]) -> Compiled:
    return compile_lab(lab)


def rules(compiled: Compiled, host: str, port: str) -> list[tuple[str, str]]:
    return [(r["source"], r["interface"]) for r in compiled.hosts[host]["ufw_rules"] if r["port"] == port]


def test_its_short_form_is_its_kind_alone(lab: dict[str, Any], compiled: Compiled) -> None:
    assert compile_lab({**lab, "lab_vpn": {"kind": "tailscale"}}).hosts == compiled.hosts


def test_ufw_takes_its_addresses_from_its_interface_only(compiled: Compiled) -> None:
    assert rules(compiled, "atlas", "22") == [(network, "tailscale0") for network in NETWORKS]
    # A device is in the tailnet by one address, and in the house by another.
    phone = [("100.64.0.7/32", "tailscale0"), ("fd7a:115c:a1e0::7/128", "tailscale0"), ("192.168.10.77/32", "")]
    assert [rule for rule in rules(compiled, "nas", "22") if rule in phone] == phone
    assert rules(compiled, "atlas", "53") == [("192.168.10.0/24", ""), ("fd00:10::/64", "")]


def test_ufw_opens_tailscaleds_port_and_lets_nobody_else_decide_there(compiled: Compiled) -> None:
    for host in ("atlas", "nas"):
        [rule] = [rule for rule in compiled.hosts[host]["ufw_rules"] if rule["name"] == "vpn"]
        assert (rule["proto"], rule["port"], rule["source"], rule["interface"]) == ("udp", "41641", "any", "")
        assert compiled.hosts[host]["ufw_exclusive_interfaces"] == ["tailscale0"]


def test_the_policy_takes_its_addresses_from_its_interface_only(compiled: Compiled) -> None:
    assert compiled.hosts["atlas"]["policy_vpn"] == {
        "interface": "tailscale0",
        "networks": NETWORKS,
        "transit": [],
        "masquerade": True,
    }
    places = {place["name"]: place["networks"] for place in compiled.hosts["atlas"]["policy_places"]}
    assert places["vpn"] == NETWORKS
    assert places["phone"] == ["100.64.0.7/32", "fd7a:115c:a1e0::7/128", "192.168.10.77/32"]


def test_nothing_of_own_wireguard_is_there(compiled: Compiled) -> None:
    made = compiled.hosts["atlas"]
    assert not [name for name in made if name.startswith("wireguard")]
    assert made["segments_trusted"] == []
    assert made["verify_vpn"] == {}
    assert compiled.book.vpn == {}


def test_with_own_prefixes_interface_and_port(lab: dict[str, Any]) -> None:
    own = {"network": "10.64.0.0/16", "network6": "fd00:64::/48", "interface": "tailscale1", "port": 443}
    compiled = compile_lab(
        {**lab, "lab_vpn": {"kind": "tailscale", **own}, "lab_devices": {"phone": {"addresses": ["10.64.0.7"]}}}
    )
    assert rules(compiled, "atlas", "22") == [("10.64.0.0/16", "tailscale1"), ("fd00:64::/48", "tailscale1")]
    assert rules(compiled, "atlas", "443") == [("any", "")]
    assert ("10.64.0.7/32", "tailscale1") in rules(compiled, "nas", "22")
    assert compiled.hosts["atlas"]["policy_vpn"]["networks"] == ["10.64.0.0/16", "fd00:64::/48"]


def test_no_segment_gets_its_addresses(lab: dict[str, Any]) -> None:
    own = {"kind": "tailscale", "network": "172.20.0.0/15"}
    compiled = compile_lab({**lab, "lab_vpn": own, "lab_devices": {"phone": {"addresses": ["192.168.10.77"]}}})
    assert not [n.subnet for n in compiled.plan.networks_on("atlas") if n.subnet.startswith(("172.20.", "172.21."))]


@pytest.mark.parametrize("said", ["tailscale", {"kind": "tailscale", "port": 4000, "network": "10.64.0.0/16"}])
def test_verify_reads_the_same_in_the_declaration_a_second_time(lab: dict[str, Any], said: Any) -> None:
    lab = {**lab, "lab_vpn": said}
    made = compile_lab(lab).hosts["atlas"]
    assert differences({**lab, "verify_sites": made["verify_sites"]}, read({**lab, **made})) == []
    # It would notice.
    for host in made["verify_hosts"]:
        host["services"] = [service for service in host["services"] if service["name"] != "vpn"]
    assert len(differences({**lab, "verify_sites": made["verify_sites"]}, read({**lab, **made}))) == 2


@pytest.mark.parametrize("said", ["tailscale", {"kind": "tailscale", "port": 4000}])
def test_a_device_is_shown_no_configuration_of_wireguard(said: Any) -> None:
    host = SimpleNamespace(name="atlas", data={"lab_vpn": said})
    with pytest.raises(DeployError, match="joins a tailnet by Tailscale's own app"):
        show(host)  # type: ignore[arg-type]


def test_what_is_built_for_the_live_tests_is_what_its_module_pins() -> None:
    pins = (PROGRAMS.folder / "go.mod").read_text(encoding="utf-8")
    for module, version in (("tailscale.com", "1.102.3"), ("github.com/juanfont/headscale", "0.29.2")):
        assert f"{module} v{version}\n" in pins
        assert version in PROGRAMS.title
        assert version in PROGRAMS.name
