"""What the program of the role `wireguard` reads and concludes, without an interface."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.programs import load
from tests.unit.wireguard.conftest import peer, secret

# The same each time: they are in the names of tests.
KEY, OTHER, THIRD = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3))


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return load("wireguard")


def desired(*peers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "userspace": "auto", "interface": "wg-ringfence", "host": "atlas", "addresses": ["10.99.0.1/24", "fd52::1/64"],
        "port": 51820, "mtu": 1420, "key": 1, "peers": list(peers), "secrets": {}, "keys": {}, **more,
    }  # fmt: skip


def wish(program: ModuleType, *peers: dict[str, Any], **more: Any) -> Any:
    return program.wished(desired(*peers, **more), {})


def test_a_private_key_is_its_owners_from_birth(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at before anything looks after it: the next look of the same run sets modes right."""
    monkeypatch.setattr(program, "KEYS", tmp_path / "wireguard" / "ringfence")
    program.ensure_key("wg-ringfence", 1)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in program.KEYS.iterdir()}
    assert modes == {"wg-ringfence.1.key": 0o600, "wg-ringfence.1.pub": 0o644}
    assert stat.S_IMODE(program.KEYS.stat().st_mode) == 0o700


def test_a_dump_is_read(program: ModuleType) -> None:
    text = (
        f"{KEY}\t{OTHER}\t51820\toff\n"
        f"{THIRD}\t{KEY}\t[2001:db8::1]:51820\t10.99.0.2/32,fd52::2/128\t1700000000\t10\t20\t25\n"
        f"{OTHER}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
    )
    found = program.read_dump(text)
    assert (found.private, found.public, found.port) == (KEY, OTHER, 51820)
    there = program.Peered(
        KEY, "[2001:db8::1]:51820", frozenset({"10.99.0.2/32", "fd52::2/128"}), 1700000000, 10, 20, 25
    )
    assert found.peers == {THIRD: there, OTHER: program.Peered("", "", frozenset())}
    assert program.read_dump("(none)\t(none)\t0\toff\n") == program.Device("", "", 0, {})


@pytest.mark.parametrize(
    "text", ["", "\n", f"{KEY}\n", f"{KEY}\tx\tport\toff\n", f"{KEY}\t{KEY}\t1\toff\n{KEY}\t(none)\n"]
)
def test_what_is_no_dump_is_an_error_that_tells_no_key(program: ModuleType, text: str) -> None:
    with pytest.raises(program.Fault, match="cannot be read") as caught:
        program.read_dump(text)
    assert KEY not in str(caught.value)


def test_a_configuration_is_read_as_it_was_written(program: ModuleType) -> None:
    made = wish(
        program,
        peer("nas", "10.99.0.2/32", "172.20.3.0/24", endpoint="nas.example.org:51820", keepalive=25, key=3),
        peer("phone", "10.99.0.9", public_key=OTHER),
        peer("far", endpoint="[2001:DB8::1]:51820", public_key=THIRD),
        keys={"nas": KEY}, secrets={"nas": OTHER},
    )  # fmt: skip
    text = program.rendered(made, KEY)
    assert text.startswith("# Managed by ringfence.")
    assert "\nEndpoint = nas" not in text
    assert [one._replace(peered=None) for one in program.parsed(text)] == [
        program.Written("nas", KEY, 3, "nas.example.org:51820", None),
        program.Written("phone", OTHER, 0, "", None),
        program.Written("far", THIRD, 0, "[2001:db8::1]:51820", None),
    ]
    assert program.parsed(text)[0].peered == program.Peered(
        OTHER, "nas.example.org:51820", frozenset({"10.99.0.2/32", "172.20.3.0/24"}), keepalive=25
    )
    assert program.parsed(text)[1].peered.allowed == {"10.99.0.9/32"}
    have = {one.key: one.peered for one in program.parsed(text)}
    assert program.peer_changes(made, have, program.parsed(text)) == program.Changes([], [], [])
    assert "ListenPort" not in program.rendered(made._replace(port=0), KEY)


