"""The chassis of the host-side programs: one meaning of missing, failing and hanging; whole files; the engine."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.host import advice, embed, engine, files, lock, login, nft, packages, program, running, tables, units
from tests.programs import ROLES

ROOT = ROLES.parent


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that are found before the machine's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


# -- running ---------------------------------------------------------------------------------------------------------


def test_a_missing_command_has_an_exit_code_and_a_name() -> None:
    result = running.run("ringfence-not-there")
    assert (result.returncode, result.stdout) == (running.MISSING, "")
    with pytest.raises(running.Fault, match="ringfence-not-there is not installed"):
        running.must("ringfence-not-there")


def test_a_command_that_cannot_be_run_counts_as_missing(scripts: Path) -> None:
    (scripts / "plain").write_text("no program")
    result = running.run("plain")
    assert result.returncode == running.MISSING
    assert "cannot be run: Permission denied" in result.stderr


def test_a_failing_command_is_told_in_its_own_words() -> None:
    with pytest.raises(running.Fault, match=r"`sh -c 'echo why >&2; exit 3'` failed: why"):
        running.must("sh", "-c", "echo why >&2; exit 3")
    with pytest.raises(running.Fault, match="exit code 3"):
        running.must("sh", "-c", "exit 3")
    assert running.must("sh", "-c", "echo none; exit 3", codes=(0, 3)) == "none\n"


@pytest.mark.parametrize(
    "command",
    ["sleep 60", "sleep 60 & wait", "sleep 60 &", "setsid sleep 60 & exit 0"],
    ids=["itself", "its child", "a child that holds the pipe", "a daemon that holds the pipe"],
)
def test_a_hanging_command_ends_in_time_and_answers_nothing(command: str) -> None:
    before = time.monotonic()
    result = running.run("sh", "-c", f"echo half; {command}", timeout=0.3)
    assert time.monotonic() - before < 10
    assert (result.returncode, result.stdout) == (running.HUNG, "")
    assert "took longer than" in result.stderr


def test_a_command_that_takes_long_is_waited_for_in_words(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "SPEAKS", 0.2)
    result = running.run("sh", "-c", "sleep 0.5; wc -c", text="a" * 300_000, timeout=20)
    assert (result.returncode, result.stdout) == (0, "300000\n")
    assert "waiting for sh: 0 of at most 20 s" in capfd.readouterr().err


def test_what_a_hanging_command_started_is_killed_with_it(tmp_path: Path) -> None:
    running.run("sh", "-c", f"sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60' & wait", timeout=0.5)
    pid = (tmp_path / "pid").read_text().strip()
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, f"{pid} lives on"
        time.sleep(0.01)


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_command_reads_what_it_is_given_or_the_end_of_the_file() -> None:
    assert running.must("cat", text="äß") == "äß"
    assert running.must("cat") == ""


def test_what_others_write_has_their_usual_mode(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        running.must("touch", str(tmp_path / "file"))
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


# -- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_with_its_mode_and_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    owner = (os.getuid(), os.getgid())
    old = os.umask(0o077)
    try:
        files.replace_file(path, "one", 0o640, owner)
        files.replace_file(path, b"two", 0o604, owner)
    finally:
        os.umask(old)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o604
    assert [path.parent.stat().st_mode & 0o777, path.parent.parent.stat().st_mode & 0o777] == [0o755, 0o755]
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_new_file_has_its_mode_and_owner_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []
    owners: list[tuple[int, int]] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append((self.stat().st_mode & 0o777, self.read_text()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: owners.append((user, group)))
    files.replace_file(tmp_path / "secret", "x", 0o440, (12, 34))
    assert (seen, owners) == ([(0o440, "x")], [(12, 34)])


def test_a_failing_replacement_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.replace_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_that_cannot_be_read_is_never_an_empty_object(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert files.read_json(path) is None
    assert files.read_json(tmp_path / "none" / "state.json") is None
    for text in ("{broken", "", "[1]", "null"):
        path.write_text(text)
        with pytest.raises(running.Fault, match=r"state\.json.*move it away"):
            files.read_json(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(running.Fault, match="cannot be read"):
        files.read_json(path)
    path.write_text(" \n")
    assert files.read_json(path, empty=True) == {}
    with pytest.raises(running.Fault, match="cannot be read"):
        files.read_json(tmp_path)


def test_a_file_that_is_there_and_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    assert files.read(tmp_path / "none") == ""
    with pytest.raises(OSError, match="directory"):
        files.read(tmp_path)


# -- the host's own tools --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["echo refused >&2; exit 1", "exec sleep 60"])
def test_a_tool_that_fails_or_hangs_is_never_an_empty_answer(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for name in ("iptables-save", "systemctl", "dpkg-query", "nft"):
        script(scripts, name, text)
    script(scripts, "dpkg-query", "exit 2" if "exit" in text else text)
    run = running.run
    monkeypatch.setattr(running, "run", lambda *argv, **options: run(*argv, **{**options, "timeout": 0.3}))
    monkeypatch.setattr(tables, "run", running.run)
    for ask in (
        lambda: tables.live_text("v4"),
        lambda: units.unit_states(["a.service"], ["LoadState"]),
        lambda: packages.package_states(["ufw"]),
        lambda: nft.nft_table("inet ringfence"),
    ):
        with pytest.raises(running.Fault):
            ask()


def test_units_are_told_apart(scripts: Path) -> None:
    script(scripts, "systemctl", r"printf 'Id=a.service\nLoadState=loaded\n\nId=b.timer\nLoadState=not-found\n'")
    states = units.unit_states(["a.service", "b.timer", "c.socket"], ["LoadState"])
    assert [state.get("LoadState") for state in states.values()] == ["loaded", "not-found", None]


def test_packages_that_dpkg_does_not_know_are_left_out(scripts: Path) -> None:
    script(scripts, "dpkg-query", "echo 'ufw installed'; echo 'docker.io half-configured'; exit 1")
    assert packages.package_states(["ufw", "docker.io", "x"]) == {"ufw": "installed", "docker.io": "half-configured"}


GET = "for word; do case $word in install|update) echo $word >> {0}/log;; esac; done"


def test_packages_are_installed_with_new_lists_only_where_the_old_ones_do_not_do(scripts: Path) -> None:
    get = GET.format(scripts)
    script(scripts, "apt-get", get)
    packages.install_packages("chrony")
    assert (scripts / "log").read_text().split() == ["install"]
    (scripts / "log").unlink()
    script(scripts, "apt-get", f'{get}; case "$*" in *update*) touch {scripts}/new;; esac; test -e {scripts}/new')
    packages.install_packages("chrony")
    assert (scripts / "log").read_text().split() == ["install", "update", "install"]
    script(scripts, "apt-get", "echo 'E: no such package' >&2; exit 100")
    with pytest.raises(running.Fault, match="E: no such package"):
        packages.install_packages("chrony")


def test_an_interrupted_installation_is_finished_first_and_one_at_work_is_left_alone(
    scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = GET.format(scripts)
    script(scripts, "dpkg", f"echo configure >> {scripts}/log; touch {scripts}/done")
    asks = "echo \"E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct it\" >&2; exit 100"
    script(scripts, "apt-get", f"{get}; test -e {scripts}/done || {{ {asks}; }}")
    packages.install_packages("chrony")
    assert (scripts / "log").read_text().split() == ["install", "configure", "update", "install"]
    (scripts / "log").unlink()
    held = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (unattended-upgr)"
    script(scripts, "apt-get", f"{get}; echo '{held}' >&2; exit 100")
    monkeypatch.setattr(packages, "LOCKED", 0.0)
    with pytest.raises(running.Fault, match="held by process 7"):
        packages.install_packages("chrony")
    assert (scripts / "log").read_text().split() == ["install"]  # it has waited once, for all


@pytest.mark.parametrize("held", ["lib/dpkg/lock-frontend", "lib/apt/lists/lock", "cache/apt/archives/lock"])
def test_another_program_that_is_at_work_with_packages_is_waited_for_and_named(
    scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], held: str
) -> None:
    """apt waits for the first of the three only, and says so to nobody who has its output."""
    words = f"E: Could not get lock /var/{held}. It is held by process 7 (unattended-upgr)\nE: Unable to lock it"
    refuses = f"echo '{words}' >&2; exit 100"
    script(scripts, "apt-get", f"echo x >> {scripts}/log; test $(wc -l < {scripts}/log) -gt 3 || {{ {refuses}; }}")
    monkeypatch.setattr(packages, "LOCKED_PAUSE", 0)
    for do in (packages.update_lists, lambda: packages.install_packages("chrony")):
        (scripts / "log").unlink(missing_ok=True)
        do()
        said = capsys.readouterr().err
        assert said.count("waits, for 0 of at most 300 s, to install packages: ") == 1
        assert f"Could not get lock /var/{held}. It is held by process 7 (unattended-upgr)" in said
    (scripts / "log").unlink()
    monkeypatch.setattr(packages, "LOCKED", 0.0)
    with pytest.raises(running.Fault, match="held by process 7"):
        packages.update_lists()


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("OSError: [Errno 28] No space left on device: '/etc/x'", "a disk is full"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "a disk is full"),
        ("OSError: [Errno 30] Read-only file system: '/etc/x'", "read-only"),
        ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7", "another program is installing"),
        ("E: Release file for http://x/InRelease is not valid yet (invalid for another 9d)", "set it (timedatectl"),
        ("tls: failed to verify certificate: certificate has expired or is not yet valid", "this host's clock says 2"),
        ("E: Failed to fetch http://x/y.deb  Could not connect to x:80", "package mirror"),
        ("E: Unable to locate package ufw", "package mirror"),
    ],
)
def test_failures_that_do_not_say_what_to_do_are_given_advice(words: str, fix: str) -> None:
    first, second = advice.with_advice(words).splitlines()
    assert first == words
    assert fix in second


def test_what_says_it_itself_is_left_as_it_is() -> None:
    assert (
        advice.with_advice("ufw is not installed: apt-get install ufw") == "ufw is not installed: apt-get install ufw"
    )


def test_a_lock_is_held_by_one_and_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    holder = f"another run \\(process {os.getpid()}, .*\\) is still at work"
    with lock.lock(path), pytest.raises(running.Fault, match=holder), lock.lock(path, 0.2):
        pass
    with lock.lock(path, 0.2):
        pass


def test_whoever_waits_for_a_lock_says_for_whom_and_not_too_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, said, now = tmp_path / "lock", list[str](), [0.0]
    monkeypatch.setattr(lock.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    with lock.lock(path), pytest.raises(running.Fault), lock.lock(path, 45, tell=said.append):
        pass
    assert [line.split(":")[0] for line in said] == [f"waits, for {n} of at most 45 s" for n in (1, 11, 21, 31, 41)]


def test_who_only_looks_holds_nobody_off_who_looks(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock.lock(path, 0.2, shared=True), lock.lock(path, 0.2, shared=True):
        assert not lock.held(path)
        with pytest.raises(running.Fault), lock.lock(path, 0.2):
            pass
    with lock.lock(path):
        assert lock.held(path)


def test_a_table_of_nftables_is_found_and_a_missing_one_is_not(scripts: Path) -> None:
    assert nft.nft_table("inet ringfence") == "" or not (scripts / "nft").exists()
    script(
        scripts, "nft", 'case "$*" in "list tables") echo "table inet ringfence";; *) echo "table inet $5 {"; esac'
    )  # fmt: skip
    assert nft.nft_table("inet ringfence") == "table inet ringfence {\n"
    assert nft.nft_table("inet ring") == ""


SAVE = """# Generated
*filter
:INPUT DROP [1:2]
:RF-FWD - [0:0]
-A INPUT -s 10.0.0.0/8 -j ACCEPT
-A RF-FWD -j DROP
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
COMMIT
"""


def test_rules_and_policies_are_taken_apart() -> None:
    assert tables.parse_save(SAVE) == {
        "filter": {"INPUT": ["-s 10.0.0.0/8 -j ACCEPT"], "RF-FWD": ["-j DROP"]},
        "raw": {"PREROUTING": []},
    }
    assert tables.parse_policies(SAVE) == {"filter": {"INPUT": "DROP"}, "raw": {"PREROUTING": "ACCEPT"}}


def test_the_login_is_the_connection_and_who_came_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "import sys; sys.path.insert(0, sys.argv[1]); from ringfence.host.login import ssh_login; print(ssh_login())"
    inner = [sys.executable, "-c", line, str(ROOT)]
    # As under sudo: the process itself no longer has the variable, its parent does.
    outer = ["sh", "-c", 'env -u SSH_CONNECTION "$@"; true', "sh", *inner]
    given = {**os.environ, "SSH_CONNECTION": "::ffff:10.0.0.5 40000 fe80::1%eth0 22"}
    out = subprocess.run(outer, env=given, capture_output=True, text=True, check=True).stdout
    assert "client='10.0.0.5', client_port=40000, server='fe80::1', server_port=22" in out
    assert login._login(b"SSH_CONNECTION=broken", 0) is None


def test_a_login_whose_shell_has_become_sudo_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """bash -c 'sudo …' becomes sudo, which belongs to root: it was taken for root's login, with root's keys."""
    names = {1000: "bob", 0: "root"}
    known = {"bob": SimpleNamespace(pw_name="bob"), "root": SimpleNamespace(pw_name="root")}
    monkeypatch.setattr(login.pwd, "getpwuid", lambda number: SimpleNamespace(pw_name=names[number]))
    monkeypatch.setattr(login.pwd, "getpwnam", lambda name: known[name])
    ends = b"SSH_CONNECTION=192.0.2.9 50000 10.0.0.1 22"
    for environment, owner, user in (
        (b"LOGNAME=bob\0" + ends, 0, "bob"),
        (b"LOGNAME=root\0" + ends, 0, "root"),
        (ends, 0, "root"),
        (b"LOGNAME=root\0" + ends, 1000, "bob"),
        (b"LOGNAME=gone\0" + ends, 0, ""),
    ):
        found = login._login(environment, owner)
        assert found is not None
        assert found.user == user


# -- the engine ------------------------------------------------------------------------------------------------------


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A server at a real socket: path → what it answers, byte for byte; b"" = nothing, ever."""
    answers: dict[str, bytes] = {}
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "docker.sock"))
    server.listen()
    held = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            held.append(connection)
            request = connection.makefile("rb")
            path = request.readline().split()[1].decode()
            length = 0
            while line := request.readline().strip():
                length = int(line.split()[1]) if line.lower().startswith(b"content-length:") else length
            request.read(length)
            if answers[path]:
                connection.sendall(answers[path])
                connection.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monkeypatch.setattr(engine, "SOCKET", str(tmp_path / "docker.sock"))
    yield answers
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)
    for connection in held:
        connection.close()


