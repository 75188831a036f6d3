"""Who calls whom: what counts as a call, at which port and by which protocol; and names that nobody shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.importing.files import Project, read
from ringfence.importing.flows import Flows, flows_of
from ringfence.importing.mentions import line, mentions
from ringfence.importing.names import Names, names_of
from ringfence.importing.translate import Wishes, translate

NETWORK = {"networks": {"inner": {"ipv4_address": "172.22.5.3"}}}
IMAGES: dict[str, dict[str, Any]] = {
    "db": {"image": "postgres:18"},
    "cache": {"image": "redis:8"},
    "graylog": {"image": "graylog/graylog:6"},
    "unbound": {"image": "unbound:1"},
    "seaweedfs": {"image": "seaweedfs:3"},
    "mysql": {"image": "mysql:9"},
}


def project(tmp_path: Path, services: dict[str, Any], **more: Any) -> Project:
    (tmp_path / "compose.yml").write_text(yaml.safe_dump({"services": services, **more}))
    return read([tmp_path], name="home")


def flows(tmp_path: Path, services: dict[str, Any], **more: Any) -> Flows:
    found = project(tmp_path, services, **more)
    return flows_of(found, names_of(found, (), ()))


def test_an_alias_is_whose_network_it_is_in(tmp_path: Path) -> None:
    """Of two databases with one alias each application calls its own, at its own port, and finds it so."""
    services: dict[str, Any] = {
        "wiki": {"image": "wiki:1", "environment": {"DB_HOST": "db"}, "networks": ["wiki"]},
        "wiki-db": {"image": "postgres:18", "networks": {"wiki": {"aliases": ["db"]}}},
        "shop": {"image": "shop:1", "environment": {"DB_HOST": "db", "DB_PORT": "3307"}, "networks": ["shop"]},
        "shop-db": {"image": "mysql:9", "networks": {"shop": {"aliases": ["db"]}}},
        "beside": {"image": "job:1", "environment": {"DB_HOST": "db"}, "network_mode": "service:shop"},
        "linked": {"image": "job:1", "environment": {"DB_HOST": "db"}, "links": ["wiki:db"]},
    }
    found = project(tmp_path, services, networks={"wiki": {}, "shop": {}})
    names = names_of(found, (), ())
    made = flows_of(found, names)
    assert list(made.calls["wiki"]) == ["wiki-db"]
    assert made.calls["shop"] == {"shop-db": {3307}}
    assert list(made.calls["beside"]) == ["shop-db"]
    assert list(made.calls["linked"]) == ["wiki"]
    assert (made.ports["wiki-db"], made.ports["shop-db"]) == (5432, 3307)
    entries = translate(found, Wishes("atlas", ("lan",), "/opt/app")).part["services"]
    assert {name: entries[name]["calls"][0].get("as") for name in ("wiki", "shop")} == {"wiki": ["db"], "shop": ["db"]}


def called(tmp_path: Path, app: dict[str, Any], **others: Any) -> dict[str, set[int | str]]:
    return flows(tmp_path, {"app": {"image": "app:1", **app}, **IMAGES, **others}).calls["app"]


# -- by which protocol


@pytest.mark.parametrize(
    ("environment", "callee", "ports"),
    [
        ({"GELF": "udp://graylog:12201"}, "graylog", {"12201/udp"}),
        ({"GELF": "tcp://graylog:12201"}, "graylog", {12201}),
        ({"GELF": "graylog:12201"}, "graylog", {"12201/udp"}),
        ({"GELF_HOST": "graylog", "GELF_PORT": "12201", "GELF_PROTOCOL": "tcp"}, "graylog", {12201}),
        ({"STATSD_HOST": "graylog", "STATSD_PORT": "8125"}, "graylog", {"8125/udp"}),
        ({"STATSD_HOST": "graylog"}, "graylog", {"8125/udp"}),
        ({"STATSD_HOST": "graylog", "STATSD_PORT": "9125"}, "graylog", {"9125/udp"}),
        ({"SYSLOG_ADDRESS": "syslog+tcp://graylog:514"}, "graylog", {514}),
        ({"LOG_TARGET": "graylog:514"}, "graylog", {"514/udp"}),
        ({"NTP_SERVERS": "graylog"}, "graylog", {"123/udp"}),
        ({"ENTRYPOINT_URL": "http://graylog:9000"}, "graylog", {9000}),
        ({"RADIUS_HOST": "graylog", "RADIUS_PORT": "1812"}, "graylog", {"1812/udp"}),
        ({"FTLCONF_dns_upstreams": "unbound#5335"}, "unbound", {5335, "5335/udp"}),
        ({"FTLCONF_dns_upstreams": "unbound"}, "unbound", {53, "53/udp"}),
        ({"UPSTREAM": "[unbound]:53"}, "unbound", {53, "53/udp"}),
        ({"DDNS_URL": "http://unbound:8000"}, "unbound", {8000}),
        ({"REDIS_HOST": "cache", "REDIS_PORT": "6379"}, "cache", {6379}),
    ],
)
def test_the_protocol_of_a_call(
    tmp_path: Path, environment: dict[str, str], callee: str, ports: set[int | str]
) -> None:
    assert called(tmp_path, {"environment": environment}) == {callee: ports}


def test_a_port_that_its_service_gives_one_protocol_has_that(tmp_path: Path) -> None:
    app = {"environment": {"LOG_TARGET": "relay:514"}}
    assert called(tmp_path, app, relay={"image": "x:1", "ports": ["514:514"]}) == {"relay": {514}}
    app = {"environment": {"GAME_SERVER": "relay:7777"}}
    assert called(tmp_path, app, relay={"image": "x:1", "expose": ["7777/udp"]}) == {"relay": {"7777/udp"}}


def test_a_service_that_is_asked_for_names_is_asked_by_both_protocols(tmp_path: Path) -> None:
    services = {
        "pihole": {"image": "pihole:1", "environment": {"PIHOLE_DNS_": "cloudflared#5054"}},
        "cloudflared": {"image": "cloudflared:1", "ports": ["5054:5054/tcp", "5054:5054/udp"]},
    }
    part = translate(project(tmp_path, services), Wishes("atlas")).part["services"]
    assert part["cloudflared"]["port"] == 5054
    assert part["pihole"]["calls"] == ["cloudflared", {"service": "cloudflared", "port": "5054/udp"}]


def test_a_callee_that_is_only_asked_by_udp_has_that_port(tmp_path: Path) -> None:
    services = {"app": {"image": "a:1", "environment": {"GELF": "udp://graylog:12201"}}, "graylog": IMAGES["graylog"]}
    part = translate(project(tmp_path, services), Wishes("atlas")).part["services"]
    assert part["graylog"]["port"] == "12201/udp"
    assert part["app"]["calls"] == ["graylog"]


# -- what is a call


@pytest.mark.parametrize(
    ("app", "callees"),
    [
        ({"environment": {"DSN": "s3://profiles?region=us&endpoint=seaweedfs:8333&x=1"}}, {"seaweedfs": {8333}}),
        ({"environment": {"X": '{"host": "cache"}'}}, {"cache": set()}),
        ({"environment": {"X": '{"host":"cache","port":6380}'}}, {"cache": {6380}}),
        ({"environment": {"X": "host=db port=5433 user=mysql dbname=cache"}}, {"db": {5433}}),
        ({"environment": {"CONNECTION": "Host=db;Port=5433;Database=cache;Username=mysql"}}, {"db": {5433}}),
        ({"environment": {"X": "u:p@tcp(mysql:3306)/app"}}, {"mysql": {3306}}),
        ({"environment": {"NODES": "cache:7000;db:7001"}}, {"cache": {7000}, "db": {7001}}),
        ({"environment": {"NODES": "cache, db"}}, {"cache": set(), "db": set()}),
        ({"environment": {"X": "postgres://mysql:cache@db/graylog"}}, {"db": set()}),
        ({"environment": {"DB": "172.22.5.3"}}, {"box": set()}),
        ({"environment": {"DNS1": "172.22.5.3#5053"}}, {"box": {5053, "5053/udp"}}),
        ({"environment": {"BLOCKCHAIN_RPC": "http://cache:8545"}}, {"cache": {8545}}),
        ({"environment": {"X": "http://172.22.5.3:8080/"}}, {"box": {8080}}),
        ({"dns": ["172.22.5.3"]}, {"box": {53, "53/udp"}}),
        ({"command": ["--db-host", "db"]}, {"db": set()}),
        ({"command": ["--db-host=db", "--db-port=5433"]}, {"db": {5433}}),
        ({"command": ["--redis", "cache"]}, {"cache": set()}),
        ({"command": "sh -c 'until nc -z db 5432; do sleep 1; done; exec app'"}, {"db": {5432}}),
        ({"command": ["sh", "-c", "psql -h db -p 5433 -U cache -c 'select 1'"]}, {"db": {5433}}),
        ({"command": ["sh", "-c", "until </dev/tcp/db/5432; do sleep 1; done"]}, {"db": {5432}}),
        ({"command": "wait-for-it.sh db:5432 -- run"}, {"db": {5432}}),
        ({"command": ["--dsn=root:pw@tcp(mysql:3306)/x"]}, {"mysql": {3306}}),
        ({"entrypoint": ["sh", "-c", "A=1 curl -f http://cache:80/"]}, {"cache": {80}}),
        ({"healthcheck": {"test": "curl -f http://seaweedfs:9333/ || exit 1"}}, {"seaweedfs": {9333}}),
    ],
)
def test_what_is_a_call(tmp_path: Path, app: dict[str, Any], callees: dict[str, set[int | str]]) -> None:
    box = {"image": "box:1", "networks": {"default": {}, "inner": {"ipv4_address": "172.22.5.3"}}}
    assert called(tmp_path, app, box=box) == callees


@pytest.mark.parametrize(
    "app",
    [
        {"environment": {"DB_NAME": "db", "DB_USER": "db", "DB_PASSWORD": "db", "POSTGRES_DB": "db"}},
        {"environment": {"X": "Username=db;Database=cache;Password=mysql"}},
        {"environment": {"X": "s3://bucket?user=db&queue=cache"}},
        {"environment": {"SANDBOX_IMAGE": "mysql:9000"}},
        {"environment": {"TITLE": "cache, db and unbound"}},
        {"environment": {"NOTE": "see: db is down"}},
        {"environment": {"TRUSTED_PROXIES": "cache", "NO_PROXY": "db,cache"}},
        {
            "environment": {
                "ALLOWED": "172.22.5.3/24",
                "NET": "172.22.5.3/24",
                "VERSION_": "1172.22.5.3",
                "B": "172.22.5.30",
            }
        },
        {"environment": {"DATA": "/var/lib/db", "HOME_URL": "https://db.example.org/cache"}},
        {"command": ["--user", "db", "--db-name", "cache", "--queue", "mysql", "-U", "db"]},
        {"command": ["sh", "-c", "echo db cache; mkdir -p /data/db"]},
        {"command": ["celery", "worker", "-Q", "db"]},
    ],
)
def test_what_is_no_call(tmp_path: Path, app: dict[str, Any]) -> None:
    box = {"image": "box:1", "networks": {"default": {}, "inner": {"ipv4_address": "172.22.5.3"}}}
    assert called(tmp_path, app, box=box) == {}


def test_a_service_with_dots_in_its_alias_is_found(tmp_path: Path) -> None:
    relay = {"image": "x:1", "hostname": "smtp.relay-service.test"}
    app = {"environment": {"RELAY": "[smtp.relay-service.test]:465"}}
    assert called(tmp_path, app, relay=relay) == {"relay": {465}}


def test_the_targets_in_an_inline_config_are_called(tmp_path: Path) -> None:
    services = {"prom": {"image": "p:1", "configs": [{"source": "c", "target": "/c"}]}, "node": {"image": "n:1"}}
    found = flows(tmp_path, services, configs={"c": {"content": "- targets: ['node:9100']\n"}})
    assert found.calls["prom"] == {"node": {9100}}


# -- what images call by themselves


IMMICH: dict[str, Any] = {
    "immich-server": {"image": "ghcr.io/immich-app/immich-server:v2", "ports": ["2283:2283"]},
    "immich-machine-learning": {"image": "ghcr.io/immich-app/immich-machine-learning:v2"},
    "redis": {"image": "valkey:8"},
    "database": {"image": "ghcr.io/immich-app/postgres:14"},
}


def test_what_an_image_calls_by_itself(tmp_path: Path) -> None:
    found = flows(tmp_path, IMMICH)
    assert found.calls["immich-server"] == {"immich-machine-learning": {3003}, "redis": {6379}, "database": {5432}}
    assert found.ports["immich-machine-learning"] == 3003
    assert found.unreached == {}
    other = {**IMMICH["immich-server"], "environment": {"REDIS_HOSTNAME": "elsewhere.example.org"}}
    assert "redis" not in flows(tmp_path, {**IMMICH, "immich-server": other}).calls["immich-server"]


def test_a_name_that_an_image_has_built_in_is_kept(tmp_path: Path) -> None:
    services = {"blog": {"image": "wordpress:6"}, "sql": {"image": "mysql:9", "container_name": "mysql"}}
    part = translate(project(tmp_path, services), Wishes("atlas")).part["services"]
    assert part["blog"]["calls"] == [{"service": "sql", "as": ["mysql"]}]


def test_who_would_be_out_of_reach_is_named(tmp_path: Path) -> None:
    services = {
        "app": {"image": "app:1", "ports": ["80:80"]},
        "imaginary": {"image": "imaginary:1"},
        "worker": {"image": "app:1"},
        "jobs": {"image": "app:1", "command": ["celery", "-A", "app", "worker"]},
        "alone": {
            "image": "x:1",
            "networks": ["other"],
            "ports": ["81:81"],
            "depends_on": {"first": {"condition": "service_completed_successfully"}},
        },
        "once": {"image": "x:1", "restart": "no"},
        "first": {"image": "x:1", "networks": ["other"]},
        "served": {"image": "x:1", "networks": ["proxy", "default"]},
        "vpn": {"image": "x:1"},
        "inside": {"image": "x:1", "network_mode": "service:vpn"},
    }
    networks = {"other": {}, "proxy": {"external": True}}
    found = flows(tmp_path, services, networks=networks).unreached
    assert found == {"imaginary": ["app", "jobs", "once", "served", "vpn", "worker"]}


def test_who_only_calls_others_is_not_out_of_reach(tmp_path: Path) -> None:
    services = {"broker": {"image": "eclipse-mosquitto:2"}, "client": {"image": "x:1", "links": ["broker"]}}
    assert flows(tmp_path, services).unreached == {}


# -- names


def test_an_address_is_no_name_of_a_service(tmp_path: Path) -> None:
    app = {"image": "x:1", "environment": {"DNS1": "172.22.5.3#5053", "DNS2": "names#5053"}, "networks": ["inner"]}
    box = {"image": "x:1", "container_name": "names", "networks": {"inner": {"ipv4_address": "172.22.5.3"}}}
    [call, other] = translate(project(tmp_path, {"app": app, "box": box}), Wishes("atlas")).part["services"]["app"][
        "calls"
    ]
    assert call["service"] == "box"
    assert call["as"] == ["names"]
    assert other["port"] == "5053/udp"


def test_a_mention_says_where_it_stands() -> None:
    [found] = mentions(line(["--host", "db"]), {"db": "db"}, command=True)
    assert (found.start, found.end, found.key) == (7, 9, "host")


def names_for(
    tmp_path: Path, name: str, networks: dict[str, Any], services: int = 1, taken: tuple[str, ...] = ()
) -> Names:
    made = {f"s{n}": {"image": "x:1", "networks": list(networks)} for n in range(services)}
    (tmp_path / "compose.yml").write_text(yaml.safe_dump({"services": made, "networks": networks}))
    return names_of(read([tmp_path], name=name), (), taken)


def test_any_number_of_networks_has_names(tmp_path: Path) -> None:
    found = names_for(tmp_path, "home", {f"homeautomation{n}": {} for n in range(150)}).segments
    assert len(set(found.values())) == 150
    assert max(map(len, found.values())) <= 12


def test_networks_of_others_are_apart_and_the_same_in_every_project(tmp_path: Path) -> None:
    outside = {"external": True}
    both = names_for(tmp_path, "a", {"reverse_proxy_public": outside, "reverse_proxy_private": outside}).segments
    assert len(set(both.values())) == 2
    assert all(len(one) <= 12 for one in both.values())
    one = names_for(tmp_path, "b", {"web": {"external": True, "name": "reverse_proxy_public"}}).segments
    assert one["web"] == both["reverse_proxy_public"]
    assert names_for(tmp_path, "c", {"proxy_net": outside}).segments == {"proxy_net": "proxy-net"}
    alike = names_for(tmp_path, "d", {"proxy_net": outside, "proxy-net": outside}).segments
    assert alike["proxy-net"] == "proxy-net" != alike["proxy_net"]


def test_a_network_of_the_project_is_not_one_of_others(tmp_path: Path) -> None:
    found = names_for(tmp_path, "proxy", {"default": {}, "proxy": {"external": True}}).segments
    assert found == {"default": "proxy-2", "proxy": "proxy"}


def test_every_service_has_a_name_of_its_own(tmp_path: Path) -> None:
    services = {f"{'a' * 45}{n}": {"image": "x:1"} for n in range(120)}
    found = names_of(project(tmp_path, services), (), ()).services
    assert len(set(found.values())) == 120
    assert max(map(len, found.values())) <= 40


def test_dockers_own_bridge_is_the_projects_default_segment(tmp_path: Path) -> None:
    services = {"app": {"image": "x:1", "network_mode": "bridge"}}
    part = translate(project(tmp_path, services), Wishes("atlas")).part
    assert part["services"]["app"]["segments"] == ["home"]
    assert list(part["segments"]) == ["home"]
