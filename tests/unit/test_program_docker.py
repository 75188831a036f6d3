"""The docker role's host program: what it plans, from facts alone."""

from __future__ import annotations

import base64
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.programs import load, path_of

POOLS = [{"base": "172.24.0.0/13", "size": 24}]


program = load("docker")


def desired(**changes: Any) -> dict[str, Any]:
    return {
        "source": "debian", "pools": POOLS, "log": {"max_size": "10m", "max_file": 3}, "daemon": {},
        "firewall_backend": "",
        "repository": {"url": "https://download.docker.com/linux/debian", "suite": "", "key": "", "fingerprint": ""},
    } | changes  # fmt: skip


def bare(**changes: Any) -> dict[str, Any]:
    """A fresh trixie host without Docker."""
    return {
        "engine": None, "cli": False, "compose": False, "version": (0, 0), "codename": "trixie",
        "unit": {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": "", "NeedDaemonReload": "no"},
        "argv": [], "flags": {}, "starting": [], "config_path": "/etc/docker/daemon.json", "config": None,
        "config_fault": "", "record": {}, "half_installed": [], "podman_docker": False, "debian_engine": False,
        "sources": "", "snap": False, "rootless": [],
        "candidates": {"docker.io": "26.1.5+dfsg1", "docker-cli": "26.1.5+dfsg1", "docker-compose": "2.26.1-4"},
        "apparmor_missing": False, "br_netfilter": True, "info": {}, "swarm": False, "firewall_backend": "",
        "containers": {}, "publishing": [], "bridge": "", "loaded": None,
        "nft": True, "sysctl": "", "forwarding": dict.fromkeys(program.FORWARDING, "1"), "remains": [],
        "disorder": [], "ring": "", "resting": [], "adopted": False,
    } | changes  # fmt: skip


def running(config: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A host whose Docker 26.1 runs and has read its daemon.json."""
    unit = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "MainPID": "7",
        "NeedDaemonReload": "no",
    }
    return bare(
        engine="/usr/sbin/dockerd", cli=True, compose=True, version=(26, 1), debian_engine=True, unit=unit,
        info={"ServerVersion": "26.1.5"},
        config=config, loaded=program.digests(config or {}), bridge="172.17.0.1/16", candidates={},
    ) | changes  # fmt: skip


def converged(**changes: Any) -> dict[str, Any]:
    plan = program.make_plan(desired(), running())
    return running(plan.config, record=plan.written) | changes


def test_a_bare_host_gets_engine_client_and_compose() -> None:
    plan = program.make_plan(desired(), bare())
    assert plan.refusals == []
    assert plan.packages == ["docker.io", "docker-cli", "docker-compose"]
    assert plan.config == {
        "default-address-pools": POOLS, "log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"},
        "live-restore": True, "userland-proxy": False,
    }  # fmt: skip
    assert not plan.restart


def test_bookworm_has_no_compose_v2_and_is_told_both_ways_out() -> None:
    candidates = {"docker.io": "20.10.24+dfsg1-1+deb12u1", "docker-cli": "", "docker-compose": "1.29.2-3"}
    (refusal,) = program.make_plan(desired(), bare(codename="bookworm", candidates=candidates)).refusals
    assert "docker_source: docker" in refusal
    assert "/usr/local/lib/docker/cli-plugins" in refusal
    plan = program.make_plan(desired(), bare(codename="bookworm", candidates=candidates, compose=True))
    assert (plan.refusals, plan.packages) == ([], ["docker.io"])


def test_dockers_own_repository_brings_its_own_packages() -> None:
    plan = program.make_plan(desired(source="docker"), bare(codename="bookworm", candidates={}))
    assert plan.refusals == []
    assert plan.packages == ["docker-ce", "containerd.io", "docker-ce-cli", "docker-compose-plugin"]
    assert plan.repository
    assert plan.config["ip6tables"] is True


def test_an_engine_that_is_there_is_kept() -> None:
    plan = program.make_plan(
        desired(source="docker"), running(engine="/usr/local/bin/dockerd", debian_engine=False, version=(29, 9))
    )
    assert plan.packages == []
    assert not plan.repository


def test_a_converged_host_has_nothing_pending() -> None:
    assert program.make_plan(desired(), converged()).changes == []


def test_a_file_that_the_daemon_has_not_read_needs_a_restart() -> None:
    plan = program.make_plan(desired(), converged(loaded=None))
    assert plan.changes == ["~ docker must be restarted: running daemon is older than daemon.json"]
    assert plan.restart
    assert not plan.write


def test_reloadable_keys_need_no_restart() -> None:
    plan = program.make_plan(desired(daemon={"shutdown-timeout": 30}), converged())
    assert plan.reload
    assert not plan.restart
    assert plan.changes[0] == "+ /etc/docker/daemon.json shutdown-timeout: 30"


ADDRESS = """\
3: docker0    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0\\       valid_lft forever preferred_lft forever
3: docker0    inet 169.254.7.7/16 scope link docker0\\       valid_lft forever preferred_lft forever
"""


@pytest.mark.parametrize(
    ("pools", "address"),
    [
        ([{"Subnet": "172.18.0.0/24", "Gateway": "172.18.0.9"}], "172.18.0.9/24"),
        ([{"Subnet": "fd00::/64"}, {"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1"}], "10.9.0.1/16"),
        # Docker 20.10, as long as it is the one that has made the bridge.
        ([{"Subnet": "172.17.0.0/16"}], "172.17.0.1/16"),
        ([], ""),
    ],
)  # fmt: skip
def test_the_address_of_docker0_is_known_whatever_the_engine_says(
    monkeypatch: pytest.MonkeyPatch, pools: list[dict[str, str]], address: str
) -> None:
    bridge = {"Id": "b", "IPAM": {"Config": pools}, "Options": {"com.docker.network.bridge.name": "docker0"}}
    monkeypatch.setattr(program, "engine", lambda *_: bridge)
    monkeypatch.setattr(program, "must", lambda *words: ADDRESS if "docker0" in words else "")
    assert program.bridge_address() == address


def test_docker0_stays_where_it_is() -> None:
    assert program.make_plan(desired(), running()).config["bip"] == "172.17.0.1/16"
    assert "bip" not in program.make_plan(desired(), running(bridge="172.24.0.1/24")).config


def test_what_somebody_else_put_into_the_file_is_kept_and_said() -> None:
    plan = program.make_plan(desired(), running({"log-driver": "journald", "dns": ["192.0.2.1"]}))
    assert plan.config["log-driver"] == "journald"
    assert plan.config["dns"] == ["192.0.2.1"]
    assert any("log-driver is kept" in notice for notice in plan.notices)
    plan = program.make_plan(desired(daemon={"log-driver": "local"}), running({"log-driver": "journald"}))
    assert plan.config["log-driver"] == "local"


def test_log_options_go_with_the_driver_that_knows_them() -> None:
    assert "log-opts" not in program.make_plan(desired(), running({"log-driver": "journald"})).config
    assert "log-opts" not in program.make_plan(desired(daemon={"log-driver": "journald"}), converged()).config


def test_what_the_role_wrote_is_corrected_and_taken_back() -> None:
    record = program.make_plan(desired(), running()).written | {"debug": True}
    config = program.make_plan(desired(), running()).config | {"debug": True, "live-restore": False}
    plan = program.make_plan(desired(), running(config, record=record))
    assert "debug" not in plan.config
    assert plan.config["live-restore"] is True


def test_what_the_fence_does_not_need_is_the_users_also_later() -> None:
    """A log driver, and pools, that somebody wrote after the first run were put back without a word."""
    first = program.make_plan(desired(), running())
    theirs = {"log-driver": "syslog", "default-address-pools": [{"base": "10.200.0.0/16", "size": 24}]}
    plan = program.make_plan(desired(), running(first.config | theirs, record=first.written))
    assert {key: plan.config[key] for key in theirs} == theirs
    assert "log-opts" not in plan.config  # they are json-file's
    for key in theirs:
        assert any(f"daemon.json's own {key} is kept" in notice for notice in plan.notices)
        assert key not in plan.written
    again = program.make_plan(desired(), running(plan.config, record=plan.written))
    assert (again.config, again.written) == (plan.config, plan.written)
    # The role's own values follow its variables, as long as nobody else has changed them.
    more = desired(log={"max_size": "20m", "max_file": 3})
    assert program.make_plan(more, running(first.config, record=first.written)).config["log-opts"]["max-size"] == "20m"
    declared = program.make_plan(desired(daemon={"log-driver": "local"}), running(plan.config, record=plan.written))
    assert declared.config["log-driver"] == "local"


def test_the_proxy_stays_where_foreign_containers_need_it_and_does_not_come_back() -> None:
    plan = program.make_plan(desired(), running(publishing=["web"]))
    assert "userland-proxy" not in plan.config
    assert "web" in " ".join(plan.notices)
    assert program.make_plan(desired(), converged(publishing=["web"])).changes == []


def test_the_proxy_that_was_left_on_stays_on_while_theirs_are_down() -> None:
    """A swarm's tasks are made anew when Docker restarts: a run that looked meanwhile would have turned it off."""
    first = program.make_plan(desired(), running(publishing=["web"]))
    again = program.make_plan(desired(), running(first.config, record=first.written))
    assert again.changes == []
    assert "it was so when ringfence came" in " ".join(again.notices)
    off = program.make_plan(desired(daemon={"userland-proxy": False}), running(first.config, record=first.written))
    assert off.config["userland-proxy"] is False


def test_who_publishes_is_known_while_it_is_down(tmp_path: Path) -> None:
    for name, ports, labels in (
        ("theirs", {"80/tcp": [{}]}, {}),
        ("none", {}, {}),
        ("own", {"80/tcp": [{}]}, {"ringfence.project": "x"}),
    ):
        (tmp_path / "containers" / name).mkdir(parents=True)
        (tmp_path / "containers" / name / "hostconfig.json").write_text(json.dumps({"PortBindings": ports}))
        config = {"Name": f"/{name}", "Config": {"Labels": labels}}
        (tmp_path / "containers" / name / "config.v2.json").write_text(json.dumps(config))
    assert program.publishing_at_rest(tmp_path) == ["theirs"]


STOPPED = {**running()["unit"], "ActiveState": "inactive", "UnitFileState": "disabled", "MainPID": "0"}


def test_an_engine_that_is_stopped_hides_what_its_containers_publish() -> None:
    """It counted as one without containers: it was started, and they were cut, in the middle of the first run."""
    stopped = running(unit=STOPPED, info={}, resting=["db", "web"])
    (told,) = program.make_plan(desired(), stopped).refusals
    assert "docker.service is not running, and has containers (db; web)" in told
    assert "systemctl start docker" in told
    # What a run of ours has begun, the next one finishes; and an engine without a container hides nothing.
    assert program.make_plan(desired(), {**stopped, "adopted": True}).refusals == []
    plan = program.make_plan(desired(), {**stopped, "resting": []})
    assert (plan.refusals, plan.start) == ([], True)


def test_what_a_stopped_engine_has_is_read_where_it_keeps_it(tmp_path: Path) -> None:
    for name, text in (("a" * 64, '{"Name": "/web"}'), ("b" * 64, "{}")):
        (tmp_path / "containers" / name).mkdir(parents=True)
        (tmp_path / "containers" / name / "config.v2.json").write_text(text)
    assert program.at_rest(tmp_path) == ["b" * 12, "web"]
    assert program.at_rest(tmp_path / "nothing") == []
    assert program.data_root(running({"data-root": "/data"})) == "/data"
    assert program.data_root(running({}, flags={"data-root": "/flag"})) == "/flag"
    assert program.data_root(running()) == "/var/lib/docker"


@pytest.mark.parametrize("ours", [False, True])
def test_a_stopped_engine_is_looked_at_without_starting_it(
    host: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    host(dockerd="echo Docker version 26.1.5, build a72d7cd")
    (tmp_path / "containers" / "a").mkdir(parents=True)
    (tmp_path / "containers" / "a" / "config.v2.json").write_text('{"Name": "/web"}')
    monkeypatch.setattr(program, "daemon_config", lambda path: {"data-root": str(tmp_path)})
    monkeypatch.setattr(program, "KEPT", tmp_path)
    monkeypatch.setattr(program, "program", lambda name: f"{tmp_path}/{name}" if name == "dockerd" else None)
    if ours:
        program.RECORD.write_text("{}")
    facts = program.look()
    assert (facts["resting"], facts["adopted"]) == (["web"], ours)


def test_swarm_and_flags_are_respected() -> None:
    plan = program.make_plan(desired(), running(swarm=True, flags={"log-driver": "journald"}))
    assert "live-restore" not in plan.config
    assert "userland-proxy" not in plan.config
    assert "log-driver" not in plan.config


@pytest.mark.parametrize(
    ("facts", "wanted", "words"),
    [
        (running({"iptables": False}), {}, "iptables to false"),
        (running(), {"iptables": False}, "docker_daemon sets iptables to false"),
        (running(flags={"iptables": "false"}), {}, "command line sets iptables"),
        (running({"ip6tables": False}, version=(29, 1)), {}, "ip6tables to false"),
        (running(version=(19, 3)), {}, "too old"),
        (running(config_fault="/etc/docker/daemon.json cannot be read: line 3"), {}, "cannot be read: line 3"),
        (running(podman_docker=True), {}, "podman-docker"),
        (running(snap=True), {}, "snap"),
        (running(), {"hosts": ["tcp://0.0.0.0:2375"]}, "tlsverify"),
        (running(unit={**running()["unit"], "LoadState": "masked"}), {}, "unmask"),
    ],
)
def test_refusals_name_the_fix(facts: dict[str, Any], wanted: dict[str, Any], words: str) -> None:
    assert words in " ".join(program.make_plan(desired(daemon=wanted), facts).refusals)


def test_declared_ip6tables_false_is_a_decision() -> None:
    facts = running({"ip6tables": False}, version=(29, 1))
    assert program.make_plan(desired(daemon={"ip6tables": False}), facts).refusals == []


def test_versions_and_flags_are_read() -> None:
    assert program.version("Docker version 26.1.5+dfsg1, build a72d7cd") == (26, 1)
    assert program.version("5:29.1.0-1~debian.13~trixie") == (29, 1)
    assert program.version("20.10.24+dfsg1") == (20, 10)
    assert program.version("") == (0, 0)
    flags = program.flag_values(["-H", "fd://", "--iptables=false", "--live-restore", "--log-driver", "journald"])
    assert flags == {"hosts": "fd://", "iptables": "false", "live-restore": "true", "log-driver": "journald"}


def test_the_fingerprint_of_a_key_is_computed_as_the_standard_says() -> None:
    packet = b"\x04" + b"\x00\x00\x00\x01" + b"\x01" + b"\x00\x08\xff\x00\x02\x03"
    raw = b"\x99" + len(packet).to_bytes(2, "big") + packet
    text = (
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"
        + base64.b64encode(raw).decode()
        + "\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
    )
    import hashlib

    assert program.fingerprint(text) == hashlib.sha1(raw).hexdigest().upper()
    with pytest.raises(program.Fault):
        program.fingerprint("<html>")


# -- the firewall back end -------------------------------------------------------------------------------------------

NFTABLES = desired(firewall_backend="nftables")


def engine_29(config: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A host whose Docker 29 runs with the iptables back end and has read its daemon.json."""
    return running(config, version=(29, 9), info={"ServerVersion": "29.9.0"}, firewall_backend="iptables") | changes


def on_nftables(**changes: Any) -> dict[str, Any]:
    """The same, after the switch."""
    plan = program.make_plan(NFTABLES, engine_29())
    return engine_29(plan.config, record=plan.written, firewall_backend="nftables", sysctl=plan.sysctl) | changes


def test_nftables_is_one_setting_with_all_that_goes_with_it() -> None:
    facts = engine_29(forwarding={"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "1"}, nft=False)
    plan = program.make_plan(NFTABLES, facts)
    assert plan.refusals == []
    assert plan.config["firewall-backend"] == "nftables"
    assert plan.config["bridge-accept-fwmark"] == "0x10000000/0x10000000"
    assert plan.packages == ["nftables"]
    assert (plan.restart, plan.forward) == (True, ["net.ipv4.ip_forward"])
    assert "net.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n" in plan.sysctl
    assert "~ docker must be restarted: its firewall back end changes from iptables to nftables" in plan.changes
    assert program.make_plan(NFTABLES, on_nftables()).changes == []


def test_the_way_back_takes_away_what_went_with_it() -> None:
    plan = program.make_plan(desired(firewall_backend="iptables"), on_nftables())
    assert plan.config["firewall-backend"] == "iptables"
    assert "bridge-accept-fwmark" not in plan.config
    assert (plan.restart, plan.sysctl) == (True, "")
    assert f"- {program.SYSCTL}" in plan.changes


def test_an_empty_setting_leaves_the_back_end_as_it_is() -> None:
    """Also one that the role has set: it is never changed by itself."""
    assert program.make_plan(desired(), on_nftables()).changes == []
    by_hand = engine_29({"firewall-backend": "nftables"}, firewall_backend="nftables")
    plan = program.make_plan(desired(), by_hand)
    assert plan.config["firewall-backend"] == "nftables"
    assert plan.config["bridge-accept-fwmark"] == program.MARK
    assert "firewall-backend" not in plan.written
    assert "firewall-backend" not in program.make_plan(desired(), engine_29()).config


def test_an_engine_without_a_choice_is_not_told_a_key_that_it_does_not_know() -> None:
    assert "firewall-backend" not in program.make_plan(desired(firewall_backend="iptables"), running()).config


@pytest.mark.parametrize(
    ("wish", "facts", "words"),
    [
        (NFTABLES, running(), "needs Docker 29 or newer, this host has 26.1"),
        (NFTABLES, bare(), "needs Docker 29 or newer, this host has 26.1"),
        (NFTABLES, engine_29(swarm=True), "swarm"),
        (NFTABLES, engine_29(flags={"firewall-backend": "iptables"}), "take the option out of docker.service"),
        (NFTABLES, engine_29({"bridge-accept-fwmark": "0x1/0x1"}), "bridge-accept-fwmark is 0x1/0x1"),
        (NFTABLES, engine_29(ring="open"), "apply the role policy first"),
        (desired(firewall_backend="iptables"), on_nftables(ring="open"), "apply the role policy first"),
        (desired(daemon={"firewall-backend": "nftables"}), engine_29(), "set docker_firewall_backend: nftables"),
        (
            desired(firewall_backend="iptables", daemon={"firewall-backend": "nftables"}),
            engine_29(),
            "take the key out of docker_daemon",
        ),
    ],
)
def test_a_back_end_that_cannot_be_is_refused_with_the_fix(wish: Any, facts: dict[str, Any], words: str) -> None:
    assert words in " ".join(program.make_plan(wish, facts).refusals)


@pytest.mark.parametrize("ring", ["", "loaded"])
def test_the_back_end_changes_where_the_ring_is_shut_or_none_is_installed(ring: str) -> None:
    assert program.make_plan(NFTABLES, engine_29(ring=ring)).refusals == []
    # Nothing is changed, so nothing can open.
    assert program.make_plan(NFTABLES, on_nftables(ring="open")).refusals == []


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("table inet ringfence {\n chain RF-FWD {\n  type filter hook forward priority mangle;", "loaded"),
        ("table inet ringfence {\n}", "open"),
        ("", "open"),
    ],
)
def test_a_deny_counts_where_docker_never_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, table: str, found: str
) -> None:
    monkeypatch.setattr(program, "nft_table", lambda name: table)
    monkeypatch.setattr(program, "POLICY", tmp_path)
    assert program.ring() == ""
    (tmp_path / "policy.json").touch()
    assert program.ring() == found


# As left by 29.9 when it started with nftables after `iptables -F FORWARD`.
LEFT = """*raw
:PREROUTING ACCEPT [98:14108]
-A PREROUTING -d 172.30.1.2/32 ! -i rf-a -j DROP
-A PREROUTING -d 172.30.1.2/32 ! -i eth0 -j DROP
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER ! -i rf-a -o rf-a -j DROP
-A DOCKER-FORWARD -j DOCKER
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -o rf-a -m addrtype --src-type LOCAL -j MASQUERADE
-A POSTROUTING -s 10.8.0.0/24 ! -o wg0 -j MASQUERADE
COMMIT
"""


def remains(text: str) -> list[Any]:
    policy = program.parse_policies(text)["filter"]["FORWARD"]
    return list(program.iptables_remains("v4", program.parse_save(text), policy, {"rf-a", "docker0"}))


def test_what_iptables_left_is_taken_away_and_nothing_else() -> None:
    found = {entry.text.split()[0]: entry.text.splitlines()[1:-1] for entry in remains(LEFT)}
    assert found["*raw"] == ["-D PREROUTING -d 172.30.1.2/32 ! -i rf-a -j DROP"]
    assert found["*filter"] == [
        ":FORWARD ACCEPT [0:0]",
        ":DOCKER - [0:0]",
        ":DOCKER-FORWARD - [0:0]",
        "-X DOCKER",
        "-X DOCKER-FORWARD",
    ]
    assert found["*nat"] == [
        ":DOCKER - [0:0]",
        "-D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
        "-D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
        "-D POSTROUTING -o rf-a -m addrtype --src-type LOCAL -j MASQUERADE",
        "-X DOCKER",
    ]
    assert remains(LEFT)[1].change.startswith(
        "- iptables filter: chains DOCKER, DOCKER-FORWARD, policy DROP of FORWARD"
    )


@pytest.mark.parametrize("rule", ["-A FORWARD -j ufw-before-forward", "-A DOCKER-USER -s 192.0.2.1/32 -j DROP"])
def test_a_policy_that_somebody_else_may_have_set_stays(rule: str) -> None:
    clean = "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT\n"
    assert [entry.what for entry in remains(clean)] == ["iptables filter: policy DROP of FORWARD"]
    assert remains(clean.replace("COMMIT", f"{rule}\nCOMMIT")) == []
    assert remains(clean.replace("DROP [", "ACCEPT [")) == []


def test_what_nftables_left_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "nft_tables", lambda: ["ip filter", "inet ringfence", "ip docker-bridges"])
    (entry,) = program.look_for_remains("iptables")
    assert (entry.command, entry.text) == (("nft", "-f", "-"), "delete table ip docker-bridges\n")


def test_what_is_left_is_no_change_while_it_is_in_force() -> None:
    """Before the switch the rules of the other back end are those that filter."""
    left = [program.Remains("iptables filter: chains DOCKER", ("true",), "")]
    facts = on_nftables(remains=left)
    assert program.make_plan(NFTABLES, facts).changes == [left[0].change]
    assert not any(
        "left behind" in line for line in program.make_plan(desired(firewall_backend="iptables"), facts).changes
    )


def test_a_daemon_that_does_not_take_the_back_end_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "engine", lambda method, path: {"FirewallBackend": {"Driver": "iptables+firewalld"}})
    plan = program.make_plan(NFTABLES, engine_29())
    with pytest.raises(program.Fault, match="runs with the firewall back end iptables although"):
        program.settle_backend(plan)


# -- a file that dockerd refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "file"),
    [
        (["--log-driver=journald"], {"log-driver": "journald"}),
        (["-H", "fd://"], {"hosts": ["fd://"]}),
        (["-Hfd://"], {"hosts": ["fd://"]}),
        (["-D"], {"debug": False}),
        (["-s", "overlay2"], {"storage-driver": "overlay2"}),
        (["--log-opt", "max-size=5m"], {"log-opts": {"max-size": "5m"}}),
        (["--default-address-pool", "base=10.0.0.0/8,size=24"], {"default-address-pools": []}),
        (["--registry-mirror=https://mirror.example"], {"registry-mirrors": []}),
    ],
)
def test_what_the_command_line_says_as_well_is_refused_in_the_plan(flags: list[str], file: dict[str, Any]) -> None:
    """The reload was refused after the file had been replaced, and taking it back restarted every container."""
    facts = running(file, flags=program.flag_values(flags))
    (refusal,) = program.make_plan(desired(), facts).refusals
    assert f"both say {next(iter(file))}: " in refusal
    assert "systemctl edit docker.service" in refusal
    # What the role itself wrote gives way instead, and what may be said twice is no fault.
    assert program.make_plan(desired(), facts | {"record": file}).refusals == []
    assert program.make_plan(desired(), running({"runtimes": {}}, flags={"runtimes": "a=/b"})).refusals == []


def test_a_secret_of_the_command_line_is_not_shown() -> None:
    facts = running(flags=program.flag_values(["--log-opt", "splunk-token=hush"]))
    assert "hush" not in json.dumps(program.make_plan(desired(), facts).notices)


def test_the_next_command_line_is_read_from_the_unit_and_its_drop_ins(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text('# DOCKER_OPTS="--bip 10.0.0.1/24"\nDOCKER_OPTS="--dns 10.0.0.2 --debug"\n')
    unit = f"""[Service]
Environment="MORE=--label a=b" LEVEL=warn
EnvironmentFile=-{tmp_path}/docker
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS
ExecReload=/bin/kill -s HUP $MAINPID
# /etc/systemd/system/docker.service.d/override.conf
[Service]
ExecStart=
ExecStart=-/usr/sbin/dockerd $DOCKER_OPTS \\
    $MORE --log-level=${{LEVEL}}
"""
    read = program.arguments(unit)
    assert read == ["--dns", "10.0.0.2", "--debug", "--label", "a=b", "--log-level=warn"]
    assert set(program.flag_values(read)) == {"dns", "debug", "labels", "log-level"}


REFUSING = """case "$*" in *--validate*--config-file\\ /dev/stdin*) ;; *) exit 9;; esac
grep -q live-restore || exit 0
case "$*" in *--live-restore*) ;; *) exit 0;; esac
echo "unable to configure the Docker daemon with file /dev/stdin: the following directives are specified both as a flag
 and in the configuration file: proxies: (from flag: hush, from file: hush)" >&2; exit 1"""


