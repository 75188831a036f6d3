"""Who loses what when ufw denies for the first time, what is kept, and what holds a declared port."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.programs import load

ufw: Any = load("ufw")
SS = """\
udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=21,fd=13))
udp UNCONN 0 0 0.0.0.0%eth0:68 0.0.0.0:* users:(("dhclient",pid=30,fd=9))
udp UNCONN 0 0 0.0.0.0:51820 0.0.0.0:*
udp UNCONN 0 0 [::]:51820 [::]:*
tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=40,fd=3))
tcp LISTEN 0 128 [::]:22 [::]:* users:(("sshd",pid=40,fd=4))
tcp LISTEN 0 511 *:8123 *:* users:(("hass",pid=50,fd=7))
tcp LISTEN 0 511 192.168.1.5:80 0.0.0.0:* users:(("nginx",pid=60,fd=6),("nginx",pid=61,fd=6))
tcp LISTEN 0 511 [::1]:631 [::]:* users:(("cupsd",pid=70,fd=6))
tcp LISTEN 0 4096 0.0.0.0:8080 0.0.0.0:* users:(("docker-proxy",pid=80,fd=4))
"""
WEB = {
    "Names": ["/web-1"],
    "Labels": {"com.docker.compose.project": "web"},
    "Ports": [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 9000, "Type": "tcp"},
    ],
}
OURS = {**WEB, "Names": ["/ours"], "Labels": {"ringfence.project": "x"}}
NETWORKS = {"172.18.0.0/16": "web", "172.19.0.0/16": "proxy"}
SSH = {"name": "ssh", "action": "allow", "proto": "tcp", "port": "22", "source": "192.168.1.0/24"}


def wish(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"rules": list(rules), "denied_ports": [], "foreign": "stop", "logging": "low", "force": False}
    return {**base, **more}


def bare() -> Any:
    state = ufw.State(installed=False)
    state.live = {"4": ufw.Live({}, {}), "6": ufw.Live({}, {})}
    return state


@pytest.fixture(autouse=True)
def no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own tables of nftables are none of the host's."""
    monkeypatch.setattr(ufw, "nft_tables", list)


@pytest.fixture
def lived(monkeypatch: pytest.MonkeyPatch) -> Any:
    own, _ = ufw.apart(ufw.parse_ss(SS), [])
    containers = ufw.parse_published([WEB, OURS])
    foreign = [one for one in containers if not one.own]
    monkeypatch.setattr(ufw, "ground", lambda: ufw.Ground(own, containers, foreign, NETWORKS))
    monkeypatch.setattr(ufw, "stopped_holders", list)


def test_listeners_are_read_as_ss_prints_them() -> None:
    own, through = ufw.apart(ufw.parse_ss(SS), [])
    assert through == {("tcp", 8080)}
    read = {(one.key, one.address, one.inward) for one in own}
    assert ("53/udp", "127.0.0.53", True) in read
    assert ("631/tcp", "::1", True) in read
    assert ("8123/tcp", "", False) in read
    assert ("80/tcp", "192.168.1.5", False) in read
    assert next(one.holder for one in own if one.port == 51820) == "the kernel"
    assert [one.holder for one in own if one.port == 80] == ["nginx (process 60)"]


FORMS = [
    ("tcp LISTEN 0 9 *:68 *:*", ("68/tcp", "", "", "46")),
    ("tcp LISTEN 0 9 [::]:68 [::]:*", ("68/tcp", "", "", "6")),
    ("tcp LISTEN 0 9 0.0.0.0:68 0.0.0.0:*", ("68/tcp", "", "", "4")),
    ("udp UNCONN 0 0 0.0.0.0%virbr0:67 0.0.0.0:*", ("67/udp", "", "virbr0", "4")),
    ("udp UNCONN 0 0 *%eth0:67 *:*", ("67/udp", "", "eth0", "46")),
    ("udp UNCONN 0 0 [fe80::42:aff:fed5:20a]%eth0:546 [::]:*", ("546/udp", "fe80::42:aff:fed5:20a", "eth0", "6")),
    ("udp UNCONN 0 0 [fe80::1%eth0]:546 [::]:*", ("546/udp", "fe80::1", "eth0", "6")),
    ("tcp LISTEN 0 9 [::ffff:10.0.0.1]:80 *:*", ("80/tcp", "10.0.0.1", "", "4")),
    ("tcp LISTEN 0 9 [::ffff:0.0.0.0]:80 *:*", ("80/tcp", "", "", "4")),
    ("udp UNCONN 0 0 [::]%lo:53 [::]:*", ("53/udp", "127.0.0.1", "", "6")),
    ("raw UNCONN 0 0 0.0.0.0%eth0:112 0.0.0.0:*", ("112/ip", "", "eth0", "4")),
    ("??? UNCONN 0 0 *:89 *:*", ("89/ip", "", "", "46")),
]


@pytest.mark.parametrize(("line", "read"), FORMS)
def test_every_form_of_an_address_is_read(line: str, read: tuple[str, ...]) -> None:
    [one] = ufw.parse_ss(line)
    assert (one.key, one.address, one.device, one.families) == read
    assert isinstance(one.inward, bool)


@pytest.mark.parametrize(
    "line",
    [
        "v_str LISTEN 0 0 *:1024 *:*",
        "tcp LISTEN",
        "",
        "raw UNCONN 0 0 *:58 *:*",
        "raw UNCONN 0 0 0.0.0.0:255 0.0.0.0:*",
    ],
)
def test_what_answers_nobody_by_ip_is_passed_over(line: str) -> None:
    assert ufw.parse_ss(line) == []


