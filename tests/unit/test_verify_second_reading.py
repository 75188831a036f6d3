"""What verify expects is read from the declaration twice, so that a mistake of the compiler cannot hide in it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.compile import compile_lab
from ringfence.inventory import front
from ringfence.verify import declared as declaration
from ringfence.verify.second_reading import differences

ROOT = Path(__file__).resolve().parents[2]
VALID = sorted((ROOT / "tests" / "fixtures" / "valid").glob("*.yml"))
EVERYTHING = yaml.safe_load((ROOT / "tests/fixtures/valid/everything.yml").read_text(encoding="utf-8"))
VERIFY = (
    "verify_services", "verify_published", "verify_hosts", "verify_flows", "verify_egress", "verify_vantages",
)  # fmt: skip


@cache
def _compiled(text: str) -> Mapping[str, Any]:
    """What one of the hosts of a lab, in JSON, is told; most tests here are about the same few labs."""
    lab = json.loads(text)
    return compile_lab(lab).hosts[min(lab["lab_hosts"])]


def compiled(lab: dict[str, Any]) -> Mapping[str, Any]:
    return _compiled(json.dumps(lab, sort_keys=True))


def told(lab: dict[str, Any]) -> dict[str, Any]:
    """What the compiler tells verify about a lab."""
    variables = compiled(lab)
    return copy.deepcopy({name: variables[name] for name in (*VERIFY, "verify_vpn")})


def sites(lab: dict[str, Any]) -> list[dict[str, Any]]:
    """What the compiler tells verify about a lab's sites."""
    return copy.deepcopy(compiled(lab)["verify_sites"])


def lines(lab: dict[str, Any], variables: dict[str, Any]) -> list[str]:
    declared = declaration.read({**variables, "lab_places": lab.get("lab_places")})
    return differences(lab if "verify_sites" in lab else {**lab, "verify_sites": sites(lab)}, declared)


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_both_readings_of_a_valid_lab_agree(path: Path) -> None:
    lab = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert lines(lab, told(lab)) == []


@pytest.mark.parametrize("name", ["demo", "example"])
def test_both_readings_of_a_lab_that_is_shipped_agree(name: str, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(ROOT / "inventories" / name, tmp_path / name))
    hosts = front.load(directory, ROOT)["hosts"]
    assert len(hosts["atlas"]["lab_services"]) > 3
    assert len(hosts["atlas"]["verify_sites"]) == 3
    assert lines(hosts["atlas"], hosts["atlas"]) == []


IDENTITY = yaml.safe_load((ROOT / "tests/fixtures/valid/identity.yml").read_text(encoding="utf-8"))
WINDOW = {"days": ["mon"], "from": "00:00", "to": "24:00"}


@pytest.mark.parametrize(
    ("site", "rule", "key", "value"),
    [
        (0, 0, "factor", "one"), (0, 0, "path", "/status"), (0, 2, "groups", []),
        (0, 2, "groups", ["admins", "family"]),
        (0, 2, "people", ["anna"]), (0, 2, "networks", ["any"]), (0, 3, "factor", "one"), (0, 3, "groups", []),
        (1, 0, "hours", {}), (1, 0, "hours", {"zone": "UTC", "windows": [WINDOW]}), (1, 0, "networks", ["any"]),
        (1, 0, "groups", ["family"]), (3, 0, "networks", ["192.168.10.0/24"]), (3, 0, "factor", "two"),
    ],
)  # fmt: skip
def test_a_rule_that_the_compiler_changes_is_named(site: int, rule: int, key: str, value: Any) -> None:
    told_of = sites(IDENTITY)
    assert lines({**IDENTITY, "verify_sites": told_of}, told(IDENTITY)) == []
    assert told_of[site]["rules"][rule][key] != value
    told_of[site]["rules"][rule][key] = value
    assert lines({**IDENTITY, "verify_sites": told_of}, told(IDENTITY))


@pytest.mark.parametrize("site", range(4))
def test_a_site_or_rule_that_the_compiler_loses_or_makes_up_is_named(site: int) -> None:
    for wrong in (
        [s for i, s in enumerate(sites(IDENTITY)) if i != site],
        [*sites(IDENTITY), {**sites(IDENTITY)[site], "name": "x"}],
    ):
        assert lines({**IDENTITY, "verify_sites": wrong}, told(IDENTITY))
    for index in range(len(sites(IDENTITY)[site]["rules"])):
        fewer = sites(IDENTITY)
        fewer[site]["rules"].pop(index)
        assert lines({**IDENTITY, "verify_sites": fewer}, told(IDENTITY))


PORT = st.sampled_from([80, "81", "53/udp", "8080/tcp"])
SOURCES = st.sampled_from(["lan", ["lan"], ["lan", "vpn"], ["anywhere"], ["vpn", "anywhere"]])
TO = st.sampled_from(["internet", "lan", "nas", "192.168.10.3/32", "fd00:10::/64"])
NAMES = ("a", "b", "c", "d")


