"""A compose project that somebody has is taken over with its data where they are, and given back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.labs import Lab

pytestmark = pytest.mark.engines("28.5")
POSTGRES = "docker.io/library/postgres:18.6"
THEIRS = f"""
services:
  db:
    image: {POSTGRES}
    restart: always
    environment: {{POSTGRES_PASSWORD: theirs, POSTGRES_DB: wiki, POSTGRES_USER: wiki}}
    volumes: ["data:/var/lib/postgresql", "/srv/wiki/dumps:/dumps"]
volumes: {{data: {{}}}}
"""
ODD = "10.77.5.0/24"
KEPT = {"ufw_foreign": "keep"}
COMPOSE = "docker compose -f /srv/wiki/compose.yaml -p wiki"
INSIDE = "/var/lib/docker/volumes/inside/_data/in"
VOLUMES = "docker volume ls -q | sort; docker volume inspect wiki_data -f '{{.CreatedAt}} {{.Mountpoint}} {{.Labels}}'"


def database(source: str, **volume: Any) -> dict[str, Any]:
    return {
        "host": "atlas",
        "image": POSTGRES,
        "segments": ["backend"],
        "port": 5432,
        "environment": {"POSTGRES_DB": "wiki", "POSTGRES_USER": "wiki", "POSTGRES_PASSWORD_FILE": "/run/secrets/wiki"},
        "secrets": {"wiki": {"value": "theirs", "owner": 999}},
        "capabilities": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"],
        "volumes": [{"source": source, "target": "/var/lib/postgresql", **volume}, "/srv/wiki/dumps:/dumps"],
        "tmpfs": ["/tmp", "/run/postgresql"],
        "health": ["pg_isready", "--quiet", "--username", "wiki"],
    }


def says(lab: Lab, container: str, statement: str) -> str:
    ask = f"timeout 60 sh -c 'until docker exec {container} pg_isready -q -U wiki; do sleep 0.3; done'"
    return lab.sh(f"{ask}; docker exec {container} psql -qAt -U wiki -d wiki -c {json.dumps(statement)}", timeout=90)


@pytest.fixture(scope="module", autouse=True)
def theirs(lab: Lab) -> None:
    """Their project, what leads to the host without saying so, and names that nobody has written."""
    lab.sh("mkdir -p /srv/wiki/dumps; cat > /srv/wiki/compose.yaml", text=THEIRS)
    lab.sh(f"{COMPOSE} up -d 2>&1", timeout=120)
    says(lab, "wiki-db-1", "create table page(text text); insert into page values ('written before')")
    lab.sh(
        "ln -s /run/docker.sock /srv/link; mkdir -p /srv/bound /srv/people; mount --bind /etc/ssh /srv/bound;"
        " mkdir -p /srv/units /srv/app/inner; mount --bind /etc/systemd/system /srv/units;"
        " mount --bind /etc /srv/app/inner; touch /srv/sock; mount --bind /run/docker.sock /srv/sock;"
        " mkdir -p /dev/vg0; mknod /dev/dm-77 b 7 0; ln -sf ../dm-77 /dev/vg0/root; mknod /dev/odd c 1 11;"
        " docker volume create -o type=none -o o=bind -o device=/srv/units units; docker volume create inside;"
        f" mkdir {INSIDE}; mount --bind /etc {INSIDE};"
        " useradd -m -d /srv/people/bob -s /bin/bash bob; docker volume create -o type=none -o o=bind"
        " -o device=/ disguised"
    )
    # A provider's, and a network of somebody's.
    lab.sh(f"hostname vps4711; ufw allow 8123/tcp; docker network create --subnet {ODD} odd")


# The tests of this file follow one host, in order.


def refused(lab: Lab, services: dict[str, Any], **variables: Any) -> str:
    before = lab.sh(f"{VOLUMES}; docker ps -q --no-trunc; iptables-save | grep -c RF-", check=False)
    lab.declare(lab_services=services, **variables)
    run = lab.pyinfra(check=False)
    assert run.code != 0
    assert run.changed == []
    assert lab.sh(f"{VOLUMES}; docker ps -q --no-trunc; iptables-save | grep -c RF-", check=False) == before
    return " ".join(run.text.split())


def test_nothing_is_made_in_the_place_of_what_is_meant_and_nothing_hands_the_host_over(lab: Lab) -> None:
    plain = {"host": "atlas", "image": "docker.io/library/busybox:1.37", "segments": ["backend"]}
    services = {
        "missing": database("wiki_dta", external=True),
        "new": database("wiki_data"),
        "running": database("wiki_data", external=True),
        "sly": {**plain, "volumes": [{"source": "disguised", "target": "/d", "external": True}]},
        "bound": {**plain, "volumes": ["/srv/units:/u", "/srv/app:/a:ro"], "devices": ["/dev/vg0/root", "/dev/odd"]},
        # What obeys is confirmed by nobody, by whatever name.
        "socket": {**plain, "allow_host": True, "volumes": ["/srv/sock:/s", "/:/h:ro"]},
        "units": {**plain, "volumes": [{"source": "units", "target": "/d", "external": True}]},
        "inside": {**plain, "volumes": [{"source": "inside", "target": "/d", "external": True}]},
        "link": {**plain, "volumes": ["/srv/link:/s", "/srv/bound:/b:ro", "/srv/people:/p"]},
    }
    told = refused(lab, services, lab_segments={"backend": {"subnet": ODD, "internet": False}})
    by_ansible = " ".join(lab.ansible(check=False).text.split())
    for words in (
        f"lab_segments.backend.subnet: {ODD} overlaps {ODD}, docker network",
        "in lab_hosts.atlas.services, or",
    ):
        assert words in told, told
        assert words in by_ansible, by_ansible
    assert "vps4711" not in told
    assert "/ leads to" not in told  # that is declared, and confirmed
    assert "segments_networks" not in told
    for words in (
        "there is no volume wiki_dta on this host",
        "the volume wiki_data would be a new and empty one, new_wiki_data",
        "the container wiki-db-1 writes to the volume wiki_data",
        "docker compose -p wiki down, without --volumes",
        "the volume disguised is /, which hands what belongs to the host",
        "/srv/link leads to /run/docker.sock, which hands the whole host",
        "/srv/bound leads to /etc/ssh, which hands the host's logins",
        "/srv/units leads to /etc/systemd/system, which hands the whole host",
        "/srv/app leads to /etc (mounted at /srv/app/inner), which hands what belongs to the host",
        "/srv/sock leads to /run/docker.sock, which hands the whole host",
        f"the volume inside is /etc (mounted at {INSIDE}), which hands what belongs to the host",
        "the volume units is /etc/systemd/system, which hands the whole host",
        "/dev/vg0/root leads to the disk /dev/dm-77, which hands the host to the container",
        "/dev/odd leads to /dev/kmsg, which hands the host to the container",
        "/srv/people leads to /srv/people, which hands a user's home",
    ):
        assert words in told, told


def test_one_that_comes_back_with_docker_is_not_ended(lab: Lab) -> None:
    lab.sh(f"{COMPOSE} stop 2>&1", timeout=60)
    assert "wiki-db-1 is stopped, but starts again with Docker" in refused(
        lab, {"db": database("wiki_data", external=True)}, **KEPT
    )


def test_the_data_stay_in_their_place(lab: Lab) -> None:
    lab.sh(f"{COMPOSE} down 2>&1", timeout=60)
    before = lab.sh(VOLUMES)
    lab.declare(lab_services={"db": database("wiki_data", external=True)}, **KEPT)
    lab.pyinfra()
    assert lab.sh(VOLUMES) == before
    assert says(lab, "db-db-1", "select text from page") == "written before\n"
    says(lab, "db-db-1", "insert into page values ('written here')")
    lab.sh("docker exec db-db-1 sh -c 'echo dump > /dumps/one'")
    assert lab.ansible("--tags", "stack").changed == []
    lab.must_be_converged()


def test_they_go_back_with_what_was_written(lab: Lab) -> None:
    before = lab.sh(VOLUMES)
    lab.declare(lab_services={}, **KEPT)
    assert "wiki_data" in lab.pyinfra().text
    assert lab.sh(VOLUMES) == before
    lab.sh(f"{COMPOSE} up -d 2>&1", timeout=120)
    assert says(lab, "wiki-db-1", "select text from page") == "written before\nwritten here\n"
    assert lab.sh("cat /srv/wiki/dumps/one") == "dump\n"


def test_a_hostname_is_answered_for_so_it_is_nobody_elses(lab: Lab) -> None:
    there = f"docker run -d --rm --name poser --network names --hostname Broker.lab --entrypoint sleep {POSTGRES} 300"
    asked = f"docker run --rm --network names --entrypoint getent {POSTGRES} hosts"
    lab.sh(f"docker network create names; {there}", timeout=60)
    assert lab.sh(f"{asked} broker.lab", timeout=60).endswith("broker.lab\n")
    plain = {"host": "atlas", "image": "docker.io/library/busybox:1.37", "segments": ["backend"]}
    services = {"broker": plain, "poser": {**plain, "compose": {"hostname": "broker"}}}
    assert "'hostname' is broker, the name of the service 'broker'" in refused(lab, services)
    lab.sh("docker rm -f poser; docker network rm names")