def test_an_address_that_is_none_is_a_fault_that_says_so() -> None:
    with pytest.raises(ufw.Fault, match="'what', which is no address"):
        ufw.parse_ss("tcp LISTEN 0 9 what:80 *:*")


def seen(monkeypatch: pytest.MonkeyPatch, text: str, **more: Any) -> None:
    own, _ = ufw.apart(ufw.parse_ss(text), [])
    monkeypatch.setattr(ufw, "ground", lambda: ufw.Ground(own, [], [], {})._replace(**more))


def kept_commands(desired: dict[str, Any], state: Any) -> list[str]:
    entries = ufw.asked(desired, state).desired["kept"]
    return [ufw.replayable(rule) for entry in entries for rule in ufw.expand(entry)]


def test_what_is_bound_to_an_interface_is_kept_for_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, "udp UNCONN 0 0 0.0.0.0%virbr0:67 0.0.0.0:*")
    assert "67/udp on virbr0, the kernel: whoever" in ufw.compare(wish(SSH), bare(), None)["refusals"][0]
    [command] = kept_commands(wish(SSH, unmanaged="keep"), bare())
    assert command == "ufw allow in on virbr0 proto udp from any to any port 67 comment rf:kept-67-udp-virbr0"


def test_what_listens_on_a_link_is_kept_for_whatever_address_it_has_there(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, "udp UNCONN 0 0 [fe80::42:aff:fed5:20a]%eth0:546 [::]:*")
    assert "546/udp on fe80::42:aff:fed5:20a of eth0" in ufw.compare(wish(SSH), bare(), None)["refusals"][0]
    [command] = kept_commands(wish(SSH, unmanaged="keep"), bare())
    assert command == "ufw allow in on eth0 proto udp from any to fe80::/10 port 546 comment rf:kept-546-udp-link6-eth0"
    declared = {"name": "x", "proto": "udp", "port": "546", "destination": "fe80::/10"}
    assert ufw.compare(wish(SSH, declared), bare(), None)["refusals"] == []


