"""What the program plans from facts alone, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.unit.stack.cases import (
    STACKS,
    Facts,
    File,
    container,
    converged,
    foreign,
    program,
)


def test_on_a_bare_host_everything_is_pending(desired: dict[str, Any]) -> None:
    plan = program.make_plan(desired, Facts())
    assert plan.refusals == []
    assert plan.changes == [
        "+ project shop: 4 services",
        "+ secret /opt/ringfence/stacks/shop/secrets/token",
        "+ container shop-web-1 (docker.io/library/nginx:1.29)",
        "+ container shop-db-1 (docker.io/library/postgres:18.6)",
        "+ container shop-lonely-1 (docker.io/library/busybox:1.37)",
        "+ container shop-proxy-1 (docker.io/library/caddy:2.11.7)",
    ]
    secret = plan.files[STACKS / "shop/secrets/token"]
    assert (secret.mode, secret.owner, secret.content) == (0o400, 70, b"not-in-any-compose-file")


def test_a_converged_host_has_nothing_pending(desired: dict[str, Any]) -> None:
    plan = program.make_plan(desired, converged(desired))
    assert (plan.changes, plan.refusals, plan.notices) == ([], [], [])


def test_a_container_attached_to_another_segment_is_named_and_detached(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    container(facts, "shop-db-1")["networks"]["rf-front"] = {"id": "nf", "address": "172.20.0.2", "address6": ""}
    plan = program.make_plan(desired, facts)
    assert plan.changes == ["! container shop-db-1 is attached to rf-front, declared: rf-back"]
    assert plan.work["shop"].disconnect == [("rf-front", "shop-db-1")]
    assert plan.work["shop"].force == []


def test_a_container_with_another_mac_address_is_made_anew(desired: dict[str, Any]) -> None:
    facts = dataclasses.replace(converged(desired), engine_25=True)
    for path, file in program.wanted_files(
        desired["projects"][0], program.document(
            desired["projects"][0], "stack", str(STACKS / "shop"), desired["log"], engine_25=True
        ), desired["secrets"]["shop"], "stack",
    ).items():  # fmt: skip
        facts.entries[path] = file
    assert program.make_plan(desired, facts).changes == []
    container(facts, "shop-web-1")["networks"]["rf-back"]["mac"] = "6a:00:00:00:00:01"
    plan = program.make_plan(desired, facts)
    line = "! container shop-web-1 has 6a:00:00:00:00:01 on rf-back, declared: 02:42:ac:15:00:0b"
    assert plan.changes == [line]
    assert plan.work["shop"].force == ["web"]
    container(facts, "shop-web-1")["state"] = "exited"  # an engine tells none of one that is stopped
    assert line not in program.make_plan(desired, facts).changes


def test_an_engine_that_makes_the_mac_address_itself_is_given_no_other(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    assert program.make_plan(desired, facts).refusals == []
    desired["projects"][0]["services"][0]["networks"][0]["mac"] = "02:42:00:00:00:01"
    (refusal,) = program.make_plan(desired, facts).refusals
    assert "from the IPv4 address: write 02:42:ac:15:00:0b, or leave it out" in refusal
    assert program.make_plan(desired, dataclasses.replace(facts, engine_25=True)).refusals == []


def test_a_moved_container_is_made_anew(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    container(facts, "shop-db-1")["networks"] = {"rf-front": {"id": "nf", "address": "172.20.0.2", "address6": ""}}
    plan = program.make_plan(desired, facts)
    assert plan.changes == ["! container shop-db-1 is attached to rf-front, declared: rf-back"]
    assert plan.work["shop"].force == ["db"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"state": "exited", "status": "Exited (1) 2 minutes ago"},
            "! container shop-db-1 is not running (Exited (1) 2 minutes ago)",
        ),
        ({"state": "paused"}, "! container shop-db-1 is paused"),
        ({"state": "restarting", "status": "Restarting (1)"}, "! container shop-db-1 is restarting again and again"),
        ({"status": "Up 5 minutes (unhealthy)"}, "! container shop-db-1 is unhealthy"),
        (
            {"name": "0a1b_shop-db-1"},
            "~ container 0a1b_shop-db-1: left over from an interrupted run, becomes shop-db-1",
        ),
    ],
)
def test_a_container_that_does_not_run_as_declared(desired: dict[str, Any], change: dict[str, Any], line: str) -> None:
    facts = converged(desired)
    container(facts, "shop-db-1").update(change)
    assert program.make_plan(desired, facts).changes == [line]


def test_a_container_older_than_its_secret_is_made_anew(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    facts.mtimes[STACKS / "shop/secrets/token"] = 3000.0
    assert program.make_plan(desired, facts).changes == ["~ container shop-web-1: older than its secret token"]


def test_a_changed_secret_is_named_and_never_shown(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    facts.entries[STACKS / "shop/secrets/token"] = File(b"the-old-value", 0o400, 70)
    changes = program.make_plan(desired, facts).changes
    assert changes[0] == "~ secret /opt/ringfence/stacks/shop/secrets/token: content"
    assert "value" not in " ".join(changes)


def test_a_network_that_will_be_made_anew_takes_its_containers_along(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    facts.networks["rf-front"]["subnets"] = ["172.29.0.0/24"]
    assert program.make_plan(desired, facts).changes == ["~ container shop-web-1: its network rf-front is made anew"]
    facts = converged(desired)
    facts.networks["rf-front"]["id"] = "other"
    assert program.make_plan(desired, facts).changes == ["~ container shop-web-1: its network rf-front was made anew"]


def test_a_removed_project_keeps_its_volumes_and_names_them(desired: dict[str, Any]) -> None:
    facts = dataclasses.replace(converged(desired), volumes={"shop": ["shop_old"]})
    plan = program.make_plan({**desired, "projects": []}, facts)
    assert plan.changes == ["- project shop: 4 containers; volumes kept: shop_data, shop_old"]
    assert plan.gone == ["shop"]


def test_services_that_swap_addresses_are_stopped_first(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    web, db = (
        container(facts, "shop-web-1")["networks"]["rf-back"],
        container(facts, "shop-db-1")["networks"]["rf-back"],
    )
    web["address"], db["address"] = db["address"], web["address"]
    assert program.make_plan(desired, facts).free == ["shop-web-1", "shop-db-1"]


def with_port_moved(desired: dict[str, Any], to: str, address: str = "") -> Any:
    """A host on which `web` publishes what is declared for another service now; that one needs it for itself."""
    facts = converged(desired)
    container(facts, "shop-web-1")["ports"] = ["8088/tcp"]
    services = {service["name"]: service for service in desired["projects"][0]["services"]}
    port = services["web"]["ports"][0]
    services[to]["ports"] = [{**port, **({"address": address} if address else {})}]
    return facts


def test_a_port_that_another_service_gets_is_free_before_that_one_starts(desired: dict[str, Any]) -> None:
    """Projects are brought up at once, and whoever gives it up may take its time to end."""
    facts = with_port_moved(desired, to="db")
    desired["projects"][0]["services"][0]["ports"] = []
    plan = program.make_plan(desired, facts)
    assert plan.work["shop"].force == ["web", "db"]
    assert plan.free == ["shop-web-1"]


def test_a_port_that_is_kept_beside_anothers_on_another_address_interrupts_nobody(desired: dict[str, Any]) -> None:
    facts = with_port_moved(desired, to="db", address="127.0.0.1")
    assert program.make_plan(desired, facts).free == []


def test_a_stopped_container_that_was_taken_off_its_network_is_made_anew(desired: dict[str, Any]) -> None:
    """By its network's id it could not start any more, or would start on none."""
    facts = converged(desired)
    container(facts, "shop-db-1").update(state="exited", status="Exited (0) 1 hour ago", networks={}, mode="gone")
    plan = program.make_plan(desired, facts, networks_follow=False)
    assert plan.changes == ["! container shop-db-1 is attached to nothing, declared: rf-back"]
    assert plan.work["shop"].force == ["db"]


