"""What a declaration means, role by role."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.compile import calls, compile_lab, policy, verify
from ringfence.compile.book import Place
from ringfence.compile.calls import Call
from ringfence.compile.plan import Plan
from ringfence.inventory.assemble import merge

IMAGE = "docker.io/library/caddy:2.11.7"


def compiled(services: dict[str, Any], segments: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The variables of the only host of a small lab."""
    variables = {
        "lab_places": {"lan": ["192.168.10.0/24", "fd00:10::/64"], "vpn": ["10.99.0.0/24"]},
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"]}},
        "lab_resolvers": [],
        "lab_segments": segments or {"front": {}, "back": {"internet": False}, "iot": {"internet": False}},
        "lab_services": {name: {"host": "atlas", "image": IMAGE, **service} for name, service in services.items()},
        **more,
    }
    return dict(compile_lab(variables).hosts["atlas"])


def internal(variables: dict[str, Any]) -> dict[str, bool]:
    return {network["name"]: network["internal"] for network in variables["segments_networks"]}


def flows(variables: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(flow["name"], flow["from_bridge"], flow["to_bridge"]) for flow in variables["policy_flows"]]


def test_a_call_within_a_segment_stays_on_its_bridge() -> None:
    got = compiled({"a": {"segments": ["front", "back"], "calls": ["b"]}, "b": {"segments": ["back"], "port": 5432}})
    assert flows(got) == [("a > b", "rf-back", "rf-back")]
    assert internal(got) == {"back": True, "front": False}
    assert got["stack_projects"][0]["services"][0]["extra_hosts"] == {}


def test_every_leg_has_the_mac_address_that_follows_from_its_ipv4_address() -> None:
    variables = {
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"]}},
        "lab_segments": {"back": {"subnet": "172.20.200.0/24"}},
        "lab_services": {"a": {"host": "atlas", "image": IMAGE, "segments": ["back"], "address": "172.20.200.17"}},
    }
    assert [leg.mac for leg in compile_lab(variables).plan.legs["a"]] == ["02:42:ac:14:c8:11"]


def test_a_call_is_open_on_every_shared_segment() -> None:
    both = ["front", "back"]
    got = compiled({"a": {"segments": both, "calls": ["b"]}, "b": {"segments": both, "port": 53, "publish": []}})
    assert [flow[1] for flow in flows(got)] == ["rf-back", "rf-front"]


def test_a_call_across_segments_opens_both_and_names_the_callee() -> None:
    got = compiled({"a": {"segments": ["front"], "calls": ["b"]}, "b": {"segments": ["iot"], "port": "53/udp"}})
    assert flows(got) == [("a > b", "rf-front", "rf-iot")]
    flow = got["policy_flows"][0]
    assert (flow["proto"], flow["port"]) == ("udp", 53)
    assert internal(got) == {"front": False, "iot": False}
    assert got["stack_projects"][0]["services"][0]["extra_hosts"] == {"b": flow["destination"]}


def test_a_caller_finds_whom_it_calls_by_a_name_that_its_image_has_built_in() -> None:
    services: dict[str, Any] = {
        "app": {"segments": ["front"], "calls": [{"service": "photos-redis", "as": ["redis", "Redis_1"]}]},
        "other": {"segments": ["front"], "calls": ["photos-redis"]},
        "photos-redis": {"segments": ["front"], "port": 6379},
        "redis": {"segments": ["front"]},
    }
    got = compiled(services)
    found = {s["name"]: s for project in got["stack_projects"] for s in project["services"]}
    address = found["photos-redis"]["networks"][0]["address"]
    assert found["app"]["extra_hosts"] == {"redis": address, "Redis_1": address}
    assert found["other"]["extra_hosts"] == {}


def test_a_call_across_segments_takes_the_way_of_the_default_routes_only() -> None:
    segments = {"a": {}, "b": {"internet": False}, "c": {}, "d": {}}
    got = compiled(
        {"caller": {"segments": ["c", "d"], "calls": ["callee"]}, "callee": {"segments": ["a", "b"], "port": 80}},
        segments,
    )
    assert flows(got) == [("caller > callee", "rf-c", "rf-a")]
    services = {s["name"]: s for project in got["stack_projects"] for s in project["services"]}
    assert services["caller"]["extra_hosts"] == {"callee": got["policy_flows"][0]["destination"]}


def test_a_call_between_two_segments_without_internet_gives_both_a_route() -> None:
    got = compiled({"a": {"segments": ["back"], "calls": ["b"]}, "b": {"segments": ["iot"], "port": 1}})
    assert internal(got) == {"back": False, "iot": False}


