"""What lab_vpn compiles to: addresses, peers, and what passes between hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.compile import compile_lab
from ringfence.compile.book import Book, dump, parse
from ringfence.compile.compiler import Compiled
from ringfence.compile.wireguard import INTERFACE, preshared
from ringfence.role import Role
from tests.programs import ROLES

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures/valid/three-hosts.yml"


@pytest.fixture
def lab() -> dict[str, Any]:
    return dict(yaml.safe_load(FIXTURE.read_text(encoding="utf-8")))


@pytest.fixture
def compiled(lab: dict[str, Any]) -> Compiled:
    return compile_lab(lab)


def peers(compiled: Compiled, host: str) -> dict[str, dict[str, Any]]:
    return {peer["name"]: peer for peer in compiled.hosts[host]["wireguard_peers"]}


def test_everybody_calls_the_hub_and_the_hub_knows_everybody(compiled: Compiled) -> None:
    assert set(peers(compiled, "edge")) == {"atlas", "nas", "phone"}
    assert set(peers(compiled, "atlas")) == set(peers(compiled, "nas")) == {"edge"}
    assert peers(compiled, "atlas")["edge"]["endpoint"] == "203.0.113.5:51820"
    assert {peer["endpoint"] for peer in peers(compiled, "edge").values()} == {""}  # they call it
    assert peers(compiled, "atlas")["edge"]["keepalive"] == 25
    assert peers(compiled, "edge")["nas"]["key"] == 2


def test_a_peer_may_send_from_its_own_addresses_only(compiled: Compiled) -> None:
    allowed = [network for peer in peers(compiled, "edge").values() for network in peer["allowed"]]
    assert len(allowed) == len(set(allowed))
    inside = compiled.book.vpn
    assert peers(compiled, "edge")["phone"]["allowed"][0] == f"10.99.0.{inside['phone']}/32"
    app = compiled.plan.legs["app"][0].network
    assert {app.subnet, app.subnet6} <= set(peers(compiled, "edge")["atlas"]["allowed"])
    # Everything that is not here is behind the hub, for a host that knows nobody else.
    database = compiled.plan.legs["db"][0].network
    assert {"10.99.0.0/24", database.subnet, database.subnet6} <= set(peers(compiled, "atlas")["edge"]["allowed"])


def test_in_a_mesh_those_meet_who_can(lab: dict[str, Any]) -> None:
    lab["lab_vpn"]["mesh"] = True
    lab["lab_hosts"]["nas"]["addresses"] = ["192.168.20.6"]
    assert set(peers(compile_lab(lab), "atlas")) == {"edge"}  # both are behind NAT, in different houses
    lab["lab_hosts"]["nas"]["vpn"] = {"endpoint": "nas.fixture.home:1234"}
    assert peers(compile_lab(lab), "atlas")["nas"]["endpoint"] == "nas.fixture.home:1234"
    # In one house they meet by what they have there.
    lab["lab_hosts"]["nas"] = {"addresses": ["198.51.100.6", "192.168.10.6"], "vpn": {"nat": True}, "services": {}}
    found = peers(compile_lab(lab), "atlas")
    assert set(found) == {"edge", "nas"}
    assert found["nas"]["endpoint"] == "192.168.10.6:51820"
    database = compile_lab(lab).plan.legs["db"][0].network
    assert database.subnet in found["nas"]["allowed"]
    assert database.subnet not in found["edge"]["allowed"]


def test_both_ends_of_a_pair_have_the_same_secret_and_nobody_else(compiled: Compiled) -> None:
    edge, atlas = compiled.hosts["edge"]["wireguard_secrets"], compiled.hosts["atlas"]["wireguard_secrets"]
    assert edge["atlas"] == atlas["edge"] == preshared("0123456789abcdef0123456789abcdef", "atlas", "edge")
    assert len({*edge.values()}) == 3
    assert set(atlas) == {"edge"}


def test_addresses_stay_when_others_come_and_go(lab: dict[str, Any], compiled: Compiled) -> None:
    book = parse(dump(compiled.book), "book")
    assert book.vpn == compiled.book.vpn
    del lab["lab_devices"]["phone"]
    lab["lab_hosts"]["nas"]["services"]["ssh"]["from"] = ["lan"]
    lab["lab_services"]["films"]["publish"][0]["from"] = ["tv"]
    lab["lab_hosts"]["zoe"] = {"addresses": ["192.168.10.9"]}
    after = compile_lab(lab, book).book.vpn
    assert {name: after[name] for name in ("atlas", "nas", "edge")} == {
        name: book.vpn[name] for name in ("atlas", "nas", "edge")
    }
    assert len(set(after.values())) == len(after)


def test_two_that_prefer_one_number_get_two(lab: dict[str, Any]) -> None:
    book = Book(vpn={"atlas": 7, "nas": 7, "edge": 300})
    found = compile_lab(lab, book).book.vpn
    assert found["atlas"] == 7
    assert len(set(found.values())) == 4
    assert max(found.values()) < 255


def test_a_call_between_hosts_is_open_at_both_ends_and_at_the_hub(compiled: Compiled) -> None:
    def flows(host: str) -> list[dict[str, Any]]:
        return [f for f in compiled.hosts[host]["policy_flows"] if f["name"] == "app > db"]

    [out], [into] = flows("atlas"), flows("nas")
    assert (out["from_bridge"], out["to_bridge"]) == ("rf-frontend", INTERFACE)
    assert (into["from_bridge"], into["to_bridge"]) == (INTERFACE, "rf-backend")
    ends = ("source", "source6", "destination", "destination6", "proto", "port")
    assert {key: out[key] for key in ends} == {key: into[key] for key in ends}
    assert flows("edge") == []
    transit = [entry for entry in compiled.hosts["edge"]["policy_vpn"]["transit"] if entry["name"] == "app > db"]
    assert [{key: entry[key] for key in ends} for entry in transit] == [{key: out[key] for key in ends}]
    assert compiled.hosts["atlas"]["policy_vpn"]["transit"] == []


def test_names_of_other_hosts_services_resolve_for_those_who_call(compiled: Compiled) -> None:
    [project] = compiled.hosts["atlas"]["stack_projects"]
    [app] = project["services"]
    assert app["extra_hosts"] == {"db": compiled.plan.legs["db"][0].address}


def test_a_segment_that_is_called_from_another_host_has_a_way_out(compiled: Compiled) -> None:
    [backend] = [n for n in compiled.hosts["nas"]["segments_networks"] if n["name"] == "backend"]
    assert backend["internal"] is False
    assert compiled.hosts["nas"]["segments_trusted"] == [INTERFACE]


def test_what_only_the_tunnel_may_bring(compiled: Compiled) -> None:
    networks = compiled.hosts["nas"]["policy_vpn"]["networks"]
    own = {n.subnet for n in compiled.plan.networks_on("nas")}
    far = {n.subnet for host in ("atlas", "edge") for n in compiled.plan.networks_on(host)}
    assert far | {"10.99.0.0/24"} <= set(networks)
    assert not own & set(networks)


def test_a_device_is_a_place(compiled: Compiled) -> None:
    phone = f"10.99.0.{compiled.book.vpn['phone']}/32"
    sources = {rule["source"] for rule in compiled.hosts["nas"]["ufw_rules"] if rule["port"] == "22"}
    assert phone in sources
    [films] = [p for p in compiled.hosts["nas"]["policy_published"] if p["name"] == "films 8096"]
    assert {"192.168.10.70/32", phone} <= set(films["sources"])
    doors = [e for e in compiled.hosts["edge"]["policy_vpn"]["transit"] if e["name"] == "films 8096"]
    assert [(e["source"], e["destination"]) for e in doors if e["source"]] == [
        (phone, f"10.99.0.{compiled.book.vpn['nas']}")
    ]


def ways_out(lab: dict[str, Any], host: str) -> list[tuple[str, str, str, str | int]]:
    compiled = compile_lab(lab)
    own = f"10.99.0.{compiled.book.vpn['phone']}"
    egress = compiled.hosts[host]["policy_vpn"]["egress"]
    assert {entry["source"] for entry in egress} <= {own}
    assert all(entry["source6"].startswith("fd") for entry in egress)
    return [(entry["name"], entry["to"], entry["proto"], entry["port"]) for entry in egress]


def test_a_device_asks_for_names_beyond_the_hub_and_by_a_full_tunnel_gets_out(lab: dict[str, Any]) -> None:
    assert ways_out(lab, "edge") == []
    lab["lab_vpn"]["dns"] = ["192.168.10.1", "fd00:10::1"]
    asked = [
        (f"phone > {server}", server, proto, 53)
        for server in ("192.168.10.1/32", "fd00:10::1/128")
        for proto in ("tcp", "udp")
    ]
    assert ways_out(lab, "edge") == asked
    lab["lab_devices"]["phone"]["tunnel"] = "full"
    assert ways_out(lab, "edge") == [*asked, ("phone > internet", "internet", "any", "any")]
    # The hub alone has them.
    assert ways_out(lab, "atlas") == ways_out(lab, "nas") == []


def test_a_host_of_the_lab_answers_in_the_vpn_and_not_beyond_it(lab: dict[str, Any]) -> None:
    lab["lab_vpn"]["dns"] = ["192.168.10.6", "203.0.113.5", "10.99.0.9"]
    assert ways_out(lab, "edge") == []


def test_the_port_of_the_vpn_is_open_on_every_host(compiled: Compiled) -> None:
    for host in ("atlas", "nas", "edge"):
        [rule] = [rule for rule in compiled.hosts[host]["ufw_rules"] if rule["name"] == "vpn"]
        assert (rule["proto"], rule["port"], rule["source"]) == ("udp", "51820", "any")


def test_who_has_no_vpn_is_not_asked_for_a_key() -> None:
    role = Role(str(ROLES / "wireguard" / "deploy.py"))
    assert role.shares == "wireguard_keys"
    assert role.shares_on({"wireguard_addresses": ["10.99.0.1/24"]})
    assert not role.shares_on({})
    assert not Role(str(ROLES / "pki" / "deploy.py")).shares_on({"wireguard_addresses": ["10.99.0.1/24"]})


def test_without_a_vpn_nothing_of_it_is_there(lab: dict[str, Any]) -> None:
    for name in ("lab_vpn", "lab_devices"):
        del lab[name]
    for host in lab["lab_hosts"].values():
        host["services"]["ssh"]["from"] = ["lan"]
    lab["lab_services"] = {"db": lab["lab_services"]["db"]}
    made = compile_lab(lab).hosts["nas"]
    assert not [name for name in made if name.startswith("wireguard")]
    assert made["policy_vpn"] == {}
    assert made["segments_trusted"] == []


def test_a_stack_has_a_part_on_each_host_and_waits_only_for_its_own(lab: dict[str, Any]) -> None:
    services = lab["lab_services"]
    services["app"] |= {"stack": "app", "depends": ["db", "cache"]}
    services["cache"] = {**services["app"], "calls": [], "depends": []}
    services["db"] |= {"stack": "app"}
    hosts = compile_lab(lab).hosts
    here, there = (hosts[name]["stack_projects"][0] for name in ("atlas", "nas"))
    assert {service["name"]: service["depends"] for service in here["services"]} == {"app": ["cache"], "cache": []}
    assert (there["name"], [service["name"] for service in there["services"]]) == ("app", ["db"])


def test_a_host_without_docker_has_none_of_its_roles(lab: dict[str, Any]) -> None:
    lab["lab_hosts"]["pi"] = {"addresses": ["192.168.10.7"], "docker": False}
    hosts = compile_lab(lab).hosts
    assert hosts["atlas"]["ringfence_skipped"] == []
    assert {"docker", "stack"} <= set(hosts["pi"]["ringfence_skipped"])
    # What guards the host itself stays.
    assert not {"guard", "base", "ufw", "wireguard", "policy", "watch"} & set(hosts["pi"]["ringfence_skipped"])