def test_dockerd_judges_the_file_with_the_units_own_command_line_first(
    host: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its unit has changed since it was started: only the next start would say so."""
    host(dockerd=REFUSING, systemctl="echo ExecStart=/usr/sbin/dockerd --live-restore --config-file=/etc/other")
    facts = running(engine=str(tmp_path / "dockerd"))
    (refusal,) = program.refused_by_docker(facts, '{"live-restore": true}')
    assert refusal.startswith("dockerd refuses /etc/docker/daemon.json")
    assert "specified both as a flag" in refusal
    assert "hush" not in refusal
    assert program.refused_by_docker(facts, "{}") == []
    assert program.refused_by_docker(facts | {"version": (20, 10)}, '{"live-restore": true}') == []
    # A file that is ours gives way to the unit's line in the plan itself.
    monkeypatch.setattr(program, "look", lambda: running({"debug": False}, engine=str(tmp_path / "dockerd")))
    assert not any("live-restore" in line for line in program.check(desired())["changes"])


@pytest.mark.parametrize(("info", "pid", "restarts"), [({"ServerVersion": "26"}, "7", 0), ({}, "0", 1)])
def test_a_daemon_that_runs_well_is_left_alone_when_its_file_is_taken_back(
    host: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, info: Any, pid: str, restarts: int
) -> None:
    told = tmp_path / "told"
    host(systemctl=f"echo $* >>{told}; echo Id=docker.service; echo MainPID={pid}", journalctl="true")
    for name in ("running_info", "stop_damaged"):
        monkeypatch.setattr(program, name, lambda: info)
    monkeypatch.setattr(program, "wait_for", lambda *_: None)
    path = tmp_path / "daemon.json"
    path.write_text("new")
    facts = running({"debug": False}, config_text='{"debug": false}', config_path=str(path), containers={"a": "b"})
    program.take_back(facts)
    assert path.read_text() == '{"debug": false}'
    assert told.read_text().count("\nrestart docker.service") == restarts
    assert ("reload docker.service" in told.read_text()) == (not restarts)


def test_dockers_own_words_come_first(host: Callable[..., None]) -> None:
    host(systemctl='[ "$1" = daemon-reload ] || exit 1', journalctl="echo 'level=error msg=\"the disk is full\"'")
    with pytest.raises(program.Fault, match=r"\Alevel=error .*disk is full"):
        program.bring_up("restart")


# -- looking at a host -----------------------------------------------------------------------------------------------

SYSTEMCTL = "echo Id=docker.service; echo LoadState=loaded; echo ActiveState={state}; echo MainPID=0"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put shell scripts in the place of the host's programs: name → script."""

    def put(**scripts: str) -> None:
        for name, script in scripts.items():
            path = tmp_path / name.replace("_", "-")
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    put(systemctl=SYSTEMCTL.format(state="inactive"), dpkg_query="exit 1", apt_cache="true", modprobe="exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(program, "daemon_config", lambda path: None)
    for name in ("RECORD", "STAMP"):
        monkeypatch.setattr(program, name, tmp_path / name)
    return put


@pytest.mark.usefixtures("host")
def test_check_speaks_the_protocol_with_a_sent_program(capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, Any] = {"__name__": "__main__", "REQUEST": {"arguments": ["check"], "desired": desired()}}
    with pytest.raises(SystemExit) as end:
        exec(compile(path_of("docker").read_text(encoding="utf-8"), "ringfence", "exec"), space)
    assert end.value.code == 0
    assert set(json.loads(capsys.readouterr().out)) == {"changes", "refusals", "notices"}


@pytest.mark.parametrize("silent", ["systemctl", "dpkg_query", "apt_cache"])
def test_what_fails_is_an_error_not_an_empty_answer(host: Callable[..., None], silent: str) -> None:
    """A failing systemctl counted as an engine that does not run, a failing dpkg-query as nothing installed."""
    host(**{silent: "echo broken >&2; exit 3"})
    with pytest.raises(program.Fault, match="broken"):
        program.look()


def test_a_running_docker_that_does_not_answer_is_an_error(
    host: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted as one that has no containers, and that may be restarted at will."""
    host(systemctl=SYSTEMCTL.format(state="active"))

    def engine(method: str, path: str, **options: Any) -> Any:
        raise program.Fault(f"docker does not answer ({method} {path})")

    monkeypatch.setattr(program, "engine", engine)
    with pytest.raises(program.Fault, match="GET /info"):
        program.look()


def test_an_unreadable_daemon_json_is_refused(host: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: str) -> Any:
        raise program.Fault(f"{path} cannot be read: Permission denied")

    monkeypatch.setattr(program, "daemon_config", unreadable)
    assert program.make_plan(desired(), program.look()).refusals[0].endswith("Permission denied")


def test_a_container_that_does_not_start_again_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was one line on standard error and exit code 0."""

    def engine(method: str, path: str, **options: Any) -> Any:
        if method == "POST":
            raise (program.NotThereError if "gone" in path else program.Fault)("no such device")
        return [{"Id": "on"}]

    monkeypatch.setattr(program, "engine", engine)
    failed = program.revive({"containers": {"on": "web", "off": "db", "gone": "job"}})
    assert [line.split(",")[0] for line in failed] == ["container db"]


def test_apply_fails_when_a_container_does_not_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "look", converged)
    monkeypatch.setattr(program, "must", lambda *argv, **_: "")
    monkeypatch.setattr(program, "revive", lambda facts: [])
    assert program.apply(desired()) == {"changes": []}
    monkeypatch.setattr(program, "revive", lambda facts: ["container db does not start"])
    with pytest.raises(program.Fault, match="container db"):
        program.apply(desired())


def test_only_containers_without_their_root_file_system_are_stopped_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    drivers = {
        "whole": {"Data": {"MergedDir": str(tmp_path)}}, "damaged": {"Data": {"MergedDir": f"{tmp_path}/gone"}},
        "other": None,  # containerd's store says nothing of it
    }  # fmt: skip

    def engine(method: str, path: str) -> Any:
        if path == "/containers/json":
            return [{"Id": name, "Names": [f"/{name}"]} for name in drivers]
        asked.append(f"{method} {path}")
        # It has not stopped yet when it is asked for the first time.
        runs = asked[-2:] != ["GET /containers/damaged/json"] * 2
        return {"GraphDriver": drivers[path.split("/")[2]], "State": {"Running": runs}}

    monkeypatch.setattr(program, "engine", engine)
    program.stop_damaged()
    damaged = [line for line in asked if "damaged" in line]
    assert damaged[1:] == ["POST /containers/damaged/stop?t=10", *["GET /containers/damaged/json"] * 2]
    assert [line for line in asked if line.startswith("POST")] == damaged[1:2]


# -- Docker's own rules ----------------------------------------------------------------------------------------------

# As iptables-save has them with two bridges and a published port: of Docker 26.1, and of 28 and 29.
OLD = """*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.24.0.0/24 ! -o docker0 -j MASQUERADE
-A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.21.2.115:80
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o rf-front -j DOCKER
-A FORWARD -i rf-front ! -o rf-front -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A DOCKER -d 172.21.2.115/32 ! -i rf-front -o rf-front -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i rf-front ! -o rf-front -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o rf-front -j DROP
COMMIT
"""
NEW = """*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.21.2.115:80
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-INTERNAL - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 172.21.2.115/32 ! -i rf-front -o rf-front -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-BRIDGE -o rf-front -j DOCKER
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o rf-front -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -i rf-front -j ACCEPT
COMMIT
"""
NFT = """table ip docker-bridges {
\tmap filter-forward-in-jumps {
\t\telements = { "rf-front" : jump filter-forward-in__rf-front }
\t}

\tmap filter-forward-out-jumps {
\t\telements = { "rf-front" : jump filter-forward-out__rf-front }
\t}

\tmap nat-postrouting-in-jumps {
\t\telements = { "rf-front" : jump nat-postrouting-in__rf-front }
\t}

\tmap nat-postrouting-out-jumps {
\t\telements = { "rf-front" : jump nat-postrouting-out__rf-front }
\t}

\tchain filter-FORWARD {
\t\ttype filter hook forward priority filter; policy accept;
\t\toifname vmap @filter-forward-in-jumps
\t}

\tchain nat-OUTPUT {
\t\ttype nat hook output priority dstnat; policy accept;
\t\tfib daddr type local counter jump nat-prerouting-and-output
\t}

\tchain nat-POSTROUTING {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tiifname vmap @nat-postrouting-out-jumps
\t}

\tchain nat-PREROUTING {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tfib daddr type local counter jump nat-prerouting-and-output
\t}

\tchain nat-prerouting-and-output {
\t\ttcp dport 8080 counter dnat to 172.21.2.115:80 comment "DNAT"
\t}

\tchain filter-forward-in__rf-front {
\t\tct state established,related counter accept
\t\tip daddr 172.21.2.115 tcp dport 80 counter accept
\t\tcounter drop comment "UNPUBLISHED PORT DROP"
\t}

\tchain nat-postrouting-out__rf-front {
\t}
}
"""
PORTS = [("tcp", 8080, 80)]


def _missing(text: str) -> list[str]:
    if text is NFT or text.startswith("table") or not text:
        return list(program.missing_nft(text, "v4", ["rf-front"], PORTS))
    return list(program.missing_iptables(program.parse_save(text), "v4", ["rf-front", "docker0"], PORTS))


@pytest.mark.parametrize("text", [OLD, NEW, NFT], ids=["26.1", "28", "29-nftables"])
def test_own_rules_that_are_there_are_not_missed(text: str) -> None:
    assert _missing(text) == []


@pytest.mark.parametrize(
    ("text", "gone", "named"),
    [
        (OLD, "-A PREROUTING .*-j DOCKER", "nat PREROUTING does not lead"),
        (OLD, "-A DOCKER -p tcp .*DNAT.*", "port 8080/tcp is translated to no container"),
        (OLD, "-A DOCKER -d .*ACCEPT", "port 8080/tcp is let through to no container"),
        (OLD, "-A DOCKER-ISOLATION-STAGE-2 .*", "DOCKER-ISOLATION-STAGE-2 is empty"),
        (OLD, "-A FORWARD .*-j DOCKER", "FORWARD does not lead"),
        (OLD, ".*docker0.*", "the bridge docker0"),
        (NEW, "-A FORWARD -j DOCKER-FORWARD", "FORWARD does not lead"),
        (NEW, "-A DOCKER-CT .*", "DOCKER-CT is empty"),
        (NEW, "-A OUTPUT .*", "nat OUTPUT does not lead"),
        (NFT, "(?s).*", "table ip docker-bridges is gone"),
        (NFT, "\t\toifname vmap @filter-forward-in-jumps", "chain filter-FORWARD leads nowhere"),
        (NFT, ".*dnat.*", "port 8080/tcp is translated to no container"),
        (NFT, ".*tcp dport 80 counter accept", "port 8080/tcp is let through to no container"),
        (NFT, ".*jump filter-forward-out__rf-front.*", "the bridge rf-front"),
    ],
)
def test_own_rules_that_are_gone_are_named(text: str, gone: str, named: str) -> None:
    assert re.search(gone, text)
    assert any(named in line for line in _missing(re.sub(f"(?m){gone}\n?", "", text)))


def test_a_container_that_publishes_by_no_rule_of_docker_is_not_missed() -> None:
    networks = [
        {"Name": "front", "Options": {}},
        {"Name": "routed", "Options": {"com.docker.network.bridge.gateway_mode_ipv4": "routed"}},
    ]

    def container(network: str, address: str = "172.20.0.2", **port: Any) -> dict[str, Any]:
        leg = {"IPAddress": address, "GlobalIPv6Address": ""}
        return {"NetworkSettings": {"Networks": {network: leg}}, "Ports": [{"PrivatePort": 80, "Type": "tcp", **port}]}

    published = {"IP": "0.0.0.0", "PublicPort": 8080}
    assert program.published([container("front", **published)], networks, "v4") == PORTS
    assert program.published([container("front", **{**published, "IP": "::"})], networks, "v6") == []  # the proxy's
    assert program.published([container("front")], networks, "v4") == []
    assert program.published([container("routed", **published)], networks, "v4") == []
    assert program.published([container("host", "", **published)], networks, "v4") == []


STUCK = "port 8080/tcp is still taken for a container that is gone (v4)"


@pytest.mark.parametrize("text", [OLD, NEW, NFT], ids=["26.1", "28", "29-nftables"])
@pytest.mark.parametrize(
    ("running", "ends", "wrong"),
    [
        # A power cut in the middle of a start: nobody publishes the port, no network knows the address.
        ([], {}, [STUCK]),
        ([], {"one": {"IPv4Address": "172.21.2.9/24", "IPv6Address": ""}}, [STUCK]),
        # It is just starting, or runs.
        ([], {"one": {"IPv4Address": "172.21.2.115/24", "IPv6Address": ""}}, []),
        ([{"Ports": [{"IP": "0.0.0.0", "Type": "tcp", "PublicPort": 8080, "PrivatePort": 80}]}], {}, []),
    ],
    ids=["nobody", "another", "starting", "running"],
)
def test_a_port_that_is_taken_for_a_container_that_is_gone_is_named(
    monkeypatch: pytest.MonkeyPatch, text: str, running: list[Any], ends: dict[str, Any], wrong: list[str]
) -> None:
    front = {
        "Id": "f1", "Name": "front", "Driver": "bridge", "Scope": "local",
        "Options": {"com.docker.network.bridge.name": "rf-front"},
    }  # fmt: skip
    said = {"/networks": [front], "/containers/json": running, "/networks/f1": {**front, "Containers": ends}}
    monkeypatch.setattr(program, "engine", lambda _, path: said[path])
    monkeypatch.setattr(program, "families", lambda: ["v4"])
    monkeypatch.setattr(program, "live_text", lambda _: text)
    monkeypatch.setattr(program, "nft_table", lambda _: text)
    monkeypatch.setattr(program, "time", SimpleNamespace(monotonic=itertools.count().__next__, sleep=lambda _: None))
    assert program.wrong_own("nftables" if text is NFT else "iptables", ipv6=False) == wrong


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ("in_rules", "-p udp -m udp --dport 53 -j DNAT --to-destination [fd00:20::2]:53"),
        ("in_rules", "-d 10.0.0.1/32 ! -i rf-x -p udp -m udp --dport 53 -j DNAT --to-destination [fd00:20::2]:53"),
        ("in_table", 'ip6 daddr fd00::1 udp dport 53 counter dnat to [fd00:20::2]:53 comment "D"'),
    ],
)
def test_translations_are_read_in_every_shape(shape: str, rule: str) -> None:
    read = program.in_table(rule) if shape == "in_table" else program.in_rules([rule])
    assert read == [("udp", "53", "[fd00:20::2]", "53")]


def test_docker_is_restarted_for_its_own_rules_and_the_plan_says_so() -> None:
    plan = program.make_plan(desired(), converged(disorder=["nat PREROUTING does not lead to Docker's rules (v4)"]))
    assert plan.restart
    assert any("must be restarted: its own rules are not in order (nat PREROUTING" in line for line in plan.changes)
    assert not program.make_plan(desired(), converged()).restart


def test_dockerds_words_are_looked_for_from_before_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(*words: str, **_: Any) -> SimpleNamespace:
        asked.append(words)
        return SimpleNamespace(stdout="level=error shut\n", returncode=0)

    monkeypatch.setattr(program, "run", run)
    assert program.last_words(1000.9) == "level=error shut"
    assert asked[0] == ("journalctl", "--sync")
    assert "@1000" in asked[1]