def test_what_is_kept_by_one_family_changes_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found live: a second look put what both families have before what one has, and the run never was done."""
    seen(monkeypatch, "tcp LISTEN 0 9 [::]:80 [::]:*\ntcp LISTEN 0 9 *:8123 *:*\ntcp LISTEN 0 9 0.0.0.0:90 0.0.0.0:*")
    keep = wish(SSH, unmanaged="keep")
    entries = ufw.asked(keep, bare()).desired["kept"]
    assert ufw.asked(keep, standing(keep)).desired["kept"] == entries
    assert not any("rule" in line for line in ufw.compare(keep, standing(keep), None)["changes"])


def test_only_who_reached_it_is_let_in_where_one_family_was_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """UFW with IPV6=no, or an own firewall of IPv4: what it denies is not opened by keeping the rest."""
    seen(monkeypatch, "tcp LISTEN 0 9 *:8123 *:*")
    keep = wish(SSH, unmanaged="keep")
    state = bare()
    state.live["6"] = ufw.Live({"INPUT": "DROP"}, {})
    assert [entry["source"] for entry in ufw.asked(keep, state).desired["kept"]] == ["0.0.0.0/0"]
    assert "whoever reaches the host by IPv4" in ufw.compare(wish(SSH), state, None)["refusals"][0]
    state.live["4"] = ufw.Live({"INPUT": "DROP"}, {})
    assert ufw.asked(keep, state).desired["kept"] == []
    assert ufw.compare(wish(SSH), state, None)["refusals"] == []
    named = wish(SSH, unmanaged_ports={"8123/tcp": "keep"})
    assert ufw.asked(named, state).desired["kept"] == []
    assert any("8123/tcp: this host denies already" in line for line in ufw.asked(named, state).notices)
    state = bare()
    for family in ("4", "6"):
        state.chains[family]["INPUT"] = ["-i lo -j ACCEPT", "-p tcp -m tcp --dport 22 -j ACCEPT", "-j DROP"]
    assert ufw.asked(keep, state).desired["kept"] == []


def test_an_own_table_of_nftables_that_drops_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, "")
    chain = "chain input {{ type filter hook {} priority filter; policy {}; tcp dport 22 accept }}"
    tables = {
        "ip filter": chain.format("input", "drop").replace("chain input", "chain INPUT"),  # iptables', read as such
        "inet ringfence": chain.format("input", "drop"),
        "inet f2b-table": chain.format("input", "accept"),
        "inet guests": chain.format("forward", "drop"),
        "inet mine": chain.format("input", "drop"),
    }
    monkeypatch.setattr(ufw, "nft_tables", lambda: list(tables))
    monkeypatch.setattr(ufw, "nft_table", tables.get)
    [refusal] = ufw.compare(wish(SSH), bare(), None)["refusals"]
    assert "nft's table inet mine drops" in refusal
    assert "`nft delete table inet mine`" in refusal
    assert ufw.compare(wish(SSH), standing(wish(SSH)), None)["refusals"] == []
    del tables["inet mine"]
    for name in ("inet filter", "ip6 filter"):  # as in Debian's own /etc/nftables.conf; iptables reads neither
        with monkeypatch.context() as patch:
            patch.setitem(tables, name, chain.format("input", "drop"))
            [refusal] = ufw.compare(wish(SSH), bare(), None)["refusals"]
        assert f"`nft delete table {name}`" in refusal


LISTENS = "tcp LISTEN 0 9 *:8123 *:*"
BOUND = "udp UNCONN 0 0 0.0.0.0%wg0:8123 0.0.0.0:*"


@pytest.mark.parametrize(
    ("rule", "line", "lost"),
    [
        ("-i wg0 -j ACCEPT", LISTENS, "whoever reaches the host,"),
        ("-i wg0 -j ACCEPT", BOUND, ""),
        ("-i eth0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", LISTENS, "whoever reaches the host,"),
        ("-d 224.0.0.0/4 -j ACCEPT", LISTENS, "whoever reaches the host,"),
        ("-m pkttype --pkt-type multicast -j ACCEPT", LISTENS, "whoever reaches the host,"),
        ("-p tcp -m tcp --sport 53 -j ACCEPT", LISTENS, "whoever reaches the host,"),
        ("-p tcp -m tcp ! --dport 22 -j ACCEPT", LISTENS, "whoever reaches the host,"),
        ("-p tcp -m tcp --dport http-alt -j ACCEPT", LISTENS, "whoever reaches the host,"),
        ("-p tcp --dport 8123 -m comment --comment 'of one -j ACCEPT", LISTENS, "whoever reaches the host,"),
        ("-s nas.lan,10.0.0.1 -j ACCEPT", LISTENS, "whoever reaches the host,"),
        ("-p tcp -j ACCEPT", LISTENS, "whoever reaches the host by IPv6,"),
        ("-m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT", LISTENS, "whoever reaches the host by IPv6,"),
        ("-p tcp -m tcp --dport 8000: -j ACCEPT", LISTENS, ""),
        ("-s 10.0.0.0/8 -p tcp -m tcp --dport 8123 -j ACCEPT", LISTENS, ""),  # who wrote it has decided
    ],
)
def test_a_rule_beside_ufw_excuses_what_it_lets_in_and_no_more(
    monkeypatch: pytest.MonkeyPatch, rule: str, line: str, lost: str
) -> None:
    seen(monkeypatch, line)
    state = bare()
    state.beside["4"] = [rule]
    text = "\n".join(ufw.compare(wish(SSH, foreign="keep"), state, None)["refusals"])
    assert lost in text
    assert bool(text) is bool(lost)


def test_what_listens_by_several_interfaces_and_families_is_kept_by_each(monkeypatch: pytest.MonkeyPatch) -> None:
    of = [
        "[fe80::1]%eth0",
        "[fe80::1]%br1",
        "[ff02::1:2]%eth0",
        "[ff02::1:2]%br1",
        "192.168.1.1%eth0",
        "169.254.1.1%eth0",
    ]
    seen(monkeypatch, "\n".join(f'udp UNCONN 0 0 {one}:547 *:* users:(("kea",pid=5,fd=9))' for one in of))
    [refusal] = ufw.compare(wish(SSH), bare(), None)["refusals"]
    assert refusal.count("547/udp on ") == len(of)
    commands = kept_commands(wish(SSH, unmanaged="keep"), bare())
    ends = {(command.split(" in on ")[1].split()[0], command.split(" to ")[1].split()[0]) for command in commands}
    assert ends == {
        ("eth0", "fe80::/10"), ("br1", "fe80::/10"), ("eth0", "ff02::1:2"), ("br1", "ff02::1:2"),
        ("eth0", "192.168.1.1"), ("eth0", "169.254.0.0/16"),
    }  # fmt: skip


def test_what_was_kept_by_one_family_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, "tcp LISTEN 0 9 *:8123 *:*")
    keep = wish(SSH, unmanaged="keep", unmanaged_ports={"8123/tcp": "keep"})
    half = bare()
    half.live["6"] = ufw.Live({"INPUT": "DROP"}, {})
    state = bare()
    state.rules, _ = ufw.wanted_rules(ufw.asked(keep, half).desired, True)
    for family in ("4", "6"):
        state.live[family] = ufw.Live({"INPUT": "DROP"}, {})
    assert [entry["source"] for entry in ufw.asked(keep, state).desired["kept"]] == ["0.0.0.0/0"]


def test_what_docker_proxy_answers_by_ipv6_is_a_loss_and_is_kept_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The container's network has no IPv6, so what comes by it goes to the host's own process, past no translation."""
    proxy = 'tcp LISTEN 0 9 {}:8080 *:* users:(("docker-proxy",pid=80,fd=4))\n'
    listeners = ufw.parse_ss(proxy.format("0.0.0.0") + proxy.format("[::]"))
    containers = ufw.parse_published([WEB, OURS])
    found = ufw.answered_to_all(listeners, containers, {"4": {("tcp", 8080)}, "6": set()})
    assert [(one.container, one.families) for one in found] == [("web-1", "6")]
    assert ufw.answered_to_all(listeners, containers, {"4": {("tcp", 8080)}, "6": {("tcp", 8080)}}) == []
    seen(monkeypatch, "", proxied=found)
    said = "8080/tcp on every address, the container web-1 of the compose project web: whoever reaches the host by IPv6"
    assert said in ufw.compare(wish(SSH), bare(), None)["refusals"][0]
    assert kept_commands(wish(SSH, unmanaged="keep"), bare()) == [
        "ufw allow proto tcp from any to any port 8080 comment rf:kept-8080-tcp"
    ]
    [entry] = ufw.asked(wish(SSH, unmanaged="keep"), bare()).desired["kept"]
    assert [rule.family for rule in ufw.expand(entry)] == ["6"]
    seen(monkeypatch, "", proxied=found, through=found, networks={"172.18.0.0/16": "web"})
    assert len(ufw.asked(wish(SSH, unmanaged="keep"), bare()).desired["kept"]) == 2


