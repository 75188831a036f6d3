"""access_control: what a rule opens it opens for those whom it names, however a path is spelt."""

from __future__ import annotations

import random
import re
from typing import Any
from urllib.parse import unquote

import pytest

from tests.unit.authelia.cases import rules

SITE = "cloud.lab.home"


def rule(path: str = "", policy: str = "two_factor", *subjects: str, places: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"name": SITE, "path": path, "policy": policy, "subjects": list(subjects), "places": list(places)}


def decided(made: list[dict[str, Any]], path: str, who: set[str] | None = None, place: str = "lan") -> str:
    """What Authelia decides (internal/authorization): the first rule that fits. An unknown visitor fits any subject.

    Its regular expressions are Go's; what the role writes of them means the same to Python, but for `$`.
    """
    for each in made:
        if each["domain"] != SITE and f"*.{SITE.partition('.')[2]}" not in each["domain"]:
            continue
        patterns = [pattern.removesuffix("$") + r"\Z" for pattern in each.get("resources", [])]
        if patterns and not any(re.search(pattern, unquote(path)) for pattern in patterns):
            continue
        if each.get("networks") and place not in each["networks"]:
            continue
        if who is not None and each.get("subject") and not any(set(all_of) <= who for all_of in each["subject"]):
            continue
        return str(each["policy"])
    return "deny"


ADMIN, FAMILY = {"group:admins", "user:owner"}, {"group:family", "user:ben"}


def test_whom_a_path_leaves_out_does_not_get_there_by_the_rule_of_the_site() -> None:
    made = rules(rule("/admin/*", "two_factor", "group:admins"), rule("", "one_factor", "group:family"))
    assert decided(made, "/admin/x", ADMIN) == "two_factor"
    assert decided(made, "/admin/x", FAMILY) == "deny"
    assert decided(made, "/x", FAMILY) == "one_factor"
    assert decided(made, "/x", ADMIN) == "deny"
    assert decided(made, "/admin/x", None) == "two_factor"  # a login is asked for, not refused


@pytest.mark.parametrize("path", ["/ADMIN/x", "/Admin/", "/admin/a%0Ab", "/admin/%0A", "/admin/x?y=1", "/aDmIn/x%3Fy"])
def test_no_spelling_leads_around_a_path_that_asks_for_more(path: str) -> None:
    made = rules(rule("/admin/*", "two_factor", "group:admins"), rule("", "one_factor", "group:family"))
    assert decided(made, path, FAMILY) == "deny"
    assert decided(made, path, ADMIN) == "two_factor"


@pytest.mark.parametrize("path", ["/STATUS.PHP", "/status.php/", "/status.phpx", "/statusxphp", "/x/status.php", "/"])
def test_only_the_very_path_is_open(path: str) -> None:
    made = rules(rule("/status.php", "bypass"), rule("", "two_factor"))
    assert decided(made, "/status.php") == "bypass"
    assert decided(made, "/status.php?a=/b") == "bypass"
    assert decided(made, path) == "two_factor"


def test_a_path_that_asks_for_less_is_matched_as_it_is_written() -> None:
    made = rules(rule("/public/*", "one_factor"), rule("/public/*", "deny"), rule("", "two_factor"))
    assert decided(made, "/public/x", FAMILY) == "one_factor"
    assert decided(made, "/PUBLIC/x", FAMILY) == "two_factor"


def test_a_denial_behind_a_path_does_not_make_its_rule_one_that_asks_for_less() -> None:
    """The compiler writes them; the path was then matched as it is written only, and /ADMIN fell to the site."""
    made = rules(
        rule("/admin/*", "two_factor", "group:admins"), rule("/admin/*", "deny"),
        rule("/api/*", "two_factor", "group:admins"), rule("/api/*", "deny"), rule("", "one_factor"),
    )  # fmt: skip
    for path in ("/ADMIN/x", "/API/x"):
        assert decided(made, path, FAMILY) == "deny"
        assert decided(made, path, ADMIN) == "two_factor"


