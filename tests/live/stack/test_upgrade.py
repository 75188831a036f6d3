"""The role stack on a host: secrets that are made there, and upgrades with a way back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.live.labs import Lab, waited_for
from tests.live.stack.program import BUSYBOX, STACKS, changes, container, sleeper, stack

HELD = "/var/lib/ringfence/stack"
DATA = "/var/lib/docker/volumes/shop_data/_data"

# Writes its version and one more row at each start. "bad" spoils the data and ends, "sick" spoils them and is never
# healthy, "slow" is not until somebody says so.
DATABASE = """
trap 'exit 0' TERM
echo "version $VERSION starts with $(cat /data/format 2>/dev/null), $(cat /etc/db/db.conf)"
case $VERSION in
    bad) rm -f /data/rows; echo half > /data/format; echo "cannot migrate: no such column" >&2; exit 3 ;;
    sick) rm -f /data/rows; echo half > /data/format; echo "migrating for ever" ;;
    *) echo $VERSION > /data/format; echo "row of $VERSION" >> /data/rows ;;
esac
while :; do sleep 0.1; done
"""
HEALTH = 'test "$(cat /data/format)" = $VERSION && { test $VERSION != slow || test -e /tmp/well; }'


@pytest.fixture(scope="module", autouse=True)
def images(lab: Lab) -> None:
    lab.declare(lab_services={})
    lab.pyinfra()
    lab.sh(f"docker create --name base {BUSYBOX} true")
    for version in ("1", "2", "bad", "sick", "slow"):
        lab.sh(f"docker commit --change 'ENV VERSION={version}' base lab/db:{version}")
    lab.sh("docker rm base")


def shop(version: str, **more: Any) -> dict[str, Any]:
    """A database of a version, and beside it what must never be touched."""
    database = {
        "name": "db", "image": f"lab/db:{version}", "command": ["sh", "-c", DATABASE], "health": ["CMD-SHELL", HEALTH],
        "volumes": [{"name": "data", "target": "/data"}], "config": {"/etc/db": {"db.conf": f"made for {version}"}},
        "upgrade": {"backup": ["data"], "keep": 2},
    }  # fmt: skip
    project = {"name": "shop", "services": [{**database, **more}, sleeper(name="beside")]}
    return {"owner": "omega", "projects": [project], "wait": 20}


def data(lab: Lab) -> str:
    return lab.sh(f"cat {DATA}/format {DATA}/rows")


def copies(lab: Lab) -> list[str]:
    return [name.partition("-")[2] for name in lab.sh(f"ls {HELD}/backups/shop/db").split()]


def start(lab: Lab, version: str) -> tuple[str, str, str]:
    """Let version 1 run with the data of two starts; returns the data and both containers."""
    stack(lab, {"owner": "omega"})
    lab.sh(f"docker volume rm -f shop_data; rm -rf {HELD}/backups")
    stack(lab, shop(version))
    stack(lab, shop(version, pids=99))
    assert changes(lab, shop(version, pids=99)) == []
    assert lab.sh(f"ls {HELD}/backups/shop 2>/dev/null || true") == ""
    return data(lab), container(lab, "shop-db-1"), container(lab, "shop-beside-1")


def must_be_back(lab: Lab, before: tuple[str, str, str], version: str = "1") -> None:
    """The old version runs with its files; its data are what they were, but for the row of its new start."""
    assert data(lab) == before[0] + f"row of {version}\n"
    assert (
        lab.sh("docker exec shop-db-1 sh -c 'echo $VERSION; cat /etc/db/db.conf'") == f"{version}\nmade for {version}"
    )
    assert container(lab, "shop-beside-1") == before[2]
    assert lab.sh(f"find {HELD}/upgrades -mindepth 1; docker ps -aq -f status=created") == ""
    assert "db.conf" in lab.sh(f"ls -A {STACKS}/shop/config/db/etc/db")


def test_a_new_version_starts_after_its_volumes_were_copied(lab: Lab) -> None:
    before = start(lab, "1")
    wish = shop("2")
    assert "~ container shop-db-1: data copied before its image changes" in changes(lab, wish)
    stack(lab, wish)
    assert data(lab) == "2\nrow of 1\nrow of 1\nrow of 2\n"
    assert changes(lab, wish) == []
    assert container(lab, "shop-beside-1") == before[2]
    assert copies(lab) == ["1"]
    archive = lab.sh(f"ls {HELD}/backups/shop/db/*/shop_data.tar").strip()
    assert lab.sh(f"tar -xOf {archive} ./format ./rows") == before[0]
    assert lab.sh(f"stat -c %a {HELD}/backups {HELD}/backups/shop/db {archive}") == "700\n700\n600\n"
    assert lab.sh(f"find {HELD}/upgrades -mindepth 1") == ""


@pytest.mark.parametrize(
    ("version", "words"), [("bad", "cannot migrate: no such column"), ("sick", "migrating for ever")]
)
def test_a_version_that_does_not_come_up_gives_way_to_the_old_one(lab: Lab, version: str, words: str) -> None:
    before = start(lab, "1")
    wish = shop(version)
    said = stack(lab, wish, check=False)
    assert f"the upgrade of db from lab/db:1 to lab/db:{version} failed" in said
    assert words in said
    assert "the old version runs again, with its files and volumes as they were" in said
    must_be_back(lab, before)
    assert "~ container shop-db-1: data copied before its image changes" in changes(lab, wish)
    assert lab.sh(f"cat {DATA}/../.ringfence-replaced/format") == "half\n"
    # What is declared as it was is there already, as far as files and volumes go.
    assert changes(lab, shop("1", pids=99)) == []
    stack(lab, shop("2"))
    assert data(lab) == before[0].replace("1\n", "2\n", 1) + "row of 1\nrow of 2\n"
    assert lab.sh(f"ls -A {DATA}/..") == "_data\n"
    stack(lab, shop("1", pids=98))
    assert copies(lab) == ["1", "2"]  # of three


def test_what_ran_comes_back_where_its_tag_leads_elsewhere(lab: Lab) -> None:
    lab.sh("docker tag lab/db:1 lab/db:stable")
    before = start(lab, "stable")
    lab.sh("docker tag lab/db:bad lab/db:stable")
    wish = shop("stable", pids=99)
    said = stack(lab, wish, check=False)
    assert "the old version runs again" in said
    assert data(lab) == before[0] + "row of 1\n"
    assert "~ container shop-db-1: lab/db:stable is another image now" in changes(lab, wish)
    lab.sh("docker tag lab/db:1 lab/db:stable")
    assert changes(lab, wish) == []


def begin(lab: Lab, wish: dict[str, Any], version: str) -> None:
    """Start a run in the background and let it come to where it waits for the new version."""
    lab.sh("cat > /tmp/wish.json", text=json.dumps(wish))
    lab.sh("systemd-run --quiet --collect --unit=upgrade sh -c 'ringfence-stack apply < /tmp/wish.json'")
    running = f"grep -q '\"trying\"' {HELD}/upgrades/shop/journal.json && docker exec shop-db-1 sh -c 'echo $VERSION'"
    assert waited_for(lambda: lab.sh(running, check=False) == f"{version}\n", 120)


@pytest.mark.parametrize("poweroff", [False, True], ids=["run", "host"])
def test_a_run_that_is_killed_with_a_sick_version_is_taken_back_by_the_next(lab: Lab, poweroff: bool) -> None:
    before = start(lab, "1")
    begin(lab, {**shop("sick"), "wait": 600}, "sick")
    if poweroff:
        lab.lab("poweroff")
        lab.lab("start")
        lab.wait_for_ssh()
        assert waited_for(lambda: "shop-db-1" in lab.sh("docker ps --format '{{.Names}}'", check=False), 120)
        before = (*before[:2], container(lab, "shop-beside-1"))
    else:
        lab.sh("systemctl kill --signal=KILL upgrade")
    (line, *_) = changes(lab, shop("1", pids=99))
    assert (
        line == "! project shop: an upgrade was interrupted (db from lab/db:1 to lab/db:sick): finished, or taken back"
    )
    stack(lab, shop("1", pids=99))
    must_be_back(lab, before)
    assert changes(lab, shop("1", pids=99)) == []


def test_a_run_that_is_killed_with_a_version_that_comes_up_is_finished_by_the_next(lab: Lab) -> None:
    start(lab, "1")
    wish = shop("slow")
    begin(lab, {**wish, "wait": 600}, "slow")
    lab.sh("systemctl kill --signal=KILL upgrade; docker exec shop-db-1 touch /tmp/well")
    kept = container(lab, "shop-db-1")
    stack(lab, wish)
    assert container(lab, "shop-db-1") == kept
    assert data(lab) == "slow\nrow of 1\nrow of 1\nrow of slow\n"
    assert changes(lab, wish) == []
    assert copies(lab) == ["1"]


def test_a_run_that_is_killed_while_it_copies_leaves_nothing_half(lab: Lab) -> None:
    before = start(lab, "1")
    lab.sh(f"head -c 300M /dev/urandom > {DATA}/large")
    lab.sh("cat > /tmp/wish.json", text=json.dumps(shop("2")))
    lab.sh("systemd-run --quiet --collect --unit=upgrade sh -c 'ringfence-stack apply < /tmp/wish.json'")
    assert waited_for(lambda: bool(lab.sh(f"ls {HELD}/backups/shop/db/.partial/*.tar", check=False)), 120, pause=0.02)
    lab.sh("systemctl kill --signal=KILL upgrade")
    assert "not running" in "".join(changes(lab, shop("1", pids=99)))
    stack(lab, shop("1", pids=99))
    must_be_back(lab, before)
    assert copies(lab) == []
    lab.sh(f"rm {DATA}/large")


def test_too_little_room_is_refused_before_anything_is_stopped(lab: Lab) -> None:
    before = start(lab, "1")
    lab.sh(f"mkdir -p {HELD}/backups && mount -t tmpfs -o size=16m tmpfs {HELD}/backups")
    said = stack(lab, shop("2"), check=False)
    assert "has 16 MiB free, and the copies before an upgrade need 64 MiB: make room" in said
    assert (data(lab), container(lab, "shop-db-1")) == before[:2]
    refusals = json.loads(stack(lab, shop("2"), "check"))["refusals"]
    assert len(refusals) == 1
    lab.sh(f"umount {HELD}/backups")
    stack(lab, {"owner": "omega"})


# -- secrets that are made on the host

READER = """
trap 'cat /run/secrets/session > /tmp/seen' HUP
cat /run/secrets/session > /tmp/seen
while :; do sleep 0.1; done
"""


def portal(**more: Any) -> dict[str, Any]:
    """`reader` reads its secret again after a signal, `keeper` only when it starts."""
    reader = sleeper(
        name="reader", command=["sh", "-c", READER], secrets=["session", "given"], reload={"signal": "SIGHUP"}
    )
    keeper = sleeper(name="keeper", user="9091:9091", secrets=["session", "key"], **more)
    secrets = [
        {"name": "session", "owner": "9091", "generate": "hex64"},
        {"name": "key", "owner": "9091", "generate": "rsa2048"},
        {"name": "given"},
    ]
    reader["user"] = "9091:9091"
    secrets[2]["owner"] = "9091"
    project = {"name": "portal", "secrets": secrets, "services": [reader, keeper]}
    return {"owner": "omega", "projects": [project], "secrets": {"portal": {"given": "hunter22"}}, "wait": 30}


def value(lab: Lab, name: str) -> str:
    """A secret as the host keeps it, which must be what the containers see."""
    kept = lab.sh(f"cat {HELD}/secrets/portal/{name}")
    assert lab.sh(f"docker exec portal-keeper-1 cat /run/secrets/{name}") == kept
    return kept


def test_secrets_are_made_once_and_found_again(lab: Lab) -> None:
    wish = portal()
    pending = changes(lab, wish)
    assert "+ secret portal/session (made on the host)" in pending
    assert "+ secret portal/key (made on the host)" in pending
    lab.sh("mv /usr/bin/openssl /usr/bin/openssl.away")
    said = stack(lab, wish, check=False)
    lab.sh("mv /usr/bin/openssl.away /usr/bin/openssl")
    assert "openssl, which is not installed here: apt-get install openssl, then run again" in said
    assert lab.sh(f"ls -d {STACKS}/portal {HELD}/secrets/portal 2>/dev/null || true") == ""
    stack(lab, wish)
    session, key = value(lab, "session"), value(lab, "key")
    assert re.fullmatch("[0-9a-f]{64}", session)
    assert "Private-Key: (2048 bit" in lab.sh("openssl pkey -noout -text", text=key)
    assert key.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert lab.sh(f"stat -c '%a %u' {STACKS}/portal/secrets/key {HELD}/secrets/portal/key") == "400 9091\n400 0\n"
    assert changes(lab, wish) == []
    assert not [one for one in lab.sh(f"grep -rl {session} {STACKS}").split() if "secrets" not in one]
    removal = changes(lab, {"owner": "omega"})
    assert removal == [f"- project portal: 2 containers; secrets kept in {HELD}/secrets/portal: key, session"]
    stack(lab, {"owner": "omega"})
    assert not [line for line in changes(lab, wish) if "made on the host" in line]
    stack(lab, wish)
    assert (value(lab, "session"), value(lab, "key")) == (session, key)
    refused = json.loads(stack(lab, {**wish, "secrets": {"portal": {"given": "x", "session": "y"}}}, "check"))
    assert "'session' is made on the host, and has a value" in refused["refusals"][0]


def test_a_rotated_secret_is_read_by_its_services(lab: Lab) -> None:
    stack(lab, portal())
    old, reader, keeper = value(lab, "session"), container(lab, "portal-reader-1"), container(lab, "portal-keeper-1")
    said = lab.sh("ringfence-stack rotate portal session 2>&1", timeout=120)
    new = value(lab, "session")
    assert new != old
    assert new not in said
    assert lab.sh("docker exec portal-reader-1 cat /tmp/seen") == new
    assert container(lab, "portal-reader-1") == reader
    assert container(lab, "portal-keeper-1") != keeper
    assert changes(lab, portal()) == []
    for words, told in {
        "portal sesion": "did you mean session?",
        "portl session": "did you mean portal?",
        "portal given": "portal/given was given, not made on the host",
    }.items():
        assert told in lab.sh(f"ringfence-stack rotate {words} 2>&1; true")
    assert value(lab, "session") == new


def test_a_secret_that_a_service_does_not_work_with_is_not_rotated(lab: Lab) -> None:
    wish = portal()
    stack(lab, wish)
    old = value(lab, "session")
    picky = ["CMD-SHELL", f"grep -q {old[:16]} /run/secrets/session || {{ echo cannot decrypt; false; }}"]
    wish = portal(health=picky, command=["sh", "-c", f"grep -q {old[:16]} /run/secrets/session && sleep 86400"])
    stack(lab, wish)
    said = lab.sh("ringfence-stack rotate portal session 2>&1; true", timeout=300)
    assert "portal/session was not rotated" in said
    assert "the old value is back" in said
    assert value(lab, "session") == old
    assert lab.sh("docker exec portal-reader-1 cat /tmp/seen") == old
    assert changes(lab, wish) == []
    stack(lab, {"owner": "omega"})
