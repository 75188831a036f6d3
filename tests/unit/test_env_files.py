"""`compose: {env_file: …}` is read on the controller, into the service's environment."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.env_files import with_env_files

ODD = 'p@ss$word with "all" of it # and {{ braces }} \\n $$'


def read(tmp_path: Path, env_file: Any, **service: Any) -> tuple[dict[str, Any], list[str]]:
    declared = {"lab_services": {"app": {"image": "x:1", "compose": {"env_file": env_file, "tty": True}, **service}}}
    found, problems = with_env_files(declared, tmp_path)
    return found["lab_services"]["app"], [str(problem) for problem in problems]


def test_later_files_win_over_earlier_ones_and_environment_over_all(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=1\nB=1\nC=1\n", encoding="utf-8")
    (tmp_path / "b.env").write_text("# two\nexport B=2\nC=2\nD=${A}x\n", encoding="utf-8")
    service, problems = read(tmp_path, ["a.env", {"path": "b.env"}], environment={"C": "3"})
    assert problems == []
    assert service["environment"] == {"A": "1", "B": "2", "C": "3", "D": "1x"}
    assert service["compose"] == {"tty": True}


def test_values_arrive_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_bytes(f"A='{ODD}'\nB=a b  # note\nC=\"x\\ty\"\n".encode())
    service, problems = read(tmp_path, "a.env")
    assert problems == []
    assert service["environment"] == {"A": ODD, "B": "a b", "C": "x\ty"}


@given(st.text(st.sampled_from(list("ab$\\\"' {}:-#\n=")), max_size=12))
def test_what_double_quotes_escape_is_what_arrives(text: str) -> None:
    written = re.sub(r'([\\"$])', r"\\\1", text)
    with TemporaryDirectory() as folder:
        (Path(folder) / "a.env").write_text(f'A="{written}"\n', encoding="utf-8")
        service, problems = read(Path(folder), "a.env")
    assert problems == []
    assert service["environment"] == {"A": text}


def test_one_that_is_not_there_is_refused_unless_it_need_not_be(tmp_path: Path) -> None:
    _, [problem] = read(tmp_path, "no.env")
    assert problem.startswith("lab_services.app.compose.env_file: 'no.env' is not there (put it into")
    service, problems = read(tmp_path, [{"path": "no.env", "required": False}])
    assert (service["environment"], problems) == ({}, [])


@pytest.mark.parametrize("path", ["../secrets.env", "/etc/environment", "a/../../x.env"])
def test_nothing_beside_the_inventory_is_read(tmp_path: Path, path: str) -> None:
    inventory = tmp_path / "lab"
    inventory.mkdir()
    (tmp_path / "secrets.env").write_text("A=1\n", encoding="utf-8")
    _, [problem] = read(inventory, path)
    assert f"'{path}' is not below the inventory (put it there:" in problem


def test_a_link_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    inventory = tmp_path / "lab"
    inventory.mkdir()
    (tmp_path / "secrets.env").write_text("A=1\n", encoding="utf-8")
    (inventory / "a.env").symlink_to(tmp_path / "secrets.env")
    _, [problem] = read(inventory, "a.env")
    assert "is not below the inventory" in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A\n", "a.env: A has no value (write A=…, or leave it out)"),
        ("A=x$NOWHERE\n", "a.env: A refers to NOWHERE, which nothing sets (set it above, or write $$)"),
        ("this is hunter2 = secret\n", "a.env, line 1: this is not NAME=value (correct the file)"),
        ("A='hunter2\n", "a.env, line 1: the quote is not closed"),
        ("A='it's hunter2'\n", "a.env, line 1: something follows the closing quote"),
    ],
)
def test_what_is_wrong_in_it_is_said_without_a_value(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.env").write_text(text, encoding="utf-8")
    _, [problem] = read(tmp_path, "a.env")
    assert said in problem
    assert "hunter2" not in problem
    assert str(tmp_path) not in problem


@pytest.mark.parametrize("given", [5, [{"file": "a.env"}], [""], [{"path": "a.env", "format": "raw"}]])
def test_another_form_is_refused_with_what_to_write(tmp_path: Path, given: Any) -> None:
    _, [problem] = read(tmp_path, given)
    assert "write env_file: app.env" in problem


def test_who_has_none_is_left_as_it_is(tmp_path: Path) -> None:
    declared = {"lab_services": {"app": {"compose": {"tty": True}}, "odd": 5}, "x": 1}
    assert with_env_files(declared, tmp_path) == (declared, [])