def answer(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_an_answer_is_decoded(docker: dict[str, bytes]) -> None:
    docker["/info"] = answer("200 OK", '{"Swarm": {}}')
    docker["/start"] = answer("204 No Content", "")
    assert engine.engine("GET", "/info") == {"Swarm": {}}
    assert engine.engine("POST", "/start", {}) is None


def told_by(server: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nServer: {server}\r\nContent-Length: 2\r\n\r\nOK".encode()


def test_the_version_stands_above_any_answer(docker: dict[str, bytes]) -> None:
    docker["/_ping"] = told_by("Docker/20.10.24+dfsg1 (linux)")
    assert engine.engine_version() == "20.10.24+dfsg1"
    assert engine.running_backend() == "iptables"  # without another question


@pytest.mark.parametrize("driver", ["iptables", "nftables"])
def test_newer_engines_are_asked_for_their_back_end(docker: dict[str, bytes], driver: str) -> None:
    docker["/_ping"] = told_by("Docker/29.9.0 (linux)")
    docker["/info"] = answer("200 OK", json.dumps({"FirewallBackend": {"Driver": driver}}))
    assert engine.running_backend() == driver


@pytest.mark.parametrize("server", ["", "Libpod/4.3.1 (linux)", "Docker/dev (linux)"])
def test_an_engine_that_is_none_has_no_version(docker: dict[str, bytes], server: str) -> None:
    docker["/_ping"] = told_by(server)
    with pytest.raises(running.Fault, match="docker does not say which version it is"):
        engine.engine_version()


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (answer("404 Not Found", '{"message": "no such container"}'), engine.NotThereError, "no such container"),
        (answer("500 Server Error", '{"message": "no space left"}'), running.Fault, "refuses GET /x: no space left"),
        (answer("500 Server Error", "<html>"), running.Fault, "<html>"),
        (answer("503 Down", ""), running.Fault, "Down"),
        (answer("200 OK", "<html>"), running.Fault, "not JSON"),
        (b"nonsense\r\n\r\n", running.Fault, "does not answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", running.Fault, "does not answer"),
        (b"", running.Fault, "does not answer .*timed out"),
    ],
    ids=["404", "500", "500 without JSON", "503 without a body", "not JSON", "not HTTP", "cut off", "silence"],
)
def test_what_is_no_answer_is_a_fault_that_names_docker(
    docker: dict[str, bytes], given: bytes, kind: type[Exception], said: str
) -> None:
    docker["/x"] = given
    with pytest.raises(kind, match=said) as found:
        engine.engine("GET", "/x", timeout=0.5)
    assert type(found.value) is kind
    assert "docker" in str(found.value)


