"""The ufw role's program, on files and rulesets captured from a Debian 13 host that also has foreign rules."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.remote.role import LOADER
from tests.programs import load, path_of

FIXTURES = Path(__file__).parent / "fixtures" / "ufw" / "trixie"
LAN = "10.213.7.0/24"


ufw: Any = load("ufw")


@pytest.fixture(autouse=True)
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own listeners are none of the captured host's."""
    monkeypatch.setattr(ufw, "ground", lambda: ufw.Ground([], [], [], {}))
    monkeypatch.setattr(ufw, "nft_tables", list)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The state of the captured host."""
    monkeypatch.setattr(ufw, "ETC", FIXTURES)
    monkeypatch.setattr(ufw, "USER", {"4": FIXTURES / "user.rules", "6": FIXTURES / "user6.rules"})
    state = ufw.State(installed=True)
    state.conf = {**ufw.SETTINGS, "ENABLED": "yes", "LOGLEVEL": "low", "DEFAULT_FORWARD_POLICY": "DROP"}
    for family, path in ufw.USER.items():
        text = path.read_text()
        lines = [line for line in text.splitlines() if line.startswith("### tuple ###")]
        state.rules[family] = [ufw.parse_tuple(line, family) for line in lines]
        state.files[family] = ufw.parse_rules(text)[1]
        state.live[family] = ufw.Live(*ufw.parse_rules((FIXTURES / f"save{family}").read_text()))
    state.units = {"ufw.service": {"UnitFileState": "enabled", "ActiveState": "active"}}
    return state


def wish(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"rules": list(rules), "denied_ports": [], "foreign": "stop", "logging": "low", "force": False}
    return {**base, **more}


SSH = {"name": "ssh", "action": "allow", "proto": "tcp", "port": "22", "source": LAN}


# -- reading ---------------------------------------------------------------------------------------------------------


def test_kernel_and_files_of_a_real_host_agree(captured: Any) -> None:
    assert ufw.kernel_drift(captured) == []


@pytest.mark.parametrize(
    ("family", "old", "new", "said"),
    [
        ("4", "-A ufw-user-input -p tcp -m tcp --dport 8080 -j ACCEPT\n", "", "ufw-user-input (v4) differs"),
        ("6", ":INPUT DROP", ":INPUT ACCEPT", "policy of INPUT (v6) ACCEPT → DROP"),
        ("4", "-A INPUT -j ufw-before-input\n", "", "INPUT (v4) does not pass"),
        ("4", "-A ufw-before-input -i lo -j ACCEPT\n", "", "ufw-before-input (v4) is not what ufw's files make it"),
        (
            "4",
            "COMMIT\n",
            "-A ufw-reject-input -j ACCEPT\nCOMMIT\n",
            "ufw-reject-input (v4) is not what ufw's files make it",
        ),
        (
            "6",
            "COMMIT\n",
            "-A ufw6-track-input -j ACCEPT\nCOMMIT\n",
            "ufw6-track-input (v6) is not what ufw's files make it",
        ),
        (
            "4",
            "-A ufw-skip-to-policy-input -j DROP",
            "-A ufw-skip-to-policy-input -j ACCEPT",
            "ufw-skip-to-policy-input (v4) is not what ufw's files make it",
        ),
        ("4", ":ufw-user-input - [0:0]\n", "", "ufw is not loaded (v4)"),
    ],
)
def test_drift_is_named(captured: Any, family: str, old: str, new: str, said: str) -> None:
    text = (FIXTURES / f"save{family}").read_text()
    assert old in text
    if "user-input - [0:0]" in old:
        text = "\n".join(line for line in text.splitlines() if "ufw-user-input" not in line)
    captured.live[family] = ufw.Live(*ufw.parse_rules(text.replace(old, new)))
    assert any(said in line for line in ufw.kernel_drift(captured))


def test_while_one_of_ufws_commands_is_at_work_the_hold_is_not_taken_for_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ufw reload` of a person, at the moment at which the timer mends: what it stopped was open for two seconds."""
    path = tmp_path / "ufw.lock"
    monkeypatch.setattr(ufw, "COMMANDS", path)
    real = ufw.lock
    monkeypatch.setattr(ufw, "lock", lambda path, take: real(path, 0.3, take))
    for name in ("hold", "must", "release"):
        monkeypatch.setattr(ufw, name, lambda *_, **__: pytest.fail("it did not wait"))
    # As /usr/sbin/ufw takes it.
    take = (
        f"import fcntl; f = open({str(path)!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", take], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ufw.Fault, match="still at work"):
            ufw.restart_held()
        other.communicate("\n")
    done: list[str] = []
    for name in ("hold", "must", "release"):
        monkeypatch.setattr(ufw, name, lambda *_, name=name, **__: done.append(name))
    ufw.restart_held()
    assert done == ["hold", "must", "must", "release"]


def test_chains_of_others_that_input_leads_to_are_followed() -> None:
    chains = {
        "INPUT": ["-j ufw-before-input", "-i virbr0 -j LIBVIRT_INP", "-p tcp -m tcp --dport 22 -j f2b-sshd"],
        "ufw-before-input": ["-j ufw-user-input"], "ufw-user-input": ["-j ACCEPT"],
        "LIBVIRT_INP": ["-p udp -m udp --dport 53 -j ACCEPT", "-g MORE"], "MORE": ["-j ACCEPT", "-j LIBVIRT_INP"],
        "f2b-sshd": ["-s 192.0.2.1/32 -j REJECT"], "ELSEWHERE": ["-j ACCEPT"],
    }  # fmt: skip
    assert ufw.led_to(chains) == ["LIBVIRT_INP", "f2b-sshd", "MORE"]
    assert ufw.opening(chains["MORE"]) == ["-j ACCEPT"]


def test_a_rule_in_the_place_of_another_is_named_where_the_files_could_be_loaded(captured: Any) -> None:
    text = (FIXTURES / "save4").read_text()
    captured.listed["4"] = {
        chain: [rule for rule in rules if "-user-" not in rule] for chain, rules in captured.live["4"].chains.items()
    }
    assert ufw.kernel_drift(captured) == []
    replaced = "-A ufw-before-input -i lo -j ACCEPT\n"
    assert replaced in text
    captured.live["4"] = ufw.Live(*ufw.parse_rules(text.replace(replaced, "-A ufw-before-input -j ACCEPT\n")))
    assert any("ufw-before-input (v4) is not what" in line for line in ufw.kernel_drift(captured))


