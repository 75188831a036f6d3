"""What an import says of single settings, where saying nothing would change what runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.importing.files import read
from ringfence.importing.translate import Imported, Wishes, translate
from ringfence.importing.written import dump


def imported(folder: Path, services: dict[str, Any], **sections: Any) -> Imported:
    given = {name: {"image": "x/y:1", "restart": "always", **one} for name, one in services.items()}
    whole = {name: {key: value for key, value in one.items() if value is not None} for name, one in given.items()}
    (folder / "compose.yml").write_text(yaml.safe_dump({"services": whole, **sections}))
    return translate(read([folder], name="p"), Wishes("atlas", ("lan",), "/opt/app"))


def one(folder: Path, **settings: Any) -> tuple[dict[str, Any], list[str]]:
    found = imported(folder, {"a": settings})
    return found.part["services"]["a"], found.remarks.get("a", [])


def test_a_port_of_one_address_stays_on_that_one(tmp_path: Path) -> None:
    ports = ["192.168.1.5:53:53/udp", "127.0.0.1:53:53/udp", "0.0.0.0:8080:80", "[::]:8080:80"]
    entry, _ = one(tmp_path, ports=ports)
    lan, own, web = entry["publish"]
    assert (lan["port"], lan["address"], "question" in lan["from"]) == ("53/udp", "192.168.1.5", True)
    assert own == {"port": "53/udp", "address": "self"}
    assert web == {"port": 80, "published": 8080, "from": ["lan"]}


@pytest.mark.parametrize(("mode", "bits", "asked"), [(None, 0o755, True), (0o444, 0o755, False), (0o555, 0o644, True)])
def test_a_config_that_could_be_executed_is_asked_about(
    tmp_path: Path, mode: int | None, bits: int, asked: bool
) -> None:
    (tmp_path / "ep.sh").write_text("#!/bin/sh\n")
    (tmp_path / "ep.sh").chmod(bits)
    config = {"source": "ep", "target": "/entry.sh", **({} if mode is None else {"mode": mode})}
    found = imported(tmp_path, {"a": {"configs": [config]}}, configs={"ep": {"file": "./ep.sh"}})
    assert ("could be executed" in str(found.part["services"]["a"].get("questions"))) is asked


def test_a_config_of_a_secret_variable_is_one(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DB_PASSWORD=hunter\n")
    services = {"a": {"configs": [{"source": "c", "target": "/etc/c"}]}}
    found = imported(tmp_path, services, configs={"c": {"environment": "DB_PASSWORD"}})
    assert "hunter" not in str(found.part)
    assert "hunter" in found.vault.values()


def test_labels_of_a_file_are_asked_about(tmp_path: Path) -> None:
    entry, _ = one(tmp_path, label_file="labels.env")
    assert "labels.env" in str(entry["questions"])


def test_a_memory_limit_that_is_no_number_is_asked_about(tmp_path: Path) -> None:
    entry, _ = one(tmp_path, mem_limit=".")
    assert "its memory was limited to '.'" in str(entry["questions"])


SOCKET = ["/var/run/docker.sock:/var/run/docker.sock:ro"]


@pytest.mark.parametrize(
    "image",
    ["tecnativa/docker-socket-proxy:0.3.0", "lscr.io/linuxserver/socket-proxy:3.0.0", "w/socket-proxy@sha256:1"],
)
def test_what_filters_dockers_socket_gets_it_with_the_port_of_its_callers(tmp_path: Path, image: str) -> None:
    entry, _ = one(tmp_path, image=image, volumes=SOCKET)
    assert entry["docker_socket"] is True
    assert entry["port"] == 2375


@pytest.mark.parametrize("image", ["lucaslorentz/caddy-docker-proxy:2.9.1", "evil/docker-socket-proxy-manager:1"])
def test_what_is_only_called_alike_is_asked_about(tmp_path: Path, image: str) -> None:
    entry, _ = one(tmp_path, image=image, volumes=SOCKET)
    assert "docker_socket" not in entry
    assert "volume /var/run/docker.sock" in entry["questions"]


def test_names_stay_and_who_calls_finds_them(tmp_path: Path) -> None:
    app = {
        "command": ["--upstream", "http://App_Server:3000", "--other=appsrv:3000"],
        "environment": {"ALIAS": "http://known:3000"},
        "links": ["App_Server:linked"],
    }
    server = {"container_name": "appsrv", "networks": {"default": {"aliases": ["known"]}}}
    found = imported(tmp_path, {"a": app, "App_Server": server})
    entry = found.part["services"]["a"]
    assert entry["calls"] == [{"service": "app-server", "as": ["App_Server", "appsrv", "known", "linked"]}]
    assert entry["command"] == app["command"]
    assert entry["environment"] == app["environment"]


def test_a_name_that_is_only_the_containers_counts_where_it_is_used(tmp_path: Path) -> None:
    found = imported(tmp_path, {"a": {"depends_on": ["db"]}, "db": {"container_name": "p_db"}})
    assert found.part["services"]["a"]["calls"] == ["db"]


def test_who_does_its_work_and_ends_is_not_started_again(tmp_path: Path) -> None:
    wait = {"migrate": {"condition": "service_completed_successfully"}}
    services = {"migrate": {"restart": None}, "app": {"depends_on": wait, "ports": ["80:80"]}}
    found = imported(tmp_path, services).part["services"]
    assert found["migrate"]["compose"] == {"restart": "no"}
    assert "port" not in found["migrate"]
    assert "calls" not in found["app"]
    assert found["app"]["depends"] == ["migrate"]
    assert "questions" not in found["app"]


def test_who_was_not_started_again_is_asked_about_where_nobody_needs_it_to_run(tmp_path: Path) -> None:
    services: dict[str, Any] = {
        "job": {"restart": None}, "told": {"restart": "no"}, "web": {"restart": None, "ports": ["80:80"]},
    }  # fmt: skip
    found = imported(tmp_path, services)
    assert "restart" in found.part["services"]["job"]["questions"]
    assert found.part["services"]["told"]["compose"] == {"restart": "no"}
    assert any("it is started again" in remark for remark in found.remarks["web"])


def test_ports_of_who_has_no_network_of_its_own_are_nobodys_unsaid(tmp_path: Path) -> None:
    services = {
        "a": {"network_mode": "host", "ports": ["80:8123"]},
        "vpn": {},
        "b": {"network_mode": "service:vpn", "ports": ["80:80"]},
    }
    found = imported(tmp_path, services)
    assert set(found.part["services"]["a"]["publish"]) == {"question"}
    assert any(remark.startswith("port 80:8123") for remark in found.remarks["a"])
    assert "publish of vpn" in found.part["services"]["b"]["questions"]["ports 80:80"]
    assert "publish" not in found.part["services"]["b"]


@pytest.mark.parametrize("tag", ["", ":latest", ":latest-alpine", ":stable", ":release", ":Nightly", ":lts-alpine"])
def test_an_image_that_changes_is_asked_about(tmp_path: Path, tag: str) -> None:
    assert "is not pinned" in one(tmp_path, image=f"a.example:5000/b{tag}")[0]["image"]["question"]


@pytest.mark.parametrize("tag", [":1", ":v2.3-alpine", ":2026.11", ":stable@sha256:12"])
def test_one_with_a_version_is_taken(tmp_path: Path, tag: str) -> None:
    assert one(tmp_path, image=f"a.example:5000/b{tag}")[0]["image"] == f"a.example:5000/b{tag}"


def test_what_stood_in_long_forms_is_kept(tmp_path: Path) -> None:
    entry, remarks = one(
        tmp_path,
        volumes=[
            {"type": "bind", "source": "/srv/a:b", "target": "/x", "read_only": True},
            {"type": "tmpfs", "target": "/t", "tmpfs": {"size": "64m", "mode": 0o1777}},
            {"type": "volume", "source": "v", "target": "/v", "volume": {"nocopy": True}},
        ],
        devices=[{"source": "/dev/ttyUSB0", "target": "/dev/tty1", "permissions": "rw"}],
    )
    assert entry["volumes"][0] == {"source": "/srv/a:b", "target": "/x", "read_only": True}
    assert entry["tmpfs"] == ["/t:mode=1777,size=64m"]
    assert entry["devices"] == ["/dev/ttyUSB0:/dev/tty1:rw"]
    assert any("nocopy" in remark for remark in remarks)


def test_none_of_a_service_is_not_one(tmp_path: Path) -> None:
    assert "compose ran none of it" in one(tmp_path, deploy={"replicas": 0})[0]["questions"]["deploy"]


def test_a_network_of_ones_own_gives_no_subnet_and_no_address(tmp_path: Path) -> None:
    ipam = {"config": [{"subnet": "192.168.10.0/24"}]}
    services = {"a": {"networks": {"lan": {"ipv4_address": "192.168.10.9"}}}}
    found = imported(tmp_path, services, networks={"lan": {"driver": "macvlan", "ipam": ipam}})
    assert "subnet" not in found.part["segments"]["p-lan"]
    assert "driver" in found.part["segments"]["p-lan"]["questions"]
    assert "address" not in found.part["services"]["a"]


def test_a_config_without_a_whole_path_is_where_compose_puts_it(tmp_path: Path) -> None:
    entry = imported(
        tmp_path, {"a": {"configs": [{"source": "c", "target": "rel.conf"}]}}, configs={"c": {"content": "x"}}
    ).part["services"]["a"]
    assert entry["files"] == {"/rel.conf": "x"}


@pytest.mark.parametrize("text", ["x\u2028y\nz", "a\x85b", "a\u2029", "plain\nlines\n"])
def test_ends_of_lines_that_only_yaml_knows_arrive(text: str) -> None:
    assert yaml.safe_load(dump({"a": text})) == {"a": text}
