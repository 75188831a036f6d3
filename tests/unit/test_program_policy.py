"""The host program of the role `policy`: what it makes of a host, of refusals and of tools that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.programs import load, path_of
from tests.unit.policy_wishes import BACKEND, DB, FLOW, LAN, WEB, wish


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, with its files below a temporary directory."""
    program = load("policy")
    for name, path in {"STATE": "policy", "POLICY": "policy/policy.json", "LOCK": "lock"}.items():
        monkeypatch.setattr(program, name, tmp_path / path)
    (tmp_path / "policy").mkdir()
    return program


Shim = Callable[..., Path]


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shim:
    """Put a shell script in front of a command; what it is called with ends up in the returned file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name: str, script: str) -> Path:
        log = tmp_path / f"{name}.log"
        (folder / name).write_text(f'#!/bin/sh\necho "$@" >> {log}\n{script}\n', encoding="utf-8")
        (folder / name).chmod(0o755)
        return log

    return put


def networks(*bridges: str) -> list[dict[str, Any]]:
    return [
        {
            "Name": bridge, "Id": "0123456789ab" + "0" * 52, "Driver": "bridge",
            "Options": {} if bridge.startswith("br-") else {"com.docker.network.bridge.name": bridge},
            "IPAM": {"Config": [{"Subnet": f"10.{number}.0.0/24"}]},
        }
        for number, bridge in enumerate(bridges)
    ]  # fmt: skip


def test_interfaces_that_lead_outside_are_told_by_what_they_are(policy: ModuleType) -> None:
    interfaces = {
        "lo": False, "eth0": False, "wg0": False, "rf-backend": True, "br-lan": True, "br-nas": True, "vmbr0": True,
        "veth01": False, "docker0": True, "media": True, "custom0": True, "docker_gwbridge": True,
    }  # fmt: skip
    routes = [
        {"dst": "default", "dev": "br-lan"},
        {"dst": "10.0.0.0/25", "dev": "br-nas"},  # a place
        {"dst": "10.77.0.0/24", "dev": "vmbr0"},
        {"type": "local", "dst": "10.0.0.9", "dev": "vmbr0"},
        {"dst": "10.0.0.128/25", "dev": "media"},  # a place's, and yet Docker's
        {"dst": "default", "nexthops": [{"dev": "eth0"}]},
        {"dst": "10.99.0.0/24", "dev": "wg0"},
        {"dst": "fe80::/64", "dev": "veth01"},
        {"type": "multicast", "dst": "ff00::/8", "dev": "veth01"},
    ]
    around = policy.surroundings(interfaces, routes, networks("docker0", "media"), wish(uplinks=["vmbr9"]), tells=True)
    assert around.uplinks == ("br-lan", "br-nas", "eth0", "vmbr9", "wg0")
    # By which a place is declared to come in leads outside, whatever the routes say.
    place = {"name": "guests", "networks": ["10.66.0.0/24"], "interfaces": ["vmbr7"]}
    named = policy.surroundings(interfaces, routes, [], wish(places=[place]), tells=True)
    assert "vmbr7" in named.uplinks
    assert around.docker == ("docker0", "docker_gwbridge", "media")
    assert around.subnets == ("10.0.0.0/24", "10.1.0.0/24")


def test_a_network_that_somebody_makes_or_takes_away_is_no_drift(
    policy: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(policy, "INTERFACES", tmp_path)
    (tmp_path / "br-there").mkdir()
    live = policy.Around(uplinks=("eth0",), docker=("br-there",), subnets=("10.1.0.0/24",))
    keep, close = wish(), wish(unmanaged="close")
    assert policy.matters(live, keep, "iptables") == policy.Around(uplinks=("eth0",))
    assert policy.matters(live, close, "iptables").subnets == ("10.1.0.0/24",)
    # UFW drops what is forwarded, so that Docker's nftables back end needs every bridge to be named.
    named = policy.matters(live, keep, "nftables")
    assert named.docker == ("br-there",)
    before = {"around": {**named._asdict(), "docker": ["br-gone", "br-there"]}}
    assert policy.remembering(named, before).docker == ("br-gone", "br-there")
    assert policy.remembering(named, None) == named
    (tmp_path / "br-gone").mkdir()  # somebody else's by now
    assert policy.remembering(named, before) == named


def test_containers_outside_the_fence_are_listed(policy: ModuleType) -> None:
    def container(name: str, *networks: str, mode: str = "") -> dict[str, Any]:
        return {
            "Names": [f"/{name}"],
            "HostConfig": {"NetworkMode": mode},
            "NetworkSettings": {"Networks": {network: {} for network in networks}},
        }

    listed = policy.outside_the_fence(
        [
            container("inside", "rf-a"),
            container("gitea", "gitea_default"),
            container("both", "rf-a", "gitea_default"),
            container("dhcp", "host", mode="host"),
        ]
    )
    assert listed == [
        "outside the fence: container both, in a segment, is also on network gitea_default",
        "outside the fence: container dhcp uses the host's own network",
        "outside the fence: container gitea on network gitea_default",
    ]


def test_refusals_name_the_fix(policy: ModuleType) -> None:
    assert policy.docker_refusals({}) == []
    assert "remove it and restart docker" in policy.docker_refusals({"iptables": False})[0]
    assert policy.backend_refusal("nf_tables", "*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n") == ""
    refusal = policy.backend_refusal("nf_tables", "*filter\n:DOCKER-USER - [0:0]\nCOMMIT\n")
    assert "DOCKER-USER" in refusal
    assert "update-alternatives" in refusal


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        (
            {"segments": [{**BACKEND, "name": "x", "bridge": "eth0"}], "endpoints": [], "flows": [], "egress": [],
             "published": [], "host": []},
            "policy_segments.x.bridge: 'eth0' must begin with 'rf-' and have at most 15 characters",
        ),
        (
            {"segments": [*wish()["segments"], {"name": "x", "bridge": "rf-HOST"}]},
            "policy_segments.x.bridge: 'rf-HOST' would take a chain of ringfence's own; give it another name",
        ),
        (
            {"flows": [{**FLOW, "from_bridge": "rf-bakcend"}]},
            "policy_flows.web > db: bridge 'rf-bakcend' is not in policy_segments; add it, or correct the name",
        ),
        (
            {"flows": [{**FLOW, "port": "80 -j ACCEPT"}]},
            "policy_flows.web > db.port: '80 -j ACCEPT' is neither a port nor a range such as '8000-8010'",
        ),
        (
            {"flows": [{**FLOW, "port": "99999"}]},
            "policy_flows.web > db.port: '99999' is neither a port nor a range such as '8000-8010'",
        ),
        (
            {"flows": [{**FLOW, "source6": "172.20.0.10"}]},
            "policy_flows.web > db.source6: '172.20.0.10' is not an address of that family",
        ),
        (
            {"flows": [{**FLOW, "source": "web"}]},
            "policy_flows.web > db.source: 'web' is not an address of that family",
        ),
        (
            {"endpoints": [WEB, DB, {**DB, "name": "x", "mac": "02:42"}]},
            "policy_endpoints.x.mac: '02:42' is not a MAC address such as 02:42:ac:14:00:0a",
        ),
        (
            {"endpoints": [WEB, DB], "flows": [{**FLOW, "source": "172.20.0.99"}]},
            "policy_flows.web > db.source: '172.20.0.99' is no endpoint on rf-frontend, and what comes from no "
            "endpoint is dropped; add it to policy_endpoints, or correct the address",
        ),
        (
            {"places": [{**LAN, "interfaces": ["eth0 up"]}]},
            "policy_places.lan.interfaces: 'eth0 up' is no interface's name (at most 15 characters)",
        ),
        (
            {"places": [{**LAN, "networks": ["lan"]}]},
            "policy_places.lan: 'lan' is not a network in CIDR notation",
        ),
        ({"uplinks": ["a" * 16]}, f"policy_uplinks: '{'a' * 16}' is no interface's name (at most 15 characters)"),
        ({"private": ["lan"]}, "policy_private: 'lan' is not a network in CIDR notation"),
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_loaded_is_refused_by_name(
    policy: ModuleType, changes: dict[str, Any], refusal: str
) -> None:
    assert policy.wish_refusals(wish(**changes)) == [refusal]
    assert policy.check(wish(**changes))["refusals"] == [refusal]


VPN: dict[str, Any] = {"interface": "wg-ringfence", "networks": ["10.99.0.0/24"], "transit": []}
LEAVING = {"name": "a > dns", "source": "10.99.0.7", "to": "192.168.10.1/32", "proto": "udp", "port": 53}
PASSED_ON = {"name": "a > b", "source": "10.99.0.7/32", "destination": "10.99.0.9", "proto": "tcp", "port": 22}


@pytest.mark.parametrize(
    ("vpn", "refusal"),
    [
        ({"interface": "rf-vpn"}, "policy_vpn.interface: 'rf-vpn' must have at most 15 characters and not begin with"),
        ({"networks": ["10.99.0.0/33"]}, "policy_vpn.networks: '10.99.0.0/33' is not a network in CIDR notation"),
        ({"transit": [PASSED_ON | {"port": "x"}]}, "policy_vpn.transit.a > b.port: 'x' is no port and no range"),
        ({"transit": [PASSED_ON | {"source": "here"}]}, "policy_vpn.transit.a > b.source: 'here' is not a network"),
        ({"egress": [LEAVING | {"port": "x"}]}, "policy_vpn.egress.a > dns.port: 'x' is no port and no range"),
        ({"egress": [LEAVING | {"to": "there"}]}, "policy_vpn.egress.a > dns.to: 'there' is not a network"),
    ],
)
def test_a_way_to_other_hosts_that_cannot_be_is_refused_by_name(
    policy: ModuleType, vpn: dict[str, Any], refusal: str
) -> None:
    assert policy.wish_refusals(wish(vpn=VPN)) == []
    [said] = policy.wish_refusals(wish(vpn=VPN | vpn))
    assert said.startswith(refusal)


def test_a_flow_has_one_end_here(policy: ModuleType) -> None:
    out, into = {"to_bridge": "wg-ringfence"}, {"from_bridge": "wg-ringfence"}
    assert policy.wish_refusals(wish(vpn=VPN, flows=[FLOW | out, FLOW | into])) == []
    [said] = policy.wish_refusals(wish(vpn=VPN, flows=[FLOW | out | into]))
    assert "both ends are other hosts; write it as policy_vpn.transit" in said
    assert "is not in policy_segments" in policy.wish_refusals(wish(flows=[FLOW | out]))[0]


def test_a_good_wish_is_not_refused(policy: ModuleType) -> None:
    assert policy.wish_refusals(wish()) == []
    assert policy.wish_refusals(wish(flows=[{**FLOW, "port": "8000-8010"}])) == []


# -- tools that fail: never an empty answer


def test_rules_of_tailscales_that_iptables_cannot_read_are_named(policy: ModuleType, shim: Shim) -> None:
    shim("iptables-save", "echo 'Parsing nftables rule failed' >&2; exit 1")
    shim("nft", "echo 'chain ts-input {'")
    with pytest.raises(policy.Fault, match=r"rule failed; nothing is changed .*tailscale set --netfilter-mode=off"):
        policy.live_tables("v4")
    shim("nft", "echo 'chain input {'")
    with pytest.raises(policy.Fault, match=r"cannot be read$"):
        policy.live_tables("v4")


def test_a_hanging_iptables_save_is_no_empty_ruleset(policy: ModuleType, shim: Shim) -> None:
    shim("iptables-save", "exec sleep 60")
    policy.run.__kwdefaults__["timeout"] = 0.5
    with pytest.raises(policy.Fault, match="nothing is changed while the live rules cannot be read"):
        policy.live_tables("v4")
    with pytest.raises(policy.Fault):
        policy.remove([])


@pytest.mark.parametrize(
    "script", ["echo 'conntrack v1.4.7 (conntrack-tools): Operation failed' >&2; exit 1", "sleep 9"]
)
def test_connections_that_cannot_be_listed_stop_the_run(
    policy: ModuleType, shim: Shim, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    shim("conntrack", script)
    real = policy.must
    monkeypatch.setattr(policy, "must", lambda *argv, timeout=30: real(*argv, timeout=0.5))
    with pytest.raises(policy.Fault, match="conntrack"):
        policy.cut(wish(), policy.Around())


def test_connections_that_do_not_go_away_are_an_error(policy: ModuleType, shim: Shim) -> None:
    line = (
        "tcp 6 431999 ESTABLISHED src=192.0.2.5 dst=10.0.0.1 sport=4 dport=8080 src=172.20.0.10 dst=192.0.2.5 "
        "sport=80 dport=4 [ASSURED] mark=0 use=1"
    )
    log = shim("conntrack", f'case "$*" in *ipv6*) ;; *-L*) echo "{line}" ;; esac')
    with pytest.raises(policy.Fault, match="live on, although they were deleted: 192"):
        policy.cut(wish(), policy.Around())
    # By its own addresses and ports: conntrack refuses networks for the side that answers.
    assert (
        "-D -f ipv4 -p tcp -s 192.0.2.5 -d 10.0.0.1 -r 172.20.0.10 --dport 8080 --reply-port-src 80"
        in log.read_text(encoding="utf-8")
    )


def test_thousands_of_connections_are_cut_by_one_command(
    policy: ModuleType, shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = tmp_path / "listing"
    listing.write_text(
        "".join(
            f"udp 17 29 src=172.20.0.10 dst=10.0.0.9 sport={port} dport=53 [UNREPLIED] src=10.0.0.9 dst=172.20.0.10"
            f" sport=53 dport={port} mark=0 use=1\n"
            for port in range(2000, 7000)
        ),
        encoding="utf-8",
    )
    log = shim("conntrack", f'case "$*" in *ipv6*) ;; *-L*) cat {listing} ;; *-D*) : > {listing} ;; esac')
    assert policy.cut(wish(), policy.Around()) == 5000
    assert log.read_text(encoding="utf-8").count("-D") == 1


def persisted(policy: ModuleType) -> None:
    around = {"uplinks": ["eth0"], "docker": [], "subnets": [], "tells": True}
    found = {"format": policy.FORMAT, "backend": "iptables", "wish": wish(), "around": around}
    policy.POLICY.write_text(json.dumps(found), encoding="utf-8")


def test_at_boot_what_fails_for_one_family_is_still_done_for_the_other(
    policy: ModuleType, shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "ensure_bridge_filter", lambda: None)
    persisted(policy)
    save = "cat > /dev/null < /dev/null"
    shim("iptables-save", save)
    shim("ip6tables-save", save)
    loaded = shim("nft", "cat > /dev/null")
    failing = shim("iptables-restore", "echo 'iptables-restore: line 3 failed' >&2; exit 1")
    working = shim("ip6tables-restore", "cat > /dev/null")
    with pytest.raises(policy.Fault, match=r"line 3 failed.*declared flows may not pass \(v4\)"):
        policy.boot([])
    assert loaded.read_text(encoding="utf-8").splitlines() == ["-f -"]
    assert len(failing.read_text(encoding="utf-8").splitlines()) == 3
    assert len(working.read_text(encoding="utf-8").splitlines()) == 1


def test_at_boot_a_deny_that_cannot_be_loaded_closes_the_segments_by_iptables(
    policy: ModuleType, shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "ensure_bridge_filter", lambda: None)
    persisted(policy)
    shim("iptables-save", "cat > /dev/null < /dev/null")
    shim("ip6tables-save", "cat > /dev/null < /dev/null")
    shim("nft", "echo 'nft: no' >&2; exit 1")
    shim("iptables-restore", f"cat >> {tmp_path}/v4")
    shim("ip6tables-restore", f"cat >> {tmp_path}/v6")
    with pytest.raises(policy.Fault, match="every segment is closed until `ringfence-policy apply` succeeds"):
        policy.boot([])
    for family in ("v4", "v6"):
        first = (tmp_path / family).read_text(encoding="utf-8").partition("COMMIT")[0]
        assert {"-A RF-SHUT -i rf-+ -j DROP", "-A RF-SHUT -o rf-+ -j DROP"} <= set(first.splitlines())
        # What opens does not take that away again.
        assert "*mangle" not in (tmp_path / family).read_text(encoding="utf-8").partition("COMMIT")[2]


def test_at_boot_a_program_that_hangs_is_not_asked_again(
    policy: ModuleType, shim: Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd ends the unit some time, and then nothing would have been closed."""
    monkeypatch.setattr(policy, "ensure_bridge_filter", lambda: None)
    monkeypatch.setattr(policy, "LOADING", 0.3)
    persisted(policy)
    shim("iptables-save", "cat > /dev/null < /dev/null")
    shim("ip6tables-save", "cat > /dev/null < /dev/null")
    asked = shim("nft", "sleep 60")
    shim("iptables-restore", f"cat >> {tmp_path}/v4")
    shim("ip6tables-restore", f"cat >> {tmp_path}/v6")
    with pytest.raises(policy.Fault, match="every segment is closed"):
        policy.boot([])
    assert asked.read_text(encoding="utf-8").splitlines() == ["-f -"]
    assert "RF-SHUT" in (tmp_path / "v4").read_text(encoding="utf-8")


