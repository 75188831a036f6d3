"""Every example of the README and of the docs is one that can be declared, as it is printed."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ringfence.inventory.front import ROOT, InventoryError, load
from ringfence.roles import role
from ringfence.verify import sites
from tests.unit.test_invalid_labs import merge

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "roles").glob("*/README.md"))]
BLOCK = re.compile(r"^( *)```ya?ml\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
EXAMPLE = ROOT / "inventories" / "example"
HOME = "group_vars/home"
# Beside what the example declares: whom pages speak of, and what they say is in a vault.
BESIDE = {
    "vault_wiki_db": "s",
    "vault_nextcloud_oidc": "s" * 64,
    "lab_people": {"anna": {"email": "anna@lab.home", "groups": ["family"]}},
}
GOES_ON_FROM = {"hosts.md": ROOT / "README.md"}
CONSTANT = re.compile(r"[a-z]+_(files|guarded|program|shares)")  # what a role says of itself


def blocks() -> Iterator[Any]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, found in enumerate(BLOCK.finditer(text), 1):
            name = f"{page.relative_to(ROOT)}-{number}"
            yield pytest.param(page, yaml.safe_load(textwrap.dedent(found[2])), id=name)


BLOCKS = list(blocks())
OF_A_LAB = [one for one in BLOCKS if any(key.startswith("lab_") for key in one.values[1])]
OF_ROLES = [one for one in BLOCKS if one not in OF_A_LAB]


def declared(directory: Path) -> dict[str, Any]:
    """What the example declares, as it is written."""
    found: dict[str, Any] = {}
    for path in sorted(directory.glob(f"{HOME}/*.yml")):
        found |= yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "example"))


def laid_over(there: dict[str, Any], block: dict[str, Any]) -> dict[str, Any]:
    """A block on top of what is declared: services are added to, of the rest each entry is as the block has it."""
    found = dict(there)
    for key, value in block.items():
        entries = isinstance(value, dict) and isinstance(there.get(key), dict) and key not in ("lab_vpn", "lab_ca")
        found[key] = {**there[key], **value} if entries else value
    services = merge(there.get("lab_services"), block.get("lab_services", {}))
    return {**found, "lab_services": services}


def of_one_machine(lab: Path) -> None:
    """A tailnet carries no calls between hosts."""
    for name in ("three.yml", "three_hosts.yml"):
        (lab / HOME / name).unlink()
    hosts = yaml.safe_load((lab / "hosts.yml").read_text(encoding="utf-8"))
    machines = hosts["all"]["children"]["home"]["children"]["docker_hosts"]["hosts"]
    del machines["nas"], machines["edge"]
    (lab / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")


def test_there_are_examples() -> None:
    assert len(OF_A_LAB) > 12
    assert len(OF_ROLES) > 8


@pytest.mark.parametrize(("page", "block"), OF_A_LAB)
def test_an_example_of_a_lab_is_taken(lab: Path, page: Path, block: dict[str, Any]) -> None:
    tailnet = block.get("lab_vpn") == "tailscale"
    if tailnet:
        of_one_machine(lab)
    there = declared(lab)
    there |= {key: merge(there.get(key), value) for key, value in BESIDE.items()}
    there["lab_people"]["anna"] = {**there["lab_people"]["owner"], **there["lab_people"]["anna"]}
    there["vault_lab_ca_certificate"] = there["lab_ca"]["certificate"]
    hosts = yaml.safe_load((lab / "hosts.yml").read_text(encoding="utf-8"))
    hosts["all"]["children"]["home"]["children"]["vantages"] = {"hosts": {"outside": {"ansible_host": "192.0.2.1"}}}
    (lab / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    if tailnet:  # which is what `vpn` means
        there["lab_places"] = {"lan": there["lab_places"]["lan"]}
    else:  # a page goes on from what it has said
        pages = (page, GOES_ON_FROM.get(page.name))
        for other in (one.values[1] for one in OF_A_LAB if one.values[0] in pages):
            if other is block:
                break
            there = laid_over(there, other)
    (lab / HOME / "zz.yml").write_text("---\n" + yaml.safe_dump(laid_over(there, block)), encoding="utf-8")
    if page.name == "import.md":  # it shows questions, which are to be answered
        with pytest.raises(InventoryError, match="write who may use it"):
            load(lab)
        return
    data = load(lab)
    assert data["errors"] == {}
    projects = str([host.get("stack_projects") for host in data["hosts"].values()])
    for name in block.get("lab_services", {}):
        assert f"'name': '{name}'" in projects


@pytest.mark.parametrize(("page", "block"), OF_ROLES)
def test_an_example_of_a_role_is_taken(page: Path, block: Any) -> None:
    if "verify_sites" in block:
        assert sites.read({**block, "verify_portal": "auth.lab.home"}).sites
        return
    directory = page.parent if page.name == "README.md" else ROOT / "roles" / next(iter(block)).partition("_")[0]
    options = yaml.safe_load((directory / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    # What a template makes of itself has a type only then.
    given = {
        name: value for name, value in block.items() if not CONSTANT.fullmatch(name) and not str(value).startswith("{{")
    }
    assert given.keys() <= options.keys()
    found = ArgumentSpecValidator(options).validate(given, validate_role_argument_spec=True)
    missing = [message for message in found.error_messages if "missing required arguments" not in message]
    assert missing == []


def test_what_a_page_says_of_the_role_ufw_itself_is_so() -> None:
    (block,) = (one.values[1] for one in OF_ROLES if one.values[0].name == "roles.md")
    assert block == {**role("ufw").constants, "ufw_program": "ufw"}  # which is the default