def test_a_service_with_internet_leaves_its_other_segments_internal() -> None:
    got = compiled(
        {
            "a": {
                "segments": ["front", "back"],
                "publish": [{"port": 80, "from": ["lan"]}],
                "egress": [{"to": "internet", "port": 443}],
            }
        }
    )
    assert internal(got) == {"back": True, "front": False}
    assert [entry["bridge"] for entry in got["policy_published"]] == ["rf-front"]
    assert [entry["bridge"] for entry in got["policy_egress"]] == ["rf-front"]


def test_publishing_gives_a_segment_without_internet_a_route() -> None:
    got = compiled(
        {"a": {"segments": ["iot"], "publish": [{"port": 1883, "published": 11883, "from": ["lan", "vpn"]}]}}
    )
    assert internal(got) == {"iot": False}
    (entry,) = got["policy_published"]
    assert (entry["name"], entry["port"], entry["published"]) == ("a 11883", 1883, 11883)
    assert entry["sources"] == ["192.168.10.0/24", "fd00:10::/64", "10.99.0.0/24"]
    assert got["verify_published"][0]["places"] == ["lan", "vpn"]
    assert got["verify_published"][0]["addresses"] == ["192.168.10.5"]


def test_one_port_is_published_on_several_addresses_of_the_host_each_for_its_own_places() -> None:
    hosts = {"atlas": {"addresses": ["192.168.10.5", "192.168.10.6", "fd00:10::5"], "services": {}}}
    services = {
        "a": {"segments": ["front"], "publish": [
            {"port": 53, "from": ["lan"], "address": "192.168.10.5"}, {"port": 53, "address": "self"},
        ]},
        "b": {"segments": ["back"], "publish": [
            {"port": 53, "from": ["vpn"], "address": "192.168.10.6"},
            {"port": 53, "from": ["lan"], "address": "fd00:10::5"},
        ]},
    }  # fmt: skip
    got = compiled(services, lab_hosts=hosts)
    assert {(e["name"], e["host_address"]) for e in got["policy_published"]} == {
        ("a 53", "192.168.10.5"), ("b 53", "192.168.10.6"), ("b 53", "fd00:10::5"),
    }  # fmt: skip
    made = {s["name"]: s["ports"] for project in got["stack_projects"] for s in project["services"]}
    assert [p["address"] for p in made["a"]] == ["192.168.10.5", "127.0.0.1"]
    assert [p["address"] for p in made["b"]] == ["192.168.10.6", "fd00:10::5"]
    assert {(p["name"], p["address"]) for p in got["ufw_published"]} >= {("a", "127.0.0.1"), ("b", "192.168.10.6")}
    assert {(p["service"], p["only"]) for p in got["verify_published"]} == {
        ("a", "192.168.10.5"), ("b", "192.168.10.6"), ("b", "fd00:10::5"),
    }  # fmt: skip


@pytest.mark.parametrize("ports", [{"port": "53/udp", "published": 5353}, {"port": 53, "published": "5353/udp"}])
def test_either_port_may_say_the_protocol(ports: dict[str, Any]) -> None:
    got = compiled({"a": {"segments": ["front"], "publish": [{**ports, "from": ["lan"]}]}})
    (entry,) = got["policy_published"]
    assert (entry["proto"], entry["port"], entry["published"]) == ("udp", 53, 5353)


def test_anywhere_is_any_source() -> None:
    got = compiled({"a": {"segments": ["front"], "publish": [{"port": 80, "from": ["lan", "anywhere"]}]}})
    assert got["policy_published"][0]["sources"] == ["any"]
    assert got["verify_published"][0]["sources"] == ["any"]


def test_egress_to_a_place_is_egress_to_its_networks() -> None:
    got = compiled({"a": {"segments": ["iot"], "egress": [{"to": "lan", "port": "123/udp"}]}})
    assert [entry["to"] for entry in got["policy_egress"]] == ["192.168.10.0/24", "fd00:10::/64"]
    assert internal(got) == {"iot": False}


def test_egress_may_ask_the_declared_resolvers() -> None:
    services = {"a": {"segments": ["front"], "egress": [{"to": "internet", "port": 443}]}, "b": {"segments": ["front"]}}
    got = compiled(services, lab_resolvers=["192.168.10.1", "fd00:10::1"])
    assert {(entry["to"], entry["proto"], entry["port"]) for entry in got["policy_egress"]} == {
        ("internet", "tcp", 443),
        ("192.168.10.1/32", "tcp", 53),
        ("192.168.10.1/32", "udp", 53),
        ("fd00:10::1/128", "tcp", 53),
        ("fd00:10::1/128", "udp", 53),
    }