def test_a_peer_that_has_moved_stays_where_it_was_heard_from(program: ModuleType) -> None:
    made = wish(program, peer("nas", "10.99.0.2/32", endpoint="192.0.2.9:51820", public_key=KEY))
    before = program.parsed(program.rendered(made, KEY))
    roamed = {KEY: program.Peered("", "198.51.100.7:4000", frozenset({"10.99.0.2/32"}))}
    assert program.peer_changes(made, roamed, before).changed == []
    more = wish(program, peer("nas", "10.99.0.2/32", "10.98.0.0/16", endpoint="192.0.2.9:51820", public_key=KEY))
    [change] = program.peer_changes(more, roamed, before).changed
    assert not change.at
    assert "Endpoint" not in program.sections([(change.peer, change.at, change.cleared)])
    other = wish(program, peer("nas", "10.99.0.2/32", endpoint="192.0.2.10:51820", public_key=KEY))
    [change] = program.peer_changes(other, roamed, before).changed
    assert change.at
    silent = {KEY: roamed[KEY]._replace(endpoint="")}
    assert program.peer_changes(made, silent, before).lines == ["~ peer nas: endpoint 192.0.2.9:51820"]


def test_a_preshared_key_is_never_told(program: ModuleType) -> None:
    made = wish(program, peer("nas", "10.99.0.2/32", public_key=KEY), secrets={"nas": OTHER})
    have = {KEY: program.Peered(THIRD, "", frozenset({"10.99.0.2/32"}))}
    before = program.parsed(program.rendered(made, KEY))
    said = program.peer_changes(made, have, before).lines
    assert said == ["~ peer nas: its preshared key"]
    refusals = program.refused(desired(peer("nas"), secrets={"nas": "hunter2"}))
    assert refusals == ["wireguard_secrets.nas: is no preshared key: make one with `wg genpsk`"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"interface": "../x"}, "wireguard_interface: '../x' is no name of an interface"),
        ({"interface": "all"}, "wireguard_interface: 'all'"),
        ({"addresses": ["10.99.0"]}, "wireguard_addresses: '10.99.0' is no address"),
        ({"mtu": 1279}, "wireguard_mtu: 1279 is not within 1280"),
        ({"port": 65536}, "wireguard_port: 65536 is no port"),
        ({"key": 0}, "wireguard_key: 0 is no generation"),
        ({"userspace": "always"}, "wireguard_userspace: 'always' is none of auto, never"),
        ({"peers": [peer("a b")]}, "wireguard_peers.a b: letters"),
        ({"peers": [peer("atlas")]}, "wireguard_peers.atlas: is this host itself"),
        ({"peers": [peer("a"), peer("a")]}, "wireguard_peers.a: there are two of this name"),
        ({"peers": [peer("a", public_key="x")]}, "wireguard_peers.a.public_key: is no public key"),
        ({"peers": [peer("a")], "keys": {"a": "x"}}, "wireguard_keys.a: is no public key"),
        ({"peers": [peer("a", public_key=KEY), peer("b", public_key=KEY)]}, "b: has the same public key as a"),
        ({"peers": [peer("a", "10.0.0")]}, "wireguard_peers.a.allowed: '10.0.0' is no network"),
        ({"peers": [peer("a", "::/0")]}, "wireguard_peers.a.allowed: ::/0 takes this host's own way out"),
        ({"peers": [peer("a", "10.0.0.1/8"), peer("b", "10.0.0.0/8")]}, "10.0.0.0/8 is wireguard_peers.a's already"),
        ({"peers": [peer("a", endpoint="x")]}, "wireguard_peers.a.endpoint: 'x' is not host:port"),
        ({"peers": [peer("a", endpoint="2001:db8::1:51820")]}, "wireguard_peers.a.endpoint"),
        ({"peers": [peer("a", endpoint="192.0.2.300:1")]}, "wireguard_peers.a.endpoint"),
        ({"peers": [peer("a", endpoint="a:0")]}, "wireguard_peers.a.endpoint"),
        ({"peers": [peer("a", keepalive=-1)]}, "wireguard_peers.a.keepalive: -1"),
    ],
)
def test_what_cannot_be_is_refused_with_its_owner(program: ModuleType, change: dict[str, Any], said: str) -> None:
    [refusal] = program.refused(desired(**change))
    assert said in refusal


