"""Random rules: what is to come out of them, what Authelia's own `check-policy` says, and what its double decides."""

from __future__ import annotations

import importlib.util
import ipaddress
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.portal.conftest import need_real
from tests.portal.policy import PLACES, RULES, Rule, access_control, expected_policy, rule

LAB = Path(__file__).resolve().parents[2] / "lab"
NAMES = ["cloud.lab.home", "grafana.lab.home", "media.lab.home"]
PATHS = ["", "", "/status.php", "/admin/*", "/api/v1/*", "/Public"]
URIS = [
    "/", "/status.php", "/status.php?x=/admin/", "/STATUS.php", "/status.php/", "/admin", "/admin/", "/admin/x?y",
    "/Admin/x", "/admin/../status.php", "/x/..%2fadmin/x", "//api//v1/x", "/api/v1/../../admin/x", "/public", "/Public",
]  # fmt: skip
GROUPS = {"": [], "owner": ["admins", "family"], "kid": ["family"], "guest": []}
SUBJECTS = ["group:admins", "group:family", "group:others", "user:owner", "user:guest"]
ADDRESSES = ["192.168.10.5", "10.99.0.7", "203.0.113.9", "fd00:10::5"]
Question = tuple[list[Rule], str, str, str]


def random_rules(seed: int) -> list[Rule]:
    chance = random.Random(seed)
    return [
        rule(
            chance.choice(NAMES),
            chance.choice(PATHS),
            chance.choice(["bypass", "one_factor", "two_factor", "two_factor", "deny"]),
            chance.sample(SUBJECTS, chance.choice([0, 0, 1, 2])),
            chance.sample(sorted(PLACES), chance.choice([0, 0, 1, 2])),
        )
        for _ in range(chance.randint(1, 12))
    ]


def questions(seed: int, count: int) -> Iterator[Question]:
    chance, rules = random.Random(-seed), random_rules(seed)
    for _ in range(count):
        url = f"https://{chance.choice([*NAMES, 'nope.lab.home'])}{chance.choice(URIS)}"
        yield rules, chance.choice(sorted(GROUPS)), url, chance.choice(ADDRESSES)


def load_rules() -> ModuleType:
    """The double's half that decides, as the program itself loads it."""
    spec = importlib.util.spec_from_file_location("authelia_double_rules", LAB / "authelia_double_rules.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_double_decides_as_expected() -> None:
    double = load_rules()
    differ, seen = [], set()
    for seed in range(300):
        for rules, person, url, ip in questions(seed, 40):
            made = [double.Rule(each, dict(PLACES)) for each in access_control(rules)["rules"]]
            mine = {f"user:{person}", *(f"group:{group}" for group in GROUPS[person])} if person else set()
            found = [each for each in made if each.matches(mine, ipaddress.ip_address(ip), double.Url(url.encode()))]
            level = found[0].level if found else double.LEVELS["deny"]
            expected = expected_policy(rules, person, GROUPS[person], url, ip)
            seen.add(expected)
            if level != double.LEVELS[expected]:
                differ.append((rules, person, url, ip, level, expected))
    assert differ == []
    assert seen == set(double.LEVELS)


def test_the_first_rule_that_fits_decides() -> None:
    """Who is not named by a path's rule comes to the next one, which may ask for less: it needs a `deny` behind it."""
    weak = [each for each in RULES if each["policy"] != "deny"]
    url = "https://cloud.lab.home/admin/x"
    assert expected_policy(weak, "kid", ["family"], url, "192.168.10.5") == "one_factor"
    assert expected_policy(RULES, "kid", ["family"], url, "192.168.10.5") == "deny"
    assert expected_policy(RULES, "owner", ["admins"], url, "192.168.10.5") == "two_factor"


def check_policy(program: str, configuration: Path, person: str, url: str, ip: str) -> str:
    words = ["access-control", "check-policy", "--config", str(configuration), "--url", url, "--ip", ip]
    words += ["--username", person] if person else []
    words += ["--groups", ",".join(GROUPS[person])] if GROUPS[person] else []
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"The (?:default )?policy '(\w+)'", done.stdout)
    assert found, done.stdout + done.stderr
    return found[1]


@pytest.mark.authelia
def test_check_policy_of_the_real_one(tmp_path: Path) -> None:
    program = need_real()
    base: dict[str, Any] = {"definitions": {"network": {name: list(parts) for name, parts in PLACES.items()}}}
    asked: list[tuple[Path, str, str, str, str]] = []
    for seed in range(40):
        configuration = tmp_path / f"{seed}.yml"
        configuration.write_text(yaml.safe_dump(base | {"access_control": access_control(random_rules(seed))}))
        for rules, person, url, ip in questions(seed, 15):
            asked.append((configuration, person, url, ip, expected_policy(rules, person, GROUPS[person], url, ip)))
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda each: check_policy(program, *each[:4]), asked))
    assert [(each, words) for each, words in zip(asked, said, strict=True) if each[4] != words] == []
