"""A first lab that is only its owner's: one command makes it, and nothing is in it but what they declare."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ringfence import starter
from ringfence.inventory.front import load


def test_it_is_a_lab_with_one_host_and_nothing_else(tmp_path: Path) -> None:
    directory = starter.make("home", "atlas=192.168.1.5", "admin", root=tmp_path)
    data = load(directory)
    assert data["errors"] == {}
    (atlas,) = data["hosts"].values()
    assert atlas["stack_projects"] == []
    assert [rule["source"] for rule in atlas["ufw_rules"]] == ["192.168.1.0/24"]
    assert (atlas["ansible_user"], atlas["ansible_become"]) == ("admin", True)


def test_its_first_service_is_there_to_be_taken(tmp_path: Path) -> None:
    directory = starter.make("home", "atlas=192.168.1.5", root=tmp_path)
    path = directory / "group_vars" / "all" / "lab.yml"
    text = path.read_text()
    path.write_text(re.sub(r"^#  ", "  ", text.replace("lab_services: {}", "lab_services:"), flags=re.M))
    (atlas,) = load(directory)["hosts"].values()
    (project,) = atlas["stack_projects"]
    assert project["name"] == "welcome"
    assert atlas["ansible_become"] is False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a/b", "atlas=192.168.1.5"], "'a/b' is not a name"),
        (["home", "192.168.1.5"], "write a name and an address, such as atlas=192.168.1.5"),
        (["home", "atlas=nas.lan"], "'nas.lan' is not an IP address"),
        (["home", "atlas=192.168.1.5", "root", "lan"], "--lan lan: that is not a network"),
    ],
)
def test_what_is_no_name_or_address_is_refused_and_nothing_is_written(
    tmp_path: Path, words: list[str], said: str
) -> None:
    with pytest.raises(starter.StarterError, match=re.escape(said)):
        starter.make(*words, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    starter.make("home", "atlas=192.168.1.5", root=tmp_path)
    with pytest.raises(starter.StarterError, match="is there already"):
        starter.make("home", "atlas=192.168.1.6", root=tmp_path)


def test_ipv6_is_quoted_where_yaml_needs_it(tmp_path: Path) -> None:
    directory = starter.make("six", "atlas=fd00:1::5", root=tmp_path)
    lab = yaml.safe_load((directory / "group_vars/all/lab.yml").read_text())
    assert lab["lab_hosts"]["atlas"]["addresses"] == ["fd00:1::5"]
    assert lab["lab_places"]["lan"] == ["fd00:1::/64"]