class Engine:
    """Docker with one container; what was done to it, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **state: Any) -> None:
        self.done: list[str] = []
        self.timeouts: list[float] = []
        self.seen = {"Id": "1", "State": state, "Config": {"StopTimeout": 90}}
        monkeypatch.setattr(program, "engine", self.answer)

    def answer(self, method: str, path: str, body: Any = None, timeout: float = 0) -> Any:
        if method == "GET":
            return self.seen
        self.done.append(path)
        self.timeouts.append(timeout)
        return None


def test_a_container_that_restarts_again_and_again_is_stopped_to_be_taken_off_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Docker: it "is not connected to" a network which its next start brings it back to."""
    docker = Engine(monkeypatch, Restarting=True)
    program.repair(program.Work(disconnect=[("rf-x", "web")], restart=["1"]))
    assert docker.done == ["/containers/1/stop", "/networks/rf-x/disconnect", "/containers/1/restart?t=10"]
    docker = Engine(monkeypatch, Restarting=False)
    program.repair(program.Work(disconnect=[("rf-x", "web")]))
    assert docker.done == ["/networks/rf-x/disconnect"]


def test_a_container_is_given_the_time_to_end_that_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Engine(monkeypatch)
    program.stop("1")
    assert docker.done == ["/containers/1/stop"]  # without a time that would replace its own
    assert docker.timeouts[0] > 90