def test_no_socket_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SOCKET", str(tmp_path / "none"))
    with pytest.raises(running.Fault, match="docker does not answer at"):
        engine.engine("GET", "/info")


# -- the way in and out ----------------------------------------------------------------------------------------------


def served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], text: str = "", **more: Any
) -> tuple[int, str, str]:
    """Run a small program; returns its exit code, standard output and standard error."""

    def broken(desired: Any) -> None:
        raise KeyError("oops")

    def faulty(desired: Any) -> None:
        raise running.Fault("first\nsecond")

    def unreadable(desired: Any) -> None:
        raise PermissionError(13, "Permission denied", "/etc/x")

    def full(desired: Any) -> None:
        raise OSError(28, "No space left on device", "/etc/x")

    verbs = {
        "check": lambda desired: desired, "broken": broken, "faulty": faulty, "unreadable": unreadable, "full": full,
    }  # fmt: skip
    alone: dict[str, Any] = {"arm": lambda words: " ".join(words), "quiet": lambda words: None}
    monkeypatch.setattr(sys, "argv", ["/usr/local/sbin/tool", *words])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    old = os.umask(0o022)
    try:
        with pytest.raises(SystemExit) as end:
            program.serve("usage: tool check", verbs, alone, **more)
        assert os.umask(0o022) == 0o077
    finally:
        os.umask(old)
    out = capsys.readouterr()
    return int(str(end.value.code)), out.out, out.err


