"""What only the double has: that it says what it is, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.portal.program import CODE, DOUBLE, Program, prepare, running


@pytest.fixture
def stopped(tmp_path: Path) -> Program:
    prepare(tmp_path / "it", 9091, {})
    return Program(DOUBLE, tmp_path / "it", 9091, real=False)


def test_it_names_itself_in_all_that_it_prints(tmp_path: Path) -> None:
    with running(tmp_path / "it", real=False) as double:
        double.person("kid", address="192.0.2.1")
        page = double.ask("GET", "/").body.decode()
        assert "This is a double of Authelia, for tests: it protects nobody." in page
        errors = double.ask("GET", "/", {"X-Much": "x" * 6000}).body.decode()
        lines = [json.loads(line) for line in (tmp_path / "it/log").read_text().splitlines()]
    texts = [double.run(*words).stdout for words in (["--version"], ["config", "validate"])]
    assert len(lines) > 3
    assert all("a double of Authelia" in text for text in [*texts, errors, *(line["program"] for line in lines)])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"session": {"inactivty": "1 minute"}}, "key not expected: session.inactivty"),
        ({"session": {"cookies": [{"domain": "lab.home", "authelia_url": "http://auth.lab.home"}]}}, "authelia_url"),
        ({"session": {"cookies": [{"domain": "lab.home", "authelia_url": "https://auth.evil.test"}]}}, "authelia_url"),
        ({"session": {"remember_me": "1 month"}}, "remember_me"),
        ({"session": {"expiration": "soon"}}, "'soon' is no duration"),
        ({"session": {"secret": "given here, too"}}, "given twice"),
        ({"access_control": {"rules": [{"domain": "a.lab.home", "policies": "bypass"}]}}, "rules[].policies"),
        ({"access_control": {"rules": [{"domain": "a.lab.home", "policy": "allow"}]}}, "allow"),
        ({"access_control": {"rules": [{"domain": "a.lab.home", "policy": "deny", "networks": ["lna"]}]}}, "lna"),
        ({"access_control": {"rules": [{"domain": "a.lab.home", "policy": "deny", "resources": ["("]}]}}, "missing )"),
        ({"regulation": {"find_time": "1 hour"}}, "find_time is longer than ban_time"),
        ({"authentication_backend": {"file": {"path": "x", "search": {"case_insensitive": True}}}}, "case_insensitive"),
        ({"server": {"address": {"port": 1}}}, "key not expected: server.address"),
    ],
)  # fmt: skip
def test_what_it_refuses(tmp_path: Path, changes: Mapping[str, Any], words: str) -> None:
    prepare(tmp_path / "it", 9091, changes)
    done = Program(DOUBLE, tmp_path / "it", 9091, real=False).run("config", "validate")
    assert done.returncode == 1
    assert words in done.stderr


def test_a_secret_that_is_missing_or_misspelt(stopped: Program) -> None:
    assert stopped.run("config", "validate").returncode == 0
    short = stopped.folder / "short"
    short.write_text("x")
    for name, value, words in (
        ("AUTHELIA_STORAGE_ENCRYPTION_KEY_FILE", str(short), "encryption_key"),
        ("AUTHELIA_STORAGE_ENCRYPTION_KEY_FILE", "/nowhere", "/nowhere"),
        ("AUTHELIA_SESION_SECRET_FILE", str(short), "AUTHELIA_SESION_SECRET_FILE"),
        ("AUTHELIA_STORAGE_ENCRYPTION_KEY", "x" * 30, "AUTHELIA_STORAGE_ENCRYPTION_KEY"),
    ):
        done = stopped.run("config", "validate", **{name: value})
        assert done.returncode == 1, name
        assert words in done.stderr
    # Without the filter the line of the key is no YAML.
    assert stopped.run("config", "validate", X_AUTHELIA_CONFIG_FILTERS="").returncode == 1


def test_codes_are_given_and_taken_away(tmp_path: Path) -> None:
    with running(tmp_path / "it", real=False) as double:
        kept = tmp_path / "it/data/db.sqlite3.double.json"

        def totp(*words: str) -> int:
            return double.run("storage", "user", "totp", *words).returncode

        assert totp("generate", "kid", "--secret", CODE) == 0
        assert os.stat(kept).st_mode & 0o777 == 0o600  # noqa: PTH116
        assert totp("generate", "kid", "--secret", CODE) == 1
        assert totp("generate", "kid", "--secret", CODE, "--force") == 0
        assert totp("generate", "ann", "--secret", "no base32!") == 1
        assert totp("delete", "kid") == 0
        assert totp("delete", "kid") == 1
        assert json.loads(kept.read_text()) == {}


def test_codes_need_a_program_that_has_run(stopped: Program) -> None:
    """As with the real one, whose database does not exist before."""
    assert stopped.run("storage", "user", "totp", "generate", "kid", "--secret", CODE).returncode == 1