def test_ipv6_is_used_only_where_every_network_has_it(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    assert program.make_plan(desired, facts).files == {}
    for network in facts.networks.values():
        network["v6"] = True
    plan = program.make_plan(desired, dataclasses.replace(facts, engine_v6=True))
    assert "ipv6_address" in plan.files[STACKS / "shop/compose.yaml"].content.decode()
    assert plan.changes[1:] == ["! container shop-web-1 has no IPv6 on rf-back, declared: fd00:21::11",
                            "! container shop-web-1 has no IPv6 on rf-front, declared: fd00:20::11"]  # fmt: skip


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (
            foreign(
                labels={"com.docker.compose.project": "shop", "com.docker.compose.project.working_dir": "/srv/shop"}
            ),
            "/srv/shop",
        ),
        (
            foreign(networks={"rf-front": {"id": "nf", "address": "172.20.0.11", "address6": ""}}),
            "docker network disconnect rf-front other",
        ),
        (foreign(ports=["8088/tcp"]), "port 8088/tcp is already published by other"),
        (foreign(name="shop-web-1"), "docker rename shop-web-1"),
    ],
)
def test_what_somebody_else_runs_is_never_touched(
    desired: dict[str, Any], container: dict[str, Any], words: str
) -> None:
    plan = program.make_plan(desired, Facts(docker=True, containers=[container]))
    assert words in " ".join(plan.refusals)
    assert plan.remove == []


def test_missing_values_and_directories_are_refused(desired: dict[str, Any]) -> None:
    refusals = program.make_plan(desired | {"secrets": {}}, Facts(missing={"/srv/media"})).refusals
    assert refusals == [
        "stack_secrets.shop: no value for the secret 'key'",
        "stack_secrets.shop: no value for the secret 'token'",
        "project shop, service web: /srv/media does not exist on this host: make it, or correct the volume",
    ]


def test_a_device_that_is_not_there_is_refused_before_anything_is_changed(desired: dict[str, Any]) -> None:
    desired["projects"][0]["services"][0]["devices"] = ["/dev/ttyUSB0:/dev/ttyACM0"]
    [refusal] = program.make_plan(desired, Facts(missing={"/dev/ttyUSB0"})).refusals
    assert refusal.startswith("project shop, service web: /dev/ttyUSB0 does not exist on this host: plug it in")