@pytest.mark.parametrize(
    ("words", "text", "code", "out", "said"),
    [
        (["check"], '{"a": "ä"}', 0, '{"a": "ä"}\n', ""),
        (["arm", "--seconds", "5"], "", 0, "--seconds 5\n", ""),
        (["quiet"], "", 0, "", ""),
        ([], "", program.USAGE, "", "usage: tool check"),
        (["check", "more"], "{}", program.USAGE, "", "usage: tool check"),
        (["check"], "", program.FAILED, "", "standard input is not JSON"),
        (["check"], "[]", program.FAILED, "", "not a JSON object"),
        (["faulty"], "{}", program.FAILED, "", "tool: first\ntool: second\n"),
        (["unreadable"], "{}", program.FAILED, "", "PermissionError: [Errno 13] Permission denied: '/etc/x'"),
        (["full"], "{}", program.FAILED, "", "'/etc/x'\ntool: a disk is full"),
        (["broken"], "{}", program.BROKEN, "", "please report it"),
    ],
)
def test_exit_codes_and_messages(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    text: str,
    code: int,
    out: str,
    said: str,
) -> None:
    found = served(monkeypatch, capsys, words, text)
    assert found[:2] == (code, out)
    assert said in found[2]
    assert ("Traceback" in found[2]) is (code == program.BROKEN)