def test_what_does_not_load_apart_is_no_fault_of_the_files(captured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of addresses that before.rules names is in the host's own network namespace only."""

    def run(*argv: str, **_: Any) -> Any:
        return ufw.subprocess.CompletedProcess(argv, int(argv[0] == "unshare"), "", "set does not exist")

    monkeypatch.setattr(ufw, "run", run)
    ufw.check_files(captured, "4")
    assert (captured.listed, captured.broken) == ({}, {})


def test_every_captured_rule_is_spelled_as_ufw_takes_it(captured: Any) -> None:
    spelled = {ufw.replayable(rule) for rules in captured.rules.values() for rule in rules if not rule.own}
    assert spelled == {
        "ufw deny from 192.0.2.7 to any",
        "ufw allow proto tcp from any to any port 8080 comment 'my app'",
        "ufw allow from any to any port 22",
        "ufw allow proto tcp from any to any port 8000",
        "ufw route allow in on eth0 out on eth1 from any to any",
        "ufw allow from any to any app 'WWW Full'",
        "ufw limit log proto tcp from any to any port 2222",
        "ufw reject out proto tcp from any to 198.51.100.0/24 port 25",
    }


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("-p tcp --dport 22 -s 10.0.0.5 -j ACCEPT", "-s 10.0.0.5/32 -p tcp -m tcp --dport 22 -j ACCEPT"),
        ("-p tcp -m multiport --dports 80,443 -j ACCEPT", "-p tcp -m multiport --dports 80,443 -j ACCEPT"),
        (
            "-m limit --limit 3/minute -j LOG --log-prefix \"[UFW LIMIT BLOCK] \"",
            '-m limit --limit 3/min -j LOG --log-prefix "[UFW LIMIT BLOCK] "',
        ),
        ("-p vrrp -j ACCEPT", "-p 112 -j ACCEPT"),
        ("-p udp --dport 53 -j REJECT", "-p udp -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable"),
        (
            "-p tcp --dport 1 -m conntrack --ctstate NEW -m recent --set",
            "-p tcp -m tcp --dport 1 -m conntrack --ctstate NEW -m recent --set --name DEFAULT "
            "--mask 255.255.255.255 --rsource",
        ),
        (
            "-p tcp --dport 80 -j ACCEPT -m comment --comment 'dapp_WWW'",
            "-p tcp -m tcp --dport 80 -m comment --comment \"\\'dapp_WWW\\'\" -j ACCEPT",
        ),
    ],
)  # fmt: skip
def test_written_and_printed_rules_are_the_same(written: str, printed: str) -> None:
    assert ufw.canonical(written) == ufw.canonical(printed)


def test_a_negated_match_is_another_rule() -> None:
    assert ufw.canonical("! -i lo -j DROP") != ufw.canonical("-i lo -j DROP")


@pytest.mark.parametrize("line", ["### tuple ### allow tcp 22", "### tuple ### allow tcp x 0.0.0.0/0 any nonsense in"])
def test_unreadable_tuples_are_recognised(line: str) -> None:
    assert ufw.parse_tuple(line, "4") is None


# -- foreign rules ---------------------------------------------------------------------------------------------------


def report(state: Any, desired: dict[str, Any], connection: Any = None) -> dict[str, list[str]]:
    login = ufw.Login(connection[0], 40000, *connection[1:]) if connection else None
    result: dict[str, list[str]] = ufw.compare(desired, state, login)
    return result


def test_of_rules_that_are_not_understood_nothing_else_is_concluded(captured: Any) -> None:
    """Not that nobody could come in, and not that the rules which are there would go."""
    nameless = {"name": "print", "action": "allow", "application": "no such thing"}
    told = report(captured, wish(SSH, nameless), ("192.168.10.7", "192.168.10.5", 22))
    [refusal] = told["refusals"]
    assert "ufw_rules.print: ufw has no application profile 'no such thing'" in refusal
    assert told["changes"] == []


def test_foreign_rules_stop_the_run_and_are_listed(captured: Any) -> None:
    [refusal] = report(captured, wish(SSH))["refusals"]
    assert "6 rules that ringfence did not make" in refusal
    assert "ufw allow proto tcp from any to any port 8080 comment 'my app'" in refusal
    assert all(fix in refusal for fix in ("ufw_rules", "ufw_foreign: keep", "ufw_foreign: remove"))


def test_foreign_rules_that_are_kept_are_said(captured: Any) -> None:
    result = report(captured, wish(SSH, foreign="keep"))
    assert result["refusals"] == []
    assert sum("kept" in line for line in result["notices"]) == 6
    assert not any("(foreign)" in line for line in result["changes"])


def test_what_only_denies_opens_nothing_and_never_stops_a_run(captured: Any) -> None:
    """fail2ban with banaction=ufw bans at any moment: the next run by a timer would have stopped."""
    ban = ufw.parse_tuple(
        f"### tuple ### reject any any 0.0.0.0/0 any 203.0.113.9 in comment={b'by Fail2Ban after 5 attempts'.hex()}",
        "4",
    )
    captured.rules = {"4": [ban], "6": []}
    for foreign in ("stop", "keep", "remove"):
        told = report(captured, wish(SSH, foreign=foreign))
        assert told["refusals"] == []
        assert not any("203.0.113.9" in line for line in told["changes"])
        assert any("203.0.113.9" in line and "lets nobody in" in line for line in told["notices"])
    captured.rules["4"] = [ban._replace(comment="mine")]
    assert report(captured, wish(SSH))["refusals"] == []
    assert any("203.0.113.9" in line for line in report(captured, wish(SSH, foreign="remove"))["changes"])


def test_foreign_rules_are_removed_on_request_one_line_each(captured: Any) -> None:
    result = report(captured, wish(SSH, foreign="remove"))
    assert sum(line.startswith("- rule (foreign)") for line in result["changes"]) == 8
    assert result["refusals"] == []


def test_a_foreign_rule_that_is_declared_is_adopted(captured: Any) -> None:
    declared = {"name": "app", "proto": "tcp", "port": "8080", "source": "any"}
    result = report(captured, wish(SSH, declared, foreign="keep"))
    assert any(line.startswith("~ rule app:") for line in result["changes"])
    assert not any("8080" in line for line in result["notices"])


