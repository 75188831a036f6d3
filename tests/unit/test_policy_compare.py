"""What is found to differ between the wanted and the live rules, and the transactions that mend it."""

from __future__ import annotations

import os
import shutil

import pytest

from ringfence.host.policy.compare import both_families, rule_changes
from ringfence.host.policy.nft import TABLES, Line, listed
from ringfence.host.policy.surroundings import as_listed
from ringfence.host.policy.xtables import changes, jump_changes, opens, removal_input, restore_input, shut_input
from ringfence.host.running import Fault
from ringfence.host.tables import Tables, parse_save
from tests.unit.policy_wishes import AROUND, FLOW, rules_of, text_of

OLD_KERNEL = AROUND._replace(tells=False)  # which every kernel is able to load
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nftables: loads the rules"
)


@pytest.fixture(scope="module")
def want() -> list[Line]:
    return as_listed(text_of(around=OLD_KERNEL))


def as_text(lines: list[Line]) -> str:
    """What nft lists, for a table that holds these lines."""
    out: list[str] = []
    for table in TABLES:
        out.append(f"table {table} {{")
        for chain in dict.fromkeys(line.chain for line in lines if line.table == table):
            out.append(f"\tchain {chain} {{")
            for line in lines:
                if (line.table, line.chain) == (table, chain) and line.text != "chain":
                    named = f' comment "{line.name}"' if line.name and not line.text.startswith("type ") else ""
                    out.append(f"\t\t{line.text}{named}")
            out.append("\t}")
        out.append("}")
    return "\n".join(out)


def read(text: str) -> list[Line]:
    head, found, tail = text.partition(f"table {TABLES[1]} {{")
    return [*listed(TABLES[0], head), *listed(TABLES[1], found + tail)]


@needs_root
def test_what_is_as_declared_needs_nothing(want: list[Line]) -> None:
    assert rule_changes(want, want) == []
    assert rule_changes(want, read(as_text(want))) == []


@needs_root
def test_on_a_bare_host_everything_is_pending_and_named(want: list[Line]) -> None:
    found = rule_changes(want, [])
    assert {"+ flow web > db tcp/5432", "+ egress web > internet tcp/443", "+ endpoints", "+ fence"} <= set(found)
    assert all(line.startswith("+ ") for line in found)
    assert {line.removeprefix("+ ") for line in found} == {line.name for line in want}


@needs_root
def test_any_one_line_that_is_gone_is_named(want: list[Line]) -> None:
    for number, line in enumerate(want):
        found = rule_changes(want, [*want[:number], *want[number + 1 :]])
        assert len(found) == 1, line
        assert found[0].startswith((f"+ {line.name}", f"~ {line.name}: missing in {line.chain}: {line.text}")), line


@needs_root
def test_any_one_line_that_somebody_adds_is_shown(want: list[Line]) -> None:
    for chain in ("RF-FWD", "RF-HOST", "RF-frontend", "RF-FRAME"):
        added = Line(TABLES[chain == "RF-FRAME"], chain, "", "counter packets 0 bytes 0 accept")
        place = next(number for number, line in enumerate(want) if line.chain == chain) + 1
        found = rule_changes(want, [*want[:place], added, *want[place:]])
        assert found == [f"- rule in {chain} that ringfence did not write: {added.text}"]


@needs_root
def test_what_a_set_holds_is_compared_element_by_element(want: list[Line]) -> None:
    pair = '"rf-frontend" . 02:42:ac:14:00:0a . 172.20.0.10'
    for new, said in (
        ('"rf-frontend" . 02:42:ac:14:00:0b . 172.20.0.10',
         f'missing in RF-FROM: {pair}; not declared in RF-FROM: "rf-frontend" . 02:42:ac:14:00:0b . 172.20.0.10'),
        (f"{pair}, {pair.replace('.10', '.99')}", f"not declared in RF-FROM: {pair.replace('.10', '.99')}"),
    ):  # fmt: skip
        found = rule_changes(want, read(as_text(want).replace(pair, new)))
        assert found == [f"~ endpoints: {said}"]


@needs_root
def test_another_hook_or_priority_is_named(want: list[Line]) -> None:
    found = rule_changes(want, read(as_text(want).replace("hook forward priority mangle", "hook forward priority 10")))
    assert [line.split(": ")[0] for line in found] == ["~ fence"]
    assert "not declared in RF-FWD: type filter hook forward priority 10; policy accept;" in found[0]


@needs_root
def test_the_order_of_rules_counts(want: list[Line]) -> None:
    rules = [number for number, line in enumerate(want) if line.chain == "RF-frontend"]
    one, other = rules[1], rules[-1]
    swapped = list(want)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    assert rule_changes(want, swapped) == ["~ order of the rules in inet ringfence RF-frontend"]