def test_messages_are_cleaned_of_secrets() -> None:
    tell = program.Teller()
    tell.learn({"shop": {"token": "hunter22"}})
    assert tell.clean("password hunter22 refused") == "password ******** refused"


def test_apply_takes_networks_as_they_are(desired: dict[str, Any]) -> None:
    facts = dataclasses.replace(converged(desired), engine_v6=True)
    assert "~ container shop-web-1: its network rf-front is made anew" in program.make_plan(desired, facts).changes
    plan = program.make_plan(desired, facts, networks_follow=False)
    assert plan.changes == []
    assert plan.files == {}


# -- what cannot be handed over


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"environment": {"A\n    privileged": "true"}}, "is not the name of an environment variable"),
        ({"environment": {"A#B": "1"}}, "'A#B' is not the name of an environment variable"),
        ({"environment": {"discovery type": "single-node"}}, "goes into a file of the program"),
        ({"environment": {"A": "one\0two"}}, "holds a NUL character"),
        ({"command": ["\ud83d"]}, "holds U+D83D, half of a character (write the character itself)"),
        ({"files": [{"target": "/etc/a", "content": "\0"}]}, "holds a NUL character"),
        ({"files": [{"target": "/etc/../a", "content": ""}]}, "climbs with '..'"),
        ({"files": [{"target": "/", "content": ""}]}, "is the whole file system"),
        ({"files": [{"target": "/etc/a/", "content": ""}]}, "did you mean '/etc/a'?"),
        ({"files": [{"target": "/etc//a", "content": ""}]}, "did you mean '/etc/a'?"),
        ({"files": [{"target": "etc/a", "content": ""}]}, "is not an absolute path"),
        ({"files": [{"target": f"/{'é' * 128}", "content": ""}]}, "has a name of more than 255 bytes"),
        ({"files": [{"target": f"/{'a/' * 2050}a", "content": ""}]}, "is longer than the"),
        ({"files": [{"target": "/cfg/app", "content": ""}, {"target": "/cfg/app/conf", "content": ""}]}, "lies below"),
        ({"files": [{"target": "/data", "content": ""}], "volumes": [{"name": "data", "target": "/data/"}]}, "already"),
        ({"files": [{"target": "/run/secrets/token", "content": ""}], "secrets": ["token"]}, "already"),
        ({"config": {"/etc/a": {"../b": ""}}}, "climbs with '..'"),
        ({"config": {"/etc/a": {"/b": ""}}}, "is not a path below its directory"),
        ({"config": {"/etc/a": {"..data": ""}}}, "starts with '..'"),
        ({"config": {"/etc/a": {"b": "", "b/c": ""}}}, "'b' is a file and the directory of 'b/c'"),
        ({"config": {"/etc/a": {"b": ""}}, "files": [{"target": "/etc/a/c", "content": ""}]}, "lies below '/etc/a'"),
        ({"config": {"/etc/a": {}, "/etc/a/b": {}}}, "lies below '/etc/a'"),
        ({"config": {"/run/secrets/a": {"b": ""}}, "secrets": ["a"], "reload": {"signal": "SIGHUP"}}, "already"),
        ({"reload": {"signal": "SIGHUP"}}, "there is nothing that it could read again"),
        ({"reload": {"signal": "HUP; true"}, "config": {"/a": {}}}, "is not a signal"),
        ({"reload": {"signal": "HUP", "command": ["true"]}, "config": {"/a": {}}}, "remove one of the two"),
        ({"secrets": ["../../etc/shadow"]}, "is not a name"),
        ({"volumes": [{"name": "a:b", "target": "/a"}]}, "is not a name"),
        ({"extra_hosts": {"a b": "1.2.3.4"}}, "is not a name"),
        ({"networks": [{"network": "rf-a", "address": "1.2.3.4\n"}]}, "is not an IP address"),
        ({"tmpfs": ["/x:bogus=1"]}, "tmpfs: '/x:bogus=1' has the option 'bogus=1', which no directory in memory has"),
        ({"tmpfs": ["/x:size=10x"]}, "has the option 'size=10x'"),
        ({"tmpfs": ["/x:mode=9"]}, "has the option 'mode=9'"),
        ({"tmpfs": ["/x:rshared"]}, "has the option 'rshared'"),
        ({"tmpfs": ["/dev"]}, "is where its devices are"),
        (
            {"tmpfs": ["/proc/scsi"]},
            "is the kernel's in every container (choose another place, such as /host/proc/scsi)",
        ),
        ({"volumes": [{"name": "a", "target": "/proc"}]}, "is the kernel's in every container"),
        ({"volumes": [{"name": "a", "target": "/dev/"}]}, "is where its devices are"),
        ({"user": "a b"}, "user: 'a b' is no user (write a number or a name of the image"),
        (
            {"network": "host", "networks": [], "compose": {"sysctls": {"net.core.somaxconn": "1"}}},
            "compose.sysctls.net.core.somaxconn: is of its network, which is that of its host (leave it out, or set it",
        ),
        ({"network": "db", "networks": [], "compose": {"sysctls": ["net.core.somaxconn=1"]}}, "(write it there)"),
        (
            {"network": "db", "networks": [], "compose": {"hostname": "x"}},
            "compose.hostname: is that of 'db', whose network",
        ),
        ({"memory": "much"}, "is not an amount of memory"),
        (
            {"networks": [{"network": "rf-a", "address": "1.2.3.4", "mac": "03:42:01:02:03:04"}]},
            "is not the MAC address",
        ),
        ({"dns": ["192.168.10.1 # router"]}, "is not an IP address"),
        ({"dns": [""]}, "is not an IP address"),
        ({"dns_opt": ["ndots:1\nnameserver 8.8.8.8"]}, "is no option of a resolver"),
        ({"capabilities": ["NET_ADMIN\n"]}, "is not a capability"),
        ({"capabilities": ["SYS_RAWIO"]}, "would read and write the host's memory"),
        ({"volumes": [{"source": "/dev/mem", "target": "/m"}]}, "hands the host's kernel and its devices"),
        ({"volumes": [{"source": "//run/./docker.sock", "target": "/s"}]}, "hands the whole host to the container"),
        ({"docker_socket": True, "network": "host", "networks": []}, "docker_socket: it needs a network of its own"),
        (
            {"docker_socket": True, "privileged": True, "allow_host": True},
            "nothing else of the host goes with docker_so",
        ),
        ({"name": "../x"}, "cannot be the name of a service"),
        ({"image": ""}, "has no image"),
        ({"depends": ["nobody"]}, "is no other service of the project"),
    ],
)
def test_what_cannot_arrive_as_it_is_declared_is_refused(change: dict[str, Any], words: str) -> None:
    given = {"projects": [{"name": "shop", "services": [{"name": "web", "image": "busybox:1.37", **change}]}]}
    answer = program.check(given)
    assert answer["changes"] == []
    assert words in "\n".join(answer["refusals"])
    assert "project shop" in answer["refusals"][0]