def test_a_foreign_rule_that_opens_nothing_else_is_replaced(captured: Any) -> None:
    both = {"name": "all-ssh", "proto": "any", "port": "20:30", "source": "any"}
    result = report(captured, wish({**SSH, "source": "any"}, both))
    assert "- rule (foreign): `ufw allow from any to any port 22` (declared as ssh, all-ssh)" in result["changes"]
    assert "to any port 22\n" not in result["refusals"][0]


def test_the_opposite_of_a_declared_rule_is_refused(captured: Any) -> None:
    contrary = {"name": "no-app", "action": "deny", "proto": "tcp", "port": "8080", "source": "any"}
    result = report(captured, wish(SSH, contrary, foreign="keep"))
    assert any("says the opposite of the declared no-app" in line for line in result["refusals"])


# -- order -----------------------------------------------------------------------------------------------------------


def rule(port: str, action: str = "allow", comment: str = "", src: str = "0.0.0.0/0") -> Any:
    match = ufw.Match("tcp", port, "0.0.0.0/0", "any", src, "", "", "in", "", "", False)
    return ufw.Rule("4", match, action, "", comment)


def test_a_narrowed_rule_is_in_place_before_the_wide_one_goes() -> None:
    current = [rule("22", comment="rf:ssh")]
    wanted = [rule("22", comment="rf:ssh", src="10.0.0.0/8")]
    step = ufw.next_step(current, wanted, ufw.leaving(current, wanted, "stop"))
    assert step.verb == "insert"


def test_named_denies_go_before_a_kept_rule_that_would_open_them() -> None:
    current = [rule("5432"), rule("22", comment="rf:ssh")]
    wanted = [rule("22", comment="rf:ssh"), rule("5000:6000", "deny", "rf:deny-db")]
    final, _ = ufw.simulate(current, wanted, "keep")
    assert final == [*wanted, rule("5432")]


def test_others_denies_at_the_top_stay_there() -> None:
    stranger = rule("any", "deny", src="192.0.2.0/24")
    final, _ = ufw.simulate([stranger], [rule("22", comment="rf:ssh")], "keep")
    assert final[0] == stranger


def test_a_port_that_is_both_allowed_and_denied_is_settled_once() -> None:
    desired = wish(
        {**SSH, "port": "5432", "source": "any"}, denied_ports=[{"name": "deny-db", "port": "5432", "proto": "tcp"}]
    )
    lists, notices = ufw.wanted_rules(desired, True)
    assert [each.action for each in lists["4"]] == ["allow"]
    assert notices == ["rule deny-db has no effect: ssh says the opposite for the same packets"]


pool = st.builds(
    rule,
    port=st.sampled_from(["22", "80", "5432", "8000:9000", "53"]),
    action=st.sampled_from(["allow", "deny"]),
    comment=st.sampled_from(["", "rf:a", "rf:b"]),
    src=st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", "10.0.0.5"]),
)


def distinct(rules: list[Any]) -> list[Any]:
    return list({each.match: each for each in rules}.values())


@settings(max_examples=400, deadline=None)
@given(st.lists(pool, max_size=8), st.lists(pool, max_size=8), st.sampled_from(["stop", "keep", "remove"]))
def test_always_ends_in_order_and_stays_there(current: list[Any], wanted: list[Any], foreign: str) -> None:
    current = distinct(current)
    wanted = distinct([each._replace(comment="rf:x") for each in wanted])
    final, _ = ufw.simulate(current, wanted, foreign)
    assert [each for each in final if each.own] == wanted
    assert ufw.simulate(final, wanted, foreign) == (final, [])
    strangers = [each for each in current if not each.own and each.match not in {w.match for w in wanted}]
    kept = [each for each in final if not each.own]
    assert kept == (strangers if foreign == "keep" else [] if foreign == "remove" else kept)


# -- commands to ufw -------------------------------------------------------------------------------------------------


def test_both_families_are_appended_with_one_command() -> None:
    lists, _ = ufw.wanted_rules(wish({"name": "web", "proto": "tcp", "port": "80", "source": "any"}), True)
    steps = {family: ufw.next_step([], lists[family], []) for family in lists}
    assert ufw.command(steps["4"], steps, {"4": [], "6": []}) == [
        "allow", "proto", "tcp", "from", "any", "to", "any", "port", "80", "comment", "rf:web",
    ]  # fmt: skip


def test_numbers_of_ipv6_rules_follow_those_of_ipv4() -> None:
    lists, _ = ufw.wanted_rules(wish({"name": "web", "proto": "tcp", "port": "80", "source": "any"}), True)
    other = ufw.twin(rule("99"))
    step = ufw.next_step([other], lists["6"], [])
    words = ufw.command(step, {"4": None, "6": step}, {"4": [rule("1"), rule("2")], "6": [other]})
    assert words[:2] == ["insert", "3"]
    assert "::/0" in words


def test_deleting_never_asks() -> None:
    step = ufw.Step("delete", 1, rule("80"))
    assert ufw.command(step, {"4": step, "6": None}, {"4": [rule("1"), rule("80")], "6": []}) == [
        "--force",
        "delete",
        "2",
    ]


def test_bound_to_an_interface() -> None:
    entry = {"name": "node", "proto": "tcp", "port": "9100", "source": "172.20.0.5/32", "interface": "rf-frontend"}
    [found] = ufw.expand(entry)
    assert ufw.replayable(found) == (
        "ufw allow in on rf-frontend proto tcp from 172.20.0.5 to any port 9100 comment rf:node"
    )


@pytest.mark.parametrize(
    ("entry", "families"),
    [({"source": "any"}, "46"), ({"source": "10.0.0.0/8"}, "4"), ({"source": "fd00::/8"}, "6"), ({}, "46")],
)
def test_families_follow_the_source(entry: dict[str, str], families: str) -> None:
    assert "".join(each.family for each in ufw.expand({"name": "x", "port": "1", "proto": "tcp", **entry})) == families


def test_lists_of_ports_are_split_by_protocol_because_ufw_asks_for_it() -> None:
    found = list(ufw.expand({"name": "x", "port": "443,80", "proto": "any", "source": "10.0.0.1"}))
    assert [(each.match.proto, each.match.dport) for each in found] == [("tcp", "80,443"), ("udp", "80,443")]


