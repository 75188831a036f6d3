"""The hash of a password for people: what Authelia takes, and nothing of the password anywhere else."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from argon2 import PasswordHasher, extract_parameters

from ringfence import password
from ringfence.role import Role
from tests.programs import ROLES, load


def run(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringfence.password", *words], input=text, capture_output=True, text=True, check=False
    )


def test_the_hash_is_one_of_the_password_and_what_the_people_role_takes() -> None:
    done = run("--stdin", text="correct horse\n")
    assert done.returncode == 0, done.stderr
    digest = done.stdout.strip()
    assert PasswordHasher().verify(digest, "correct horse")
    assert load("people").HASH.fullmatch(digest)
    assert digest != run("--stdin", text="correct horse\n").stdout.strip()


def test_the_parameters_are_those_that_authelia_is_given() -> None:
    role = Role(str(ROLES / "authelia" / "deploy.py"))
    text = role.render_json("desired.json.j2", role.variables({"authelia_name": "auth.lab.home"}))
    files = text["projects"][0]["services"][0]["config"]["/etc/authelia"]
    wanted = yaml.safe_load(files["configuration.yml"])["authentication_backend"]["file"]["password"]["argon2"]
    found = extract_parameters(password.hashed("x"))
    assert (found.time_cost, found.memory_cost, found.parallelism, found.hash_len, found.salt_len) == (
        wanted["iterations"], wanted["memory"], wanted["parallelism"], wanted["key_length"], wanted["salt_length"],
    )  # fmt: skip


@pytest.mark.parametrize("text", ["", "\n", "  \n", "hunter2\nhunter3\n"])
def test_what_is_no_password_is_told_without_showing_it(text: str) -> None:
    done = run("--stdin", text=text)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "password is" in done.stderr
    assert "hunter" not in done.stderr


def test_it_is_asked_for_twice() -> None:
    answers = iter(["one", "one", "one", "other"])
    assert password.asked(lambda prompt: next(answers)) == "one"
    with pytest.raises(password.PasswordError, match="differ"):
        password.asked(lambda prompt: next(answers))


def test_it_is_no_argument() -> None:
    done = run("hunter2")
    assert done.returncode == 2
    assert done.stdout == ""
