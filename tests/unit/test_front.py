"""The front door's errors: one message on standard error, exit status 1, no traceback, whoever asks."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.compile.book import Book, Place
from ringfence.inventory import front, labs, vault

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "inventories" / "demo"
FRONTS = {
    "pyinfra": [str(Path(sys.executable).parent / "pyinfra"), "inventory.py", "debug-inventory"],
    "ansible": [str(ROOT / "inventory.py"), "--list"],
}


def ask(who: str, lab: Path | str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*FRONTS[who]] if who in FRONTS else [sys.executable, "-m", "ringfence.inventory", str(lab)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": path, "RINGFENCE_LAB": str(lab), **environment},
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str], *fragments: str) -> None:
    assert done.returncode == 1, done.stderr
    for fragment in fragments:
        assert fragment in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len([line for line in done.stderr.splitlines() if line.strip() and "--> Loading" not in line]) <= 2, (
        done.stderr
    )


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "demo"))


@pytest.mark.parametrize("who", ["pyinfra", "ansible", "module"])
def test_a_wrong_lab_is_refused_in_one_line(demo: Path, who: str) -> None:
    (demo / "group_vars" / "demo" / "zz.yml").write_text("---\nlab_resolver: [192.0.2.1]\n")
    refused(ask(who, demo), "lab_resolver: 'lab_resolver' is not part of a lab (did you mean 'lab_resolvers'?)")


@pytest.mark.parametrize("who", ["pyinfra", "ansible", "module"])
def test_broken_yaml_is_refused_with_its_file(demo: Path, who: str) -> None:
    (demo / "group_vars" / "demo" / "zz.yml").write_text("---\na: [1\nb: 2\n")
    refused(ask(who, demo), "zz.yml")


YAML_TRAPS = {
    "lab_services: {x: {user: 33:33}}": "line 2: user: YAML reads it as a number to the base of 60 (put it in quotes",
    "stack_secrets: {x: 0123}": "line 2: x: YAML reads a number that begins with 0 as octal (put it in quotes",
    "a: 1\na: 2": "line 3: the key 'a' is there twice, first in line 2 (keep one of them)",
    "a: &x [*x]": "line 2: 'a' contains itself, by an alias",
}


@pytest.mark.parametrize("who", ["pyinfra", "ansible", "module"])
@pytest.mark.parametrize("text", YAML_TRAPS)
def test_what_yaml_would_read_otherwise_is_refused_with_its_file_and_line(demo: Path, who: str, text: str) -> None:
    (demo / "group_vars" / "demo" / "zz.yml").write_text(f"---\n{text}\n")
    refused(ask(who, demo), f"{demo}/group_vars/demo/zz.yml: {YAML_TRAPS[text]}")


def test_it_is_looked_for_in_encrypted_files_and_in_the_hosts_file_as_well(demo: Path) -> None:
    hosts = demo / "hosts.yml"
    good = hosts.read_text()
    hosts.write_text(f"{good}\nextra: {{}}\nextra: {{}}\n")
    refused(ask("module", demo), f"{hosts}: line ", "the key 'extra' is there twice")
    hosts.write_text(good)
    sealed = vault.encrypted("stack_secrets: {x: 0123}\n", demo)
    (demo / "group_vars" / "demo" / "zz.yml").write_text(sealed)
    done = ask("module", demo)
    refused(done, "zz.yml: line 1: x: YAML reads a number that begins with 0 as octal")
    assert "0123" not in done.stderr


@pytest.mark.parametrize("who", ["pyinfra", "ansible", "module"])
def test_a_missing_vault_password_is_refused_with_the_fix(demo: Path, who: str) -> None:
    (demo / ".vault-password").unlink()
    refused(ask(who, demo), "cannot be decrypted", f"{demo}/.vault-password", "ANSIBLE_VAULT_PASSWORD_FILE")


def test_a_wrong_vault_password_is_refused_with_the_fix(demo: Path) -> None:
    (demo / ".vault-password").write_text("wrong\n")
    refused(ask("module", demo), "cannot be decrypted", f"{demo}/.vault-password")


@pytest.mark.parametrize("up", [False, True])
def test_a_forgotten_lab_is_one_sentence_and_never_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: bool
) -> None:
    monkeypatch.delenv(front.SETTING, raising=False)
    (tmp_path / "inventories" / "demo").mkdir(parents=True)
    (tmp_path / "inventories" / "home").mkdir()
    if up:
        (tmp_path / ".lab" / "demo").mkdir(parents=True)
        assert front.lab_directory(tmp_path).name == "demo"
        return
    with pytest.raises(front.InventoryError, match="RINGFENCE_LAB is not set, and the demo is not up"):
        front.lab_directory(tmp_path)


def test_the_lab_is_named_and_a_notice_is_no_error_to_ansible(demo: Path) -> None:
    """What an inventory prints on standard error Ansible calls an error."""
    (demo / "addresses.yml").unlink()
    listed = ask("ansible", demo)
    assert listed.stderr == ""
    told = json.loads(listed.stdout)["all"]["vars"]
    assert told["ringfence_lab"] == str(demo)
    assert "the address book has changed" in told["ringfence_notices"][0]
    (demo / "addresses.yml").unlink()
    said = ask("pyinfra", demo).stderr
    assert f"lab {demo}\n" in said
    assert "the address book has changed" in said
    assert front.called(ROOT / "inventories" / "home") == "home"


def test_a_host_that_the_lab_does_not_have_is_marked_and_no_other(demo: Path) -> None:
    text = (demo / "hosts.yml").read_text()
    (demo / "hosts.yml").write_text(
        text.replace("docker_hosts:\n          hosts:\n", "docker_hosts:\n          hosts:\n            nas: {}\n")
    )
    hosts = front.load(demo)["hosts"]
    assert [name for name, values in hosts.items() if values.get("ringfence_undeclared")] == ["nas", "outside"]


def test_an_unknown_lab_is_refused_with_the_known_ones() -> None:
    refused(ask("ansible", "dmeo"), "RINGFENCE_LAB: 'dmeo'", "demo, example")


def test_a_directory_without_hosts_is_refused(tmp_path: Path) -> None:
    refused(ask("module", tmp_path), "there is no hosts.yml", "inventories/example")


def test_a_hosts_file_that_is_no_inventory_is_refused(demo: Path) -> None:
    (demo / "hosts.yml").write_text("---\nall: {host: {atlas: }}\n")
    refused(ask("module", demo), "'host' in the group 'all'", "write hosts:")


def test_a_lab_that_needs_facts_is_refused(demo: Path) -> None:
    (demo / "group_vars" / "demo" / "zz.yml").write_text('---\nlab_domain: "{{ ansible_facts.domain }}"\n')
    refused(ask("module", demo), "lab_domain: it cannot be worked out", "{{ ansible_facts.domain }}", "no facts")


UNSAFE = "(write !unsafe in front of the text if its braces are the application's)"
TEMPLATES = {
    '{environment: {A: "{{ .Site }}"}}': ("zz.yml:3: app.environment.A: Syntax error", "in {{ .Site }}", UNSAFE),
    '{command: [x, "a {% if %} b"]}': ("zz.yml:3: app.command[1]: ", UNSAFE),
    '{user: "{{ nobody }}"}': ("zz.yml:3: app.user: 'nobody' is undefined",),
}


@pytest.mark.parametrize("text", TEMPLATES)
def test_a_template_that_fails_is_told_with_its_key_and_line(demo: Path, text: str) -> None:
    (demo / "group_vars" / "demo" / "zz.yml").write_text(f"---\nlab_services:\n  app: {text}\n")
    done = ask("module", demo)
    refused(done, "lab_services: it cannot be worked out: ", *TEMPLATES[text])
    assert ("!unsafe" in done.stderr) is (UNSAFE in TEMPLATES[text])


def test_a_lab_that_differs_between_hosts_is_refused(demo: Path) -> None:
    hosts = (
        (demo / "hosts.yml")
        .read_text()
        .replace("docker_hosts:\n          hosts:", "docker_hosts:\n          hosts:\n            borea:")
    )
    (demo / "hosts.yml").write_text(hosts)
    (demo / "group_vars" / "demo" / "zz.yml").write_text(
        '---\nlab_hosts: {atlas: {addresses: [10.213.0.10]}, borea: {addresses: [10.213.0.11]}}\n'
        'lab_domain: "{{ inventory_hostname }}.home"\n'
    )  # fmt: skip
    refused(ask("module", demo), "lab_domain: 'borea' sees another value than 'atlas'", "group_vars/all")


def test_an_unreadable_address_book_is_refused(demo: Path) -> None:
    (demo / "addresses.yml").write_text("segments: {iot: here}\n")
    refused(ask("module", demo), "addresses.yml: an entry is not readable", "delete it to get a new number")


def test_an_address_book_is_written_once_and_announced(demo: Path) -> None:
    (demo / "addresses.yml").unlink()
    # Which the demo's book was made with.
    (demo / "group_vars" / "demo" / "zz.yml").write_text("---\nlab_pool: 172.20.0.0/14\n")
    first, second = ask("module", demo), ask("module", demo)
    assert "commit it" in first.stderr
    assert second.stderr == ""
    assert (demo / "addresses.yml").read_text() == (DEMO / "addresses.yml").read_text()


def test_a_book_that_cannot_be_written_is_a_notice(tmp_path: Path) -> None:
    notice = labs.save_book(tmp_path / "missing", Book({Place("atlas", "a"): ("172.20.0.0/24", 1)}, {}))
    assert notice is not None
    assert "cannot be written" in notice


def test_the_users_own_value_wins_also_when_it_needs_facts(demo: Path) -> None:
    (demo / "group_vars" / "demo" / "zz.yml").write_text('---\nbase_ssh_port: "{{ ansible_facts.port }}"\n')
    data = front.load(demo)
    assert "base_ssh_port" not in data["hosts"]["atlas"]
    assert front.ansible_host(data, "atlas")["base_ssh_port"] == "{{ ansible_facts.port }}"
    assert "base_ssh_port" in dict(front.pyinfra_groups(data)["docker_hosts"])["atlas"]["ringfence_unresolved"]


def test_the_back_end_that_a_host_is_going_to_have_reaches_its_roles(demo: Path) -> None:
    (demo / "group_vars" / "demo" / "zz.yml").write_text("---\ndocker_firewall_backend: nftables\n")
    atlas = front.ansible_host(front.load(demo), "atlas")
    assert (atlas["segments_backend"], atlas["policy_backend"]) == ("nftables", "nftables")


def test_groups_hold_the_hosts_of_their_children(demo: Path) -> None:
    groups = {name: [host for host, _ in hosts] for name, hosts in front.pyinfra_groups(front.load(demo)).items()}
    assert groups == {
        "all": ["atlas", "outside"],
        "demo": ["atlas", "outside"],
        "docker_hosts": ["atlas"],
        "vantages": ["outside"],
    }


def test_a_python_without_the_dependencies_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(front, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        front.main(["--list"], tmp_path)
    assert ended.value.code == 1
    assert "lacks ansible, pydantic, yaml" in capsys.readouterr().err


def test_a_python_without_the_dependencies_hands_over_to_the_one_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(front, "find_spec", lambda name: None)
    called: list[Path] = []

    def reexec(path: Path) -> None:
        called.append(path)
        raise SystemExit(0)

    monkeypatch.setattr(front, "_reexec", reexec)
    with pytest.raises(SystemExit):
        front.main(["--list"], tmp_path)
    assert called == [python]


def test_reading_a_lab_takes_less_than_two_seconds(demo: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ask("module", demo).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
