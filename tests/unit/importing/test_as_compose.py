"""A project is read as compose 2.26 was seen to read it: types, words, names, and the files that lie beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ringfence.importing.files import Project, read
from ringfence.importing.forms import text_of
from ringfence.importing.problems import ComposeError
from ringfence.importing.shellwords import split
from ringfence.importing.translate import Imported, Wishes, translate


def project(folder: Path, **files: str) -> Project:
    """Read a project of these files: `compose_yml` is compose.yml, `_env` is .env."""
    for name, text in files.items():
        (folder / name.replace("__", "-").replace("_", ".")).write_text(text)
    return read([folder])


def imported(folder: Path, **files: str) -> Imported:
    return translate(project(folder, **files), Wishes("atlas", ("lan",), "/opt/app"))


def service(found: Imported, name: str = "a") -> dict[str, Any]:
    return dict(found.part["services"][name])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a 'b c' \"d'e\" f\\ g", ["a", "b c", "d'e", "f g"]),
        (r"a \t 'b\n' \$X", ["a", "t", r"b\n", "$X"]),
        ("a > /dev/null", ["a"]),
        ("a 2>b", ["a"]),
        ("a; b | c", ["a"]),
        ("a '' \"\"", ["a", "", ""]),
        ("a $(b c) `d e`", ["a", "$(b c)", "`d e`"]),
        ("a)a)", ["a)a)"]),
        ("\n a\tb ", ["a", "b"]),
    ],
)
def test_a_command_is_split_as_compose_does(text: str, words: list[str]) -> None:
    assert split(text) == words


@pytest.mark.parametrize("text", ["a 'b", 'a "b', "a (b)", "`a", "$(a", "a\\", "$(a (b))"])
def test_a_command_that_compose_refuses_is_refused(text: str) -> None:
    with pytest.raises(ComposeError):
        split(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (1.1, "1.1"), (1e3, "1000"), (1e21, "1e+21"), (0.5, "0.5"), (True, "true"), (None, ""), (7, "7")],
)
def test_a_number_becomes_the_text_that_compose_makes_of_it(value: object, text: str) -> None:
    assert text_of(value) == text


SWITCHES = """
services:
  a:
    image: a/b:1
    read_only: "${OFF:-false}"
    init: "false"
    privileged: "${OFF:-no}"
    tty: "${ON:-true}"
    deploy: {replicas: "${N:-1}"}
    networks: [n]
    volumes: ["v:/v", {type: bind, source: /srv/x, target: /x, read_only: "${OFF:-false}"}]
networks: {n: {internal: "${OFF:-false}"}}
volumes: {v: {external: "${OFF:-false}"}}
"""


def test_what_is_said_as_text_is_a_switch_all_the_same(tmp_path: Path) -> None:
    found = imported(tmp_path, compose_yml=SWITCHES, _env="COMPOSE_PROJECT_NAME=p\n")
    entry = service(found)
    assert entry["read_only"] is False
    assert "init" not in entry
    assert entry["compose"]["tty"] is True
    assert entry["volumes"] == [{"source": "p_v", "target": "/v", "external": True}, "/srv/x:/x"]
    assert found.part["segments"]["p-n"] == {}
    assert "question" in entry["egress"], "its network is not internal"
    assert not {"privileged", "deploy"} & set(entry.get("questions", {}))


@pytest.mark.parametrize("text", ["read_only: maybe", "pids_limit: many", "healthcheck: {retries: x}"])
def test_what_is_neither_is_refused_without_its_value(tmp_path: Path, text: str) -> None:
    with pytest.raises(ComposeError, match=r"services\.a\.\S+ has to be (true or false|a number)") as refused:
        project(tmp_path, compose_yml=f"services: {{a: {{image: 'x:1', {text}}}}}")
    assert "maybe" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["deploy: x", "healthcheck: x", "healthcheck: {test: 5}", "gpus: [all]",
     "deploy: {resources: {reservations: {devices: {a: b}}}}", "environment: 7", "volumes: {a: b}"],
)  # fmt: skip
def test_a_form_that_compose_refuses_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ComposeError, match=r"services\.a"):
        project(tmp_path, compose_yml=f"services: {{a: {{image: 'x:1', {text}}}}}")


@pytest.mark.parametrize("text", ["ports:", "environment: [A=1, B=2, A=1]"])
def test_what_compose_takes_is_taken(tmp_path: Path, text: str) -> None:
    found = project(tmp_path, compose_yml=f"services:\n  a:\n    image: x:1\n    {text}\n").services["a"]
    assert found.get("environment", {"A": "1", "B": "2"}) == {"A": "1", "B": "2"}


@pytest.mark.parametrize("text", ["", "services: {}", "web: {image: x}"])
def test_a_file_without_services_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ComposeError, match="it has no services"):
        project(tmp_path, compose_yml=text)


HOLES = """
services:
  a:
    image: a/b:1
    hostname: "${H}"
    entrypoint: [run, "${E}"]
    labels: {whole: here, rule: "Host(`${D}`)"}
    ports: ["${LAN_IP}:53:53/udp", "${P}:80", {target: 81, published: "${P}"}]
    tmpfs: ["/t/${T}"]
    pids_limit: ${PIDS}
    volumes: [{type: bind, source: "${DATA}", target: /data}, "${DATA}:/more", "/srv/x:${TARGET}"]
    configs: [c]