def test_a_key_that_is_given_counts_before_what_was_learned_and_that_before_the_last_one(program: ModuleType) -> None:
    before = {"a": (KEY, 1)}
    for given, learned, key, generation in (
        (OTHER, THIRD, OTHER, 0), ("", THIRD, THIRD, 2), ("", "", KEY, 1),
    ):  # fmt: skip
        wanted = desired(peer("a", public_key=given, key=2), keys={"a": learned} if learned else {})
        [found] = program.wished(wanted, before).peers
        assert (found.key, found.generation) == (key, generation)
    assert program.wished(desired(peer("a")), {}).peers == ()


def test_routes_are_for_what_is_outside_of_the_interfaces_own_networks(program: ModuleType) -> None:
    made = wish(program, peer("a", "10.99.0.2/32", "fd52::2/128", "10.0.0.0/8", "fd00::/8", public_key=KEY))
    assert program.routes_of(made) == {"10.0.0.0/8", "fd00::/8"}


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        ([("a", "10.99.0.2/32")], [], ["10.99.0.2/32"]),
        ([("a", "10.99.0.2/32")], [("a", "10.99.0.2/32")], []),
        ([("a", "10.99.0.2/32")], [("b", "10.99.0.2/32")], ["10.99.0.2/32"]),
        ([("a", "10.0.0.0/23")], [("a", "10.0.0.0/24")], ["10.0.1.0/24"]),
        ([("a", "10.0.0.0/24")], [("a", "10.0.0.0/16")], []),
        ([("a", "fd00::/127"), ("a", "10.0.0.0/8")], [("a", "fd00::1/128")], ["10.0.0.0/8", "fd00::/128"]),
    ],
)
def test_what_is_no_longer_behind_a_peer(program: ModuleType, before: Any, after: Any, gone: list[str]) -> None:
    assert [str(one) for one in program.vanished(before, after)] == gone


LISTING = """\
tcp 6 9 ESTABLISHED src=10.99.0.2 dst=172.20.1.5 sport=5 dport=80 src=172.20.1.5 dst=10.99.0.2 sport=80 dport=5
udp 17 20 src=192.168.1.9 dst=192.168.1.1 sport=5 dport=53 src=10.99.0.2 dst=192.168.1.9 sport=53 dport=5
udp 17 20 src=10.99.0.21 dst=10.99.0.1 sport=5 dport=53 [UNREPLIED] src=10.99.0.1 dst=10.99.0.21 sport=53 dport=5
"""


def test_connections_of_a_network_are_found_whichever_end_is_in_it(program: ModuleType) -> None:
    flows = program.read_flows(LISTING)
    assert len(flows) == 3
    found = program.concerned(flows, [program.network("10.99.0.2/32")])
    assert [flow.source for flow in found] == ["10.99.0.2", "192.168.1.9"]


@pytest.mark.parametrize(
    ("endpoint", "sent", "handshake", "found", "chosen"),
    [
        ("", 0, 0, ["a", "b"], "a"),
        ("old", 9, 9, ["a", "b"], "a"),
        ("b", 9, 9, ["a", "b"], "b"),
        ("a", 9, 0, ["a", "b"], "b"),
        ("b", 9, 0, ["a", "b"], "a"),
        ("a", 0, 0, ["a", "b"], "a"),
        ("a", 9, 0, ["a"], "a"),
    ],
)
def test_which_address_of_a_name_is_taken(
    program: ModuleType, endpoint: str, sent: int, handshake: int, found: list[str], chosen: str
) -> None:
    assert program.chosen(program.Peered("", endpoint, frozenset(), handshake, 0, sent), found) == chosen


def test_a_peer_is_silent_150_seconds_after_its_last_handshake(program: ModuleType) -> None:
    for ago, silent in ((149, False), (151, True)):
        assert program.is_silent(program.Peered("", "", frozenset(), 1000), 1000 + ago) is silent
    assert program.is_silent(program.Peered("", "", frozenset()), 1000)


@pytest.mark.parametrize(
    ("seconds", "said"), [(-1, "0 s"), (59, "59 s"), (60, "1 min"), (7300, "2 h"), (200000, "2 d")]
)
def test_ages_and_amounts(program: ModuleType, seconds: float, said: str) -> None:
    assert program.age(seconds) == said
    assert [program.amount(n) for n in (0, 2048, 3 << 20, 5 << 30)] == ["0 B", "2 KiB", "3 MiB", "5.0 GiB"]


