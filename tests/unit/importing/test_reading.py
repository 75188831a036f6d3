"""Files are read as compose reads them: variables, ``.env``, layers, and whom a text names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.importing.confidential import is_secret
from ringfence.importing.files import read
from ringfence.importing.interpolate import Filled, fill, read_env
from ringfence.importing.mentions import mentions
from ringfence.importing.problems import ComposeError
from ringfence.importing.running import read as read_running
from ringfence.importing.syntax import parse

VARIABLES = {"A": "one", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "value", "unset"),
    [
        ("$A-${A}", "one-one", ()),
        ("$$A", "$A", ()),
        ("${B:-two}", "two", ()),
        ("${EMPTY:-two}${EMPTY-two}", "two", ()),
        ("${B-${A}/x}", "one/x", ()),
        ("${B:-${C:-three}}", "three", ()),
        ("${A:+set}${B:+set}${EMPTY+set}", "setset", ()),
        ("${B}", "", ("B",)),
        ("${B:?say it}", "", ("B",)),
        ("${B:-${C}}", "", ("C",)),
        ("${A:-$C}", "one", ()),
        ("${B:-a}b}", "ab}", ()),
    ],
)
def test_variables(text: str, value: str, unset: tuple[str, ...]) -> None:
    found = fill(text, VARIABLES)
    assert found == value
    assert isinstance(found, Filled)
    assert found.unset == unset


@pytest.mark.parametrize("text", ["${", "${A", "${A:x}", "${-}", "${}", "${A:-${}"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    with pytest.raises(ComposeError):
        fill(text, VARIABLES)


def test_env_files(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        '# comment\nA=one # comment\nB=\'raw $A #\'\nC="line\\n$A"\nexport D=x=y\nE=\nF\nG=pa$$w#rd\nH="two\nlines"\n'
        "I=$9x\n"
    )
    assert read_env(tmp_path / ".env", {}) == {
        "A": "one", "B": "raw $A #", "C": "line\none", "D": "x=y", "E": "", "F": None, "G": "pa$w#rd",
        "H": "two\nlines", "I": "$9x",
    }  # fmt: skip


def test_a_dollar_that_begins_nothing_is_one() -> None:
    assert fill("$ $1 $(stat) $'", VARIABLES) == "$ $1 $(stat) $'"
    assert fill("${B:-$2a$14$$x}", VARIABLES) == "$2a$14$x"


def test_scalars_are_composes(tmp_path: Path) -> None:
    text = "a: 22:22\nb: no\nc: 0440\nd: 1_000\ne: 2024-01-01\nf: 1.10\ng: on\nh: 0x1f\ni: ~\n"
    assert parse(text, tmp_path) == {
        "a": "22:22", "b": "no", "c": 288, "d": 1000, "e": "2024-01-01 00:00:00 +0000 UTC", "f": 1.1, "g": "on",
        "h": 31, "i": None,
    }  # fmt: skip


def test_the_environment_of_the_controller_is_not_that_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_SHELL", "here")
    (tmp_path / "compose.yml").write_text("services: {a: {image: 'x:1', environment: {V: $FROM_SHELL, FROM_SHELL: }}}")
    environment = read([tmp_path]).services["a"]["environment"]
    assert [(str(value), value.unset) for value in environment.values()] == [("", ("FROM_SHELL",))] * 2


def test_a_directory_stands_for_the_files_that_compose_takes(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text(
        "services: {a: {image: 'x:1'}, b: {image: 'y:1', profiles: [extra]}, c: {image: 'z:1', profiles: [no]}}"
    )
    (tmp_path / "docker-compose.override.yml").write_text("services: {a: {command: run}}")
    (tmp_path / ".env").write_text("COMPOSE_PROFILES=extra\nCOMPOSE_PROJECT_NAME=Mine\n")
    found = read([tmp_path])
    assert found.services["a"]["command"] == ["run"]
    assert set(found.services) == {"a", "b"}
    assert found.resting == {"c": ["no"]}
    assert found.name == "mine"


HOSTS = {"db": "db", "redis": "redis", "wiki_db": "wiki_db", "app": "app"}


@pytest.mark.parametrize(
    ("variable", "text", "named"),
    [
        ("DB_HOST", "db", [("db", None)]),
        ("CACHE", "redis:6379", [("redis", 6379)]),
        ("X", "redis://redis:6379/0", [("redis", 6379)]),
        ("X", "postgres://app:secret@wiki_db/app", [("wiki_db", None)]),
        ("NODES", "redis:7000,db:7001", [("redis", 7000), ("db", 7001)]),
        ("POSTGRES_DB", "app", []),
        ("DB_USER", "app", []),
        ("TITLE", "my app", []),
        ("SMTP_HOST", "db.example.org", []),
        ("URL", "https://example.org/db", []),
        ("PATH_TO", "/srv/app", []),
        ("DB_TYPE", "redis", []),
    ],
)
def test_whom_a_text_names(variable: str, text: str, named: list[tuple[str, int | None]]) -> None:
    assert [(one.service, one.port) for one in mentions(text, HOSTS, variable)] == named


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DB_PASSWORD", "db", True),
        ("SECRET_KEY_BASE", "x", True),
        ("API_KEY", "x", True),
        ("PASSWORD_FILE", "/run/secrets/x", False),
        ("ALLOW_PASSWORD_LOGIN", "true", False),
        ("URL", "https://me:pw@example.org", True),
        ("X", "-----BEGIN PRIVATE KEY-----\nx", True),
        ("COMPASS", "north", True),  # one too many in the vault does no harm
        ("TZ", "Europe/Berlin", False),
        ("KEYBOARD", "de", False),
    ],
)
def test_what_is_secret(name: str, value: str, secret: bool) -> None:
    assert is_secret(name, value) is secret


def test_images_are_pinned_to_what_runs() -> None:
    digest = "sha256:" + "a" * 64

    def container(service: str, image: str, identity: str) -> str:
        labels = (
            f'{{"com.docker.compose.service": "{service}", "com.docker.compose.project.working_dir": "/opt/stacks/w"}}'
        )
        return f'{{"Image": "{identity}", "Config": {{"Image": "{image}", "Labels": {labels}}}}}'

    containers = ",".join(
        (container("app", "wiki:latest", "1"), container("db", "postgres:17", "2"), container("own", "mine", "3"))
    )
    images = (
        f'{{"Id": "1", "RepoDigests": ["wiki@{digest}"]}}, {{"Id": "2", "RepoDigests": ["postgres@{digest}"]}}, '
        '{"Id": "3", "RepoDigests": []}'
    )
    found = read_running(f"[{containers}]\n[{images}]\n")
    assert found.images == {"app": f"wiki@{digest}", "db": f"postgres:17@{digest}"}
    assert found.directory == "/opt/stacks/w"
    assert found.unpinned == ("own",)