def test_protocols_without_ports_are_listed_and_kept_where_ufw_has_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, 'raw UNCONN 0 0 *:112 *:* users:(("keepalived",pid=5,fd=9))')
    [refusal] = ufw.compare(wish(SSH), bare(), None)["refusals"]
    assert "112/ip (protocol vrrp) on every address, keepalived (process 5): whoever reaches the host" in refusal
    keep = wish(SSH, unmanaged_ports={"112/ip": "keep"})
    assert ufw.compare(keep, bare(), None)["refusals"] == []
    assert kept_commands(keep, bare()) == ["ufw allow proto vrrp from any to any comment rf:kept-112-ip"] * 2
    state = bare()
    state.rules, _ = ufw.wanted_rules(ufw.asked(keep, state).desired, True)
    state.live = {family: ufw.Live({"INPUT": "DROP"}, {}) for family in ("4", "6")}
    assert len(kept_commands(keep, state)) == 2, "it stays kept"
    declared = {"name": "vrrp", "proto": "vrrp", "source": "192.168.1.0/24"}
    assert ufw.compare(wish(SSH, declared), bare(), None)["refusals"] == []
    seen(monkeypatch, "raw UNCONN 0 0 *:89 *:*")
    [refusal] = ufw.compare(wish(SSH, unmanaged="keep"), bare(), None)["refusals"]
    assert "-A ufw-before-input -p 89 -j ACCEPT" in refusal
    closed = standing(wish(SSH, unmanaged="close"))
    assert "89/ip" in "".join(ufw.compare(wish(SSH, unmanaged_ports={"89/ip": "keep"}), closed, None)["refusals"])
    assert ufw.compare(wish(SSH, unmanaged="keep"), closed, None)["refusals"] == []
    state = bare()
    state.added["4"] = [("/etc/ufw/before.rules", "ufw-before-input", "-p 89 -j ACCEPT")]
    assert ufw.compare(wish(SSH, unmanaged="keep", foreign="keep"), state, None)["refusals"] == []


@pytest.mark.parametrize(
    ("line", "listed"),
    [
        ('udp UNCONN 0 0 0.0.0.0:5353 0.0.0.0:* users:(("avahi-daemon",pid=5,fd=9))', False),
        ('udp UNCONN 0 0 0.0.0.0:5353 0.0.0.0:* users:(("dnsserver",pid=5,fd=9))', True),
        ('udp UNCONN 0 0 0.0.0.0:68 0.0.0.0:* users:(("systemd-network",pid=5,fd=9))', False),
        ('udp UNCONN 0 0 0.0.0.0:68 0.0.0.0:* users:(("python3",pid=5,fd=9))', True),
        ('udp UNCONN 0 0 [fe80::1]%eth0:546 [::]:* users:(("dhcpcd",pid=5,fd=9))', False),
    ],
)
def test_only_whom_ufws_own_rules_serve_loses_nothing(monkeypatch: pytest.MonkeyPatch, line: str, listed: bool) -> None:
    seen(monkeypatch, line)
    assert bool(ufw.compare(wish(SSH), bare(), None)["refusals"]) is listed


