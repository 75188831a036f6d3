"""Who may reach what: one declaration, compiled for the proxy, the portal, the CA and the proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.compile import Compiled, compile_lab
from ringfence.compile.authelia import hashed
from ringfence.compile.hours import windows
from ringfence.model.identity import Hours

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
LAN = ["192.168.10.0/24", "fd00:10::/64"]
PHONE = ["192.168.10.77/32", "fd00:10::77/128"]


@pytest.fixture(scope="module")
def lab() -> dict[str, Any]:
    return dict(yaml.safe_load((FIXTURES / "valid" / "identity.yml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def compiled(lab: dict[str, Any]) -> Compiled:
    return compile_lab(lab)


@pytest.fixture(scope="module")
def atlas(compiled: Compiled) -> dict[str, Any]:
    return dict(compiled.hosts["atlas"])


def site(atlas: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in atlas["caddy_sites"] if one["name"] == f"{name}.fixture.home")


def test_the_proxy_and_the_portal_are_services_like_any_other(compiled: Compiled, atlas: dict[str, Any]) -> None:
    assert {"caddy", "authelia"} <= set(compiled.plan.legs)
    assert {"caddy 80", "caddy 443"} == {entry["name"] for entry in atlas["policy_published"]}
    protos = {(entry["proto"], entry["port"]) for entry in atlas["policy_published"]}
    assert protos == {("tcp", 80), ("tcp", 443), ("udp", 443)}
    assert not {"caddy", "authelia"} & {project["name"] for project in atlas["stack_projects"]}


def test_what_follows_from_a_site_is_not_declared_again(compiled: Compiled) -> None:
    calls = {(call.caller, call.callee, call.port) for call in compiled.plan.calls}
    assert calls == {
        ("app", "app-db", 5432),
        ("app", "caddy", 443),
        ("authelia", "app-db", 5432),
        ("caddy", "app", 80),
        ("caddy", "authelia", 9091),
        ("caddy", "closed", 80),
        ("caddy", "media", 8096),
        ("caddy", "open", 8080),
    }


def test_names_of_sites_and_in_certificates_resolve_for_those_who_call(atlas: dict[str, Any]) -> None:
    services = {s["name"]: s for project in atlas["stack_projects"] for s in project["services"]}
    assert set(services["app"]["extra_hosts"]) == {
        "app-db.fixture.home",
        *(f"{name}.fixture.home" for name in ("auth", "cloud", "media", "old", "www")),
    }
    assert services["media"]["extra_hosts"] == {}
    assert set(atlas["caddy_extra_hosts"]) == {"closed.fixture.home"}
    assert set(atlas["authelia_extra_hosts"]) == {"app-db.fixture.home"}


def test_a_site_without_access_is_closed(atlas: dict[str, Any]) -> None:
    assert site(atlas, "old")["rules"] == []
    assert not [rule for rule in atlas["authelia_rules"] if rule["name"] == "old.fixture.home"]


def test_the_most_specific_rule_comes_first_and_the_site_last(atlas: dict[str, Any]) -> None:
    rules = site(atlas, "cloud")["rules"]
    assert [rule["path"] for rule in rules] == ["/status.php", "/remote.php/*", "/admin/*", ""]
    assert [rule["login"] for rule in rules] == [False, False, True, True]


def test_a_path_says_what_differs_and_keeps_the_rest(atlas: dict[str, Any]) -> None:
    admin = site(atlas, "cloud")["rules"][2]
    assert admin["networks"] == ["10.99.0.0/24", *PHONE]
    [rule] = [r for r in atlas["authelia_rules"] if r["path"] == "/admin/*" and r["policy"] != "deny"]
    assert rule == {
        "name": "cloud.fixture.home",
        "path": "/admin/*",
        "policy": "two_factor",
        "subjects": ["group:admins"],
        "places": ["vpn", "phone"],
    }


def test_who_does_not_fit_a_paths_rule_does_not_fall_to_the_sites(atlas: dict[str, Any]) -> None:
    """Authelia goes on to the next rule where people or places do not fit: somebody of the family would be an admin."""
    rules = [rule for rule in atlas["authelia_rules"] if rule["name"] == "cloud.fixture.home"]
    for path in ("/status.php", "/remote.php/*", "/admin/*"):
        first, second = [index for index, rule in enumerate(rules) if rule["path"] == path]
        assert second == first + 1
        assert rules[second]["policy"] == "deny"
        assert not rules[second]["subjects"] + rules[second]["places"]
    assert rules[-1]["path"] == ""


def test_everyone_is_whoever_signs_in(atlas: dict[str, Any]) -> None:
    [rule] = [rule for rule in atlas["authelia_rules"] if rule["name"] == "media.fixture.home"]
    assert (rule["policy"], rule["subjects"], rule["places"]) == ("one_factor", [], ["lan"])


def test_a_site_for_all_is_asked_of_nobody(atlas: dict[str, Any]) -> None:
    [rule] = site(atlas, "www")["rules"]
    assert rule == {"path": "", "login": False, "networks": ["any"], "hours": {}}
    assert site(atlas, "www")["max_body"] == "10MB"
    assert site(atlas, "www")["upstream"] == "open:8080"


def test_places_are_by_default_those_that_reach_the_proxy(lab: dict[str, Any]) -> None:
    app = {**lab["lab_services"]["app"], "access": {"groups": ["family"]}}
    made = compile_lab({**lab, "lab_services": {**lab["lab_services"], "app": app}}).hosts["atlas"]
    assert site(dict(made), "cloud")["rules"][0]["networks"] == [*LAN, "10.99.0.0/24"]


def test_a_service_with_tls_is_called_by_the_name_in_its_certificate(atlas: dict[str, Any]) -> None:
    closed = site(atlas, "old")
    assert (closed["tls"], closed["tls_name"], closed["upstream"]) == (True, "closed.fixture.home", "closed:80")
    leaves = {leaf["name"]: leaf for leaf in atlas["pki_leaves"]}
    assert set(leaves) == {"app-db", "caddy", "closed"}
    assert leaves["app-db"]["owner"] == "999"
    assert leaves["caddy"]["names"] == [f"{n}.fixture.home" for n in ("auth", "cloud", "media", "old", "www")]
    volumes = {
        s["name"]: s["volumes"] for project in atlas["stack_projects"] for s in project["services"] if s["volumes"]
    }
    assert volumes["app-db"] == [{"source": "/srv/ringfence/pki/app-db", "target": "/run/tls", "read_only": True}]


def test_public_certificates_are_asked_of_the_declared_ca(lab: dict[str, Any]) -> None:
    acme = {"email": "owner@lab.home", "ca": "https://ca.lab.home/directory", "root": "PEM", "dns": "x", "token": "t0"}
    made = compile_lab({**lab, "lab_proxy": {**lab["lab_proxy"], "certificates": "acme", "acme": acme}}).hosts["atlas"]
    assert made["caddy_certificates"] == "acme"
    told = {"email": "owner@lab.home", "ca": "https://ca.lab.home/directory", "ca_root": "PEM", "dns": "x"}
    assert made["caddy_acme"] == told
    assert made["caddy_secrets"] == {"acme_dns": "t0"}  # never beside the rest


def test_machines_outside_of_docker_get_client_certificates(lab: dict[str, Any]) -> None:
    service = lab["lab_services"]["app-db"]
    changed = {**service, "tls": {**service["tls"], "clients": ["hall-sensor"]}}
    made = compile_lab({**lab, "lab_services": {**lab["lab_services"], "app-db": changed}}).hosts["atlas"]
    [leaf] = [leaf for leaf in made["pki_leaves"] if leaf["name"] == "hall-sensor"]
    assert (leaf["names"], leaf["usage"], leaf["reload"]["container"]) == (["hall-sensor.fixture.home"], ["client"], "")


def test_the_portal_knows_its_database_by_its_certificate(atlas: dict[str, Any]) -> None:
    assert atlas["authelia_postgres"] == {
        "address": "tcp://app-db.fixture.home:5432", "database": "authelia", "username": "authelia", "tls": True
    }  # fmt: skip
    assert set(atlas["authelia_secrets"]) == {"postgres_password", "smtp_password"}


def test_people_go_to_the_host_of_the_portal_only(compiled: Compiled, atlas: dict[str, Any]) -> None:
    assert set(atlas["people_users"]) == {"anna", "owner"}
    assert atlas["people_users"]["anna"]["disabled"] is True
    assert atlas["people_users"]["owner"]["displayname"] == "owner"
    borea = compiled.hosts["borea"]
    assert not [name for name in borea if name.startswith(("people_", "authelia_", "caddy_"))]


def test_an_oidc_client_is_for_those_that_the_site_is_for(atlas: dict[str, Any]) -> None:
    [client] = atlas["authelia_clients"]
    assert client["id"] == "app"
    assert client["redirect_uris"] == ["https://cloud.fixture.home/apps/oidc/callback"]
    assert (client["policy"], client["subjects"], client["places"]) == ("two_factor", ["group:family"], ["lan", "vpn"])
    assert "hunter2" not in client["secret_hash"]


def test_the_hash_of_a_secret_is_the_same_each_time_and_as_passlib_has_it() -> None:
    assert hashed("app", "secret") == hashed("app", "secret")
    assert len({hashed("app", "secret"), hashed("app", "other"), hashed("web", "secret")}) == 3
    _, kind, rounds, salt, key = hashed("app", "secret").split("$")
    assert (kind, rounds, len(salt), len(key)) == ("pbkdf2-sha512", "310000", 22, 86)


def hours(days: list[str], start: str, end: str) -> Hours:
    return Hours.model_validate({"days": days, "from": start, "to": end, "zone": "Europe/Berlin"})


@pytest.mark.parametrize(
    ("days", "start", "end", "expected"),
    [
        (["mon", "fri"], "17:00", "22:30", [(["mon", "fri"], "17:00", "22:30")]),
        (["sun"], "22:00", "06:00", [(["sun"], "22:00", "24:00"), (["mon"], "00:00", "06:00")]),
        (["fri", "sat"], "23:00", "00:00", [(["fri", "sat"], "23:00", "24:00")]),
        (["sat"], "00:00", "24:00", [(["sat"], "00:00", "24:00")]),
    ],
)
def test_no_window_crosses_midnight(days: list[str], start: str, end: str, expected: list[Any]) -> None:
    made = windows({"x": hours(days, start, end)}, ["x"])
    assert made["zone"] == "Europe/Berlin"
    assert [(w["days"], w["from"], w["to"]) for w in made["windows"]] == expected


def test_hours_of_several_names_are_their_union(atlas: dict[str, Any]) -> None:
    [rule] = site(atlas, "media")["rules"]
    assert [(w["days"], w["from"], w["to"]) for w in rule["hours"]["windows"]] == [
        (["mon", "fri"], "17:00", "22:30"),
        (["sun"], "22:00", "24:00"),
        (["mon"], "00:00", "06:00"),
    ]


def test_verify_is_told_in_the_words_of_the_declaration(atlas: dict[str, Any]) -> None:
    sites = {one["name"]: one for one in atlas["verify_sites"]}
    assert sites["old.fixture.home"]["rules"] == []
    assert sites["cloud.fixture.home"]["rules"][2]["groups"] == ["admins"]
    assert sites["cloud.fixture.home"]["rules"][2]["places"] == ["vpn", "phone"]
    assert sites["media.fixture.home"]["rules"][0]["hours_name"] == "evening, night"
    assert atlas["verify_portal"] == "auth.fixture.home"
    assert atlas["verify_root"].startswith("-----BEGIN CERTIFICATE")


def test_a_public_ca_needs_a_way_out_and_none_of_the_labs_names(lab: dict[str, Any]) -> None:
    proxy = {
        **lab["lab_proxy"],
        "certificates": "acme",
        "acme": {"email": "me@example.org", "dns": "hetzner", "token": "t"},
    }
    atlas = dict(compile_lab({**lab, "lab_proxy": proxy}).hosts["atlas"])
    assert atlas["caddy_certificates"] == "acme"
    assert atlas["caddy_secrets"] == {"acme_dns": "t"}
    assert atlas["verify_root"] == ""
    assert {"source": "caddy", "to": "internet", "proto": "tcp", "port": 443} in atlas["verify_egress"]


def test_a_lab_without_a_proxy_has_nothing_of_it(lab: dict[str, Any]) -> None:
    base = yaml.safe_load((FIXTURES / "valid" / "base.yml").read_text(encoding="utf-8"))
    atlas = compile_lab(base).hosts["atlas"]
    assert not [name for name in atlas if name.startswith(("people_", "authelia_", "caddy_", "pki_"))]
    assert atlas["verify_sites"] == []
