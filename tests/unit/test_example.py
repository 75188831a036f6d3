"""The example inventory: three hosts, and one where the docs say what to delete."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.inventory.front import ROOT, load


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "inventories" / "example", tmp_path / "home"))


def hosts_of(directory: Path) -> dict[str, Any]:
    loaded = load(directory)
    assert loaded["errors"] == {}
    return dict(loaded["hosts"])


def test_the_door_is_outside_and_who_signs_in_stays_in_the_house(example: Path) -> None:
    hosts = hosts_of(example)
    assert set(hosts) == {"atlas", "nas", "edge"}
    assert hosts["edge"]["caddy_portal"]["upstream"] == "authelia:9091"
    assert "authelia_image" not in hosts["edge"]
    assert hosts["atlas"]["authelia_image"]
    between = {flow["name"] for flow in hosts["atlas"]["policy_flows"] if "wg-ringfence" in flow["from_bridge"]}
    assert {"caddy > authelia", "caddy > nextcloud"} <= between
    assert [flow["name"] for flow in hosts["nas"]["policy_flows"]] == ["nextcloud > nextcloud-db"]


def test_of_one_machine_it_is_what_the_docs_say(example: Path) -> None:
    for file in ("three.yml", "three_hosts.yml"):
        (example / "group_vars" / "home" / file).unlink()
    inventory = yaml.safe_load((example / "hosts.yml").read_text())
    machines = inventory["all"]["children"]["home"]["children"]["docker_hosts"]["hosts"]
    del machines["nas"], machines["edge"]
    (example / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (atlas,) = hosts_of(example).values()
    assert atlas["caddy_portal"]["upstream"] == "authelia:9091"
    assert "wireguard_peers" not in atlas
    assert {"nextcloud > nextcloud-db", "caddy > authelia"} <= {flow["name"] for flow in atlas["policy_flows"]}
