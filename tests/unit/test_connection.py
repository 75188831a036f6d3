"""Where the connection really goes: Ansible's words for it, and what pyinfra makes of them."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ringfence.inventory import front
from ringfence.inventory.connection import (
    ALIASES,
    ARGUMENTS,
    REFUSED,
    WITHOUT_MEANING,
    connection,
    ssh_file,
    ssh_options,
    with_file,
)

ROOT = Path(__file__).resolve().parents[2]


def of(**values: Any) -> dict[str, Any]:
    found = connection("atlas", values)
    assert found.problems == ()
    return found.data


def test_every_name_that_ansible_core_has_is_translated_refused_or_without_meaning() -> None:
    """A release of ansible-core that has another one fails here, and not by going another way."""
    from ansible import constants
    from ansible.plugins.loader import become_loader, connection_loader

    known = {name for names in ALIASES.values() for name in names} | {*REFUSED, *WITHOUT_MEANING, *ARGUMENTS}
    for kind, loader, plugin in (("connection", connection_loader, "ssh"), ("become", become_loader, "sudo")):
        loader.get(plugin, class_only=True)
        definitions = constants.config.get_configuration_definitions(kind, plugin)
        names = {entry["name"] for of in definitions.values() for entry in of.get("vars") or ()}
        assert {name for name in names if name.startswith("ansible_")} <= known
        for of in definitions.values():
            named = [e["name"] for e in of.get("vars") or () if e["name"].startswith("ansible_")]
            ours = [names for names in ALIASES.values() if set(names) & set(named)]
            # The last that is set counts, so the order matters.
            assert not ours or ours == [tuple(named)], named


@pytest.mark.parametrize(
    ("variable", "value", "key", "found"),
    [
        ("ansible_ssh_host", "192.0.2.1", "ssh_hostname", "192.0.2.1"),
        ("ansible_ssh_port", "2222", "ssh_port", 2222),
        ("ansible_ssh_user", "admin", "ssh_user", "admin"),
        ("ansible_ssh_pass", "p", "ssh_password", "p"),
        ("ansible_private_key_file", "~/k", "ssh_key", "~/k"),
        ("ansible_become_pass", "p", "_sudo_password", "p"),
        ("ansible_sudo_pass", "p", "_sudo_password", "p"),
        ("ansible_become", "no", "_sudo", False),
        ("ansible_become", True, "_sudo", True),
        ("ansible_ssh_timeout", 7, "ssh_paramiko_connect_kwargs", {"timeout": 7}),
        ("ansible_host_key_checking", False, "ssh_strict_host_key_checking", "no"),
    ],
)
def test_aliases_are_read(variable: str, value: Any, key: str, found: Any) -> None:
    assert of(**{variable: value})[key] == found


def test_the_last_alias_counts_and_arguments_stand_in_ansibles_order() -> None:
    assert of(ansible_host="a", ansible_ssh_host="b")["ssh_hostname"] == "b"
    assert of(ansible_port=22, ansible_ssh_common_args="-p 2222")["ssh_port"] == 22
    assert of(ansible_port=22, ansible_ssh_args="-p 2222")["ssh_port"] == 2222
    assert of(ansible_ssh_common_args="-p 2222", ansible_ssh_extra_args="-p 3")["ssh_port"] == 2222
    assert of(ansible_ssh_extra_args="-l admin")["ssh_user"] == "admin"
    assert of(ringfence_known_hosts="/k", ansible_ssh_args="-oUserKnownHostsFile=/l")["ssh_known_hosts_file"] == "/k"


def test_options_are_read_in_every_spelling() -> None:
    for text in ("-o ProxyJump=jump", "-oProxyJump=jump", "-o 'ProxyJump jump'", "-J jump", "-Jjump", "-CvJ jump"):
        assert list(ssh_options(text)) == [("proxyjump", "jump")], text
    assert of(ansible_ssh_common_args="-F/etc/jump -o UserKnownHostsFile=/k") == {
        "ssh_config_file": "/etc/jump", "ssh_known_hosts_file": "/k",
    }  # fmt: skip
    assert of(ansible_ssh_common_args="-oStrictHostKeyChecking=no -C -o ControlMaster=auto -q") == {
        "ssh_strict_host_key_checking": "no"
    }
    assert of(ansible_ssh_extra_args="-A -o ConnectTimeout=3") == {
        "ssh_forward_agent": True, "ssh_paramiko_connect_kwargs": {"timeout": 3},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ansible_ssh_common_args": "-4"}, "ansible_ssh_common_args: -4"),
        ({"ansible_ssh_extra_args": "-o HostKeyAlias=x"}, "-o hostkeyalias"),
        ({"ansible_ssh_args": "-b 192.0.2.1"}, "-b"),
        ({"ansible_ssh_args": "-o SomethingNew=yes"}, "-o somethingnew"),
        ({"ansible_ssh_args": "-o 'Open"}, "cannot be read"),
        ({"ansible_become": True, "ansible_become_method": "su"}, "ansible_become_method: su"),
        ({"ansible_connection": "community.docker.docker"}, "ansible_connection"),
        ({"ansible_ssh_executable": "/opt/ssh"}, "ansible_ssh_executable"),
    ],
)
def test_what_pyinfra_cannot_do_is_refused_by_name(values: dict[str, Any], words: str) -> None:
    [line] = connection("atlas", values).problems
    assert line.startswith("atlas: ")
    assert words in line
    data = {"hosts": {"atlas": values}, "errors": {}, "groups": {}}
    with pytest.raises(front.InventoryError, match="atlas"):
        front.pyinfra_groups(data)


def test_a_key_is_not_shown() -> None:
    [line] = connection("atlas", {"ansible_private_key": "-----BEGIN hush"}).problems
    assert "hush" not in line


def test_what_pyinfra_takes_from_a_file_stands_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host jump\n  HostName 192.0.2.9\n  Port 2200\nHost *\n  User other\n")
    values = {"ansible_host": "10.0.0.5", "ansible_ssh_common_args": "-J admin@jump -i ~/a -i /b -o Port=2222"}
    found = connection("atlas", values)
    data = with_file("atlas", found)
    path = Path(data["ssh_config_file"])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert data["ssh_port"] == 2222

    from pyinfra.connectors.sshuserclient.client import SSHClient, get_ssh_config

    read = get_ssh_config(str(path)).lookup("10.0.0.5")
    assert read["proxyjump"] == "admin@jump"
    assert read["identityfile"] == [str(tmp_path / "a"), "/b"]
    assert read["user"] == "other"
    # The jump host is found as in the user's own file, and does not jump itself.
    hop, how = SSHClient.derive_shorthand(get_ssh_config(str(path)), "admin@jump")
    assert (hop, how["username"], int(how["port"])) == ("jump", "admin", 2200)
    jump = get_ssh_config(str(path)).lookup("jump")
    assert jump["hostname"] == "192.0.2.9"
    assert "proxyjump" not in jump
    assert jump["stricthostkeychecking"] == "yes"
    assert with_file("atlas", found) == data


def test_a_jump_host_that_is_taken_back_is_none(tmp_path: Path) -> None:
    assert ssh_file(connection("a", {"ansible_ssh_common_args": "-o ProxyJump=none"}), "a") == ""
    both = connection("a", {"ansible_ssh_args": "-J one", "ansible_ssh_common_args": "-o ProxyCommand='nc %h %p'"})
    assert both.options == (("proxyjump", "one"),)


@pytest.mark.parametrize(("said", "found"), [("", "accept-new"), ("-o StrictHostKeyChecking=yes", "yes")])
def test_a_stricter_wish_about_host_keys_wins_with_both_engines(tmp_path: Path, said: str, found: str) -> None:
    """Of an option that is there twice, ssh takes the first: ansible.cfg's own stood in front."""
    fake, asked = tmp_path / "ssh", tmp_path / "asked"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {asked}\n')
    fake.chmod(0o755)
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("all: {hosts: {atlas: {}}}\n")
    words = [
        "-i",
        str(hosts),
        "atlas",
        "-m",
        "ansible.builtin.raw",
        "-a",
        "true",
        "-e",
        f"ansible_ssh_executable={fake}",
    ]
    subprocess.run(
        [str(Path(sys.executable).parent / "ansible"), *words, "-e", json.dumps({"ansible_ssh_common_args": said})],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    options = [line for line in asked.read_text().splitlines() if line.startswith("StrictHostKeyChecking=")]
    assert options[0] == f"StrictHostKeyChecking={found}"
    data = of(ansible_ssh_common_args=said)
    assert data.get("ssh_strict_host_key_checking", "accept-new") == found  # pyinfra's own is accept-new
