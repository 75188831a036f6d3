"""docs/model.md describes what the models take."""

from __future__ import annotations

import re

import yaml

from ringfence.compile import compile_lab
from ringfence.model import LAB_VARIABLES
from ringfence.model.reference import PAGE, updated


def test_the_tables_are_those_of_the_models() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page) == page, "run python -m ringfence.model.reference"


def test_every_variable_is_described() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in LAB_VARIABLES)


def test_the_examples_of_the_page_compile() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lab = yaml.safe_load("".join(blocks))
    lab["lab_services"]["wiki-db"] = {"host": "atlas", "image": "x:1", "segments": ["backend"], "port": 5432}
    lab |= {
        "lab_places": {"lan": ["192.168.10.0/24"], "vpn": ["10.99.0.0/24"]},
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"]}},
        "lab_resolvers": ["192.168.10.1"],
        "lab_segments": {"frontend": {}, "backend": {"internet": False}, "media": {}},
    }
    assert "atlas" in compile_lab(lab).hosts