configs: {c: {content: "host=${H}"}}
"""


def test_nothing_becomes_empty_because_nobody_set_it(tmp_path: Path) -> None:
    entry = service(imported(tmp_path, compose_yml=HOLES))
    questions = entry["questions"]
    for key in ("hostname", "entrypoint", "tmpfs", "pids_limit"):
        assert "which is not set" in questions[f"{key} not set"], key
    assert "${H}" in questions["hostname not set"]
    assert "labels of rule needs D, which is not set" in questions["labels not set"]
    assert entry["compose"] == {"labels": {"whole": "here"}}
    assert [one for one in questions if one.startswith("ports ")] == [
        "ports ${LAN_IP}:53:53/udp", "ports ${P}:80", "ports target: 81, published: ${P}",
    ]  # fmt: skip
    assert "publish" not in entry
    told = [one["question"] for one in entry["volumes"]]
    assert [name in one for name, one in zip(("DATA", "DATA", "TARGET"), told, strict=True)] == [True] * 3
    assert "needs H" in entry["files"]["/c"]["question"]


@pytest.mark.parametrize(
    "text",
    ["services: {a: {image: 'x:1', network_mode: '${X}'}}", "services: {a: {image: 'x:1', networks: ['${X}']}}",
     "{services: {a: {image: 'x:1', networks: [n]}}, networks: {n: {internal: '${X}'}}}",
     "{services: {a: {image: 'x:1', volumes: ['v:/v']}}, volumes: {v: {name: '${X}'}}}"],
)  # fmt: skip
def test_what_decides_who_is_where_has_to_be_set(tmp_path: Path, text: str) -> None:
    with pytest.raises(ComposeError, match="needs X, which is not set"):
        project(tmp_path, compose_yml=text)


PLAIN = "services: {a: {image: 'x:1'}}"


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"compose_yml": "name: file\n" + PLAIN, "_env": "COMPOSE_PROJECT_NAME=env\n"}, "env"),
        ({"compose_yml": "name: file\n" + PLAIN}, "file"),
        ({"compose_yml": "name: ${N:-by-default}\n" + PLAIN}, "by-default"),
    ],
)
def test_whose_name_a_project_has(tmp_path: Path, files: dict[str, str], name: str) -> None:
    assert project(tmp_path, **files).name == name


def test_a_file_may_ask_for_the_projects_name(tmp_path: Path) -> None:
    text = "name: mine\nservices: {a: {image: 'x:1', volumes: ['v:/v'], command: '${COMPOSE_PROJECT_NAME:-zz}'}}\n"
    entry = service(imported(tmp_path, compose_yml=text + "volumes: {v: {name: '${COMPOSE_PROJECT_NAME}_v'}}"))
    assert entry["command"] == ["mine"]
    assert entry["volumes"][0]["source"] == "mine_v"


OVER = "services: {a: {ports: ['80:80']}}"


def test_an_override_beside_is_read_whatever_its_stem(tmp_path: Path) -> None:
    files = {"compose_yaml": PLAIN, "docker__compose_override_yml": OVER}
    assert project(tmp_path, **files).services["a"]["ports"]
    found = read([tmp_path / "compose.yaml"])  # as the page has it, and as `docker compose up` reads it
    assert found.services["a"]["ports"]
    assert [path.name for path in found.beside] == ["docker-compose.override.yml"]
    assert read([tmp_path]).beside == []
    (tmp_path / "other.yml").write_text(PLAIN)
    assert "ports" not in read([tmp_path / "other.yml"]).services["a"]
    assert "ports" not in read([tmp_path / "compose.yaml", tmp_path / "other.yml"]).services["a"]


def test_the_files_that_env_names_are_read(tmp_path: Path) -> None:
    files = {"compose_yml": PLAIN, "more_yml": OVER, "_env": "COMPOSE_FILE=compose.yml:more.yml\n"}
    assert project(tmp_path, **files).services["a"]["ports"]


def test_what_is_relative_begins_at_the_projects_directory_in_every_file_laid_over(tmp_path: Path) -> None:
    """An included file has a directory of its own, and so has one that is extended."""
    for name in ("app", "shared", "common"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.env").write_text(f"A={name}\n")
    base = "services: {a: {image: 'x:1', volumes: ['./data:/data']}}\ninclude: [../common/inc.yml]\n"
    over = (
        "services: {a: {volumes: ['./more:/more'], env_file: [a.env], secrets: [pw]},"
        " b: {extends: {file: ../common/base.yml, service: b}}}\nsecrets: {pw: {file: ./pw.txt}}\n"
    )
    (tmp_path / "app/compose.yml").write_text(base)
    (tmp_path / "shared/over.yml").write_text(over)
    (tmp_path / "common/inc.yml").write_text("services: {inc: {image: 'x:1', volumes: ['./inc:/inc']}}")
    (tmp_path / "common/base.yml").write_text("services: {b: {image: 'x:1', volumes: ['./base:/base']}}")
    found = read([tmp_path / "app/compose.yml", tmp_path / "shared/over.yml"])
    sources = {name: [one["source"] for one in service["volumes"]] for name, service in found.services.items()}
    assert sources == {"a": ["./data", "./more"], "b": ["../common/base"], "inc": ["../common/inc"]}
    assert found.services["a"]["environment"] == {"A": "app"}
    assert found.sections["secrets"]["pw"]["file"] == "./pw.txt"


def test_an_include_that_releases_read_differently_is_refused(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common/inc.yml").write_text("services: {inc: {image: 'x:1', volumes: ['./pgdata:/p']}}")
    text = "include: [{path: common/inc.yml, project_directory: .}]\nservices: {a: {image: 'x:1'}}\n"
    with pytest.raises(ComposeError, match=r"inc\.yml has relative paths and a project_directory"):
        project(tmp_path, compose_yml=text)
    (tmp_path / "common/inc.yml").write_text("services: {inc: {image: 'x:1', volumes: ['/srv/pgdata:/p']}}")
    assert project(tmp_path, compose_yml=text).services["inc"]["volumes"][0]["source"] == "/srv/pgdata"


def test_what_an_override_resets_is_gone(tmp_path: Path) -> None:
    base = (
        "services: {a: {image: 'x:1', environment: {GONE: a, STAY: b}, labels: {t.enable: 'true', k: v}, ports: ['80'],"
        " depends_on: {b: {condition: service_started}}, networks: {default: {aliases: [q]}, n: {}}, sysctls: {x: 1}},"
        " b: {image: 'x:1'}, c: {image: 'x:1'}}\nnetworks: {n: {}}\n"
    )
    over = (
        "services: {a: {environment: {GONE: !reset null, STAY: !override c}, labels: {t.enable: !reset null},"
        " ports: !reset null, depends_on: {b: !reset null}, networks: {default: !reset null}, sysctls: {x: !reset 1}},"
        " c: !reset null}\n"
    )
    found = project(tmp_path, compose_yml=base, compose_override_yml=over).services
    assert list(found) == ["a", "b"]
    a = found["a"]
    assert (a["environment"], a["labels"], a["sysctls"]) == ({"STAY": "c"}, {"k": "v"}, {})
    assert (a.get("ports"), a["depends_on"], a["networks"]) == (None, {}, {"n": {}})


def test_files_of_variables_see_those_before_them(tmp_path: Path) -> None:
    (tmp_path / "one.env").write_text("HOST=db1\n")
    (tmp_path / "two.env").write_text("URL=http://${HOST:-localhost}/\nWHO=${OWN:-nobody}\nALL=${OF:-x}\n")
    text = "services: {a: {image: 'x:1', env_file: [one.env, two.env], environment: {OWN: svc}}}"
    found = project(tmp_path, compose_yml=text, _env="OF=project\n").services["a"]["environment"]
    assert found == {"HOST": "db1", "URL": "http://db1/", "WHO": "svc", "ALL": "project", "OWN": "svc"}


def test_a_raw_file_of_variables_arrives_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "raw.env").write_text("# none\nPW=pa$$word\"x\"\nQUOTED='q'\nH=a$HOME/b # c\nALONE\n")
    text = "services: {a: {image: 'x:1', env_file: [{path: raw.env, format: raw}]}}"
    found = project(tmp_path, compose_yml=text, _env="ALONE=1\n").services["a"]["environment"]
    assert found == {"PW": 'pa$$word"x"', "QUOTED": "'q'", "H": "a$HOME/b # c", "ALONE": "1"}


def test_a_name_alone_is_what_the_file_of_variables_says(tmp_path: Path) -> None:
    text = "services: {a: {image: 'x:1', env_file: a.env, environment: [A, B, C]}}"
    (tmp_path / "a.env").write_text("A='it\\'s'\nB=file\nD=$B-x\n")
    found = project(tmp_path, compose_yml=text, _env="B=env\n").services["a"]["environment"]
    assert {name: str(value) for name, value in found.items()} == {"A": "it's", "B": "env", "C": "", "D": "env-x"}
    assert found["C"].unset == ("C",)


def test_a_name_alone_above_a_value_is_looked_up(tmp_path: Path) -> None:
    base = "services: {a: {image: 'x:1', environment: {A: '1'}}}"
    over = "services: {a: {environment: [A]}}"
    found = project(tmp_path, compose_yml=base, compose_override_yml=over, _env="A=zz\n")
    assert found.services["a"]["environment"]["A"] == "zz"