def test_who_could_pose_as_its_neighbours_is_alone_or_confirmed() -> None:
    leg = {"network": "rf-a", "address": "172.20.0.9"}
    sniffer = {"name": "sniffer", "image": "i", "capabilities": ["NET_RAW"], "networks": [leg]}
    web = {"name": "web", "image": "i", "networks": [{**leg, "address": "172.20.0.8"}]}

    def refused(*projects: list[dict[str, Any]]) -> list[str]:
        given = [{"name": f"p{number}", "services": services} for number, services in enumerate(projects)]
        return list(program.unfit(program.whole({"projects": given})))

    told = "lets it pose as what shares a network with it, web (give it one of its own, or add allow_forging: true)"
    assert refused([sniffer], [web]) == [f"project p0, service sniffer: capabilities: 'NET_RAW' {told}"]
    assert refused([{**sniffer, "capabilities": ["NET_ADMIN"]}, web])
    assert refused([{**sniffer, "allow_forging": True}, web]) == []
    assert refused([sniffer], [{**web, "networks": [{**leg, "network": "rf-b"}]}]) == []
    # Who shares another's network is where that one is, and poses as nobody towards it.
    tunnel = {"name": "tunnel", "image": "i", "networks": [{**leg, "address": "172.20.0.7"}]}
    within = {**sniffer, "networks": [], "network": "tunnel"}
    assert refused([within, tunnel], [web]) == [f"project p0, service sniffer: capabilities: 'NET_RAW' {told}"]
    assert refused([within, tunnel]) == []