@needs_root
def test_a_flow_that_is_no_longer_declared_goes(want: list[Line]) -> None:
    without = as_listed(text_of(around=OLD_KERNEL, flows=[]))
    assert "- flow web > db tcp/5432" in rule_changes(without, want)
    assert "+ flow web > db tcp/5432" in rule_changes(want, without)


@needs_root
def test_rules_that_nft_does_not_take_are_an_error_with_the_line() -> None:
    with pytest.raises(Fault, match=r"nft refuses the declared rules: .* ip saddr nonsense"):
        as_listed("add table inet ringfence\nadd rule inet ringfence RF-PRE ip saddr nonsense drop")


def test_a_flow_in_one_family_is_in_that_one_only() -> None:
    both, one = (
        [rule for rule in rules_of(flows=[flow]) if rule.name == "flow web > db tcp/5432"]
        for flow in (FLOW, {**FLOW, "source6": ""})
    )
    assert [rule.family for rule in both] == ["v4", "v6"]
    assert [rule.family for rule in one] == ["v4"]


# -- iptables


WANTED = {backend: opens("keep", AROUND, backend) for backend in ("iptables", "nftables")}
LIVE: Tables = {
    "raw": {"PREROUTING": ["-j RF-RAW", "-d 172.21.0.11/32 ! -i rf-backend -j DROP"], **WANTED["iptables"]["raw"]},
    "filter": {
        "FORWARD": ["-j DOCKER-USER", "-j DOCKER-FORWARD", "-j RF-BRIDGED", "-j ufw-before-forward"],
        "DOCKER-USER": ["-j RF-OPEN"],
        **WANTED["iptables"]["filter"],
    },
}


def with_rules(table: str, chain: str, *rules: str) -> Tables:
    return {**LIVE, table: {**LIVE[table], chain: list(rules)}}


def transaction(live: Tables, backend: str = "iptables") -> dict[str, list[str]]:
    """The commands of one transaction by table, in its order."""
    found: dict[str, list[str]] = {}
    for line in restore_input(WANTED[backend], live, backend).splitlines():
        if line.startswith("*"):
            found[line[1:]] = []
        else:
            found[next(reversed(found))].append(line)
    return found


def test_what_stands_in_its_place_needs_nothing() -> None:
    assert changes(WANTED["iptables"], LIVE, "iptables") == []
    assert not [line for lines in transaction(LIVE).values() for line in lines if line.startswith(("-I", "-D"))]


def test_on_a_bare_host_the_ways_in_are_pending() -> None:
    assert [line for line in changes(WANTED["iptables"], {}, "iptables") if "jump" in line] == [
        "+ jump raw PREROUTING > RF-RAW",
        "+ jump filter DOCKER-USER > RF-OPEN",
        "+ jump filter FORWARD > DOCKER-USER",
        "+ jump filter FORWARD > RF-BRIDGED",
    ]
    bare = transaction({})["filter"]
    assert bare.count(":DOCKER-USER - [0:0]") == 1
    assert {"-I DOCKER-USER 1 -j RF-OPEN", "-I FORWARD 1 -j DOCKER-USER"} <= set(bare)


@pytest.mark.parametrize(
    ("live", "said", "mended"),
    [
        (
            with_rules("filter", "RF-OPEN"),
            "~ chain filter RF-OPEN: missing: -m mark --mark 0x10000000/0x10000000 -j ACCEPT",
            "-A RF-OPEN -m mark --mark 0x10000000/0x10000000 -j ACCEPT",
        ),
        (
            with_rules("raw", "PREROUTING", "-d 172.21.0.11/32 ! -i rf-backend -j DROP", "-j RF-RAW"),
            "~ jump raw PREROUTING > RF-RAW: rule 2 → 1, behind: -d 172.21.0.11/32 ! -i rf-backend -j DROP",
            "-I PREROUTING 1 -j RF-RAW",
        ),
        # Docker decides about its own bridges, and only about those.
        (
            with_rules("filter", "FORWARD", "-j RF-BRIDGED", "-j DOCKER-USER", "-j DOCKER-FORWARD", "-j ufw-before"),
            "~ jump filter FORWARD > RF-BRIDGED: rule 1 → 3, ahead of: -j DOCKER-FORWARD",
            "-I FORWARD 3 -j RF-BRIDGED",
        ),
        (
            with_rules("filter", "FORWARD", "-j DOCKER-USER", "-j DOCKER-FORWARD", "-j ufw-before", "-j RF-BRIDGED"),
            "~ jump filter FORWARD > RF-BRIDGED: rule 4 → 3, behind: -j ufw-before",
            "-I FORWARD 3 -j RF-BRIDGED",
        ),
        (
            with_rules("filter", "FORWARD", "-j DOCKER-USER", "-j RF-BRIDGED", "-j ufw-b", "-i odd0 -o odd0 -j DROP"),
            "~ jump filter FORWARD > RF-BRIDGED: rule 2 → 4, ahead of: -i odd0 -o odd0 -j DROP",
            "-I FORWARD 4 -j RF-BRIDGED",
        ),
        (
            with_rules("filter", "INPUT", "-j RF-OPEN"),
            "- jump filter INPUT > RF-OPEN",
            "-D INPUT -j RF-OPEN",
        ),
        (with_rules("filter", "RF-old", "-j DROP"), "- chain filter RF-old", "-X RF-old"),
    ],
)  # fmt: skip
def test_drift_is_named_and_mended(live: Tables, said: str, mended: str) -> None:
    assert said in changes(WANTED["iptables"], live, "iptables")
    assert mended in [line for lines in transaction(live).values() for line in lines]