def test_several_rules_of_one_path_are_tried_before_it_is_closed() -> None:
    made = rules(
        rule("/x/*", "one_factor", places=("lan",)), rule("/x/*", "two_factor", "group:admins"), rule("", "one_factor")
    )
    assert decided(made, "/x/y", FAMILY) == "one_factor"
    assert decided(made, "/x/y", ADMIN, "wan") == "two_factor"
    assert decided(made, "/x/y", FAMILY, "wan") == "deny"


def test_a_closed_path_is_closed_in_any_spelling() -> None:
    made = rules(rule("/old/*", "deny"), rule("", "one_factor"))
    assert decided(made, "/OLD/x", FAMILY) == "deny"


def test_what_stands_in_a_path_is_no_regular_expression() -> None:
    made = rules(rule("/a.b+(c)|[d]{2}^$\\*?", "two_factor"), rule("", "deny"))
    assert decided(made, "/a.b+(c)|[d]{2}^$\\*?", FAMILY) == "two_factor"
    for path in ("/aXb+(c)", "/a.b", "/a.bb(c)", "[d]dd"):
        assert decided(made, path, FAMILY) == "deny"


def test_names_that_no_rule_has_are_denied_and_no_rules_at_all_are_still_rules() -> None:
    assert rules() == [{"domain": ["lab.home", "*.lab.home"], "policy": "deny"}]  # Authelia takes no empty list
    assert decided(rules(), "/", ADMIN) == "deny"


def test_places_and_people_are_any_of_them() -> None:
    made = rules(rule("", "two_factor", "group:family", "user:owner", places=("lan", "vpn")))
    assert made[0]["subject"] == [["group:family"], ["user:owner"]]
    assert decided(made, "/", ADMIN, "vpn") == "two_factor"
    assert decided(made, "/", {"user:ann"}, "vpn") == "deny"
    assert decided(made, "/", ADMIN, "wan") == "deny"


PATHS = ("/a/b", "/a/b/*", "/a/*", "/c", "")
RANK = {"bypass": 0, "one_factor": 1, "two_factor": 2, "deny": 3}


@pytest.mark.parametrize("seed", range(60))
def test_a_path_decides_alone_who_gets_there_and_another_spelling_never_opens_more(seed: int) -> None:
    """Against a reading of the declaration that knows nothing of rules behind one another."""
    chance = random.Random(seed)
    declared: list[dict[str, Any]] = []
    for path in PATHS:
        for _ in range(chance.choice([0, 1, 1, 2]) if path else 1):
            policy = chance.choice(list(RANK))
            subjects = (
                []
                if policy == "bypass"
                else chance.sample(["group:admins", "group:family", "user:owner"], k=chance.choice([0, 1, 2]))
            )
            declared.append(
                rule(path, policy, *subjects, places=tuple(chance.sample(["lan", "vpn"], chance.choice([0, 1]))))
            )
    made = rules(*declared)
    requests = {"/a/b/x": "/a/b/*", "/a/b": "/a/b", "/a/x": "/a/*", "/c": "/c", "/x": ""}
    for path, wanted in requests.items():
        # The most specific path that is declared for this request.
        prefixes = [one for one in ("/a/b/*", "/a/*") if f"{path}/".startswith(one[:-1])]
        covering = [wanted, *prefixes, ""]
        own = next(each for each in covering if any(one["path"] == each for one in declared))
        for who in (ADMIN, FAMILY, {"user:ann"}):
            for place in ("lan", "vpn", "wan"):
                fitting = [
                    one["policy"]
                    for one in declared
                    if one["path"] == own
                    and (not one["places"] or place in one["places"])
                    and (not one["subjects"] or who & set(one["subjects"]))
                ]
                expected = fitting[0] if fitting else "deny"
                assert decided(made, path, who, place) == expected, (path, who, place)
                # In other letters nobody gets more easily to what may be the same.
                other = decided(made, path.upper(), who, place)
                assert RANK[other] >= RANK[expected], (path, who, place, other)