# -- the way in ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare() -> Any:
    state = ufw.State(installed=False)
    state.live = {"4": ufw.Live({}, {}), "6": ufw.Live({}, {})}
    return state


@pytest.mark.parametrize(
    ("client", "server", "refused"),
    [
        ("10.213.7.1", "10.213.7.10", False),
        ("10.99.0.5", "10.213.7.10", True),
        ("fd52:4600:7::1", "fd52:4600:7::10", True),
        ("127.0.0.1", "127.0.0.1", False),
    ],
)
def test_own_way_in(bare: Any, client: str, server: str, refused: bool) -> None:
    result = report(bare, wish(SSH), (client, server, 22))
    assert bool(result["refusals"]) is refused
    if refused:
        assert client in result["refusals"][0]
        assert "port 22" in result["refusals"][0]
        assert "ufw_force: true" in result["refusals"][0]


def test_another_port_of_sshd_is_seen(bare: Any) -> None:
    assert report(bare, wish(SSH), ("10.213.7.1", "10.213.7.10", 2222))["refusals"]


def test_force_overrides_but_says_so(bare: Any) -> None:
    result = report(bare, wish(force=True), ("10.0.0.1", "10.0.0.2", 22))
    assert result["refusals"] == []
    assert any("because of ufw_force" in line for line in result["notices"])


def test_a_kept_foreign_rule_counts_as_a_way_in(captured: Any) -> None:
    assert report(captured, wish(foreign="keep"), ("203.0.113.5", "10.0.0.2", 22))["refusals"] == []
    refusals = report(captured, wish(foreign="keep"), ("192.0.2.7", "10.0.0.2", 22))["refusals"]
    assert any("192.0.2.7" in line for line in refusals)


def test_at_the_console_a_closed_host_is_a_notice(bare: Any) -> None:
    assert any("at its console only" in line for line in report(bare, wish())["notices"])


# -- the rest --------------------------------------------------------------------------------------------------------


def test_bare_host_is_all_pending_and_names_every_rule(bare: Any) -> None:
    changes = report(bare, wish(SSH))["changes"]
    assert any("rule ssh" in line for line in changes)
    assert any("active now and at boot" in line for line in changes)


@pytest.mark.parametrize("name", ["iptables-persistent", "netfilter-persistent", "firewalld"])
def test_other_managers_of_the_firewall_are_refused(captured: Any, name: str) -> None:
    captured.rivals = [name]
    refusals = report(captured, wish(SSH, foreign="keep"))["refusals"]
    assert any(name in line and "apt-get remove" in line for line in refusals)


def test_nftables_service_is_refused(captured: Any) -> None:
    captured.units["nftables.service"] = {"UnitFileState": "enabled", "ActiveState": "inactive"}
    assert any("nftables.service" in line for line in report(captured, wish(SSH, foreign="keep"))["refusals"])


def test_somebody_elses_broken_file_is_refused_ours_repaired(captured: Any) -> None:
    captured.broken = {FIXTURES / "after.rules": "line 3", ufw.USER["4"]: "line 9"}
    result = report(captured, wish(SSH, foreign="keep"))
    assert any("after.rules does not load" in line for line in result["refusals"])
    assert any("user.rules: repaired" in line for line in result["changes"])


def test_a_hold_left_behind_is_lifted(captured: Any) -> None:
    captured.hold = True
    assert any(line.startswith("- ufw-h-") for line in report(captured, wish(SSH, foreign="keep"))["changes"])


@pytest.mark.parametrize("policy", ["DROP", "REJECT"])
def test_what_the_user_denies_to_go_out_is_not_opened_without_a_question(captured: Any, policy: str) -> None:
    captured.conf["DEFAULT_OUTPUT_POLICY"] = policy
    captured.rules = {"4": [], "6": []}

    def told(**more: Any) -> dict[str, list[str]]:
        return report(captured, wish(SSH, **more))

    [refusal] = told()["refusals"]
    assert "ufw_default_outgoing: deny" in refusal
    assert "ufw_default_outgoing: allow" in refusal
    assert told(default_outgoing="allow")["refusals"] == []
    assert any(f"DEFAULT_OUTPUT_POLICY={policy} → ACCEPT" in line for line in told(default_outgoing="allow")["changes"])
    left = told(default_outgoing="deny")
    assert left["refusals"] == []
    assert not any("DEFAULT_OUTPUT_POLICY" in line for line in left["changes"])
    assert ufw.policies(captured)["OUTPUT"] == "DROP"
    assert ufw.made(captured, "4")["ufw-reject-output"] == (["-j REJECT"] if policy == "REJECT" else [])
    assert ufw.made(captured, "4")["ufw-track-output"] == []
    captured.conf["DEFAULT_OUTPUT_POLICY"] = "ACCEPT"
    assert any("ACCEPT → DROP" in line for line in told(default_outgoing="deny")["changes"])
    # Somebody's since the last run: put back.
    captured.conf["DEFAULT_OUTPUT_POLICY"] = policy
    assert ufw.compare(ufw.unasked(wish(SSH)), captured, None)["refusals"] == []


