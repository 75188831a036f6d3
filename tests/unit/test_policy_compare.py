"""What differs between the wanted and the live policy is named; what one transaction makes of it."""

from __future__ import annotations

import pytest

from ringfence.host.policy.compare import both_families, rule_changes, settled
from ringfence.host.policy.places import jump_changes
from ringfence.host.policy.xtables import iptables_rules, read_tables, removal_input, restore_input
from ringfence.host.tables import Tables, parse_save
from tests.unit.policy_wishes import FLOW, rules_of

RULES = rules_of()
OWN = {place: rules for place, rules in RULES.items() if place.medium == "v4"}
JUMPS = {
    "-I FORWARD 1 -j RF-FWD": "-A FORWARD -j RF-FWD",
    "-I INPUT 1 -j RF-HOST": "-A INPUT -j RF-HOST",
    "-I PREROUTING 1 -j RF-RAW": "-A PREROUTING -j RF-RAW",
    "-I DOCKER-USER 1 -j RF-OPEN": "-A DOCKER-USER -j RF-OPEN",
    "-I FORWARD 1 -j DOCKER-USER": "-A FORWARD -j DOCKER-USER",
    "-I POSTROUTING 1 -j RF-NAT": "-A POSTROUTING -j RF-NAT",
}


def as_saved(text: str) -> str:
    """What iptables-save shows of a transaction: jumps are rules, an address has its prefix."""
    for inserted, appended in JUMPS.items():
        text = text.replace(inserted, appended)
    return text.replace("172.20.0.10 ", "172.20.0.10/32 ").replace("172.21.0.11 ", "172.21.0.11/32 ")


LIVE = as_saved(restore_input(iptables_rules(RULES, "v4"), {}, "iptables"))
PASS = next(line for line in LIVE.splitlines() if line.startswith("-A RF-frontend") and "web > db" in line)
OPEN = next(line for line in LIVE.splitlines() if line.startswith("-A RF-OPEN") and "web > db" in line)


def changes(live: str, backend: str = "iptables") -> list[str]:
    tables = parse_save(live)
    return rule_changes(settled(OWN), settled(read_tables(tables, "v4"))) + jump_changes(tables, backend)


def test_what_is_as_declared_needs_nothing() -> None:
    assert changes(LIVE) == []