def test_packages_follow_from_the_kernel(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "package_states", lambda names: {"conntrack": "installed", "iproute2": "installed"})
    for module, userspace, missing in (
        (True, "auto", ["wireguard-tools"]),
        (False, "auto", ["wireguard-tools", "wireguard-go"]),
        (False, "never", ["wireguard-tools"]),
    ):
        monkeypatch.setattr(program, "has_module", lambda module=module: module)
        assert program.missing_packages(desired(userspace=userspace)) == missing


def test_a_bare_host_is_told_all_that_is_pending(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(program, "package_states", lambda names: {"iproute2": "installed"})
    for name, value in {"has_module": lambda: False, "booted": lambda: True, "other_routes": lambda _: []}.items():
        monkeypatch.setattr(program, name, value)
    for name in ("CONFS", "KEYS"):
        monkeypatch.setattr(program, name, tmp_path / name)
    monkeypatch.setattr(program, "DESIRED", tmp_path / "desired.json")
    monkeypatch.setattr(program, "unit_states", lambda names, _: {name: {} for name in names})
    report = program.check(desired(peer("nas", "10.99.0.2/32", public_key=KEY), peer("b"), secrets={"x": OTHER}))
    assert report["changes"][:6] == [
        "+ package conntrack", "+ package wireguard-tools", "+ package wireguard-go",
        "+ key of wg-ringfence, made on this host: generation 1",
        "+ interface wg-ringfence: 10.99.0.1/24, fd52::1/64, port 51820", "+ peer nas (10.99.0.2/32)",
    ]  # fmt: skip
    assert report["refusals"] == []
    assert report["notices"] == [
        "peer b: its key is not known yet; it is left out until a run has reached that host",
        "wireguard_secrets.x: no peer has this name",
    ]
    assert OTHER not in json.dumps(report)
    never = program.check(desired(userspace="never"))["refusals"]
    assert "wireguard_userspace: 'never', and this kernel does not know WireGuard" in never[0]
    monkeypatch.setattr(program, "booted", lambda: False)
    assert "systemd does not run here" in program.check(desired())["refusals"][0]
    nothing = {"changes": [], "refusals": [], "notices": []}
    assert program.check(desired(peer("nas", "not even a network"), addresses=[])) == nothing


def test_a_damaged_key_is_not_replaced(program: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(program, "KEYS", tmp_path)
    assert program.private_key("wg-ringfence", 1) == ""
    (tmp_path / "wg-ringfence.1.key").write_text("")
    with pytest.raises(program.Fault, match=r"wg-ringfence\.1\.key holds no key: put it back"):
        program.private_key("wg-ringfence", 1)
    (tmp_path / "wg-ringfence.1.key").write_text(KEY + "\n")
    assert program.private_key("wg-ringfence", 1) == KEY


def test_names_that_take_long_are_left_to_the_next_look(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 10, 20, 70, 80])
    monkeypatch.setattr(program.time, "monotonic", lambda: next(clock))
    asked: list[str] = []

    def hangs(endpoint: str) -> list[str]:
        asked.append(endpoint)
        raise program.Fault("it takes too long")

    monkeypatch.setattr(program, "looked_up", hangs)
    peers = wish(program, *(peer(name, endpoint=f"{name}.example.org:1", public_key=secret()) for name in "abcd")).peers
    done, failed = program.follow_peers("wg-ringfence", [(one, program.Peered("", "", frozenset())) for one in peers])
    assert (done, len(failed), asked) == ([], 2, ["a.example.org:1", "b.example.org:1"])


def test_a_name_is_looked_up_as_the_system_does(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "2001:db8::1 STREAM x\n2001:db8::1 DGRAM\n192.0.2.1 STREAM\nnonsense\n\n"
    for code, out, expected in ((0, said, ["[2001:db8::1]:51820", "192.0.2.1:51820"]), (2, "", None), (0, "", None)):
        answer = program.subprocess.CompletedProcess([], code, out, "")
        monkeypatch.setattr(program, "run", lambda *_, answer=answer, **__: answer)
        if expected:
            assert program.looked_up("vpn.example.org:51820") == expected
        else:
            with pytest.raises(program.Fault, match=r"vpn\.example\.org cannot be looked up"):
                program.looked_up("vpn.example.org:51820")