def test_no_container_answers_to_the_name_of_another_beside_it() -> None:
    leg = {"network": "rf-a", "address": "172.20.0.5"}
    broker = {"name": "broker", "image": "i", "networks": [leg]}
    poser = {"name": "poser", "image": "i", "networks": [{**leg, "address": "172.20.0.6"}]}

    def refused(hostname: str, *projects: list[dict[str, Any]], **facts: Any) -> list[str]:
        given = [{"name": f"p{n}", "services": services} for n, services in enumerate(projects)]
        given.append({"name": "x", "services": [poser | {"compose": {"hostname": hostname}}]})
        state = program.whole({"projects": given})
        told = [*program.unfit(state), *program.make_plan(state, Facts(**facts)).refusals]
        return [one for one in told if "hostname" in one]

    for hostname in ("broker", "Broker", "broker.example.org", "p0-broker-1"):
        [told] = refused(hostname, [broker])
        assert told.startswith("project x, service poser: compose: hostname is ")
        assert told.endswith("by which another in its network is found (leave it out, or write another)")
    assert refused("poser", [broker]) == []
    assert refused("broker", [{**broker, "networks": [{**leg, "network": "rf-b"}]}]) == []
    # Also one of another role, or nobody's, which runs there already.
    labels = {"com.docker.compose.service": "broker", "ringfence.project": "other"}
    there = foreign(labels=labels, networks={"rf-a": {"id": "n", "address": "172.20.0.9", "address6": ""}})
    [told] = refused("broker", docker=True, containers=[there])
    assert told.endswith(f"; that is the container {there['name']}")


def test_nobody_shares_the_network_of_who_has_the_docker_socket() -> None:
    leg = {"network": "rf-a", "address": "172.20.0.9"}
    proxy = {"name": "proxy", "image": "i", "networks": [leg], "docker_socket": True}
    sharer = {"name": "front", "image": "i", "network": "proxy"}
    given = program.whole({"projects": [{"name": "p", "services": [sharer, proxy]}]})
    assert list(program.unfit(given)) == [
        "project p, service front: network: 'proxy' has docker_socket, and a network in which nobody else is (write "
        "networks in place of network)"
    ]
    del proxy["docker_socket"]
    assert list(program.unfit(program.whole({"projects": [{"name": "p", "services": [sharer, proxy]}]}))) == []


def test_a_link_that_leads_to_the_docker_socket_is_refused(desired: dict[str, Any], tmp_path: Path) -> None:
    for name, target in (("socket", "/run/docker.sock"), ("data", str(tmp_path))):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "run").symlink_to("/run")
    sources = [str(tmp_path / name) for name in ("socket", "data", "run")]
    volumes = [{"source": source, "target": f"/{number}"} for number, source in enumerate(sources)]
    desired["projects"][0]["services"][0]["volumes"] = volumes
    leading = program.leading(dict.fromkeys(sources, False))
    assert set(leading) == {sources[0], sources[2]}
    refusals = program.make_plan(desired, Facts(leading=leading)).refusals
    assert f"project shop, service web: {sources[0]} leads to /run/docker.sock, which hands the whole host" in str(
        refusals
    )
    # Neither the socket nor the directory of all of them is confirmed.
    desired["projects"][0]["services"][0] |= {"allow_host": True}
    assert len(program.make_plan(desired, Facts(leading=leading)).refusals) == len(refusals)