def test_on_a_bare_host_everything_is_pending_and_named() -> None:
    found = changes("")
    assert {"+ flow web > db tcp/5432", "+ segment backend", "+ fence"} <= set(found)
    assert [line for line in found if "jump" in line] == [
        "+ jump mangle FORWARD > RF-FWD",
        "+ jump mangle INPUT > RF-HOST",
        "+ jump raw PREROUTING > RF-RAW",
        "+ jump filter DOCKER-USER > RF-OPEN",
        "+ jump filter FORWARD > DOCKER-USER",
        "+ jump nat POSTROUTING > RF-NAT",
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (PASS + "\n", "", ["~ flow web > db tcp/5432: missing: "]),
        (PASS, PASS.replace("5432 ", "5433 "), ["~ flow web > db tcp/5432: not declared: "]),
        (PASS, f"{PASS}\n-A RF-frontend -j RETURN", ["- rule in RF-frontend that ringfence did not write: -j RETURN"]),
        # A comment alone makes nobody's rule ours.
        (
            PASS,
            f'{PASS}\n-A RF-frontend -m time --weekdays Mo -m comment --comment "flow x" -j RETURN',
            ["- rule in RF-frontend that ringfence did not write: -m time"],
        ),
        ("-A FORWARD -j RF-FWD\n", "", ["+ jump mangle FORWARD > RF-FWD"]),
        # Whatever could end a packet's way before the deny is drift; what only marks it is not.
        (
            "-A FORWARD -j RF-FWD",
            "-A FORWARD -s 1.2.3.4/32 -j ACCEPT\n-A FORWARD -j RF-FWD",
            ["~ jump mangle FORWARD > RF-FWD: rule 2 → 1, behind: -s 1.2.3.4/32 -j ACCEPT"],
        ),
        (
            "-A FORWARD -j RF-FWD",
            "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\n-A FORWARD -j RF-FWD",
            [],
        ),
        (
            "-A INPUT -j RF-HOST",
            "-A INPUT -j somebody\n-A INPUT -j RF-HOST",
            ["~ jump mangle INPUT > RF-HOST: rule 2 → 1, behind: -j somebody"],
        ),
        (
            "-A DOCKER-USER -j RF-OPEN",
            "-A DOCKER-USER -j RETURN\n-A DOCKER-USER -j RF-OPEN",
            ["~ jump filter DOCKER-USER > RF-OPEN: rule 2 → 1, behind: -j RETURN"],
        ),
        # Bans of others keep their place.
        (
            "-A DOCKER-USER -j RF-OPEN",
            "-A DOCKER-USER -p tcp -j f2b-web\n-A DOCKER-USER -m set --match-set crowdsec src -j DROP\n"
            "-A DOCKER-USER -j RF-OPEN",
            [],
        ),
        # Docker up to 27 puts its isolation first when it starts.
        (
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -j DOCKER-ISOLATION-STAGE-1\n-A FORWARD -j DOCKER-USER",
            ["~ jump filter FORWARD > DOCKER-USER: rule 2 → 1, behind: -j DOCKER-ISOLATION-STAGE-1"],
        ),
        (":RF-RAW - [0:0]", ":RF-RAW - [0:0]\n:RF-old - [0:0]", ["- chain raw RF-old"]),
        # Docker puts its own masquerading on top whenever a network is made.
        ("-A POSTROUTING", "-A POSTROUTING -s 10.9.0.0/24 ! -o br-x -j MASQUERADE\n-A POSTROUTING", []),
        # The layout of the release before: its chains are in filter.
        (
            "-A DOCKER-USER -j RF-OPEN",
            ":RF-FWD - [0:0]\n-A DOCKER-USER -j RF-FWD\n-A DOCKER-USER -j RF-OPEN",
            ["- chain filter RF-FWD", "- jump filter DOCKER-USER > RF-FWD"],
        ),
        # What the role ufw holds the door with for a moment is not ours.
        ("-A INPUT -j RF-HOST", "-A INPUT -j RF-HOST\n:RF-HOLD - [0:0]\n-A RF-HOLD -j DROP", []),
    ],
)
def test_drift_is_named(before: str, after: str, expected: list[str]) -> None:
    assert before in LIVE
    found = changes(LIVE.replace(before, after, 1))
    assert len(found) == len(expected), found
    for line in expected:
        assert any(change.startswith(line) for change in found), found


def test_a_renamed_flow_is_one_more_and_one_less() -> None:
    found = changes(LIVE.replace("flow web > db", "flow old > db"))
    assert found == ["- flow old > db tcp/5432", "+ flow web > db tcp/5432"]


def test_the_order_of_rules_counts() -> None:
    drop = next(line for line in LIVE.splitlines() if line.startswith("-A RF-frontend") and line.endswith("-j DROP"))
    swapped = LIVE.replace(PASS, "PASS").replace(drop, PASS, 1).replace("PASS", drop, 1)
    assert changes(swapped) == ["~ order of the rules in mangle RF-frontend"]


def test_what_differs_in_one_family_names_it() -> None:
    assert both_families({"v4": ["+ a", "+ b"], "v6": ["+ a"]}) == ["+ a", "+ b (v4)"]
    assert both_families({"v4": ["+ a"]}) == ["+ a"]


def transaction(live: Tables, backend: str = "iptables") -> dict[str, list[str]]:
    """The commands of one transaction by table, in its order."""
    found: dict[str, list[str]] = {}
    for line in restore_input(iptables_rules(rules_of(backend), "v4"), live, backend).splitlines():
        if line.startswith("*"):
            found[line[1:]] = []
        else:
            found[next(reversed(found))].append(line)
    return found


def test_a_transaction_removes_stale_chains_and_puts_the_jumps_into_their_places() -> None:
    live = LIVE.replace(":RF-RAW - [0:0]", ":RF-RAW - [0:0]\n:RF-old - [0:0]\n-A PREROUTING -j DROP")
    raw = transaction(parse_save(live))["raw"]
    assert ":RF-old - [0:0]" in raw
    assert raw[-4:] == ["-D PREROUTING -j RF-RAW", "-I PREROUTING 1 -j RF-RAW", "-X RF-old", "COMMIT"]


