"""The people role's program: merging with what Authelia wrote, never losing a password, never showing one."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.programs import load, path_of


def a_hash(letter: str) -> str:
    return f"$argon2id$v=19$m=65536,t=3,p=4${letter * 22}${letter * 43}"


OLD, NEW, OWN = a_hash("A"), a_hash("B"), a_hash("C")


def anna(**more: Any) -> dict[str, Any]:
    return {
        "displayname": "Anna",
        "email": "anna@lab.home",
        "groups": ["family"],
        "disabled": False,
        "password": OLD,
    } | more


def ben(**more: Any) -> dict[str, Any]:
    return anna(displayname="Ben", email="ben@lab.home", **more)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = load("people")
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(module, "RECORD", tmp_path / "kept" / "people" / "declared.json")
    monkeypatch.setattr(module, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(module, "QUIET", 0.0)  # the tests that are about it set it again
    return module


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "srv" / "people" / "users.yml"


@pytest.fixture
def wish(file: Path) -> Any:
    def make(**users: Any) -> dict[str, Any]:
        return {"file": str(file), "owner": os.getuid(), "users": users}

    return make


def written(file: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(file.read_text(encoding="utf-8"))["users"])


def by_authelia(file: Path, **passwords: str) -> None:
    """Authelia writes in place: all of its keys, in its order, without comments."""
    users = written(file)
    for name, person in users.items():
        rest = {"given_name": "", "picture": "", "extra": {}, "address": None}
        users[name] = dict(sorted({**rest, **person, "password": passwords.get(name, person["password"])}.items()))
    file.write_text(yaml.safe_dump({"users": users}), encoding="utf-8")


# -- merging ---------------------------------------------------------------------------------------------------------


def test_the_first_run_makes_everything_and_the_second_changes_nothing(program: Any, file: Path, wish: Any) -> None:
    report = program.compare(wish(anna=anna(), ben=ben()))
    assert report == {
        "changes": [f"+ directory {file.parent}", "+ person anna", "+ person ben"], "refusals": [], "notices": [],
    }  # fmt: skip
    assert not file.parent.exists()
    assert program.apply(wish(anna=anna(), ben=ben())) == {"changes": report["changes"]}
    assert written(file) == {"anna": anna(), "ben": ben()}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    before = file.stat()
    assert program.compare(wish(anna=anna(), ben=ben()))["changes"] == []
    assert program.apply(wish(anna=anna(), ben=ben())) == {"changes": []}
    assert file.stat().st_ino == before.st_ino


def test_a_password_changed_in_the_portal_stays(program: Any, file: Path, wish: Any) -> None:
    program.apply(wish(anna=anna()))
    by_authelia(file, anna=OWN)
    assert program.compare(wish(anna=anna())) == {"changes": [], "refusals": [], "notices": []}
    assert program.apply(wish(anna=anna(groups=["family", "admins"]))) == {"changes": ["~ person anna: groups"]}
    assert written(file)["anna"]["password"] == OWN
    assert written(file)["anna"]["groups"] == ["family", "admins"]


def test_another_declared_password_is_set_once(program: Any, file: Path, wish: Any) -> None:
    program.apply(wish(anna=anna()))
    by_authelia(file, anna=OWN)
    line = "~ person anna: password (declared anew)"
    assert program.apply(wish(anna=anna(password=NEW))) == {"changes": [line]}
    assert written(file)["anna"]["password"] == NEW
    by_authelia(file, anna=OWN)
    assert program.apply(wish(anna=anna(password=NEW))) == {"changes": []}
    assert written(file)["anna"]["password"] == OWN


def test_what_else_a_person_has_is_kept(program: Any, file: Path, wish: Any) -> None:
    program.apply(wish(anna=anna()))
    document = yaml.safe_load(file.read_text())
    document["users"]["anna"] |= {"locale": "de", "birthdate": "1990-01-01", "website": "https://anna.example"}
    document["others"] = {"kept": True}
    file.write_text(yaml.safe_dump(document))
    assert program.apply(wish(anna=anna(disabled=True))) == {"changes": ["~ person anna: disabled"]}
    now = yaml.safe_load(file.read_text())
    assert now["others"] == {"kept": True}
    assert now["users"]["anna"] == anna(
        disabled=True, locale="de", birthdate="1990-01-01", website="https://anna.example"
    )


def test_whoever_is_not_declared_goes_and_comes_back_with_the_declared_password(
    program: Any, file: Path, wish: Any
) -> None:
    program.apply(wish(anna=anna(), ben=ben()))
    by_authelia(file, ben=OWN)
    assert program.apply(wish(anna=anna())) == {"changes": ["- person ben"]}
    assert set(written(file)) == {"anna"}
    assert program.apply(wish(anna=anna(), ben=ben())) == {"changes": ["+ person ben"]}
    assert written(file)["ben"]["password"] == OLD


def test_people_who_were_there_before_keep_their_passwords_and_that_is_said(
    program: Any, file: Path, wish: Any
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump({"users": {"anna": anna(password=OWN)}}))
    report = program.compare(wish(anna=anna()))
    assert "their password stays" in report["notices"][0]
    program.apply(wish(anna=anna()))
    assert written(file)["anna"]["password"] == OWN
    assert program.apply(wish(anna=anna(password=NEW)))["changes"] == ["~ person anna: password (declared anew)"]


def test_names_are_text_whatever_yaml_takes_them_for(program: Any, file: Path, wish: Any) -> None:
    people = {"no": anna(email=""), "007": anna(email=""), "1e3": anna(email=""), "null": anna(email="")}
    program.apply(wish(**people))
    assert program.compare(wish(**people))["changes"] == []
    # As Authelia's own library may write them: without quotes.
    text = file.read_text()
    for name in people:
        text = text.replace(f"'{name}':", f"{name}:")
    file.write_text(text)
    assert program.compare(wish(**people))["changes"] == []


def test_nobody_declared_does_nothing_and_needs_nothing(
    program: Any, file: Path, wish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: None)
    assert program.compare(wish()) == {"changes": [], "refusals": [], "notices": []}
    assert program.apply(wish()) == {"changes": []}
    assert not file.parent.exists()


def test_a_file_that_nobody_is_declared_for_any_more_is_left_and_told(program: Any, file: Path, wish: Any) -> None:
    program.apply(wish(anna=anna()))
    report = program.compare(wish())
    assert report["changes"] == report["refusals"] == []
    assert "delete it when it is not needed" in report["notices"][0]
    assert set(written(file)) == {"anna"}


# -- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "words"),
    [
        ({"Anna": anna()}, "person 'Anna': a name has small letters"),
        ({"anna,admins": anna()}, "a name has small letters"),
        ({"anna": anna(password="hunter2")}, "person anna: the password is no argon2id hash"),
        ({"anna": anna(password="")}, "person anna: has no password yet"),
        ({"anna": anna(displayname=" ")}, "has no displayname"),
        ({"anna": anna(displayname="Anna\nRemote-User: owner")}, "is not one line"),
        ({"anna": anna(groups=["family,admins"])}, "has a comma"),
        ({"anna": anna(groups=[""])}, "is empty"),
        ({"anna": anna(groups="family")}, "groups is of the wrong type"),
        ({"anna": anna(disabled="false")}, "disabled is of the wrong type"),
        ({"anna": anna(role="x")}, "takes displayname, email, groups, disabled, password"),
        ({"anna": "x"}, "takes displayname"),
        ({"anna": anna(), "ben": anna(email="ANNA@lab.home")}, "person ben: has the address of anna"),
        ({"anna": anna(email="ben"), "ben": ben()}, "person anna: the address is the name of another person"),
    ],
)
def test_what_authelia_would_not_load_is_refused(
    program: Any, file: Path, wish: Any, users: dict[str, Any], words: str
) -> None:
    report = program.compare(wish(**users))
    assert words in "\n".join(report["refusals"])
    assert "hunter2" not in str(report)
    with pytest.raises(program.Fault):
        program.apply(wish(**users))
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"users:\n  anna: {{password: '{OWN}'\n  ben: [\n", "no YAML that can be read (line "),
        ("", "does not hold people"),
        ("users: []\n", "does not hold people"),
        ("users:\n  anna: x\n", "does not hold people"),
        ("- anna\n", "does not hold people"),
        ("users: !!python/object/apply:os.system ['true']\n", "no YAML"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_and_left_as_it_is(
    program: Any, file: Path, wish: Any, text: str, words: str
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(text)
    report = program.compare(wish(anna=anna()))
    [line] = report["refusals"]
    assert str(file) in line
    assert words in line
    assert "move it away" in line
    assert OWN not in line
    with pytest.raises(program.Fault, match="move it away"):
        program.apply(wish(anna=anna()))
    assert file.read_text() == text


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_the_container_put_in_the_files_place_is_not_followed(
    program: Any, file: Path, wish: Any, tmp_path: Path, kind: str
) -> None:
    """The directory belongs to the container's user, who could point root at any file of the host."""
    file.parent.mkdir(parents=True)
    other = tmp_path / "other"
    other.write_text(yaml.safe_dump({"users": {"anna": anna()}}))
    before = other.stat()
    {"link": lambda: file.symlink_to(other), "pipe": lambda: os.mkfifo(file), "directory": file.mkdir}[kind]()
    report = program.compare(wish(anna=anna()))
    assert "move it away" in report["refusals"][0]
    with pytest.raises(program.Fault, match="move it away"):
        program.apply(wish(anna=anna()))
    assert (other.stat().st_mode, other.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


# -- at the same time as Authelia ------------------------------------------------------------------------------------


def test_a_password_that_is_changed_between_reading_and_replacing_is_not_lost(
    program: Any, file: Path, wish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.apply(wish(anna=anna()))
    first, dumped = [True], program.dumped

    def late(document: Any) -> Any:
        if first.pop() if first else False:
            by_authelia(file, anna=OWN)
        return dumped(document)

    monkeypatch.setattr(program, "dumped", late)
    program.apply(wish(anna=anna(groups=["admins"])))
    assert written(file)["anna"]["password"] == OWN
    assert written(file)["anna"]["groups"] == ["admins"]


def test_a_password_written_into_the_replaced_file_is_not_lost(
    program: Any, file: Path, wish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Authelia may have opened the file before it was replaced; what it writes then goes into a file without a name."""
    program.apply(wish(anna=anna()))
    first, replace = [True], program.replace

    def late(path: Path, text: str, owner: int, state: Any) -> Any:
        if not (first.pop() if first else False):
            return replace(path, text, owner, state)
        with file.open("r+") as handle:
            old = handle.read()
            made = replace(path, text, owner, state)
            handle.seek(0)
            handle.truncate()
            handle.write(old.replace(OLD, OWN))
        return made

    monkeypatch.setattr(program, "replace", late)
    program.apply(wish(anna=anna(groups=["admins"])))
    assert written(file)["anna"]["password"] == OWN
    assert written(file)["anna"]["groups"] == ["admins"]


def test_a_file_that_was_emptied_to_be_written_is_waited_for(program: Any, file: Path, wish: Any) -> None:
    program.apply(wish(anna=anna()))
    program.QUIET = 0.4
    text = file.read_text()
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "with open(sys.argv[1], 'w') as f:\n  print(flush=True)\n  time.sleep(0.2)\n  f.write(sys.argv[2])",
            str(file),
            text,
        ],
        stdout=subprocess.PIPE,
    )
    assert child.stdout
    child.stdout.readline()  # it is empty now
    report = program.compare(wish(anna=anna()))
    child.wait()
    child.stdout.close()
    assert report == {"changes": [], "refusals": [], "notices": []}


def test_a_change_waits_until_authelia_looks_again(program: Any, file: Path, wish: Any) -> None:
    """It ignores what happens in the half second after it wrote: a removed person would stay."""
    assert load("people").QUIET >= 0.5
    program.apply(wish(anna=anna()))
    program.QUIET = 0.3
    by_authelia(file)
    wrote = file.stat().st_mtime
    program.apply(wish(anna=anna(disabled=True)))
    assert file.stat().st_mtime - wrote >= 0.3


def test_a_file_that_never_rests_ends_in_a_message(
    program: Any, file: Path, wish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.apply(wish(anna=anna()))
    monkeypatch.setattr(program, "PATIENCE", 0.01)

    def restless(*_: Any) -> None:
        raise program.Unrest

    monkeypatch.setattr(program, "replace", restless)
    with pytest.raises(program.Fault, match="is being written all the time"):
        program.apply(wish(anna=anna(disabled=True)))


# -- owner, mode, interruption ---------------------------------------------------------------------------------------


def test_owner_and_mode_are_put_back(program: Any, file: Path, wish: Any) -> None:
    program.apply(wish(anna=anna()))
    file.chmod(0o644)
    file.parent.chmod(0o755)
    lines = [f"~ {file.parent}: belongs to {os.getuid()} alone", f"~ {file}: belongs to {os.getuid()} alone"]
    assert program.apply(wish(anna=anna())) == {"changes": lines}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert program.apply(wish(anna=anna())) == {"changes": []}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", ["make_directory", "replace", "sync_directory", "replace_file"])
def test_a_killed_run_is_finished_by_the_next(
    program: Any, file: Path, wish: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    program.apply(wish(anna=anna(), ben=ben()))
    by_authelia(file, ben=OWN)

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    wanted = wish(anna=anna(password=NEW, groups=["admins"]), ben=ben())
    with monkeypatch.context() as patch:
        patch.setattr(program, step, killed)
        with pytest.raises(Killed):
            program.apply(wanted)
    assert program.parse(file, file.read_text())["users"]  # whole at any moment
    program.apply(wanted)
    assert written(file)["anna"]["password"] == NEW
    assert written(file)["anna"]["groups"] == ["admins"]
    assert written(file)["ben"]["password"] == OWN
    assert program.compare(wanted)["changes"] == []
    assert [path.name for path in file.parent.iterdir()] == ["users.yml"]


def test_what_a_killed_run_left_behind_is_swept(program: Any, file: Path, wish: Any) -> None:
    program.apply(wish(anna=anna()))
    (file.parent / ".ringfence-abc").write_text("x")
    program.apply(wish(anna=anna(disabled=True)))
    assert [path.name for path in file.parent.iterdir()] == ["users.yml"]


def test_a_run_killed_before_it_kept_the_declaration_says_so(program: Any, file: Path, wish: Any) -> None:
    program.apply(wish(anna=anna()))
    program.RECORD.unlink()
    assert program.apply(wish(anna=anna())) == {"changes": [f"~ {program.RECORD}: which passwords were declared"]}
    assert program.compare(wish(anna=anna()))["changes"] == []


def test_the_package_is_installed_only_where_people_are(
    program: Any, file: Path, wish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, installed = [False], list[str]()
    find = program.importlib.util.find_spec

    def install(*names: str) -> None:
        installed.extend(names)
        there[0] = True

    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: find(name) if there[0] else None)
    monkeypatch.setattr(program, "install_packages", install)
    assert program.compare(wish(anna=anna()))["changes"][0] == "+ package python3-yaml"
    program.apply(wish(anna=anna()))
    assert installed == ["python3-yaml"]
    assert set(written(file)) == {"anna"}


# -- what is shown and kept ------------------------------------------------------------------------------------------


def test_no_hash_is_shown_or_kept(program: Any, file: Path, wish: Any, capsys: pytest.CaptureFixture[str]) -> None:
    reports = [program.compare(wish(anna=anna())), program.apply(wish(anna=anna()))]
    by_authelia(file, anna=OWN)
    reports += [program.compare(wish(anna=anna(password=NEW))), program.apply(wish(anna=anna(password=NEW)))]
    said = str(reports) + "".join(capsys.readouterr()) + program.RECORD.read_text()
    assert "argon2" not in said
    assert stat.S_IMODE(program.RECORD.stat().st_mode) == 0o600


def test_removing_the_role_keeps_the_people(program: Any, file: Path, wish: Any) -> None:
    program.apply(wish(anna=anna()))
    steps, notices = program.going()
    assert [step.line for step in steps] == [f"- {program.RECORD}"]
    assert "stay" in notices[0]
    steps[0].do()
    assert program.going()[0] == []
    by_authelia(file, anna=OWN)
    program.apply(wish(anna=anna()))
    assert written(file)["anna"]["password"] == OWN


def test_the_program_speaks_json() -> None:
    wanted = {"file": "/nonexistent/people/users.yml", "owner": 0, "users": {"anna": anna()}}
    done = subprocess.run(
        [sys.executable, str(path_of("people")), "check"],
        input=json.dumps(wanted), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)["changes"] == ["+ directory /nonexistent/people", "+ person anna"]
    lacking = subprocess.run(
        [sys.executable, str(path_of("people")), "check"],
        input="{}", capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert lacking.returncode == 1
    assert "lacks file, owner, users" in lacking.stderr