def test_what_only_the_host_knows_is_confirmed_like_what_is_declared(desired: dict[str, Any]) -> None:
    service = desired["projects"][0]["services"][0]
    service |= {"volumes": [{"source": "/srv/units", "target": "/u"}], "devices": ["/dev/vg0/root"]}
    facts = Facts(
        leading={"/srv/units": program.Led("/etc/cron.d", program.handed_over("/etc/cron.d"))},
        handing={"/dev/vg0/root": "the disk /dev/dm-0, which hands the host to the container"},
    )
    volume, device = program.make_plan(desired, facts).refusals
    for told in (volume, device):
        assert "or confirm it with allow_host: true" in told
    assert "/srv/units leads to /etc/cron.d, which hands the whole host" in volume
    assert "/dev/vg0/root leads to the disk /dev/dm-0, which hands the host" in device
    service["allow_host"] = True
    assert program.make_plan(desired, facts).refusals == []
    assert not [fault for fault in program.unfit(desired) if "allow_host" in fault]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"projects": [{"name": "../x", "services": []}]}, "cannot be the name of a project"),
        ({"projects": [{"name": "x", "services": []}, {"name": "x", "services": []}]}, "is declared twice"),
        ({"projects": [{"name": "x", "services": [{"name": "a", "image": "i"}] * 2}]}, "'a' is declared twice"),
        ({"projects": [{"name": "x", "secrets": [{"name": "/etc/shadow"}], "services": []}]}, "name of a secret"),
        ({"owner": "../x", "projects": []}, "cannot be the name of a role"),
        ({"secrets": {"x": {"token": "hunter22\0"}}, "projects": []}, "stack_secrets.x.token: the text holds a NUL"),
    ],
)
def test_names_that_are_none_are_refused(given: dict[str, Any], words: str) -> None:
    (refusal, *_) = program.check(given)["refusals"]
    assert words in refusal
    assert "hunter22" not in refusal


# -- owners


def test_a_role_removes_only_its_own_projects(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    other = program.whole({"owner": "caddy", "projects": []})
    assert program.make_plan(other, facts).changes == []
    facts.owners = {}  # a host of the time before there were owners
    assert program.make_plan(other, facts).changes == []
    assert program.make_plan({**other, "owner": "stack"}, facts).gone == ["shop"]
    facts.owners, facts.projects = {}, []  # the directory was removed by hand
    for c in facts.containers:
        c["labels"]["ringfence.owner"] = "caddy"
    assert program.make_plan({**other, "owner": "stack"}, facts).changes == []
    assert program.make_plan(other, facts).gone == ["shop"]


def test_two_roles_cannot_have_one_project(desired: dict[str, Any]) -> None:
    (refusal,) = program.make_plan({**desired, "owner": "caddy"}, converged(desired)).refusals
    assert "the project 'shop' is declared by the role caddy, but the role stack made the one that is here" in refusal


def test_what_another_role_holds_is_not_taken_from_it(desired: dict[str, Any]) -> None:
    facts = converged(desired)
    service = {
        "name": "x", "image": "busybox:1.37", "networks": [{"network": "rf-back", "address": "172.21.0.12"}],
    }  # fmt: skip
    other = program.whole({"owner": "caddy", "projects": [{"name": "y", "services": [service]}]})
    assert program.make_plan(other, facts).refusals == []  # stack may free it before
    plan = program.make_plan(other, facts, networks_follow=False)
    assert "172.21.0.12 on rf-back is held by shop-db-1, which is the role stack's" in plan.refusals[0]
    assert plan.free == []
