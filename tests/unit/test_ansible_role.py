"""A role as Ansible's users run it: one task, which says what it would change, and never what is secret."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

from ringfence.remote import role as remote
from tests.roles import make_tiny, state

ROOT = Path(__file__).resolve().parents[2]
SECRET = "correct horse battery staple"


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    make_tiny(tmp_path)
    (tmp_path / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "all", "gather_facts": False, "roles": ["tiny"]}]), encoding="utf-8"
    )
    return tmp_path


def ansible(lab: Path, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook in a directory that has nothing of ringfence but the copied role."""
    variables = {"ansible_connection": "local", "ansible_become": False, **variables}
    (lab / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"atlas": variables}}}), encoding="utf-8")
    environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(lab / "roles"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    environment.pop("ANSIBLE_CONFIG", None)
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.yml", *words],
        cwd=lab, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_check_says_what_would_be_changed_and_changes_nothing(lab: Path) -> None:
    done = ansible(lab, "play.yml", "--check", "--diff", tiny_value="first", tiny_notices=["mind the gap"])
    assert done.returncode == 0, done.stdout
    for line in (
        f"+ file {lab}/host/tiny.conf (missing)",
        "~ value:  becomes first",
        "+value = first",
        "atlas: tiny: mind the gap",
        "changed=1",
    ):
        assert line in done.stdout + done.stderr
    assert not (lab / "host").exists()


def test_a_role_is_applied_once_and_no_output_and_no_open_file_holds_its_secret(lab: Path) -> None:
    first = ansible(lab, "play.yml", "-vvvv", "--diff", tiny_value="first", tiny_secret=SECRET)
    assert first.returncode == 0, first.stdout
    assert "changed=1" in first.stdout
    assert '"writing"' in first.stdout
    assert state(lab) == "first"
    assert (lab / "host" / "secret").read_text() == f"{SECRET}\n"
    assert (lab / "host" / "secret").stat().st_mode & 0o777 == 0o600
    assert SECRET not in first.stdout + first.stderr
    second = ansible(lab, "play.yml", "-vvvv", "--diff", tiny_value="first", tiny_secret=SECRET)
    assert "changed=0" in second.stdout
    assert SECRET not in second.stdout + second.stderr


def test_a_changed_secret_is_named_but_not_shown(lab: Path) -> None:
    ansible(lab, "play.yml", tiny_secret=SECRET)
    done = ansible(lab, "play.yml", "-vvvv", "--diff", tiny_secret="hush")
    assert f"~ file {lab}/host/secret (content)" in done.stdout
    assert (lab / "host" / "secret").read_text() == "hush\n"
    for text in (SECRET, "hush"):
        assert text not in done.stdout + done.stderr


@pytest.mark.parametrize("extra", [False, True])
def test_a_variable_that_is_almost_the_roles_is_refused_before_anything_is_planned(lab: Path, extra: bool) -> None:
    words, variables = (["-e", "tiny_valeu=first"], {}) if extra else ([], {"tiny_valeu": "first"})
    done = ansible(lab, "play.yml", "--check", *words, **variables)
    assert done.returncode != 0
    assert "role tiny: 'tiny_valeu' is no variable of it (did you mean 'tiny_value'?" in done.stdout + done.stderr
    assert "~ value" not in done.stdout


def test_a_refusal_fails_with_its_words_and_changes_nothing(lab: Path) -> None:
    done = ansible(lab, "play.yml", tiny_refusals=["the port is taken (free it)"])
    assert done.returncode != 0
    assert "nothing was changed on atlas" in done.stdout + done.stderr
    assert "tiny: the port is taken (free it)" in done.stdout + done.stderr
    assert not (lab / "host").exists()


def test_what_the_program_could_not_do_fails_with_its_words(lab: Path) -> None:
    done = ansible(lab, "play.yml", tiny_value="broken", tiny_secret=SECRET)
    assert done.returncode != 0
    assert "wiki could not be attached to its network again" in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.fixture
def site(lab: Path) -> Path:
    """Two tiny roles and the site's playbook; of `guard` only the preflight is used."""
    shutil.copytree(ROOT / "roles" / "guard", lab / "roles" / "guard")
    text = (ROOT / "playbooks" / "site.yml").read_text(encoding="utf-8")
    text = text.replace("hosts: docker_hosts", "hosts: all").replace("groups['docker_hosts']", "groups['all']")
    (lab / "site.yml").write_text(text, encoding="utf-8")
    shutil.copytree(lab / "roles" / "tiny", lab / "roles" / "wee")
    for path in (lab / "roles" / "wee").rglob("*"):
        if path.is_file() and path.suffix in (".yml", ".j2"):
            path.write_text(path.read_text().replace("tiny", "wee"), encoding="utf-8")
    program = lab / "roles" / "wee" / "files" / "ringfence-tiny"
    program.rename(program.with_name("ringfence-wee"))
    (lab / "roles" / "wee" / "templates" / "tiny.conf.j2").rename(lab / "roles" / "wee" / "templates" / "wee.conf.j2")
    return lab


ROLES = {"ringfence_roles": ["tiny", "wee"]}


def test_a_refusal_of_the_last_role_comes_before_the_first_change(site: Path) -> None:
    done = ansible(site, "site.yml", **ROLES, wee_refusals=["not today"])
    assert done.returncode != 0
    assert "wee: not today" in done.stdout + done.stderr
    assert not (site / "host").exists()


def test_a_host_that_the_lab_does_not_have_is_refused_and_keeps_everything(site: Path) -> None:
    done = ansible(site, "site.yml", **ROLES, ringfence_undeclared=True)
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "atlas is in the group 'docker_hosts', and lab_hosts does not have it" in said
    assert not (site / "host").exists()


def test_a_variable_of_the_wrong_type_is_refused_before_the_first_change(site: Path) -> None:
    done = ansible(site, "site.yml", **ROLES, wee_notices={"a": 1})
    assert done.returncode != 0
    assert "wee_notices" in done.stdout + done.stderr
    assert not (site / "host").exists()


def test_a_secret_variable_of_the_wrong_type_is_refused_without_its_value(site: Path) -> None:
    done = ansible(site, "site.yml", "-vvv", **ROLES, wee_secrets=f"token={SECRET} {{")
    assert done.returncode != 0
    assert "wee_secrets has not the type" in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_a_site_is_applied_and_the_next_run_asks_once_and_changes_nothing(site: Path) -> None:
    first = ansible(site, "site.yml", **ROLES)
    assert first.returncode == 0, first.stdout
    assert "changed=2" in first.stdout
    assert {path.name for path in (site / "host").glob("*.conf")} == {"tiny.conf", "wee.conf"}
    second = ansible(site, "site.yml", "-vvv", **ROLES)
    assert "changed=0" in second.stdout
    assert len(re.findall(r"<atlas> EXEC", second.stdout)) == 1
    # One role has something to do: all are asked again, in order.
    (site / "host" / "wee.conf").unlink()
    third = ansible(site, "site.yml", "-vvv", **ROLES)
    assert "changed=1" in third.stdout
    assert len(re.findall(r"<atlas> EXEC", third.stdout)) == 4


def test_a_tag_applies_that_role_alone_after_asking_it(site: Path) -> None:
    done = ansible(site, "site.yml", "--tags", "tiny", **ROLES, wee_refusals=["not today"])
    assert done.returncode == 0, done.stdout
    assert "changed=1" in done.stdout
    assert {path.name for path in (site / "host").iterdir()} == {"ringfence-tiny", "tiny.conf", "secret", "state"}
    refused = ansible(site, "site.yml", "--tags", "wee", **ROLES, wee_refusals=["not today"])
    assert "wee: not today" in refused.stdout + refused.stderr
    skipped = ansible(site, "site.yml", "--skip-tags", "wee", **ROLES, wee_refusals=["not today"])
    assert skipped.returncode == 0, skipped.stdout


@pytest.mark.parametrize("option", ["--tags", "--skip-tags"])
def test_a_tag_that_is_no_role_is_no_green_run(site: Path, option: str) -> None:
    done = ansible(site, "site.yml", option, "tiyn", **ROLES)
    assert done.returncode != 0
    assert "tiyn: there is no such role (tags are the names of roles: tiny, wee)" in done.stdout + done.stderr


# -- the guard's window, without a host


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("action", ROOT / "ringfence" / "ansible" / "action.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


action = load()


class Connection:
    """As much of Ansible's ssh connection as is used."""

    transport = "ssh"

    def __init__(self, port: int) -> None:
        self.options: dict[str, Any] = {
            "ssh_args": "-o ControlPersist=60s", "ssh_common_args": "-F /dev/null", "host": "127.0.0.1", "port": port,
        }  # fmt: skip

    def get_option(self, name: str) -> Any:
        return self.options.get(name)

    def set_option(self, name: str, value: Any) -> None:
        self.options[name] = value


class Window(action.ActionModule):  # type: ignore[name-defined,misc]
    """The action, with a host that answers commands from a table: {command: exit code or error}."""

    def __init__(self, answers: dict[str, Any], ports: list[int], ssh_port: int = 22) -> None:
        self._connection = Connection(ssh_port)
        self._templar = SimpleNamespace(template=lambda value: value)
        self._vars = {"guard_ports": ports}
        self.answers = answers
        self.sent: list[tuple[str, bool]] = []

    def _low_level_execute_command(self, command: str, **_: Any) -> dict[str, Any]:
        if command == "echo $SSH_CONNECTION":
            return {"rc": 0, "stdout": "192.0.2.1 40000 192.0.2.2 2222\n", "stderr": ""}
        verb = command.split()[1]
        self.sent.append((verb, "ControlPath=none" in self._connection.options["ssh_args"]))
        answer = self.answers.get(verb, 0)
        if isinstance(answer, Exception):
            raise answer
        return {"rc": answer, "stdout": "", "stderr": "the guard's words" if answer else ""}


WINDOW = {"name": "this-run", "seconds": 45, "limit": 300}


@contextlib.contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_change_is_confirmed_over_a_new_connection_beside_the_old_one() -> None:
    with listening() as port:
        window = Window({}, [22, port])
        window._confirm(WINDOW)
    assert window.sent == [("confirm", True)]
    assert window._connection.options["ssh_args"] == "-o ControlPersist=60s"


@pytest.mark.parametrize("answer", [1, AnsibleConnectionFailure("no route")], ids=["refused", "unreachable"])
def test_a_refused_confirmation_is_taken_back_at_once_over_the_old_connection(answer: Any) -> None:
    window = Window({"confirm": answer}, [])
    with pytest.raises(
        AnsibleActionFail, match=r"taken back: (the guard's words|no route)[\s\S]*the old state is back"
    ):
        window._confirm(WINDOW)
    assert window.sent == [("confirm", True), ("restore", False)]


def test_a_port_that_must_stay_open_and_does_not_answer_takes_the_change_back() -> None:
    with listening() as port:
        pass
    window = Window({}, [port])
    with pytest.raises(AnsibleActionFail, match=rf"port {port} of 127.0.0.1, which must stay open .*does not answer"):
        window._confirm(WINDOW)
    assert window.sent == [("restore", False)]


def test_only_whoever_cannot_come_back_is_told_of_a_lock_out() -> None:
    with pytest.raises(AnsibleActionFail, match=r"^the change is taken back: the guard's words"):
        Window({"confirm": 1}, [])._confirm(WINDOW)
    with pytest.raises(AnsibleActionFail, match="the change would have locked you out"):
        Window({"confirm": AnsibleConnectionFailure("no route")}, [])._confirm(WINDOW)


def test_a_forwarded_port_is_proved_by_the_connection_that_came_through_it() -> None:
    """At 192.0.2.2 of the host's own network sshd listens at 2222; from here it is dialled at another port."""
    window = Window({}, [2222], ssh_port=22022)
    window._confirm(WINDOW)
    assert window.sent == [("confirm", True)]


@pytest.mark.parametrize("option", ["-J jump.example", "-o ProxyCommand='nc -X connect %h %p'"])
def test_through_a_jump_host_only_ssh_is_tried(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(action.display, "warning", said.append)
    window = Window({}, [2222, 8443])
    window._connection.options["ssh_common_args"] += f" {option}"
    window._confirm(WINDOW)
    assert window.sent == [("confirm", True)]
    assert "guard_ports: 8443 cannot be tried" in said[0]


def test_the_way_in_is_what_sshs_configuration_says(tmp_path: Path) -> None:
    configuration = tmp_path / "config"
    configuration.write_text("Host atlas\n  HostName 127.0.0.1\n  Port 2022\n", encoding="utf-8")
    window = Window({}, [2022])
    window._connection.options |= {"host": "atlas", "port": None, "ssh_common_args": f"-F {configuration}"}
    assert window._way() == ("127.0.0.1", 2022, "")
    window._connection.options["port"] = 22
    assert window._way().port == 22


def test_where_nothing_gets_through_the_hosts_own_timer_is_named() -> None:
    dead = AnsibleConnectionFailure("timed out")
    with pytest.raises(AnsibleActionFail, match="the host itself restores the old state within 45 s"):
        Window({"confirm": dead, "restore": dead}, [])._confirm(WINDOW)


# -- another run


def test_a_host_where_another_run_is_at_work_is_asked_again_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = {"busy": "another run (process 7, ringfence apply stack) is at work"}
    answers, said = [busy, busy, {"x": {}}], list[str]()
    monkeypatch.setattr(action.display, "display", said.append)
    window = Window({}, [])
    monkeypatch.setattr(window, "_send", lambda verb, desired: {"stdout": json.dumps(answers.pop(0))})
    assert window._ask("survey", {}) == {"x": {}}
    (line,) = said
    assert line.endswith(f"waits, for 0 of at most 3600 s: {busy['busy']}")
    answers.append(busy)
    monkeypatch.setattr(action, "BUSY_SECONDS", -1)
    with pytest.raises(AnsibleActionFail, match="another run"):
        window._ask("survey", {})


# -- the copies


def test_both_halves_send_the_same_loader() -> None:
    assert action.LOADER == remote.LOADER
    assert action.GUARD == remote.GUARD


def test_what_ansible_needs_stands_in_every_role_as_it_is_here() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ringfence.host", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "ringfence_role.py: is stale" not in done.stdout, "run python -m ringfence.host"
    for name in ("library", "action_plugins"):
        found = sorted(ROOT.glob(f"roles/*/{name}/ringfence_role.py"))
        assert len(found) == len(list(ROOT.glob("roles/*/tasks")))


def test_documentation_of_the_module_can_be_read() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-doc")), "-M", "roles/ufw/library", "--json", "ringfence_role"],
        cwd=ROOT, env={**os.environ, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["ringfence_role"]["doc"]["options"]) == {
        "name", "preflight", "remove", "confirmed", "share",
    }  # fmt: skip
