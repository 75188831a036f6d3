"""Services without a network of their own, and what becomes of their calls, ports and names."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.compile import compile_lab
from ringfence.host.policy.nft import nft_text
from ringfence.host.policy.rule import Around
from ringfence.host.policy.rules import build
from ringfence.verify import second_reading
from ringfence.verify.declared import read
from tests.unit.policy_wishes import AROUND, wish

IMAGE = "docker.io/library/caddy:2.11.7"
PLACES = {"lan": ["192.168.10.0/24", "fd00:10::/64"]}


def lab(services: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "lab_places": PLACES,
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"], "services": {"ssh": {"port": 22, "from": "lan"}}}},
        "lab_resolvers": ["192.168.10.1"],
        "lab_segments": {"front": {}, "back": {"internet": False}},
        "lab_services": {name: {"host": "atlas", "image": IMAGE, **one} for name, one in services.items()},
        **more,
    }


def compiled(services: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The variables of the host; the second reading finds the same in them."""
    declared = lab(services, **more)
    found = dict(compile_lab(declared).hosts["atlas"])
    assert second_reading.differences({**declared, **found}, read({**declared, **found})) == []
    return found


def stacks(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {s["name"]: s for project in found["stack_projects"] for s in project["services"]}


SIDECAR = {
    "gluetun": {"segments": ["front"], "stack": "media", "egress": [{"to": "internet", "port": "51820/udp"}],
                "publish": [{"port": 8080, "from": ["lan"]}], "capabilities": ["NET_ADMIN"]},
    "torrent": {"network": "gluetun", "stack": "media", "port": 8080, "calls": ["db"],
                "egress": [{"to": "internet", "port": "any"}]},
    "sonarr": {"segments": ["back"], "stack": "media", "calls": ["torrent"]},
    "db": {"segments": ["back"], "port": 5432},
}  # fmt: skip


def test_whose_network_is_shared_calls_and_is_called_for_both() -> None:
    found = compiled(SIDECAR)
    assert {flow["name"] for flow in found["policy_flows"]} == {"gluetun > db", "sonarr > gluetun"}
    ways = {(e["name"], e["proto"], e["port"]) for e in found["policy_egress"] if e["to"] == "internet"}
    assert ways == {
        ("gluetun > internet", "udp", 51820), ("gluetun > internet", "tcp", "any"),
        ("gluetun > internet", "udp", "any"),
    }  # fmt: skip
    services = stacks(found)
    assert services["torrent"]["network"] == "gluetun"
    assert services["torrent"]["networks"] == services["torrent"]["dns"] == services["torrent"]["ports"] == []
    assert services["torrent"]["extra_hosts"] == {}
    address = services["gluetun"]["networks"][0]["address"]
    # Docker knows no name for who shares a network; who calls from there finds it at its own loopback address.
    assert services["sonarr"]["extra_hosts"] == {"torrent": address}
    assert services["gluetun"]["extra_hosts"]["db"] == services["db"]["networks"][0]["address"]
    assert services["gluetun"]["dns"] == ["192.168.10.1"]


def test_a_call_between_two_in_one_network_needs_no_way() -> None:
    both = {**SIDECAR, "gluetun": {**SIDECAR["gluetun"], "calls": ["torrent"]}}
    found = compiled(both)
    assert {flow["name"] for flow in found["policy_flows"]} == {"gluetun > db", "sonarr > gluetun"}
    assert stacks(found)["gluetun"]["extra_hosts"]["torrent"] == "127.0.0.1"


HOME = {
    "home": {"network": "host", "publish": [{"port": 8123, "from": ["lan"]}], "port": 8123, "calls": ["broker"],
             "egress": [{"to": "internet", "port": 443}, {"to": "192.168.10.0/24", "proto": "icmp"}]},
    "broker": {"segments": ["back"], "port": 1883, "calls": ["home"]},
}  # fmt: skip


def test_a_service_in_the_hosts_network_listens_on_the_host() -> None:
    found = compiled(HOME)
    rules = {(rule["name"], rule["port"], rule["source"], rule["interface"]) for rule in found["ufw_rules"]}
    broker = stacks(found)["broker"]["networks"][0]
    assert {
        ("home-8123-from-lan", "8123", "192.168.10.0/24", ""), ("home-8123-from-lan-2", "8123", "fd00:10::/64", ""),
        ("home-8123-from-broker", "8123", f"{broker['address']}/32", "rf-back"),
    } <= rules  # fmt: skip
    assert {entry["name"] for entry in found["policy_host"]} == {"home-8123 from broker"}
    assert found["policy_published"] == []
    assert [port for port in found["ufw_published"] if port["port"] == 8123] == []
    services = stacks(found)
    assert (services["home"]["network"], services["home"]["ports"], services["home"]["networks"]) == ("host", [], [])
    assert services["home"]["extra_hosts"] == {"broker": broker["address"]}
    gateway = next(n["gateway"] for n in found["segments_networks"] if n["name"] == "back")
    assert services["broker"]["extra_hosts"] == {"home": gateway}


def test_what_it_sends_is_told_by_its_slice() -> None:
    [one] = compiled(HOME)["policy_slices"]
    assert (one["name"], one["slice"]) == ("home", "ringfence-home.slice")
    assert [(flow["name"], flow["proto"], flow["port"]) for flow in one["flows"]] == [("home > broker", "tcp", 1883)]
    assert {(way["to"], way["proto"], way["port"]) for way in one["egress"]} == {
        ("internet", "tcp", 443), ("192.168.10.0/24", "icmp", "any"), ("192.168.10.1/32", "tcp", 53),
        ("192.168.10.1/32", "udp", 53),
    }  # fmt: skip
    assert [door["port"] for door in one["doors"]] == [8123]


def test_what_it_sends_is_dropped_but_for_what_is_declared() -> None:
    slices = compiled(HOME)["policy_slices"]
    text = nft_text(build(wish(slices=slices), AROUND._replace(slices=True)))
    lines = [line.strip() for line in text.splitlines()]
    chain = lines[lines.index("chain RF-OUT/home {") :]
    chain = chain[: chain.index("}")]
    assert (
        'socket cgroupv2 level 2 "ringfence.slice/ringfence-home.slice" goto RF-OUT/home comment "service home"'
        in lines
    )
    assert chain[1].startswith("fib saddr type != local drop "), "it poses as nobody"
    assert chain[-1].startswith("goto RF-OUT/home/drop ")
    assert lines[lines.index("chain RF-OUT/home/drop {") + 2].startswith("drop ")
    assert any("tcp dport 443" in line and "ip daddr != {" in line and " accept " in line for line in chain)
    assert any("icmp type 8" in line and "192.168.10.0/24" in line for line in chain)
    assert not any("icmpv6 type 128" in line for line in chain)
    # Ahead of what lets all of the host's programs out.
    assert lines.index(next(line for line in lines if "goto RF-OUT/home" in line)) < lines.index(
        next(line for line in lines if line.startswith('oifname != "rf-*" accept'))
    )


def test_its_egress_leads_to_no_bridge_and_to_no_address_of_the_host_however_wide_it_is() -> None:
    """Behind bridges are containers that it does not call; what the host's own addresses publish comes back to them."""
    wide = {
        "home": {**HOME["home"], "egress": [{"to": to, "port": "any"} for to in ("10.0.0.0/8", "172.16.0.0/12")]},
        "broker": HOME["broker"],
    }  # fmt: skip
    slices = compiled(wide)["policy_slices"]
    rules = [rule for rule in build(wish(slices=slices), AROUND._replace(slices=True)) if rule.chain == "RF-OUT/home"]
    ends = next(n for n, rule in enumerate(rules) if rule.keys == ("!oifname",))
    assert (rules[ends].elements, rules[ends].verdict) == ((("eth0",),), "goto RF-OUT/home/drop")
    assert not [rule for rule in rules[:ends] if rule.name.startswith("egress") or rule.destination == "10.0.0.0/8"]
    assert [rule.name for rule in rules[:ends] if rule.name.startswith("flow")], "declared calls are before"
    egress = [rule for rule in rules[ends:] if rule.name.startswith("egress")]
    assert {rule.destination for rule in egress} >= {"10.0.0.0/8", "172.16.0.0/12"}
    # Where no way out is known, nothing goes out.
    text = nft_text(build(wish(slices=slices), Around(slices=True)))
    lines = [line.strip() for line in text[text.index("chain RF-OUT/home {") :].splitlines()]
    closed = next(n for n, line in enumerate(lines) if line.startswith("goto RF-OUT/home/drop"))
    assert not [line for line in lines[:closed] if "egress" in line]


@pytest.mark.parametrize(("source", "open_"), [("anywhere", True), ("home", True), ("lan", False)])
def test_what_the_host_itself_answers_it_by_its_own_address_is_declared_there(source: str, open_: bool) -> None:
    atlas = {"addresses": ["192.168.10.5"], "services": {"dns": {"port": "53/udp", "from": [source]}}}
    [one] = compiled(HOME, lab_hosts={"atlas": atlas})["policy_slices"]
    assert [door["name"] for door in one["doors"]] == [*(["dns"] if open_ else []), "home-8123"]


def test_without_control_groups_no_rule_pretends_to_hold_it() -> None:
    slices = compiled(HOME)["policy_slices"]
    assert "cgroup" not in nft_text(build(wish(slices=slices), Around(("eth0",))))


def test_nothing_is_known_of_who_has_no_network() -> None:
    found = compiled({"job": {"network": "none"}, "db": {"segments": ["back"], "port": 5432}})
    assert stacks(found)["job"]["network"] == "none"
    assert not any("job" in str(found[key]) for key in ("policy_endpoints", "policy_flows", "policy_egress"))


def test_a_range_is_one_rule_of_the_policy_and_one_port_after_the_other_for_the_engine() -> None:
    publish = [{"port": "8000-8002/udp", "published": "9000-9002", "from": ["lan"]}]
    found = compiled({"app": {"segments": ["front"], "publish": publish}})
    [entry] = found["policy_published"]
    assert (entry["proto"], entry["port"], entry["published"]) == ("udp", "8000-8002", "9000-9002")
    ports = stacks(found)["app"]["ports"]
    assert [(p["published"], p["port"]) for p in ports] == [(9000, 8000), (9001, 8001), (9002, 8002)]
    assert [p["port"] for p in found["ufw_published"]] == [9000, 9001, 9002]


def test_a_service_may_ask_another_for_names_or_servers_of_its_own() -> None:
    services = {
        "pihole": {"segments": ["back"], "egress": [{"to": "internet", "port": 443}], "resolvers": ["9.9.9.9"]},
        "app": {"segments": ["front"], "resolvers": ["pihole"]},
    }
    found = compiled({**services, "pihole": {**services["pihole"], "segments": ["back", "front"]}})
    assert {(f["name"], f["proto"], f["port"]) for f in found["policy_flows"]} == {
        ("app > pihole", "tcp", 53), ("app > pihole", "udp", 53),
    }  # fmt: skip
    made = stacks(found)
    assert made["app"]["dns"] == [leg["address"] for leg in made["pihole"]["networks"] if leg["network"] == "rf-front"]
    assert made["pihole"]["dns"] == ["9.9.9.9"]
    assert {e["to"] for e in found["policy_egress"] if e["port"] == 53} == {"9.9.9.9/32"}
