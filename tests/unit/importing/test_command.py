"""``python -m ringfence import`` writes two files and no more: a part of the lab, and its vault."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ringfence.importing.said import question
from ringfence.importing.written import dump
from tests.unit.importing.shapes import FIXTURES, SHAPES, answers, load

ROOT = FIXTURES.parents[1]
SECRET = "a!long$and{{odd}}secret-value#here"
INVENTORY = {
    "hosts.yml": {
        "all": {"children": {"home": {"children": {"docker_hosts": {"hosts": {"atlas": {"ansible_host": "::1"}}}}}}}
    },
    "group_vars/home/lab.yml": {
        "lab_proxy": None,
        "lab_portal": None,
        "lab_domain": "fixture.home",
        "lab_places": {"lan": ["192.168.10.0/24"]},
        "lab_hosts": {"atlas": {"addresses": ["192.168.10.5"], "services": {"ssh": {"port": 22, "from": ["lan"]}}}},
        "lab_resolvers": ["192.168.10.1"],
        "lab_segments": {"photos": {}},
        "lab_services": {"db": {"host": "atlas", "image": "docker.io/library/postgres:18.6", "segments": ["photos"]}},
    },
}


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    for name, content in INVENTORY.items():
        path = tmp_path / "lab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    (tmp_path / "lab" / ".vault-password").write_text("of-the-vault\n")
    return tmp_path / "lab"


def python(inventory: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RINGFENCE_LAB": str(inventory), "RINGFENCE_KEEP_INVENTORY": "0"}
    environment = {name: value for name, value in environment.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def shape(name: str) -> Path:
    return FIXTURES / "compose" / name


def test_the_run_refuses_until_the_questions_are_answered_and_then_has_every_value_byte_for_byte(
    inventory: Path,
) -> None:
    words = ["ringfence", "import", str(shape("documents")), "--from", "lan", "--directory", "/opt/paper"]
    said = python(inventory, *words)
    part = inventory / "group_vars/all/documents.yml"
    vault = inventory / "group_vars/all/vault_documents.yml"
    assert f"written: {vault}\nwritten: {part}\n" in said.stdout
    assert [path.stat().st_mode & 0o777 for path in (part, vault)] == [0o600, 0o600]
    assert vault.read_text().startswith("$ANSIBLE_VAULT;1.1;AES256\n")
    assert SECRET not in said.stdout + said.stderr + part.read_text()

    refused = python(inventory, "ringfence.inventory", str(inventory), code=1)
    assert "lab_services.documents-webserver" not in refused.stderr  # nobody else has that name
    assert "lab_services.webserver.egress: not answered yet: compose let webserver reach everything" in refused.stderr
    assert "lab_services.tika.image: not answered yet: 'docker.io/apache/tika:latest' is not pinned" in refused.stderr
    assert "is not a setting" not in refused.stderr
    assert len(refused.stderr.splitlines()) == int(said.stdout.partition(" question")[0].rpartition(" ")[2])

    content = load(part.read_text())
    services = content["lab_part_documents"]["services"]
    services["webserver"]["egress"] = []
    services["tika"]["image"] = "docker.io/apache/tika:3.2.3.0"
    text = part.read_text().partition("lab_part_documents:")[0] + yaml.safe_dump(content)
    part.write_text(text)
    compiled = json.loads(python(inventory, "ringfence.inventory", str(inventory)).stdout)["hosts"]["atlas"]
    project = next(one for one in compiled["stack_projects"] if one["name"] == "documents")
    environment = {one["name"]: one["environment"] for one in project["services"]}
    assert environment["webserver"]["PAPERLESS_SECRET_KEY"] == SECRET
    # 'db' is a service of this lab already: who calls the new one finds it as before, and nobody else does.
    assert environment["webserver"]["PAPERLESS_DBHOST"] == "db"
    by_name = {one["name"]: one for one in project["services"]}
    address = by_name["documents-db"]["networks"][0]["address"]
    assert [name for name, one in by_name.items() if one["extra_hosts"].get("db") == address] == ["webserver"]
    assert "lab_part_documents" not in compiled
    assert set(compiled["lab_services"]) == {"broker", "db", "documents-db", "gotenberg", "tika", "webserver"}


def test_ansible_reads_every_shape_as_it_was_written(inventory: Path) -> None:
    """A question, a label or a secret may look like a template; Ansible takes none of them for one."""
    (inventory / "group_vars/all").mkdir()
    wanted: set[str] = set()
    for name in SHAPES:
        for file in ("reviewed.yml", "reviewed_vault.yml"):
            if (shape(name) / file).exists():
                shutil.copy(shape(name) / file, inventory / f"group_vars/all/{name}_{file}")
        # Names that several of them have are each refused but once.
        wanted |= {f"{place}:" for place in answers(name)["settled"] if "questions." in place and "{" not in place}
    said = python(inventory, "ringfence.inventory", str(inventory), code=1).stderr
    assert "cannot be worked out" not in said
    assert "services.homeassistant.questions.privileged: not answered yet" in said
    assert len([place for place in wanted if place in said]) > 30


def test_a_question_is_no_template() -> None:
    assert dump(question("what is {{.Name}}?")) == "question: !unsafe >-\n  what is {{.Name}}?\n"


ODD = {
    "TEMPLATE": "{{ not one }} {% nor this %}",
    "LINES": "two:\n  - lines {{x}}\n\n",
    "SPACES": "  \ttabs \n and: # more ",
    "NUMBER": "012",
    "WORD": "no",
    "COLON": "22:22",
    "QUOTES": "'\"\\",
    "TAG": "!unsafe x",
    "ACCENTS": "Größe \u2028 \U0001f600",
    "EMPTY": "",
    "TOKEN": "{{ secret }}\n 'as' \"well\" \u00e9\n",
}


def test_values_arrive_byte_for_byte(inventory: Path, tmp_path: Path) -> None:
    escaped = {name: value.replace("$", "$$") for name, value in ODD.items()}
    service = {
        "image": "x:1",
        "environment": escaped,
        "command": ["{{ word }}", "a\nb"],
        "networks": ["inner"],
        "restart": "always",
    }
    content = {"services": {"odd": service}, "networks": {"inner": {"internal": True}}}
    (tmp_path / "compose.yml").write_text(yaml.safe_dump(content))
    python(inventory, "ringfence", "import", str(tmp_path / "compose.yml"), "-p", "odd")
    compiled = json.loads(python(inventory, "ringfence.inventory", str(inventory)).stdout)["hosts"]["atlas"]
    project = next(one for one in compiled["stack_projects"] if one["name"] == "odd")
    assert project["services"][0]["environment"] == ODD
    assert project["services"][0]["command"] == ["{{ word }}", "a\nb"]


def test_nothing_that_is_there_is_overwritten(inventory: Path) -> None:
    words = ["ringfence", "import", str(shape("rss")), "--host", "atlas"]
    python(inventory, *words)
    before = {path: path.read_bytes() for path in inventory.rglob("*") if path.is_file()}
    said = python(inventory, *words, code=1)
    assert "rss.yml is there already, and is not overwritten" in said.stderr
    python(inventory, *words, "-p", "news")
    assert {path: path.read_bytes() for path in before} == before
    assert (inventory / "group_vars/all/news.yml").exists()


def test_without_a_vault_password_nothing_is_written(inventory: Path) -> None:
    (inventory / ".vault-password").unlink()
    before = sorted(inventory.rglob("*"))
    said = python(inventory, "ringfence", "import", str(shape("rss")), code=1)
    assert "there is no vault password, and secrets are not written in plain text" in said.stderr
    assert "mini-secret" not in said.stdout + said.stderr
    assert sorted(inventory.rglob("*")) == before


def test_the_vault_is_of_the_label_that_is_named(inventory: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("another\n")
    words = ["ringfence", "import", str(shape("rss")), "--vault-id", f"home@{tmp_path / 'other'}"]
    python(inventory, *words)
    vault = inventory / "group_vars/all/vault_rss.yml"
    assert vault.read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;home\n")
    program = Path(sys.executable).with_name("ansible-vault")
    shown = subprocess.run(
        [program, "view", "--vault-id", f"home@{tmp_path / 'other'}", vault], capture_output=True, text=True, check=True
    )
    assert load(shown.stdout)["vault_rss_db_postgres_password"] == "mini-secret"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "nas"], "--host: 'nas' is not one of lab_hosts: atlas"),
        (["--from", "garden"], "--from: 'garden' is not one of lab_places"),
        (["--directory", "opt"], "--directory: 'opt' is not an absolute path"),
    ],
)
def test_what_the_command_line_says_wrong_is_named(inventory: Path, words: list[str], told: str) -> None:
    assert told in python(inventory, "ringfence", "import", str(shape("rss")), *words, code=1).stderr


def test_a_file_that_is_none_of_composes_is_named_without_its_values(inventory: Path, tmp_path: Path) -> None:
    for text, told in (
        ("services: [", "this is not YAML"),
        ("- one", "this is no compose file"),
        ("services: {a: {ports: [secret-word]}}", "services.a.ports: 'secret-word' is not a port"),
        (
            "services: {a: {image: x, environment: {P: 'hidden${!}'}}}",
            "services.a.environment.P: a '${' in it begins no variable (write $${ for the text)",
        ),
        ("services: {a: {extends: {service: b}}}", "services.a extends 'b', which"),
        ("include: [missing.yml]", "missing.yml: No such file or directory"),
        ("services: {a: {image: x, healthcheck: {test: [curl, a]}}}", "begins with none of CMD, CMD-SHELL and NONE"),
        ("services: {a: {image: x, healthcheck: {test: [CMD-SHELL]}}}", "or has no command (compose refuses it)"),
        ("services: {a: {image: x, ports: [{published: '80'}]}}", "a port has no target"),
    ):
        (tmp_path / "compose.yml").write_text(text)
        assert told in python(inventory, "ringfence", "import", str(tmp_path / "compose.yml"), code=1).stderr
    shutil.rmtree(inventory / "group_vars")
    (tmp_path / "compose.yml").write_text("services: {a: {image: 'b:1'}}")
    said = python(inventory, "ringfence", "import", str(tmp_path / "compose.yml"), code=1).stderr
    assert "which host runs it? Write --host NAME" in said