def test_settings_are_assigned_in_place(tmp_path: Path) -> None:
    path = tmp_path / "ufw"
    path.write_text('# c\nIPV6=no\nDEFAULT_INPUT_POLICY="ACCEPT"\n')
    path.chmod(0o644)
    ufw.assign(path, "IPV6", "yes")
    ufw.assign(path, "DEFAULT_INPUT_POLICY", "DROP")
    ufw.assign(path, "MANAGE_BUILTINS", "no")
    assert path.read_text() == '# c\nIPV6=yes\nDEFAULT_INPUT_POLICY="DROP"\nMANAGE_BUILTINS=no\n'
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("arguments", "desired", "code", "said"),
    [
        (["check"], wish(SSH, force=True), 0, ""),
        (["check"], {"rules": []}, 1, "desired state lacks denied_ports, force, foreign, logging"),
        (["reload"], {}, 2, "usage: ringfence-ufw check|apply"),
    ],
)
def test_sent_before_it_is_installed(arguments: list[str], desired: Any, code: int, said: str) -> None:
    request = {"program": path_of("ufw").read_text(), "arguments": arguments, "desired": desired}
    result = subprocess.run(
        [sys.executable, "-c", LOADER],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == code
    assert said in result.stderr
    if code == 0:
        assert set(json.loads(result.stdout)) == {"changes", "refusals", "notices"}


@pytest.mark.parametrize("silent", ["iptables-save", "ip6tables-save", "systemctl", "dpkg-query"])
@pytest.mark.parametrize("code", [124, 1])
def test_what_cannot_be_read_is_an_error_not_an_empty_answer(
    monkeypatch: pytest.MonkeyPatch, silent: str, code: int
) -> None:
    """A hanging iptables-save counted as a kernel without rules, a hanging dpkg-query as one without rivals."""

    def run(*argv: str, **options: Any) -> Any:
        fails = argv[0] == silent
        code_of = code + 1 if fails and silent == "dpkg-query" else code
        return ufw.subprocess.CompletedProcess(argv, code_of if fails else 0, "", "no answer")

    monkeypatch.setattr(ufw, "run", run)
    monkeypatch.setattr(ufw, "booted", lambda: True)
    monkeypatch.setattr(ufw, "families", lambda: ["v4", "v6"])
    with pytest.raises(ufw.Fault, match=silent):
        ufw.gather()


def test_files_are_not_taken_for_good_where_iptables_restore_hangs(
    captured: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ufw, "run", lambda *argv, **_: ufw.subprocess.CompletedProcess(argv, 124, "", "took longer"))
    with pytest.raises(ufw.Fault, match="took longer"):
        ufw.check_files(captured, "4")


def test_order_of_the_declaration_does_not_flip_flop() -> None:
    wanted = [rule(str(port), comment=f"rf:{port}") for port in range(20)]
    shuffled = list(wanted)
    random.Random(1).shuffle(shuffled)
    final, lines = ufw.simulate(shuffled, wanted, "stop")
    assert final == wanted
    assert all(line.startswith("~") for line in lines)


# -- what is forwarded -----------------------------------------------------------------------------------------------

NAT = """*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.30.0.0/16 ! -o mine0 -j MASQUERADE
-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A POSTROUTING -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE
-A PREROUTING -i eth0 -p tcp -m tcp --dport 2222 -j DNAT --to-destination 192.168.122.5:22
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80
COMMIT
"""


def test_what_is_translated_for_others_is_told_from_dockers_own() -> None:
    assert ufw.translations(NAT, {"mine0"}) == [
        "POSTROUTING -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE",
        "PREROUTING -i eth0 -p tcp -m tcp --dport 2222 -j DNAT --to-destination 192.168.122.5:22",
    ]


def test_ways_are_between_interfaces_with_addresses_and_within_bridges() -> None:
    text = (
        "2: eth0    inet 192.0.2.2/24 brd 192.0.2.255 scope global eth0\n"
        "2: eth0    inet6 fe80::1/64 scope link\n3: virbr0    inet 192.168.122.1/24 scope global virbr0\n"
    )
    assert ufw.addressed(text) == {"4": {"eth0", "virbr0"}, "6": set()}
    found = ufw.pairs(["eth0", "tap0", "virbr0"], ["virbr0"], ufw.addressed(text), ["4", "6"])
    assert found == {("eth0", "virbr0"): "4", ("virbr0", "eth0"): "4", ("virbr0", "virbr0"): "46"}


def test_what_is_forwarded_is_not_cut_without_a_question(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual machines behind a bridge lost their network, and no word of it stood in the plan."""
    found = ufw.Routed({("eth0", "virbr0"): "4", ("virbr0", "eth0"): "4"}, ["the bridge virbr0"])
    monkeypatch.setattr(ufw, "routed", lambda _: found)
    [refusal] = report(bare, wish(SSH))["refusals"]
    for words in (
        "by eth0, virbr0, is cut off (the bridge virbr0)",
        "`ufw_unmanaged_routed: keep`",
        "direction: route",
    ):
        assert words in refusal
    passing = {"name": "guests", "direction": "route", "interface": "virbr0", "interface_out": "eth0"}
    assert report(bare, wish(SSH, passing))["refusals"] == []
    assert report(bare, wish(SSH, unmanaged_routed="close"))["refusals"] == []
    keep = wish(SSH, unmanaged_routed="keep")
    told = report(bare, keep)
    assert told["refusals"] == []
    said = "+ rule kept-route-virbr0-eth0: `ufw route allow in on virbr0 out on eth0 from any to any comment"
    assert any(said in line for line in told["changes"])
    # Afterwards it stays as it was kept.
    wanted, _ = ufw.wanted_rules(ufw.asked(keep, bare).desired, True)
    assert [rule.name for rule in wanted["6"]] == []
    bare.rules = wanted
    monkeypatch.setattr(ufw, "routed", lambda _: pytest.fail("it stands"))
    assert not any("rule" in line for line in report(bare, keep)["changes"])
    assert any("- rule kept-route-virbr0-eth0" in line for line in report(bare, wish(SSH))["changes"])


@pytest.mark.parametrize(
    ("forward", "policy", "forwards", "asked"),
    [
        ("DROP", "ACCEPT", "1", True),
        ("ACCEPT", "ACCEPT", "1", False),  # left as ufw has it configured
        ("DROP", "DROP", "1", False),  # nothing is forwarded that no rule lets through
        ("DROP", "ACCEPT", "0", False),
        ("DROP", "", "1", True),  # no table yet, as nobody has used iptables
    ],
)
def test_only_what_would_change_is_looked_for(
    captured: Any, monkeypatch: pytest.MonkeyPatch, forward: str, policy: str, forwards: str, asked: bool
) -> None:
    captured.conf["DEFAULT_FORWARD_POLICY"] = forward
    captured.live["4"].policies["FORWARD"], captured.live["6"].policies["FORWARD"] = policy, "DROP"
    if not policy:
        del captured.live["4"].policies["FORWARD"]
    captured.interfaces = {"lo", "eth0", "wan0", "docker0", "br-0123456789ab", "rf-web", "mine0"}
    monkeypatch.setattr(ufw, "read", lambda path: forwards if "forward" in str(path) else "")
    monkeypatch.setattr(ufw, "booted", lambda: True)
    monkeypatch.setattr(ufw, "docker_runs", lambda: True)
    bridge = {"Id": "0" * 64, "Options": {"com.docker.network.bridge.name": "mine0"}}
    monkeypatch.setattr(ufw, "engine", lambda *_: [bridge])
    monkeypatch.setattr(ufw, "live_text", lambda _: NAT)
    monkeypatch.setattr(ufw, "nft_tables", lambda: ["ip nat", "ip docker-bridges", "inet guests", "inet nat"])
    chain = "chain {} {{ type nat hook postrouting priority srcnat; policy accept; masquerade }}"
    tables = {
        "ip nat": chain.format("POSTROUTING"),
        "inet guests": chain.format("out"),
        "inet nat": chain.format("out"),
    }
    monkeypatch.setattr(ufw, "nft_table", tables.get)
    names = ("eth0", "wan0", "docker0", "mine0")
    text = "".join(f"2: {name} inet 192.0.2.1/24 scope global {name}\n" for name in names)
    monkeypatch.setattr(ufw, "must", lambda *_, **__: text)
    found = ufw.routed(captured)
    assert set(found.pairs) == ({("eth0", "wan0"), ("wan0", "eth0")} if asked else set())
    assert bool(found.why) is asked
    if asked:
        assert found.why[-2:] == ["nft's table inet guests", "nft's table inet nat"]
        assert len(found.why) == 4


# -- while ufw is stopped --------------------------------------------------------------------------------------------


def hold(family: str) -> list[str]:
    suffix = "6" if family == "6" else ""
    files = [(FIXTURES / f"{part}{suffix}.rules").read_text() for part in ("before", "after", "user")]
    policies = {"INPUT": "DROP", "OUTPUT": "ACCEPT", "FORWARD": "DROP"}
    return list(ufw.hold_text(family, files, policies).splitlines())


@pytest.mark.parametrize("family", ["4", "6"])
def test_the_hold_is_a_copy_of_what_ufw_loads(family: str) -> None:
    lines = hold(family)
    declared = {line[1:].split()[0] for line in lines if line.startswith(":")}
    assert all(chain.startswith("ufw-h-") and len(chain) <= 28 for chain in declared)
    for line in lines:
        if line.startswith("-A ") and " -j ufw" in line:
            assert line.rpartition(" -j ")[2].split()[0] in declared, line
    # Everything that ufw's own chain of rules does, in its order.
    text = (FIXTURES / ("user6.rules" if family == "6" else "user.rules")).read_text()
    name = f"{ufw.PREFIX[family]}user-input"
    theirs = [
        line.replace(ufw.PREFIX[family], "ufw-h-") for line in text.splitlines() if line.startswith(f"-A {name} ")
    ]
    assert len(theirs) > 3
    assert [line for line in lines if line.startswith("-A ufw-h-user-input ")] == theirs


def test_the_hold_denies_at_the_end_of_what_ufw_denies_by_default() -> None:
    lines = hold("4")
    for way in ("input", "forward"):
        rules = [line for line in lines if line.startswith(f"-A ufw-h-{way} ")]
        assert rules[-1] == f"-A ufw-h-{way} -j DROP"
        assert f"-A {way.upper()} -j ufw-h-{way}" in lines
    assert "-A ufw-h-output -j DROP" not in lines
    assert "-A ufw-h-after-input -p udp --dport 137 -j DROP" in lines


@pytest.mark.parametrize(("live", "held"), [("*filter\n:ufw-user-input - [0:0]\n", True), ("*filter\n", False)])
def test_nothing_is_held_where_ufw_is_not_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: str, held: bool
) -> None:
    # Its files may not even hold the way in: to close by them would be a lock-out.
    loaded: list[str] = []

    def load_rules(*_: str, text: str) -> Any:
        loaded.append(text)
        return subprocess.CompletedProcess([], 0, "", "")

    for name, value in {"HELD": tmp_path / "held", "families": lambda: ["v4"], "live_text": lambda _: live}.items():
        monkeypatch.setattr(ufw, name, value)
    monkeypatch.setattr(ufw, "run", load_rules)
    ufw.hold()
    assert bool(loaded) is held
    ufw.hold(always=True)
    assert loaded


def test_chains_of_the_hold_are_no_drift(captured: Any) -> None:
    live = captured.live["4"]
    live.chains["INPUT"].append("-j ufw-h-input")
    assert ufw.kernel_drift(captured) == []


PACKAGED = '#!/bin/sh\nset -e\ncase "$1" in\nstart)\n    ;;\nesac\n'


def test_a_hook_that_was_not_executable_stays_unread() -> None:
    path = ufw.ETC / "before.init"
    text = ufw.with_block(path, PACKAGED, runs=False)
    first, *rest = text.splitlines()
    assert first == "#!/bin/sh"
    assert rest.index("set -e") > next(n for n, line in enumerate(rest) if line.startswith("exit 0"))
    assert ufw.with_block(path, text, runs=True) == text
    done = subprocess.run(["sh", "-c", text, "before.init", "start"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_hook_of_somebody_elses_goes_on_behind_ours() -> None:
    path = ufw.ETC / "after.init"
    text = ufw.with_block(path, "#!/bin/bash\necho theirs\n", runs=True)
    assert text.startswith("#!/bin/bash\n# >>> ringfence")
    assert text.endswith("# <<< ringfence\necho theirs\n")
    assert "exit 0" not in text
    assert ufw.with_block(path, text, runs=True) == text
    # Whatever becomes of ours, theirs runs and ufw goes on.
    done = subprocess.run(["sh", "-c", text, "after.init", "start"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "theirs\n")


def test_a_hook_that_is_no_shell_script_is_refused_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {
        tmp_path / name: lines for name, lines in zip(("before.init", "after.init"), ufw.LINES.values(), strict=True)
    }
    monkeypatch.setattr(ufw, "LINES", paths)
    for path in paths:
        path.write_text("#!/usr/bin/python3\n")
        path.chmod(0o750)
    refusals = ufw.hook_refusals()
    assert len(refusals) == 2
    assert "ringfence-ufw hold` when it is called with stop" in refusals[0]
    (tmp_path / "before.init").write_text('#!/usr/bin/python3\nos.system("/usr/local/sbin/ringfence-ufw hold")\n')
    assert len(ufw.hook_refusals()) == 1
    assert ufw.pending_hooks() == [tmp_path / "after.init"]


# -- beside ufw ------------------------------------------------------------------------------------------------------


# What `tailscale up` makes, as tailscaled 1.102.3 writes it (the live test has it from the program itself).
TAILSCALES = {
    "INPUT": ["-j ts-input", "-j ufw-before-input"],
    "ufw-before-input": ["-i tailscale0 -j ACCEPT"],
    "ts-input": [
        "-s 100.64.0.2/32 -i lo -j ACCEPT",
        "-s 100.115.92.0/23 ! -i tailscale0 -j RETURN",
        "-s 100.64.0.0/10 ! -i tailscale0 -j DROP",
        "-i tailscale0 -j ACCEPT",
        "-p udp -m udp --dport 41641 -j ACCEPT",
    ],
}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({}, ["-j ts-input"]),
        ({"INPUT": ["-j ufw-before-input"]}, []),  # nodivert: the chain is there, and nothing leads to it
        ({"INPUT": ["-j mine"], "mine": ["-m comment -g ts-input"]}, ["-j mine"]),
        ({"ts-input": ["-i tail+ -p tcp -j ACCEPT"]}, ["-j ts-input"]),
        ({"ts-input": ["-p udp -m udp --dport 41641 -j ACCEPT"]}, ["-j ts-input"]),
        ({"ts-input": ["! -i eth0 -j ACCEPT"]}, ["-j ts-input"]),
        ({"ts-input": ["! -i tailscale0 -j ACCEPT"]}, []),
        ({"ts-input": ["-i lo -j ACCEPT", "-i virbr0 -j ACCEPT", "-j DROP"]}, []),
        ({"INPUT": ["-i eth0 -j ts-input"]}, []),
        ({"ts-input": ["-j ts-input"]}, []),
    ],
)
def test_a_side_door_past_ufw_is_seen(changed: dict[str, list[str]], found: list[str]) -> None:
    assert ufw.side_doors({**TAILSCALES, **changed}, ["tailscale0"]) == found


@pytest.mark.parametrize("foreign", ["stop", "keep"])
def test_a_side_door_past_ufw_is_refused_with_the_fix(captured: Any, foreign: str) -> None:
    captured.rules = {"4": [], "6": []}
    captured.chains = {"4": TAILSCALES, "6": {}}
    captured.led = {"4": ["ts-input -i tailscale0 -j ACCEPT"], "6": []}
    told = ufw.compare(wish(SSH, foreign=foreign), captured, None)
    assert "leads to another program's chain" in "\n".join(told["notices"])
    told = ufw.compare(wish(SSH, foreign=foreign, exclusive_interfaces=["tailscale0"]), captured, None)
    [refusal] = told["refusals"]
    assert "INPUT (v4) leads to ts-input" in refusal
    assert "tailscale set --netfilter-mode=off" in refusal
    assert "which is left" not in "\n".join(told["notices"])


def test_a_tailscaled_without_its_interface_is_refused(captured: Any) -> None:
    captured.rules = {"4": [], "6": []}
    captured.tailscaled, captured.interfaces = True, {"lo", "eth0"}
    assert ufw.compare(wish(SSH), captured, None)["refusals"] == []
    asked = wish(SSH, exclusive_interfaces=["tailscale0"])
    for desired in (asked, ufw.unasked(asked)):
        [refusal] = ufw.compare(desired, captured, None)["refusals"]
        assert "--tun=userspace-networking" in refusal
    captured.interfaces = {"lo", "eth0", "tailscale0"}
    assert ufw.compare(asked, captured, None)["refusals"] == []
    captured.interfaces, captured.tailscaled = {"lo"}, False  # it is not started yet
    assert ufw.compare(asked, captured, None)["refusals"] == []


def test_what_runs_in_a_network_of_its_own_does_not_run_here(tmp_path: Path) -> None:
    assert ufw.runs_here(Path("/proc/self/comm").read_text().strip())
    for number, name, network in (("self", "sh", "1"), ("7", "tailscaled", "2"), ("8", "sshd", "1")):
        (tmp_path / number / "ns").mkdir(parents=True)
        (tmp_path / number / "comm").write_text(f"{name}\n")
        (tmp_path / number / "ns/net").symlink_to(f"net:[{network}]")
    assert ufw.runs_here("sshd", tmp_path)
    assert not ufw.runs_here("tailscaled", tmp_path)


@pytest.mark.parametrize("foreign", ["stop", "keep", "remove"])
def test_a_side_door_past_ufw_is_shut_by_the_watch(captured: Any, foreign: str) -> None:
    captured.chains = {"4": TAILSCALES, "6": {}}
    desired = wish(SSH, foreign=foreign, exclusive_interfaces=["tailscale0"])
    told = ufw.compare(ufw.unasked(desired), captured, None)
    assert "- INPUT (v4): `-j ts-input`" in told["changes"]
    assert not [refusal for refusal in told["refusals"] if "ts-input" in refusal]


@pytest.mark.parametrize(
    ("rule", "opens"),
    [
        ("-j ACCEPT", True),
        ("-p tcp -m tcp --dport 8080 -j ACCEPT", True),
        ("-i lo -j ACCEPT", False),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", False),
        ("-p tcp -m multiport --dports 22 -j f2b-sshd", False),
        ("-j ufw-before-input", False),
        ("-s 192.0.2.1/32 -j DROP", False),
    ],
)
def test_rules_of_input_that_let_in_beside_ufw_are_known(rule: str, opens: bool) -> None:
    assert ufw.opening([rule]) == ([rule] if opens else [])


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (["-i lo -j ACCEPT", "-p tcp -m tcp --dport 22 -j ACCEPT", "-j DROP"], "iptables -P INPUT DROP"),
        (["-j REJECT --reject-with icmp-host-prohibited", "-j ufw-before-logging-input"], "-D INPUT -j REJECT"),
        (["-i eth0 -j DROP"], "Remove it: `iptables -D INPUT -i eth0 -j DROP`"),
        (["-m conntrack --ctstate INVALID,NEW -j DROP"], "-P INPUT DROP"),
        (["-m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP"], "-P INPUT DROP"),
        (["-m conntrack ! --ctstate NEW -j DROP"], ""),
        (["-j MINE"], "`iptables -P INPUT DROP; iptables -D MINE -j DROP`"),
        (["-j ufw-before-logging-input", "-j DROP"], ""),  # behind ufw's own it drops what ufw drops
        (["-j ufw-h-input"], ""),
        (["-s 192.0.2.0/24 -j DROP", "-m conntrack --ctstate INVALID -j DROP", "-p tcp -m tcp --dport 1 -j DROP"], ""),
        (["-p tcp -m multiport --dports 22 -j f2b-sshd", "-j f2b-all"], ""),
        (["-j ACCEPT", "-j DROP"], ""),
    ],
)
def test_what_drops_before_ufw_is_refused_with_what_to_do(captured: Any, rules: list[str], said: str) -> None:
    others = {"f2b-sshd": ["-j DROP"], "f2b-all": ["-s 192.0.2.1/32 -j DROP", "-j RETURN", "-j DROP"]}
    more = {"MINE": ["-p tcp -m tcp --dport 22 -j ACCEPT", "-j DROP"], "ufw-h-input": ["-j DROP"]}
    captured.chains["4"] = {"INPUT": rules, **others, **more}
    refusals = "\n".join(report(captured, wish(SSH, foreign="keep"))["refusals"])
    assert said in refusals
    assert bool(refusals) is bool(said)


def test_what_somebody_lets_in_by_ufws_own_files_is_a_foreign_rule(
    captured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = (FIXTURES / "before.rules").read_text()
    (tmp_path / "packaged").mkdir()
    (tmp_path / "packaged/before.rules").write_text(packaged)
    mine = "-A ufw-before-input -p tcp --dport 8123 -j ACCEPT"
    harmless = "-A ufw-before-input -p icmp --icmp-type source-quench -j ACCEPT\n-A ufw-before-input -p tcp -j DROP"
    (tmp_path / "before.rules").write_text(packaged.replace("COMMIT\n", f"{harmless}\n{mine}\nCOMMIT\n", 1))
    with monkeypatch.context() as patch:
        patch.setattr(ufw, "ETC", tmp_path)
        patch.setattr(ufw, "TEMPLATES", tmp_path / "packaged")
        found = (f"{tmp_path}/before.rules", "ufw-before-input", mine.removeprefix("-A ufw-before-input "))
        assert ufw.added_rules("4", None) == [found]
        monkeypatch.setattr(ufw, "tried", lambda _, text: ufw.parse_rules(text)[1])  # as where it can be tried
        listed = ufw.parse_rules((tmp_path / "before.rules").read_text())[1]
        assert ufw.added_rules("4", listed) == [found]
    captured.rules = {"4": [], "6": []}
    captured.added["4"] = [("/etc/ufw/before.rules", *found[1:])]
    for foreign in ("stop", "remove"):
        [refusal] = ufw.compare(wish(SSH, foreign=foreign), captured, None)["refusals"]
        assert f"/etc/ufw/before.rules: {mine}" in refusal
        assert "you alone take out" in refusal
    told = ufw.compare(wish(SSH, foreign="keep"), captured, None)
    assert told["refusals"] == []
    assert any(mine in line for line in told["notices"])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("-A ufw-before-input --jump ACCEPT -p tcp --dport 8123", True),
        ("-A ufw-before-input --protocol tcp --source 10.0.0.0/8 --destination-port 8123 --jump ACCEPT", True),
        ("-A ufw-before-input --in-interface lo --jump ACCEPT", False),
        (
            ":mine - [0:0]\n-A ufw-before-input --in-interface br0 --goto mine\n-A mine --protocol udp --jump ACCEPT",
            True,
        ),
        ("-A ufw-before-input -s 192.168.1.10,192.168.1.11 -p tcp --dport 8123 -j ACCEPT", True),
        ("-A ufw-before-input -s nas.lan -p tcp --dport ssh -j ACCEPT -m comment --comment 'no icmp'", True),
        ("-A ufw-before-input -p tcp --dport :1024 -m comment --comment 'of one -j ACCEPT", True),
        ("-A ufw-before-input -p ipv6-icmp -j ACCEPT", False),
        ("-A ufw-before-input -m state --state ESTABLISHED -j ACCEPT", False),
        ("-A ufw-user-input -p tcp --dport 8123 -j ACCEPT", False),  # ufw's own file makes that chain anew
        (":mine - [0:0]\n-A ufw-before-input -i br0 -j mine\n-A mine -p tcp --dport 8123 -j ACCEPT", True),
        (":mine - [0:0]\n-A mine -p tcp --dport 8123 -j ACCEPT", False),  # nothing leads there
    ],
)
def test_whatever_somebody_writes_into_ufws_own_files_is_read(
    captured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, found: bool
) -> None:
    packaged = (FIXTURES / "before.rules").read_text()
    (tmp_path / "packaged").mkdir()
    (tmp_path / "packaged/before.rules").write_text(packaged)
    chains = "".join(f"{one}\n" for one in line.splitlines() if one.startswith(":"))
    rules = "".join(f"{one}\n" for one in line.splitlines() if not one.startswith(":"))
    text = packaged.replace("*filter\n", f"*filter\n{chains}", 1).replace("COMMIT\n", f"{rules}COMMIT\n", 1)
    (tmp_path / "before.rules").write_text(text)
    with monkeypatch.context() as patch:
        patch.setattr(ufw, "ETC", tmp_path)
        patch.setattr(ufw, "TEMPLATES", tmp_path / "packaged")
        added = ufw.added_rules("4", None)
    assert bool(added) is found, added
    captured.added["4"] = added
    captured.rules = {"4": [], "6": []}
    refusals = ufw.compare(wish(SSH), captured, None)["refusals"]
    assert (f"{tmp_path}/before.rules: {rules.splitlines()[-1]}" in "\n".join(refusals)) is found


def test_a_rule_beside_ufw_is_treated_as_a_foreign_one(captured: Any) -> None:
    captured.beside = {"4": ["-j ACCEPT"], "6": []}
    named = "iptables -A INPUT -j ACCEPT"
    assert named in "\n".join(report(captured, wish(SSH))["refusals"])
    assert named in "\n".join(report(captured, wish(SSH, foreign="keep"))["notices"])
    assert "- INPUT (v4): `-j ACCEPT`" in report(captured, wish(SSH, foreign="remove"))["changes"]
    # Since the last run, which would have refused it: the role watch takes it away.
    assert "- INPUT (v4): `-j ACCEPT`" in report(captured, ufw.unasked(wish(SSH)))["changes"]
    assert not any("INPUT" in line for line in report(captured, ufw.unasked(wish(SSH, foreign="keep")))["changes"])
