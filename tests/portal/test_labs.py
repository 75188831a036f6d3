"""From the declared lab to Authelia's rules: labs by chance, compiled and rendered, judged by both programs."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.compile import compile_lab
from ringfence.roles import role
from tests.portal.conftest import need_real
from tests.portal.random_labs import ADDRESSES, declared, lab, questions
from tests.portal.test_policy import load_rules

LABS = 200


def rendered(given: dict[str, Any]) -> dict[str, Any]:
    """The configuration that the role writes for a lab."""
    authelia = role("authelia")
    variables = authelia.variables(compile_lab(given).hosts["atlas"])
    [project] = authelia.wanted(variables).program.desired["projects"]
    return dict(yaml.safe_load(project["services"][0]["config"]["/etc/authelia"]["configuration.yml"]))


def url(service: str, path: str) -> str:
    return f"https://{service}.lab.home{path}"


def test_the_rendered_rules_say_what_the_lab_says_for_everybody_everywhere() -> None:
    double = load_rules()
    names = {level: name for name, level in double.LEVELS.items()}
    differ, seen = [], set()
    for seed in range(LABS):
        given = lab(seed)
        made = rendered(given)
        networks = made["definitions"]["network"]
        rules = [double.Rule(each, networks) for each in made["access_control"]["rules"]]
        for person, service, path, place in questions(given):
            mine = {f"user:{person}", *(f"group:{group}" for group in given["lab_people"][person]["groups"])}
            address, asked = ipaddress.ip_address(ADDRESSES[place]), double.Url(url(service, path).encode())
            found = [rule.level for rule in rules if rule.matches(mine, address, asked)]
            said, expected = names[found[0]] if found else "deny", declared(given, person, service, path, place)
            seen.add(expected)
            if said != expected:
                differ.append((seed, person, service, path, place, said, expected))
    assert differ == []
    assert seen == {"bypass", "one_factor", "two_factor", "deny"}


def check(program: str, configuration: Path, person: str, groups: list[str], asked: str, address: str) -> str:
    words = ["access-control", "check-policy", "--config", str(configuration), "--url", asked, "--ip", address]
    words += ["--username", person, "--groups", ",".join(groups)]
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=60)
    found = re.search(r"The (?:default )?policy '(\w+)'", done.stdout)
    assert found, done.stdout + done.stderr
    return found[1]


@pytest.mark.authelia
def test_check_policy_of_the_real_one_agrees_with_the_lab(tmp_path: Path) -> None:
    """Every person, service and place of 200 labs, each at a path of its turn."""
    program = need_real()
    asked: list[tuple[Any, ...]] = []
    for seed in range(LABS):
        given = lab(seed)
        configuration = tmp_path / f"{seed}.yml"
        made = rendered(given)
        kept = {key: made[key] for key in ("definitions", "access_control")}
        configuration.write_text(yaml.safe_dump(kept))
        once: dict[tuple[str, str, str], str] = {}
        for number, (person, service, path, place) in enumerate(questions(given)):
            key = (person, service, place)
            if key not in once and (number + seed) % 3 == 0:
                once[key] = path
                groups = given["lab_people"][person]["groups"]
                expected = declared(given, person, service, path, place)
                asked.append((configuration, person, groups, url(service, path), ADDRESSES[place], expected))
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda each: check(program, *each[:5]), asked))
    assert len(asked) >= LABS * 30
    assert [(each[1:], words) for each, words in zip(asked, said, strict=True) if each[5] != words] == []