@st.composite
def labs(draw: st.DrawFn) -> dict[str, Any]:
    """A lab in all the ways in which the same can be written."""
    proto = st.sampled_from([{}, {"proto": "udp"}, {"proto": "tcp"}])
    hosts = draw(st.fixed_dictionaries({name: st.sampled_from(["atlas", "borea"]) for name in NAMES}))
    services: dict[str, Any] = {}
    for number, name in enumerate(NAMES):
        others = [other for other in NAMES if other != name and hosts[other] == hosts[name]]
        calls = [
            draw(st.sampled_from([other, {"service": other}, {"service": other, "port": draw(PORT)}]))
            for other in others
        ]
        services[name] = {
            "host": hosts[name],
            "image": "x:1",
            "segments": draw(st.sampled_from([["one"], ["one", "two"], ["two", "three"]])),
            "port": draw(PORT),
            "calls": [
                {**c, **draw(proto)} if isinstance(c, dict) and "/" not in str(c.get("port")) else c for c in calls
            ],
            "publish": [
                draw(
                    st.sampled_from([{"port": 53, "published": f"{1000 + number}/udp"}])
                    | st.fixed_dictionaries({"port": PORT, "published": st.just(1000 + number)})
                )
                | {"from": draw(SOURCES)}
            ],
            "egress": [{"to": draw(TO), "port": draw(PORT)} for _ in range(draw(st.integers(0, 2)))],
        }
    here = [name for name in NAMES if hosts[name] == "atlas"]
    dns = draw(st.sampled_from([here, ["lan", *here], "vpn"])) or ["lan"]
    return {
        "lab_places": {"lan": ["192.168.10.0/24", "FD00:10::/64"], "vpn": "10.99.0.0/24", "nas": ["192.168.10.9/32"]},
        "lab_resolvers": draw(st.sampled_from([[], ["192.168.10.1", "FD00:10::1"]])),
        "lab_segments": {"one": {}, "two": {"internet": False}, "three": None},
        "lab_hosts": {
            "atlas": {
                "addresses": ["192.168.10.5", "FD00:10::5"],
                "services": {"dns": {"port": "53/udp", "from": dns}},
            },
            "borea": {"addresses": ["192.168.10.6"], "services": {"ssh": {"port": draw(PORT), "from": draw(SOURCES)}}},
        },
        "lab_services": services,
    }


@settings(max_examples=100, deadline=None)
@given(lab=labs())
def test_both_readings_agree_however_a_lab_is_written(lab: dict[str, Any]) -> None:
    assert lines(lab, told(lab)) == []


def mistakes() -> Iterator[tuple[str, int | None]]:
    """One statement of the compiler after the other: left out, or made twice with a change."""
    statements = told(EVERYTHING)
    for name in VERIFY:
        entries = statements[name]
        assert entries, f"{name}: the fixture declares none, so no mistake in it can be tried"
        yield from ((name, index) for index in range(len(entries)))


@pytest.mark.parametrize(("name", "index"), mistakes())
def test_a_statement_that_the_compiler_loses_is_named(name: str, index: int) -> None:
    variables = told(EVERYTHING)
    variables[name].pop(index)
    assert any("is declared, but verify was not told of it" in line for line in lines(EVERYTHING, variables))


CHANGES: dict[str, tuple[tuple[str, Any], ...]] = {
    "verify_flows": (("port", 1), ("proto", "sctp"), ("source", "other"), ("destination", "other")),
    "verify_published": (
        ("port", 1), ("published", 1), ("proto", "sctp"), ("host", "other"), ("sources", ["0.0.0.0/0"]),
    ),
    "verify_egress": (("port", 1), ("to", "0.0.0.0/0"), ("source", "other")),
    "verify_hosts": (("addresses", ["192.0.2.1"]),),
    "verify_services": (("host", "other"), ("networks", []), ("forging", ["NET_RAW"])),
    "verify_vantages": (("host", "other"), ("address", "192.0.2.1")),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key", "value"), [(name, key, value) for name, pairs in CHANGES.items() for key, value in pairs]
)
def test_a_statement_that_the_compiler_changes_is_named(name: str, key: str, value: Any) -> None:
    assert set(CHANGES) == set(VERIFY)
    variables = told(EVERYTHING)
    variables[name][0][key] = value
    assert lines(EVERYTHING, variables)


def test_a_host_service_that_is_opened_for_more_than_declared_is_named() -> None:
    variables = told(EVERYTHING)
    ssh = next(s for s in variables["verify_hosts"][0]["services"] if s["name"] == "ssh")
    ssh["sources"].append("10.99.0.0/24")
    assert lines(EVERYTHING, variables) == [
        "atlas: host service ssh tcp/2222 from 10.99.0.0/24 192.168.10.0/24 fd00:10::/64: "
        "verify was told of it, but it is not declared",
        "atlas: host service ssh tcp/2222 from 192.168.10.0/24 fd00:10::/64: "
        "is declared, but verify was not told of it",
    ]


def test_an_address_that_the_user_chose_and_the_compiler_lost_is_named() -> None:
    lab = yaml.safe_load((ROOT / "tests/fixtures/valid/base.yml").read_text(encoding="utf-8"))
    lab["lab_segments"]["iot"]["subnet"] = "172.20.9.0/24"
    lab["lab_services"]["broker"]["address"] = "172.20.9.9"
    assert lines(lab, told(lab)) == []
    variables = told(lab)
    broker = next(service for service in variables["verify_services"] if service["name"] == "broker")
    broker["networks"][0]["address"] = "172.20.9.8"
    assert lines(lab, variables) == ["broker: address 172.20.9.9: is declared, but verify was not told of it"]


def test_an_implied_call_is_taken_from_the_compiler() -> None:
    variables = told(EVERYTHING)
    variables["verify_flows"].append({"source": "db", "destination": "web", "proto": "tcp", "port": 1, "implied": True})
    assert lines(EVERYTHING, variables) == []
    variables["verify_flows"][-1]["implied"] = False
    assert lines(EVERYTHING, variables) == ["db: call web tcp/1: verify was told of it, but it is not declared"]


def test_what_cannot_be_read_a_second_time_is_a_difference() -> None:
    (line,) = lines({**EVERYTHING, "lab_services": {"web": {}}, "verify_sites": []}, told(EVERYTHING))
    assert "could not be read a second time" in line