def test_what_was_applied_meanwhile_is_not_put_back(policy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    persisted(policy)
    monkeypatch.setattr(policy, "await_boot", lambda: None)
    monkeypatch.setattr(policy, "bring_about", lambda wish: pytest.fail("it is brought about"))
    assert policy.mend(wish() | {"unmanaged": "other"}) == {"changes": []}


# What systemctl says of Docker and of the unit that follows its start, with the job of that one.
SAYS = """printf 'Id=docker.service\\nActiveState={docker}\\n\\nId=ringfence-policy-docker.service\\n{job}'"""


def test_what_docker_has_just_started_is_waited_for(policy: ModuleType, shim: Shim, tmp_path: Path) -> None:
    """Docker's start is over before the unit has put the policy in order: that is no change that a run would make."""
    busy, done = (SAYS.format(docker="active", job=job) for job in ("Job=17\\n", ""))
    asked = shim("systemctl", f"if [ $(wc -l <{tmp_path}/systemctl.log) -lt 3 ]; then {busy}; else {done}; fi")
    policy.await_boot()
    assert len(asked.read_text().splitlines()) == 3


def test_a_unit_that_waits_for_docker_itself_is_not_waited_for(policy: ModuleType, shim: Shim) -> None:
    shim("systemctl", SAYS.format(docker="activating", job="Job=17\\n"))
    policy.await_boot(seconds=0)


def test_a_unit_that_does_not_end_is_named(policy: ModuleType, shim: Shim) -> None:
    shim("systemctl", SAYS.format(docker="active", job="Job=17\\n"))
    with pytest.raises(policy.Fault, match=r"see `systemctl status ringfence-policy-docker\.service`, then run again"):
        policy.await_boot(seconds=0.2)


@pytest.mark.parametrize(
    "content",
    [
        None, "{", '{"format": 1}', "[]",
        '{"format": FORMAT, "backend": "iptables", "wish": {}, "around": {}}',
        '{"format": FORMAT, "backend": "iptables", "wish": {"segments": [7]}, "around": null}',
    ],
)  # fmt: skip
def test_at_boot_a_policy_that_cannot_be_read_closes_every_segment(
    policy: ModuleType, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.setattr(policy, "ensure_bridge_filter", lambda: None)
    loaded: list[tuple[str, Any]] = []
    monkeypatch.setattr(policy, "load", lambda medium, rules, opens, backend: loaded.append((medium, rules)))
    if content is not None:
        policy.POLICY.write_text(content.replace("FORMAT", json.dumps(policy.FORMAT)), encoding="utf-8")
    with pytest.raises(policy.Fault, match="every segment is closed"):
        policy.boot([])
    assert loaded == [("nft", policy.closed())]
    assert {rule.verdict for rule in policy.closed()} == {"drop"}


def test_it_runs_when_an_engine_sends_it() -> None:
    """A loader that the engines use: no module of that name exists on the host, which dataclasses would need."""
    loader = (
        'import json,sys; r=json.load(sys.stdin); exec(compile(r["program"], "ringfence", "exec"), '
        '{"__name__": "__main__", "REQUEST": r})'
    )
    request = {"program": path_of("policy").read_text(encoding="utf-8"), "arguments": ["nonsense"], "desired": {}}
    answer = subprocess.run(
        [sys.executable, "-I", "-c", loader], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 2
    assert "ringfence-policy check" in answer.stderr