def test_names_beyond_the_lab_are_asked_of_the_resolvers_by_services_with_egress_and_of_nobody_by_others() -> None:
    services = {"a": {"segments": ["front"], "egress": [{"to": "lan", "port": 443}]}, "b": {"segments": ["front"]}}

    def asked(*resolvers: str) -> dict[str, list[str]]:
        projects = compiled(services, lab_resolvers=[*resolvers])["stack_projects"]
        return {project["name"]: project["services"][0]["dns"] for project in projects}

    assert asked("192.168.10.1", "fd00:10::1") == {"a": ["192.168.10.1", "fd00:10::1"], "b": ["127.255.255.254"]}
    assert asked() == {"a": ["127.255.255.254"], "b": ["127.255.255.254"]}


def test_private_networks_hold_every_place_and_segment() -> None:
    got = compiled({"a": {"segments": ["front"]}}, lab_places={"office": ["203.0.113.0/24"]})
    assert {"203.0.113.0/24", "10.0.0.0/8", "100.64.0.0/10", "fc00::/7"} <= set(got["policy_private"])
    assert set(got["policy_private"]) >= {
        network[key] for network in got["policy_segments"] for key in ("subnet", "subnet6")
    }


def test_host_services_become_ufw_rules_from_places_and_containers() -> None:
    atlas = {
        "addresses": ["192.168.10.5"],
        "services": {"ssh": {"port": 2222, "from": ["lan", "vpn"]}, "dns": {"port": "53/udp", "from": ["a"]}},
    }
    got = compiled({"a": {"segments": ["iot"]}}, lab_hosts={"atlas": atlas})
    rules = {rule["name"]: rule for rule in got["ufw_rules"]}
    assert list(rules) == ["dns-from-a", "dns-from-a-2", "ssh-from-lan", "ssh-from-lan-2", "ssh-from-vpn"]
    assert rules["ssh-from-vpn"] == {
        "name": "ssh-from-vpn",
        "action": "allow",
        "proto": "tcp",
        "port": "2222",
        "source": "10.99.0.0/24",
        "interface": "",
    }
    address = got["verify_services"][0]["networks"][0]["address"]
    assert (rules["dns-from-a"]["source"], rules["dns-from-a"]["interface"]) == (f"{address}/32", "rf-iot")
    assert got["base_ssh_port"] == 2222
    assert got["guard_ports"] == [2222]


def test_a_stack_gathers_services_and_keeps_secrets_apart() -> None:
    got = compiled(
        {
            "a": {"segments": ["front"], "stack": "s", "depends": ["b"], "secrets": {"key": "k3y"}},
            "b": {"segments": ["front"], "stack": "s", "secrets": {"key": "k3y", "own": {"value": "x", "owner": 999}}},
        }
    )
    (project,) = got["stack_projects"]
    assert [service["name"] for service in project["services"]] == ["a", "b"]
    assert project["secrets"] == [
        {"name": "key", "owner": "0", "mode": "0400"},
        {"name": "own", "owner": "999", "mode": "0400"},
    ]
    assert got["stack_secrets"] == {"s": {"key": "k3y", "own": "x"}}
    assert "k3y" not in str(got["stack_projects"])


def test_services_are_hardened_unless_said_otherwise() -> None:
    got = compiled({"a": {"segments": ["front"], "volumes": ["data:/data", "/srv/a:/a:ro"]}})
    service = got["stack_projects"][0]["services"][0]
    assert (service["read_only"], service["capabilities"], service["pids"]) == (True, [], 200)
    assert service["volumes"] == [
        {"name": "data", "target": "/data", "read_only": False},
        {"source": "/srv/a", "target": "/a", "read_only": True},
    ]


def test_a_host_gets_its_own_services_and_the_proof_of_all() -> None:
    variables = {
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"]}, "borea": {"addresses": ["192.168.10.6"]}},
        "lab_segments": {"front": {}, "media": {"internet": False}},
        "lab_services": {
            "a": {"host": "atlas", "image": IMAGE, "segments": ["front"]},
            "b": {"host": "borea", "image": IMAGE, "segments": ["media"], "port": 80},
        },
        "lab_vantages": {"lan": {"host": "outside", "address": "192.168.10.77"}},
    }
    hosts = compile_lab(variables).hosts
    assert [network["name"] for network in hosts["borea"]["segments_networks"]] == ["media"]
    assert [project["name"] for project in hosts["atlas"]["stack_projects"]] == ["a"]
    assert hosts["atlas"]["verify_services"] == hosts["borea"]["verify_services"] == hosts["outside"]["verify_services"]
    assert "stack_projects" not in hosts["outside"]
    assert hosts["atlas"]["verify_services"][1]["ports"] == [{"proto": "tcp", "port": 80}]