def test_chains_of_others_are_never_declared() -> None:
    declared = [line for lines in transaction(LIVE).values() for line in lines if line.startswith(":")]
    assert declared
    assert all(line.startswith(":RF-") for line in declared)


def test_a_ban_stays_before_what_opens_and_a_return_behind_it() -> None:
    live = {"filter": {"DOCKER-USER": ["-p tcp -j f2b-web", "-j RETURN"], "FORWARD": ["-j DOCKER-USER"]}}
    assert "-I DOCKER-USER 2 -j RF-OPEN" in transaction(live)["filter"]


def test_where_docker_is_on_nftables_what_passed_is_accepted_before_ufw_drops_it() -> None:
    live = {"filter": {"FORWARD": ["-j ufw-before-forward", "-j ufw-reject-forward"]}}
    assert {"-I FORWARD 1 -j RF-OPEN", "-I FORWARD 2 -j RF-BRIDGED"} <= set(transaction(live, "nftables")["filter"])
    behind = {"filter": {"FORWARD": ["-j ufw-before-forward", "-j RF-OPEN"], "RF-OPEN": []}}
    assert "~ jump filter FORWARD > RF-OPEN: rule 2 → 1, behind: -j ufw-before-forward" in jump_changes(
        behind, "nftables"
    )


def test_the_deny_of_earlier_releases_goes_whole() -> None:
    earlier: Tables = {
        "mangle": {"FORWARD": ["-j RF-FWD"], "INPUT": ["-j RF-HOST"], "RF-FWD": ["-j DROP"], "RF-HOST": ["-j RETURN"]},
        "nat": {"POSTROUTING": ["-j RF-NAT"], "RF-NAT": ["-j MASQUERADE"]},
    }
    for backend in ("iptables", "nftables"):
        found = transaction({**LIVE, **earlier}, backend)
        assert {"-D FORWARD -j RF-FWD", "-D INPUT -j RF-HOST", "-X RF-FWD", "-X RF-HOST"} <= set(found["mangle"])
        assert {"-D POSTROUTING -j RF-NAT", "-X RF-NAT"} <= set(found["nat"])


def test_what_closes_when_nothing_else_can_goes_with_the_next_run() -> None:
    closed = parse_save(shut_input().replace("-I INPUT 1", "-A INPUT").replace("-I FORWARD 1", "-A FORWARD").replace(
        "-I OUTPUT 1", "-A OUTPUT"
    ))  # fmt: skip
    assert set(transaction({**LIVE, **closed})["mangle"]) >= {
        "-D INPUT -j RF-SHUT", "-D FORWARD -j RF-SHUT", "-D OUTPUT -j RF-SHUT", "-X RF-SHUT",
    }  # fmt: skip


def test_removal_takes_own_chains_and_the_jumps_to_them_only() -> None:
    live = with_rules("filter", "DOCKER-USER", "-s 1.2.3.4/32 -j DROP", "-j RF-OPEN")
    text = removal_input(live)
    assert "-D DOCKER-USER -j RF-OPEN" in text
    assert "1.2.3.4" not in text
    assert "-X RF-BRIDGED" in text
    assert ":DOCKER-USER" not in text
    assert removal_input({"filter": {"FORWARD": ["-j DOCKER-USER"]}}) == ""


def test_what_differs_in_one_family_names_it() -> None:
    assert both_families({"v4": ["+ a", "+ b"], "v6": ["+ a"]}) == ["+ a", "+ b (v4)"]
    assert both_families({"v4": ["+ a"]}) == ["+ a"]