def test_a_message_names_the_declaration_and_not_the_host_by_its_own_name(
    lived: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shows it puts the lab's words in the place of ufw_rules; the host may have its provider's name."""
    monkeypatch.setattr(ufw.os, "uname", lambda: pytest.fail("the host's own name"))
    declared = {"name": "web-from-lan", "proto": "tcp", "port": "8080", "source": "192.168.1.0/24"}
    text = "\n".join(ufw.compare(wish(SSH, declared), bare(), None)["refusals"])
    assert "what the host is to answer in ufw_rules" in text
    text += "".join(ufw.passed_by([declared], ufw.parse_published([WEB]), []))
    assert "Take it out of ufw_rules" in text
    assert "lab_hosts" not in text


@pytest.mark.parametrize(
    ("key", "meant"),
    [("8132/tcp", "8123/tcp"), ("8124/tcp", "8123/tcp"), ("8123/udp", "8123/tcp"), ("9999/tcp", ""), ("81/tcp", "")],
)
def test_an_answer_for_a_port_where_nobody_listens_is_told(lived: Any, key: str, meant: str) -> None:
    told = ufw.compare(wish(SSH, unmanaged="close", unmanaged_ports={key: "keep"}), bare(), None)
    said = f"ufw_unmanaged_ports: {key}: nobody listens there, and no rule keeps it"
    if meant:
        assert told["refusals"] == [f"{said} (did you mean {meant}?)"]
    else:
        assert told["refusals"] == []
        assert f"{said}: it says nothing now" in told["notices"]
    later = ufw.compare(wish(SSH, unmanaged_ports={key: "keep"}), standing(wish(SSH, unmanaged="close")), None)
    assert later["refusals"] == []
    assert f"{said}: it says nothing now" in later["notices"]
    given_up = ufw.compare(wish(SSH, unmanaged_ports={key: "close"}), standing(wish(SSH, unmanaged="close")), None)
    assert not any("nobody listens" in line for line in given_up["notices"])


def test_a_kept_rule_whose_listener_is_gone_is_named(lived: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = wish(SSH, unmanaged="keep")
    state = standing(keep)
    assert not any("nobody listens" in line for line in ufw.compare(keep, state, None)["notices"])
    seen(monkeypatch, "")
    told = ufw.compare(keep, state, None)
    assert (
        "kept by the rule rf:kept-8123-tcp, and nobody listens there now: `ufw_unmanaged_ports: {8123/tcp: close}`"
        in ("".join(told["notices"]))
    )
    monkeypatch.setattr(ufw, "ground", lambda: pytest.fail("the watch asks who listens"))
    ufw.compare(ufw.unasked(keep), state, None)


def test_a_port_that_changes_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ufw, "handed_out", lambda: (32768, 60999))
    seen(monkeypatch, "tcp LISTEN 0 9 *:56469 *:*\ntcp LISTEN 0 9 *:8123 *:*")
    lines = ufw.compare(wish(SSH), bare(), None)["refusals"][0].splitlines()
    assert [("unless it is pinned" in line) for line in lines if "/tcp on" in line] == [False, True]


def test_what_somebodys_own_rule_of_input_lets_in_and_stays_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    seen(monkeypatch, "tcp LISTEN 0 9 *:8123 *:*\ntcp LISTEN 0 9 *:9000 *:*")
    state = bare()
    state.beside["4"] = ["-p tcp -m tcp --dport 8123 -j ACCEPT", "-s 192.168.1.0/24 -j ACCEPT"]
    text = "\n".join(ufw.compare(wish(SSH, foreign="keep"), state, None)["refusals"])
    assert "8123/tcp" not in text
    assert "9000/tcp" in text
    assert "8123/tcp" in "\n".join(ufw.compare(wish(SSH, foreign="remove"), state, None)["refusals"])


def test_a_port_that_the_engine_holds_for_a_container_is_no_process_of_the_hosts() -> None:
    held = 'tcp LISTEN 0 4096 0.0.0.0:8080 0.0.0.0:* users:(("dockerd",pid=9,fd=6))\n'
    own = 'tcp LISTEN 0 4096 0.0.0.0:2376 0.0.0.0:* users:(("dockerd",pid=9,fd=7))\n'
    found, answered = ufw.apart(ufw.parse_ss(held + own), ufw.parse_published([WEB]))
    assert [one.key for one in found] == ["2376/tcp"]
    assert answered == set()


def test_a_first_run_lists_who_loses_what_and_stops(lived: Any) -> None:
    [refusal] = ufw.compare(wish(SSH), bare(), None)["refusals"]
    for words in (
        "8123/tcp on every address, hass (process 50): whoever reaches the host, containers included",
        "80/tcp on 192.168.1.5, nginx (process 60): whoever reaches 192.168.1.5",
        "51820/udp on every address, the kernel",
        "8080/tcp on every address, the container web-1 of the compose project web: containers of proxy, web",
        "ufw_unmanaged: keep",
        "ufw_unmanaged_ports: {80/tcp: keep}",
    ):
        assert words in refusal
    # Declared, let in by ufw itself, on loopback, and ringfence's own.
    for words in (" 22/tcp", " 68/udp", " 53/udp", " 631/tcp", "ours"):
        assert words not in refusal


def test_a_host_with_sshd_alone_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in SS.splitlines() if "sshd" in line or "systemd-resolve" in line]
    own, _ = ufw.apart(ufw.parse_ss("\n".join(lines)), [])
    monkeypatch.setattr(ufw, "ground", lambda: ufw.Ground(own, [], [], {}))
    assert ufw.compare(wish(SSH), bare(), None)["refusals"] == []


def test_what_is_kept_is_kept_for_who_had_it(lived: Any) -> None:
    desired = ufw.asked(wish(SSH, unmanaged="keep", unmanaged_ports={"8123/tcp": "close"}), bare()).desired
    kept = {(e["name"], e["source"], e["destination"]) for e in desired["kept"]}
    assert kept == {
        ("kept-51820-udp", "any", "any"),
        ("kept-80-tcp-192.168.1.5", "any", "192.168.1.5"),
        ("kept-8080-tcp-web-4", "172.18.0.0/16", "any"),
        ("kept-8080-tcp-proxy-4", "172.19.0.0/16", "any"),
    }
    changes = ufw.compare(desired, bare(), None)["changes"]
    assert any("ufw allow proto tcp from any to 192.168.1.5 port 80" in line for line in changes)


def standing(desired: dict[str, Any]) -> Any:
    """The host after a run."""
    state = bare()
    state.installed = True
    state.conf = {**ufw.SETTINGS, "ENABLED": "yes", "LOGLEVEL": "low"}
    wanted, _ = ufw.wanted_rules(ufw.asked(desired, bare()).desired, True)
    state.rules, state.files = wanted, {"4": {}, "6": {}}
    for family, prefix in ufw.PREFIX.items():
        state.live[family] = ufw.Live({"INPUT": "DROP"}, {f"{prefix}user-input": []})
    return state


def test_once_the_fence_stands_nothing_is_asked_and_nothing_is_kept_anew(lived: Any) -> None:
    keep = wish(SSH, unmanaged="keep")
    state = standing(keep)
    before = ufw.asked(keep, state).desired["kept"]
    assert {entry["name"] for entry in before} == {entry["name"] for entry in ufw.asked(keep, bare()).desired["kept"]}
    assert not any("rule" in line for line in ufw.compare(keep, state, None)["changes"])
    state = standing(wish(SSH, unmanaged="close"))
    assert ufw.compare(wish(SSH), state, None)["refusals"] == []
    assert ufw.asked(keep, state).desired["kept"] == [], "it was given up"
    [named] = ufw.asked(wish(SSH, unmanaged_ports={"8123/tcp": "keep"}), state).desired["kept"]
    assert named["port"] == "8123"


def test_an_interrupted_first_run_goes_on_as_one(lived: Any) -> None:
    keep = wish(SSH, unmanaged="keep", denied_ports=[{"name": "deny-redis", "port": "6379", "proto": "tcp"}])
    state = standing(keep)
    state.conf["ENABLED"] = "no"
    for family in ("4", "6"):
        state.live[family].policies["INPUT"] = "ACCEPT"
        state.rules[family] = state.rules[family][:1]
    assert len(ufw.asked(keep, state).desired["kept"]) == 5


def test_what_a_run_has_finished_is_put_back_without_a_question(
    lived: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Flushed by hand, with a declared rule deleted: it looks as new as a host can.
    declared, state = wish(SSH), bare()
    assert ufw.compare(declared, state, None)["refusals"] != []
    finished = tmp_path / "desired.json"
    finished.write_text("{}", encoding="utf-8")
    monkeypatch.setattr(ufw, "APPLIED", finished)
    assert ufw.compare(declared, state, None)["refusals"] == []
    assert ufw.asked(wish(SSH, unmanaged="keep"), state).desired["kept"] == []


def test_the_watch_asks_nobody_and_keeps_what_is_kept(lived: Any) -> None:
    keep = wish(SSH, unmanaged="keep")
    state = standing(keep)
    assert len(ufw.asked(ufw.unasked(keep), state).desired["kept"]) == 5
    taken = [{"name": "web", "proto": "tcp", "port": 8080, "address": ""}]
    assert (
        ufw.compare(ufw.unasked(wish(SSH, published=taken)), standing(wish(SSH, unmanaged="close")), None)["refusals"]
        == []
    )


@pytest.mark.parametrize("back_end", ["iptables", "nftables"])
def test_a_port_that_the_engine_kept_for_a_container_that_is_gone_is_no_processs(
    monkeypatch: pytest.MonkeyPatch, back_end: str
) -> None:
    """The role docker restarts the engine for it; what the engine itself answers at stays in the way."""
    held = 'tcp LISTEN 0 4096 0.0.0.0:8000 0.0.0.0:* users:(("dockerd",pid=9,fd=6))\n'
    api = 'tcp LISTEN 0 4096 0.0.0.0:2376 0.0.0.0:* users:(("dockerd",pid=9,fd=7))\n'
    rule = "*nat\n-A DOCKER ! -i br-1 -p tcp -m tcp --dport 8000 -j DNAT --to-destination 172.20.0.3:80\nCOMMIT\n"
    table = "tcp dport 8000 counter dnat to 172.20.0.3:80\n"
    monkeypatch.setattr(ufw, "must", lambda *_, **__: held + api)
    monkeypatch.setattr(ufw, "published", list)
    monkeypatch.setattr(ufw, "foreign_networks", dict)
    monkeypatch.setattr(ufw, "families", lambda: ["v4"])
    monkeypatch.setattr(ufw, "live_text", lambda _: rule if back_end == "iptables" else "")
    monkeypatch.setattr(ufw, "nft_table", lambda _: table if back_end == "nftables" else "")
    assert [one.port for one in ufw.ground().processes] == [2376]


@pytest.mark.parametrize(
    ("port", "proto", "address", "said"),
    [
        (80, "tcp", "", "80/tcp, which app publishes, is held by nginx (process 60) on 192.168.1.5"),
        (80, "tcp", "192.168.1.6", ""),
        (53, "udp", "", "DNSStubListener=no"),
        (53, "udp", "192.168.1.5", ""),
        (
            8080,
            "tcp",
            "",
            "the container web-1 of the compose project web on every address: end it (docker update --restart=no "
            "web-1; docker stop web-1)",
        ),
        (9000, "tcp", "", ""),
    ],
)
def test_a_held_port_is_refused_with_its_holder(lived: Any, port: int, proto: str, address: str, said: str) -> None:
    published = [{"name": "app", "proto": proto, "port": port, "address": address}]
    refusals = ufw.compare(wish(SSH, published=published), standing(wish(SSH, unmanaged="close")), None)["refusals"]
    assert said in "".join(refusals)
    assert bool(refusals) is bool(said)


def test_a_stopped_container_that_comes_back_holds_its_port(lived: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Any] = {
        "/containers/stp/json": inspected("always", {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8075"}]}),
        "/containers/off/json": inspected("no", {"80/tcp": [{"HostIp": "", "HostPort": "8076"}]}),
    }
    ended = [{"Id": one, "Names": [f"/{one}"], "Labels": {}} for one in ("stp", "off")]
    ended.append({"Id": "ours", "Names": ["/ours"], "Labels": {"ringfence.project": "x"}})
    monkeypatch.undo()
    monkeypatch.setattr(ufw, "booted", lambda: True)
    monkeypatch.setattr(ufw, "docker_runs", lambda: True)
    monkeypatch.setattr(ufw, "engine", lambda _, path: answers.get(path, ended))
    monkeypatch.setattr(ufw, "ground", lambda: ufw.Ground([], [], [], {}))
    published = [{"name": "app", "proto": "tcp", "port": port, "address": ""} for port in (8075, 8076)]
    [told] = ufw.compare(wish(SSH, published=published), standing(wish(SSH, unmanaged="close")), None)["refusals"]
    assert "8075/tcp, which app publishes, is held by the container stp, which is stopped, but starts again" in told
    assert "docker update --restart=no stp" in told


def inspected(policy: str, ports: dict[str, Any], started: str = "2026-11-01T00:00:00Z") -> dict[str, Any]:
    return {
        "Id": "stp",
        "HostConfig": {"RestartPolicy": {"Name": policy}, "PortBindings": ports},
        "State": {"StartedAt": started},
    }


@pytest.mark.parametrize(("by_hand", "comes"), [(True, False), (False, True), (None, True)])
def test_unless_stopped_comes_back_where_nobody_stopped_it(tmp_path: Path, by_hand: bool | None, comes: bool) -> None:
    """The engine could not start it when it started itself, and tries again the next time."""
    (tmp_path / "other").mkdir()
    (tmp_path / "stp").mkdir()
    if by_hand is not None:
        (tmp_path / "stp/config.v2.json").write_text(f'{{"HasBeenManuallyStopped": {str(by_hand).lower()}}}')
    said = {**inspected("unless-stopped", {}), "ResolvConfPath": str(tmp_path / "other" / "resolv.conf")}
    assert ufw.comes_back(said) is comes


def test_what_never_ran_does_not_come_back_and_ports_are_read_as_they_are_written() -> None:
    assert not ufw.comes_back(inspected("always", {}, "0001-01-01T00:00:00Z"))
    ended = inspected("on-failure", {})
    assert not ufw.comes_back(ended)
    ended["State"]["ExitCode"] = 137
    assert ufw.comes_back(ended)
    ended["HostConfig"]["RestartPolicy"]["MaximumRetryCount"] = 3
    assert ufw.comes_back(ended)
    assert not ufw.comes_back({**ended, "RestartCount": 3})
    ports: dict[str, Any] = {
        "80/tcp": [{"HostIp": "192.0.2.1", "HostPort": "8075"}], "53/udp": [{"HostIp": "", "HostPort": "53"}],
        "81/tcp": [{"HostPort": ""}], "82/tcp": [{"HostPort": "8000-8010"}], "83/tcp": None,
    }  # fmt: skip
    assert ufw.bound(inspected("always", ports)) == [("tcp", "192.0.2.1", 8075), ("udp", "", 53)]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"proto": "tcp", "port": "8080", "source": "192.168.1.0/24"}, True),
        ({"port": "8080", "action": "deny"}, True),
        ({"port": "443,8080", "action": "limit"}, True),
        ({"application": "Web"}, True),
        ({"port": "8080", "destination": "192.168.1.5"}, True),
        ({"port": "8080", "proto": "udp"}, False),
        # For what the host itself answers in it; for containers that ask the host; for what is forwarded.
        ({"port": "8000:9000"}, False),
        ({}, False),
        ({"port": "8080", "source": "172.18.0.5"}, False),
        ({"port": "8080", "direction": "route"}, False),
        ({"port": "8081"}, False),
    ],
)
def test_a_rule_for_a_port_that_a_container_publishes_is_refused_in_every_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rule: dict[str, Any], said: bool
) -> None:
    (tmp_path / "web").write_text("[Web]\ntitle=x\ndescription=x\nports=80,8080/tcp\n")
    desired = wish(SSH, {"name": "web-from-lan", **rule}, unmanaged="close")
    monkeypatch.setattr(ufw, "ground", lambda: ufw.Ground([], [], [], {}))
    monkeypatch.setattr(ufw, "with_ports", lambda entries, inner=ufw.with_ports: inner(entries, tmp_path))
    state = standing(desired)
    monkeypatch.setattr(ufw, "gather", lambda: state)
    monkeypatch.setattr(ufw, "ssh_login", lambda: None)
    monkeypatch.setattr(ufw, "published", lambda: ufw.parse_published([WEB, OURS]))
    monkeypatch.setattr(ufw, "foreign_networks", lambda: NETWORKS)
    found = [line for line in ufw.check(desired)["refusals"] if "does not pass through ufw" in line]
    assert len(found) == int(said)
    assert all("web-from-lan" in line and "web-1" in line for line in found)
    # The role watch puts the rule back all the same.
    assert ufw.drift(desired)["refusals"] == []


def test_a_rule_by_an_interface_that_is_not_there_is_told() -> None:
    rules = [
        {"name": name, "interface": name} for name in ("eth0", "eht0", "rf-backend", "wl+", "")
    ] + [{"name": "out", "interface_out": "zz9"}]  # fmt: skip
    typo, other = ufw.by_no_interface(rules, {"eth0", "lo"})
    assert "rule eht0 decides nothing as long as there is no interface eht0" in typo
    assert "did you mean eth0?" in typo
    assert "did you mean" not in other


def test_what_ufw_dockers_block_shields_is_named(lived: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "after.rules").write_text("*filter\n:DOCKER-USER - [0:0]\nCOMMIT\n")
    monkeypatch.setattr(ufw, "ETC", tmp_path)
    said = "8080/tcp on every address, the container web-1 of the compose project web: kept from public addresses"
    assert said in "".join(ufw.compare(wish(SSH), bare(), None)["refusals"])
    report = ufw.compare(wish(SSH, unmanaged="keep"), bare(), None)
    assert report["refusals"] == []
    assert said in "".join(report["notices"])
    routed = bare()
    routed.rules["4"] = [ufw.parse_tuple("### tuple ### route:allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in", "4")]
    assert said not in "".join(ufw.compare(wish(SSH, unmanaged="close", foreign="keep"), routed, None)["notices"])


@pytest.mark.parametrize(
    "answer", [{"8123": "keep"}, {"8123/tcp": "yes"}, {"70000/tcp": "keep"}, {"0/udp": "keep"}, {"300/ip": "keep"}]
)
def test_an_answer_that_says_nothing_is_refused(lived: Any, answer: dict[str, str]) -> None:
    refusals = ufw.compare(wish(SSH, unmanaged_ports=answer), bare(), None)["refusals"]
    assert any("ufw_unmanaged_ports" in line and "write" in line for line in refusals)


# -- ufw's own words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "command"),
    [
        ({"action": "limit", "proto": "tcp", "port": "22"}, "ufw limit proto tcp from any to any port 22"),
        ({"action": "reject", "port": "23"}, "ufw reject from any to any port 23"),
        ({"action": "deny", "direction": "out", "port": "25"}, "ufw deny out from any to any port 25"),
        ({"direction": "out", "interface": "eth0"}, "ufw allow out on eth0 from any to any"),
        ({"direction": "route", "port": "80", "proto": "tcp"}, "ufw route allow proto tcp from any to any port 80"),
        (
            {"direction": "route", "interface": "eth0", "interface_out": "eth1"},
            "ufw route allow in on eth0 out on eth1 from any to any",
        ),
        ({"destination": "192.168.1.5", "port": "80"}, "ufw allow from any to 192.168.1.5 port 80"),
    ],
)
def test_ufws_own_words_can_be_declared(entry: dict[str, str], command: str) -> None:
    rule = next(ufw.expand({"name": "x", **entry}))
    assert ufw.replayable(rule) == f"{command} comment rf:x"


def test_a_declared_rule_for_what_goes_out_lets_nothing_in() -> None:
    out = list(ufw.expand({"name": "x", "direction": "out", "proto": "tcp", "port": "80"}))
    foreign = ufw.parse_tuple("### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in", "4")
    assert ufw.declared_as(foreign, out) == []


def test_profiles_become_their_ports(tmp_path: Path) -> None:
    (tmp_path / "samba").write_text("[Samba]\ntitle=x\nports=137,138/udp|139,445/tcp\n[DNS]\nports=53\n")
    entries, faults = ufw.with_ports(
        [{"name": "share", "application": "Samba"}, {"name": "dns", "application": "DNS"}, SSH], tmp_path
    )
    assert [(e["name"], e["port"], e["proto"]) for e in entries] == [
        ("share", "137,138", "udp"),
        ("share-2", "139,445", "tcp"),
        ("dns", "53", "any"),
        ("ssh", "22", "tcp"),
    ]
    assert faults == []
    _, [fault] = ufw.with_ports([{"name": "share", "application": "Samb"}], tmp_path)
    assert "'Samb' (there are: DNS, Samba; or write port)" in fault


@pytest.mark.parametrize(
    "entry",
    [
        {"source": "192.168.1.0/24", "destination": "fd00::1"},
        {"interface_out": "eth0"},
        {"application": "Samba", "port": "1"},
    ],
)
def test_what_cannot_be_said_to_ufw_is_refused_with_what_to_write(entry: dict[str, str]) -> None:
    [fault] = ufw.entry_faults([{"name": "x", **entry}])
    assert "write" in fault or "remove" in fault


# -- chains of ufw's own, declared by others -------------------------------------------------------------------------


def test_chains_that_ufw_fills_are_no_frame_whoever_declares_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("user-forward", "user-input", "track-input", "skip-to-policy-input", "after-input", "not-local", "mine")
    text = "*filter\n" + "".join(f":ufw-{name} - [0:0]\n" for name in names)
    rules = "-A ufw-after-input -j ACCEPT\n-I ufw-mine -j DROP\n-A ufw-user-forward -j DROP\n"
    (tmp_path / "after.rules").write_text(f"{text}{rules}COMMIT\n")
    (tmp_path / "before.rules").write_text("")
    monkeypatch.setattr(ufw, "ETC", tmp_path)
    assert set(ufw.framework("4")) == {"ufw-after-input", "ufw-not-local", "ufw-mine"}
    state = bare()
    state.conf = {}
    sent = ufw.kernel_text(state, "4")
    assert "ufw-user-forward" not in sent
    assert "-I ufw-mine -j DROP" in sent


def test_what_comes_by_an_exclusive_interface_is_decided_already(lived: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = ufw.parse_ss('tcp LISTEN 0 9 100.64.0.1:39000 0.0.0.0:* users:(("tailscaled",pid=9,fd=9))')
    monkeypatch.setattr(ufw, "ground", lambda: ufw.Ground(peer, [], [], {}))
    monkeypatch.setattr(ufw, "interface_of", lambda address: {"100.64.0.1": "tailscale0"}.get(address, ""))
    assert "39000/tcp" in "".join(ufw.compare(wish(SSH), bare(), None)["refusals"])
    exclusive = wish(SSH, exclusive_interfaces=["tailscale0"])
    assert "39000/tcp" not in "".join(ufw.compare(exclusive, bare(), None)["refusals"])


def test_a_route_rule_is_inserted_in_ufws_words() -> None:
    routed = next(ufw.expand({"name": "x", "direction": "route", "proto": "tcp", "port": "80"}))
    step = ufw.Step("insert", 0, routed)
    words = ufw.command(step, {"4": step, "6": None}, {"4": [routed], "6": []})
    assert words[:4] == ["route", "insert", "1", "allow"]