def test_a_segment_is_open_on_the_host_that_needs_it_only() -> None:
    web = {"image": IMAGE, "segments": ["back"]}
    variables = {
        "lab_places": {"lan": ["192.168.10.0/24"]},
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"]}, "borea": {"addresses": ["192.168.10.6"]}},
        "lab_segments": {"back": {"internet": False}},
        "lab_services": {
            "a": {"host": "atlas", **web, "publish": [{"port": 80, "from": ["lan"]}]},
            "b": {"host": "borea", **web},
        },
    }
    hosts = compile_lab(variables).hosts
    assert (internal(dict(hosts["atlas"])), internal(dict(hosts["borea"]))) == ({"back": False}, {"back": True})


def test_the_roles_are_told_the_back_end_that_docker_is_going_to_have() -> None:
    lab = {
        "lab_places": {},
        "lab_hosts": {name: {"addresses": [address]} for name, address in HOSTS.items()},
        "lab_segments": {},
        "lab_services": {},
    }
    hosts = compile_lab(lab, docker_backends={"atlas": "nftables"}).hosts
    assert (hosts["atlas"]["segments_backend"], hosts["atlas"]["policy_backend"]) == ("nftables", "nftables")
    # Elsewhere they ask the running engine.
    assert {"segments_backend", "policy_backend"} & set(hosts["other"]) == set()


HOSTS = {"atlas": "192.168.10.5", "other": "192.168.10.6"}


def test_an_implied_call_opens_segments_policy_and_proof_like_a_declared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    services = {"proxy": {"segments": ["back"]}, "app": {"segments": ["iot"], "port": 80}}
    assert internal(compiled(services)) == {"back": True, "iot": True}
    monkeypatch.setattr(
        calls, "implied", lambda lab: [Call("proxy", "app", "tcp", lab.services["app"].port_and_proto[0])]
    )
    got = compiled(services)
    assert internal(got) == {"back": False, "iot": False}
    assert flows(got) == [("proxy > app", "rf-back", "rf-iot")]
    assert got["verify_flows"] == [
        {"source": "proxy", "destination": "app", "proto": "tcp", "port": 80, "implied": True}
    ]
    assert got["stack_projects"][1]["services"][0]["extra_hosts"] == {"app": got["policy_flows"][0]["destination"]}


def test_a_call_to_another_host_is_no_flow_between_two_bridges_of_either() -> None:
    """The checks refuse one; what later makes one possible finds nothing in the way that takes two hosts for one."""
    services = {
        "a": {"host": "atlas", "image": IMAGE, "segments": ["back"]},
        "b": {"host": "borea", "image": IMAGE, "segments": ["back"], "port": 80},
    }
    variables = {
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"]}, "borea": {"addresses": ["192.168.10.6"]}},
        "lab_segments": {"back": {"internet": False}},
        "lab_services": services,
    }
    alone = compile_lab(variables)
    plan = Plan(alone.plan.lab, alone.book, (Call("a", "b", "tcp", 80),))
    (flow,) = plan.flows
    assert (flow.source.network.host, flow.destination.network.host) == ("atlas", "borea")
    assert not plan.shared("a", "b")
    assert plan.open_segments == {Place("atlas", "back"), Place("borea", "back")}
    for host in ("atlas", "borea"):
        assert plan.flows_within(host) == ()
        assert policy.variables(plan, host)["policy_flows"] == []
    (told,) = verify.variables(plan)["verify_flows"]
    assert (told["source"], told["destination"]) == ("a", "b")


@pytest.mark.parametrize(
    ("name", "compiled_value", "own", "merged"),
    [
        ("base_ssh_port", 22, 2022, 2022),
        ("guard_ports", [22], [22, 8443], [22, 8443]),
        ("ufw_rules", [{"name": "a"}], [{"name": "b"}], [{"name": "a"}, {"name": "b"}]),
        ("docker_address_pools", [{"base": "172.24.0.0/13"}], [], []),
    ],
)
def test_the_users_own_role_variables_win_or_are_added(name: str, compiled_value: Any, own: Any, merged: Any) -> None:
    assert merge({name: compiled_value}, {name: own})[name] == merged


def test_a_port_is_published_on_one_address_or_for_the_host_alone() -> None:
    lan = {"port": 80, "from": ["lan"], "address": "192.168.10.5"}
    alone = {"port": 81, "address": "self"}
    got = compiled({"a": {"segments": ["front"], "publish": [lan, alone]}})
    [service] = got["stack_projects"][0]["services"]
    assert [(port["published"], port["address"]) for port in service["ports"]] == [
        (80, "192.168.10.5"),
        (81, "127.0.0.1"),
    ]
    # Whoever is not the host reaches the first alone, and that by no other address.
    assert [entry["published"] for entry in got["policy_published"]] == [80]
    assert [(entry["published"], entry["only"]) for entry in got["verify_published"]] == [(80, "192.168.10.5")]
    assert [(entry["port"], entry["address"]) for entry in got["ufw_published"]] == [
        (80, "192.168.10.5"),
        (81, "127.0.0.1"),
    ]
