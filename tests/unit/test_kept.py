"""An unchanged lab is not read again; a changed one always is; nothing secret is kept in clear."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ringfence.inventory import front, kept
from ringfence.inventory.pure import is_pure
from tests.unit.test_front import ask

ROOT = Path(__file__).resolve().parents[2]
SECRET = "horse-battery-staple"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the demo, with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(kept.SETTING, raising=False)
    directory = Path(shutil.copytree(ROOT / "inventories" / "demo", tmp_path / "demo"))
    (directory / "group_vars" / "demo" / "zz.yml").write_text(f"---\nmy_secret: {SECRET}\n", encoding="utf-8")
    return directory


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that read an inventory."""
    started: list[Any] = []
    real = subprocess.run

    def run(command: Any, **options: Any) -> Any:
        started.append(command)
        return real(command, **options)

    monkeypatch.setattr(front.subprocess, "run", run)
    return started


def test_an_unchanged_lab_is_read_once(lab: Path, starts: list[Any]) -> None:
    first = front.load(lab)
    assert front.load(lab) == first
    assert first["hosts"]["atlas"]["my_secret"] == SECRET
    assert len(starts) == 1


def _append(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")


def test_both_engines_use_the_same_answer(lab: Path, tmp_path: Path) -> None:
    """Otherwise each would throw away what the other has read."""
    [ask(who, lab) for who in ("pyinfra", "ansible")]
    [file] = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    written = file.stat().st_mtime_ns
    playbook = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", "inventory.py", "--host", "atlas"]
    environment = {**os.environ, "RINGFENCE_LAB": str(lab), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(playbook, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert SECRET in done.stdout
    assert ask("pyinfra", lab).returncode == 0
    assert file.stat().st_mtime_ns == written


CHANGES: dict[str, Callable[[Path, pytest.MonkeyPatch], Any]] = {
    "hosts": lambda lab, _: _append(lab / "hosts.yml"),
    "group_vars": lambda lab, _: _append(lab / "group_vars" / "demo" / "site.yml"),
    "new file": lambda lab, _: (lab / "group_vars" / "demo" / "more.yml").write_text("---\na: 1\n"),
    "removed file": lambda lab, _: (lab / "group_vars" / "demo" / "zz.yml").unlink(),
    "host_vars": lambda lab, _: ((lab / "host_vars").mkdir(), (lab / "host_vars" / "atlas.yml").write_text("---\n")),
    "addresses": lambda lab, _: _append(lab / "addresses.yml"),
    "vault password": lambda lab, _: _append(lab / ".vault-password"),
    "vault password's mode": lambda lab, _: (lab / ".vault-password").chmod(0o755),
    "Ansible's settings": lambda _, patch: patch.setenv("ANSIBLE_HASH_BEHAVIOUR", "merge"),
    "home": lambda lab, patch: patch.setenv("HOME", str(lab)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_the_answer_depends_on_makes_it_be_read_again(
    lab: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept.Kept(lab, ROOT)
    before.save({"answer": 1})
    assert kept.Kept(lab, ROOT).load() == {"answer": 1}
    CHANGES[change](lab, monkeypatch)
    assert kept.Kept(lab, ROOT).load() is None


@pytest.mark.parametrize(
    "name", ["group_vars/all/x.yml", "ringfence/x.py", "roles/ufw/defaults/main.yml", "ansible.cfg"]
)
def test_so_do_the_repositorys_own_files(lab: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "repository"
    path = root / name
    path.parent.mkdir(parents=True)
    path.write_text("1")
    kept.Kept(lab, root).save({"answer": 1})
    assert kept.Kept(lab, root).load() == {"answer": 1}
    path.write_text("2")
    assert kept.Kept(lab, root).load() is None


def test_an_answer_to_files_that_changed_meanwhile_is_not_kept(lab: Path) -> None:
    before = kept.Kept(lab, ROOT)
    _append(lab / "hosts.yml")
    before.save({"answer": 1})
    assert kept.Kept(lab, ROOT).load() is None


@pytest.mark.parametrize(
    "text", ["{{ lookup('env', 'LANG') }}", "{{ now() }}", "{{ 5 | random }}", "{{ 'x' | password_hash }}"]
)
def test_what_may_be_different_next_time_is_not_kept(lab: Path, starts: list[Any], text: str) -> None:
    (lab / "group_vars" / "demo" / "zz.yml").write_text(f'---\nmine: "{text}"\n', encoding="utf-8")
    front.load(lab)
    front.load(lab)
    assert len(starts) == 2


def test_a_vault_password_that_a_program_prints_is_asked_for_each_time(lab: Path, starts: list[Any]) -> None:
    password = (lab / ".vault-password").read_text(encoding="utf-8").strip()
    (lab / ".vault-password").write_text(f"#!/bin/sh\necho {password}\n", encoding="utf-8")
    (lab / ".vault-password").chmod(0o755)
    front.load(lab)
    front.load(lab)
    assert len(starts) == 2


def test_a_warning_is_seen_each_time(lab: Path, starts: list[Any]) -> None:
    (lab / "addresses.yml").unlink()
    [notice] = front.load(lab)["notices"]
    assert "address book has changed" in notice
    front.load(lab)
    front.load(lab)
    assert len(starts) == 2


def test_a_lab_that_is_refused_stays_refused(lab: Path) -> None:
    front.load(lab)
    (lab / "group_vars" / "demo" / "yy.yml").write_text("---\nlab_resolver: [192.0.2.1]\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(front.InventoryError, match="lab_resolver"):
            front.load(lab)


def test_what_is_kept_is_for_its_owner_and_not_in_clear(lab: Path, tmp_path: Path) -> None:
    front.load(lab)
    [file] = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert SECRET.encode() not in file.read_bytes()
    # Without the vault's password it cannot be opened.
    (lab / ".vault-password").write_text("guess", encoding="utf-8")
    assert kept.Kept(lab, ROOT).load() is None


def test_answers_of_labs_that_are_gone_do_not_stay(lab: Path, tmp_path: Path) -> None:
    kept.Kept(lab, ROOT).save({"answer": 1})
    [file] = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    old = file.with_name("old")
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    kept.Kept(lab, ROOT).save({"answer": 2})
    assert not old.exists()
    assert kept.Kept(lab, ROOT).load() == {"answer": 2}


def test_a_broken_file_is_no_answer(lab: Path, tmp_path: Path, starts: list[Any]) -> None:
    front.load(lab)
    [file] = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    file.write_bytes(file.read_bytes()[:100])
    assert "atlas" in front.load(lab)["hosts"]
    assert len(starts) == 2


def test_it_can_be_switched_off(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kept.SETTING, "0")
    front.load(lab)
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_is_a_link_makes_the_lab_be_read_each_time(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (lab / "host_vars").symlink_to(tmp_path / "elsewhere")
    assert kept.kept(lab, ROOT) is None


@pytest.mark.parametrize(
    "value",
    [
        1, None, "plain", "{{ a }}", "{{ a.b['c'][0] | default('x') }}",
        "{{ a + 1 if b is defined else [1, {'c': d}] }}",
        "{% for x in y %}{{ x | upper }}{% endfor %}", {"a": ["{{ hostvars['one'].ansible_host }}"]},
    ],
)  # fmt: skip
def test_what_follows_from_the_files_is_pure(value: Any) -> None:
    assert is_pure(value, frozenset({"playbook_dir"}))


@pytest.mark.parametrize(
    "value",
    [
        "{{ lookup('file', 'x') }}", "{{ query('env', 'X') }}", "{{ q('env', 'X') }}", "{{ now() }}", "{{ a.pop() }}",
        "{{ a | random }}", "{{ a | map('random') | list }}", "{{ a | unknown }}", "{{ a is exists }}",
        "{{ a is file }}",
        "{% include 'x' %}", "{{ broken", {"a": ["{{ now() }}"]}, {"{{ now() }}": 1}, "{{ playbook_dir }}",
        "{% set x = lookup('env', 'X') %}{{ x }}",
    ],
)  # fmt: skip
def test_what_may_change_without_a_file_is_not(value: Any) -> None:
    assert not is_pure(value, frozenset({"playbook_dir"}))
