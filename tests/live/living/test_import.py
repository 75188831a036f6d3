"""Three compose projects that somebody runs are imported and applied: real programs, with their data where they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live.labs import ROOT, Lab
from tests.unit.importing.shapes import load

pytestmark = pytest.mark.engines("28.5")
PASSWORD = "p4ss-{{word}}-of-the-cloud"
# Each is a file on the host and on the controller. Names with capitals and '_', a password from .env and one in a URL,
# a directory beside the file, the variables of a file, a link, an alias.
PROJECTS = {
    "cloud": {
        "docker-compose.yml": """
services:
  web_app:
    image: docker.io/library/nextcloud:34.0.3-apache
    restart: always
    ports: ["8080:80"]
    environment: [POSTGRES_HOST=db, POSTGRES_DB=cloud, POSTGRES_USER=cloud, "POSTGRES_PASSWORD=${DB_PASSWORD}"]
    depends_on: {db: {condition: service_healthy}}
    volumes: ["html:/var/www/html"]
  db:
    image: docker.io/library/postgres:18.6
    restart: always
    environment: {POSTGRES_DB: cloud, POSTGRES_USER: cloud, POSTGRES_PASSWORD: "${DB_PASSWORD}"}
    volumes: ["data:/var/lib/postgresql"]
    healthcheck: {test: ["CMD", "pg_isready", "-q", "-U", "cloud"], interval: 2s, start_period: 60s}
volumes: {html: , data: }
""",
        ".env": f"DB_PASSWORD='{PASSWORD}'\n",
    },
    "safe": {
        "docker-compose.yml": """
services:
  Vault:
    image: docker.io/vaultwarden/server:1.36.0
    restart: unless-stopped
    ports: ["8222:80"]
    env_file: vault.env
    networks: [default, inner]
  Vault_DB:
    image: docker.io/library/postgres:18.6
    restart: unless-stopped
    environment: {POSTGRES_DB: safe, POSTGRES_USER: safe, POSTGRES_PASSWORD: pass-of-the-safe-1}
    volumes: ["safe-data:/var/lib/postgresql"]
    networks: {inner: {aliases: [database]}}
networks: {inner: {internal: true}}
volumes: {safe-data: {name: data_of_the_safe}}
""",
        "vault.env": "DATABASE_URL=postgres://safe:pass-of-the-safe-1@database:5432/safe\n",
    },
    "broker": {
        "docker-compose.yml": """
services:
  mosquitto:
    image: docker.io/library/eclipse-mosquitto:2.1.2-alpine
    restart: unless-stopped
    user: "1883:1883"
    ports: ["1883:1883"]
    volumes: ["./config:/mosquitto/config:ro", "mqtt:/mosquitto/data"]
  client:
    image: docker.io/library/busybox:1.37
    command: sleep 100000
    init: true
    restart: unless-stopped
    links: [mosquitto]
volumes: {mqtt: }
""",
        "config/mosquitto.conf": "listener 1883\nallow_anonymous true\n",
    },
}
ANSWERS = {"egress": [], "from": ["lan"]}


@pytest.fixture(scope="module", autouse=True)
def theirs(lab: Lab) -> None:
    """Their projects, which run, with something in their databases."""
    lab.declare(lab_segments={}, ufw_foreign="keep")
    for project, files in PROJECTS.items():
        for name, text in files.items():
            path = f"/srv/stacks/{project}/{name}"
            lab.sh(f"mkdir -p $(dirname {path}); cat > {path}", text=text)
        lab.sh(f"cd /srv/stacks/{project} && docker compose up -d --wait 2>&1", timeout=180)
    lab.sh("docker volume ls -q | sort > /srv/volumes")
    written(lab, "cloud-db-1", "cloud")
    written(lab, "safe-Vault_DB-1", "safe")


# The tests of this file follow one host, in order.


def sql(lab: Lab, container: str, user: str, statement: str) -> str:
    wait = f"timeout 60 sh -c 'until docker exec {container} pg_isready -q -U {user}; do sleep 0.3; done'"
    return lab.sh(f'{wait}; docker exec {container} psql -qAt -U {user} -d {user} -c "{statement}"', timeout=90)


def written(lab: Lab, container: str, user: str) -> None:
    sql(lab, container, user, "create table page(text text); insert into page values ('written before')")


def answer(value: Any, key: str = "") -> Any:
    """The answers that the three projects need."""
    if isinstance(value, dict):
        if set(value) == {"question"}:
            return ANSWERS[key]
        return {name: answer(one, name) for name, one in value.items()}
    return [answer(one, key) for one in value] if isinstance(value, list) else value


def test_they_are_written_with_what_the_host_says_and_refused_until_the_questions_are_answered(
    lab: Lab, tmp_path: Path
) -> None:
    for project, files in PROJECTS.items():
        for name, text in files.items():
            (tmp_path / project / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / project / name).write_text(text)
        words = ["import", str(tmp_path / project / "docker-compose.yml"), "--running"]
        done = subprocess.run(
            [sys.executable, "-m", "ringfence", *words],
            cwd=ROOT, env=lab.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    folder = lab.inventory / "group_vars/all"
    plain = "".join((folder / f"{project}.yml").read_text() for project in PROJECTS)
    assert PASSWORD not in plain
    assert "pass-of-the-safe-1" not in plain
    assert "/srv/stacks/broker/config:/mosquitto/config:ro" in plain, "the host was not asked where the files lie"
    refused = lab.pyinfra(check=False)
    assert refused.code != 0
    assert "lab_services.web-app.egress: not answered yet" in refused.text
    assert "lab_services.mosquitto.publish[0].from: not answered yet" in refused.text
    for project in PROJECTS:
        part = load((folder / f"{project}.yml").read_text())
        (folder / f"{project}.yml").write_text(yaml.safe_dump(answer(part)))


def test_the_projects_become_services_and_keep_their_data(lab: Lab) -> None:
    for project in PROJECTS:
        lab.sh(f"cd /srv/stacks/{project} && docker compose down 2>&1", timeout=90)
    lab.pyinfra()
    for container, user in (("cloud-db-1", "cloud"), ("safe-vault-db-1", "safe")):
        assert sql(lab, container, user, "select text from page") == "written before\n"
    # Each asks its database, by the name and with the password that were in the files.
    for container in ("cloud-web-app-1", "safe-vault-1"):
        ask = f"docker exec {container} curl -sS -o /dev/null -w '%{{http_code}}' http://localhost/"
        assert lab.sh(f"timeout 60 sh -c 'until [ \"$({ask})\" = 200 ]; do sleep 1; done'; {ask}", timeout=90) == "200"
    assert lab.sh("docker exec broker-client-1 nc -w 3 mosquitto 1883 </dev/null && echo open") == "open\n"
    assert "data_of_the_safe" in lab.sh("docker volume ls -q | sort | comm -12 - /srv/volumes")
    assert lab.sh("docker volume ls -q | sort | comm -13 - /srv/volumes") == "", "a volume is gone"


def test_only_what_the_files_tell_passes_and_a_second_run_changes_nothing(lab: Lab) -> None:
    lab.must_verify()
    assert lab.ansible("--tags", "stack,segments,policy").changed == []
    lab.must_be_converged()