def test_chains_of_others_are_never_declared_except_where_docker_user_is_missing() -> None:
    declared = [line for lines in transaction(parse_save(LIVE)).values() for line in lines if line.startswith(":")]
    assert declared
    assert all(line.startswith(":RF-") for line in declared)
    bare = transaction({})["filter"]
    assert bare.count(":DOCKER-USER - [0:0]") == 1
    assert {"-I DOCKER-USER 1 -j RF-OPEN", "-I FORWARD 1 -j DOCKER-USER"} <= set(bare)


def test_a_ban_stays_before_what_opens_and_a_return_behind_it() -> None:
    live = {"filter": {"DOCKER-USER": ["-p tcp -j f2b-web", "-j RETURN"], "FORWARD": ["-j DOCKER-USER"]}}
    assert "-I DOCKER-USER 2 -j RF-OPEN" in transaction(live)["filter"]


def test_where_docker_is_on_nftables_what_passed_is_accepted_before_ufw_drops_it() -> None:
    live = {"filter": {"FORWARD": ["-j ufw-before-forward", "-j ufw-reject-forward"]}}
    assert "-I FORWARD 1 -j RF-OPEN" in transaction(live, "nftables")["filter"]
    behind = {"filter": {"FORWARD": ["-j ufw-before-forward", "-j RF-OPEN"], "RF-OPEN": []}}
    assert jump_changes(behind, "nftables") == [
        "~ jump filter FORWARD > RF-OPEN: rule 2 → 1, behind: -j ufw-before-forward"
    ]


def test_a_rule_with_an_odd_comment_is_somebody_elses() -> None:
    found = changes(LIVE.replace(PASS, f"{PASS}\n-A RF-frontend -m comment --comment it's -j RETURN"))
    assert found == ["- rule in RF-frontend that ringfence did not write: -m comment --comment it's -j RETURN"]


def test_the_deny_comes_before_what_opens_and_before_the_old_layout_goes() -> None:
    live = LIVE.replace(":RF-OPEN - [0:0]", ":RF-OPEN - [0:0]\n:RF-FWD - [0:0]\n-A DOCKER-USER -j RF-FWD")
    found = transaction(parse_save(live))
    assert next(iter(found)) == "mangle"
    assert "-X RF-FWD" in found["filter"]
    assert "-D DOCKER-USER -j RF-FWD" in found["filter"]
    assert found["filter"].index("-D DOCKER-USER -j RF-FWD") < found["filter"].index("-X RF-FWD")


def test_on_the_other_back_end_the_deny_of_this_one_goes_last() -> None:
    found = transaction(parse_save(LIVE), "nftables")
    assert list(found) == ["filter", "nat", "raw", "mangle"]
    assert {"-D FORWARD -j RF-FWD", "-D INPUT -j RF-HOST", "-X RF-FWD", "-X RF-frontend"} <= set(found["mangle"])
    assert "-D DOCKER-USER -j RF-OPEN" in found["filter"]


def test_removal_takes_own_chains_and_the_jumps_to_them_only_the_deny_last() -> None:
    live = LIVE.replace("-A DOCKER-USER -j RF-OPEN", "-A DOCKER-USER -s 1.2.3.4/32 -j DROP\n-A DOCKER-USER -j RF-OPEN")
    text = removal_input(parse_save(live))
    assert "-D DOCKER-USER -j RF-OPEN" in text
    assert "1.2.3.4" not in text
    assert "-X RF-backend" in text
    assert ":DOCKER-USER" not in text
    assert [line for line in text.splitlines() if line.startswith("*")][-1] == "*mangle"
    assert removal_input({"filter": {"FORWARD": ["-j DOCKER-USER"]}}) == ""


def test_a_flow_in_one_family_is_opened_in_that_one_only() -> None:
    only4 = rules_of(flows=[{**FLOW, "source6": ""}])
    names = {place.medium: [rule.name for rule in rules] for place, rules in only4.items() if place.chain == "RF-OPEN"}
    assert "flow web > db tcp/5432" in names["v4"]
    assert "flow web > db tcp/5432" not in names["v6"]