def test_a_desired_state_of_another_release_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = served(monkeypatch, capsys, ["check"], '{"a": 1}', needs=["a", "b"])
    assert (code, err) == (
        program.FAILED,
        "tool: the desired state lacks b: it is not what this release takes\n",
    )


def test_messages_are_shown_as_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []
    served(monkeypatch, capsys, ["faulty"], "{}", report=shown.append)
    assert shown == ["first\nsecond"]


# -- the copies ------------------------------------------------------------------------------------------------------

PROGRAMS = embed.programs(ROOT)


def test_two_modules_that_define_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.py").write_text('"""One."""\n\nLIMIT = 1\n', encoding="utf-8")
    (tmp_path / "two.py").write_text('"""Two."""\n\n\ndef LIMIT() -> None: ...\n', encoding="utf-8")
    monkeypatch.setattr(embed, "HERE", tmp_path)
    with pytest.raises(embed.EmbedError, match="LIMIT: both one and two define it"):
        embed.block(["one", "two"])


@pytest.mark.parametrize("path", PROGRAMS, ids=[path.name for path in PROGRAMS])
def test_every_program_has_the_chassis_of_today(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == embed.embedded(text, path.name), f"{path.name} is stale: run `python -m ringfence.host`"


def test_every_program_is_found() -> None:
    found = {path.name for path in PROGRAMS}
    assert found >= {f"ringfence-{role}" for role in ("guard", "base", "ufw", "docker", "policy", "segments", "stack")}


def test_a_program_without_markers_is_named() -> None:
    with pytest.raises(embed.EmbedError, match="tool: needs one pair of markers"):
        embed.embedded("import os\n", "tool")
    with pytest.raises(embed.EmbedError, match="'runing' is no module"):
        embed.embedded("# >>> ringfence.host: runing\n# <<< ringfence.host\n", "tool")


def test_what_a_module_needs_comes_with_it_and_imports_come_once() -> None:
    text = embed.embedded("import json\n\n# >>> ringfence.host: engine\n# <<< ringfence.host\n", "tool")
    assert text.count("import json") == 1
    assert text.index("-- running:") < text.index("-- units:") < text.index("-- engine:")
    space: dict[str, Any] = {"__name__": "tool"}
    exec(compile(text, "tool", "exec"), space)
    assert callable(space["engine"])
    assert json.loads("1") == 1


# -- what is kept of what was brought about --------------------------------------------------------------------------


def test_the_state_that_was_brought_about_is_kept_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "KEPT", tmp_path)
    locked: list[Path] = []
    monkeypatch.setattr(program, "lock", lambda path: contextlib.nullcontext(locked.append(path)))
    path, wish = tmp_path / "ufw" / "desired.json", {"rules": [1]}

    def quiet(_: Any) -> dict[str, Any]:
        return {"changes": [], "refusals": [], "notices": []}

    def broken(_: Any) -> Any:
        raise running.Fault("ufw does not take the rules")

    with pytest.raises(running.Fault):
        program.keeping("ufw", "apply", broken, wish)
    assert not path.exists()
    assert program.keeping("ufw", "check", quiet, wish)["changes"] == [f"+ {path}"]
    assert program.keeping("ufw", "drift", quiet, wish)["changes"] == []
    assert program.keeping("ufw", "mend", quiet, wish)["changes"] == []
    assert not path.exists()
    assert program.keeping("ufw", "apply", quiet, wish)["changes"] == [f"+ {path}"]
    assert json.loads(path.read_text()) == wish
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert program.keeping("ufw", "check", quiet, wish)["changes"] == []
    assert program.keeping("ufw", "check", quiet, {"rules": []})["changes"] == [f"~ {path}: not what is declared"]
    # Who only looks waits for nobody.
    assert len(locked) == 3
