#!/usr/bin/python3
"""Sent to a host and run there by both engines: compares it with what roles want, and brings that about.

Standard library only, Python 3.11. Everything arrives on standard input, nothing in arguments: secrets are among it.
"""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


DOCUMENTATION = r"""
module: ringfence_role
short_description: Brings about on a host what a role of ringfence wants
description:
  - Compares packages, files and the state that the role's program is asked for, in one round trip.
  - Changes only what differs; a change that could cut off the controller is made inside the guard's window and
    confirmed over a new connection, or taken back at once.
  - What the program is asked for may hold secrets; it is in no argument, log or diff.
options:
  name:
    description: The role, whose folder stands beside the calling one. Its variables are its options.
    type: str
  preflight:
    description: Roles that are compared in one round trip and may refuse; nothing is changed.
    type: list
    elements: str
  share:
    description: C(true) has the role's program say what other hosts are to know of this one; it becomes a fact.
    type: bool
  remove:
    description: Roles that leave the host, in this order; what would go is listed, and goes only if it is confirmed.
    type: list
    elements: str
  confirmed:
    description: C(yes) where the user has said that they are to go.
    type: str
author: ringfence
"""
EXAMPLES = r"""
- name: Let in what is declared
  ringfence_role:
    name: ufw
"""
RETURN = r"""
changes:
  description: What was, or with --check would be, changed, a line each.
  returned: always
  type: list
  elements: str
progress:
  description: What the role's program said while it worked.
  returned: when something was changed
  type: list
  elements: str
"""

# >>> ringfence.host: running files kept lock packages units advice forked
# Written by `python -m ringfence.host`: change it there.
import contextlib
import fcntl
import importlib
import marshal
import re
import select
import shlex
import signal
import tempfile
import threading
import traceback
from collections.abc import Collection, Iterable, Iterator
from types import CodeType
from typing import BinaryIO, NoReturn

# -- running: Commands of the host: what is missing, hangs or fails means the same in every program.


MISSING = 127  # exit code of a program that is not installed, as a shell has it
HUNG = 124  # exit code of a program that took too long, as timeout(1) has it
SPEAKS = 10.0  # seconds of waiting without a word
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Fault(Exception):  # noqa: N818 - it tells the user what is wrong, which is not always an error of ours
    """Something that ends the program and that the user has to know: whose it is, what, and the fix."""


def say(text: str) -> None:
    """Say what happens on standard error, which is the journal when systemd runs this."""
    for line in text.splitlines():
        print(f"{Path(sys.argv[0] or 'ringfence').name}: {line}", file=sys.stderr, flush=True)


def search_path() -> str:
    """Where programs are looked for: they live in sbin, which the PATH of a non-interactive login may lack."""
    return f"{os.environ.get('PATH', '')}:{SEARCH}".lstrip(":")


def run(
    *argv: str, text: str | None = None, timeout: float = 30, extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail: its exit code, `MISSING` when it is not there, `HUNG` when it took too long.

    A caller that takes any output for an answer must look at the exit code first, or use `must`.

    Args:
        text: standard input; without it a program that asks a question reads the end of the file at once.
        timeout: seconds; then the command and all that it started are killed. A long wait is said.
        extra: further environment variables.
    """
    environment = {**os.environ, "PATH": search_path(), "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"} | (
        extra or {}
    )
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,  # so that what it started can be killed with it
            umask=0o022,  # files that others write are theirs: apt's keys, ufw's rules, units are read by other users
        )
    except OSError as error:
        why = "is not installed" if isinstance(error, FileNotFoundError) else f"cannot be run: {error.strerror}"
        return subprocess.CompletedProcess(argv, MISSING, "", f"{argv[0]} {why}")
    try:
        with _spoken_of(argv[0], timeout):
            out, err = child.communicate(text, timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(child)
        return subprocess.CompletedProcess(argv, HUNG, "", f"{argv[0]} took longer than {timeout:.0f} s")
    except BaseException:
        _end(child)
        raise
    return subprocess.CompletedProcess(argv, child.returncode, out, err)


@contextlib.contextmanager
def _spoken_of(command: str, timeout: float) -> Iterator[None]:
    """Say every `SPEAKS` that a command is waited for; of one that has not much time, its end says enough."""
    if timeout < 6 * SPEAKS:
        yield
        return
    over, begun = threading.Event(), time.monotonic()

    def speak() -> None:
        while not over.wait(SPEAKS):
            say(f"waiting for {command}: {time.monotonic() - begun:.0f} of at most {timeout:.0f} s")

    threading.Thread(target=speak, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _end(child: subprocess.Popen[str]) -> None:
    """Kill a command and what it started, and let go of its pipes, which a daemon of its own may still hold."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()
    child.wait()


def must(
    *argv: str,
    text: str | None = None,
    timeout: float = 30,
    extra: dict[str, str] | None = None,
    codes: Collection[int] = (0,),
    shown: str = "",
) -> str:
    """Run a command that has to succeed and return its standard output.

    Args:
        codes: exit codes that are an answer; those of a query that found nothing, for instance.
        shown: the command as people know it, for the message, where it is called in another way.

    Raises:
        Fault: it is missing, took too long or failed; with its own words.
    """
    result = run(*argv, text=text, timeout=timeout, extra=extra)
    if result.returncode not in codes:
        said = "\n".join((result.stderr.strip() or result.stdout.strip()).splitlines()[-15:])
        raise Fault(f"`{shown or shlex.join(argv)}` failed: {said or f'exit code {result.returncode}'}")
    return result.stdout


# -- files: Files of the host: read whole, written whole or not at all.


def read(path: Path) -> str:
    """Return the text of a file, "" when it is not there. Raises OSError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def sysctl_path(key: str) -> Path:
    """Return the file of a kernel setting such as "net.ipv4.ip_forward"."""
    return Path("/proc/sys") / key.replace(".", "/")


def read_json(path: Path, empty: bool = False) -> dict[str, Any] | None:
    """Return the JSON object in a file, None when the file is not there.

    Args:
        empty: whether a file without content is an empty object, as some programs have it.

    Raises:
        Fault: it cannot be read, or it holds something else: that is never taken for an empty one.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = {} if empty and not text.strip() else json.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise Fault(f"{path} cannot be read: this needs root") from None
    except (OSError, ValueError) as error:
        raise Fault(f"{path} cannot be read: {error}; correct it, or move it away if it is not needed") from None
    if not isinstance(found, dict):
        raise Fault(f"{path} holds no JSON object; correct it, or move it away if it is not needed")
    return found


def replace_file(path: Path, content: str | bytes, mode: int = 0o644, owner: tuple[int, int] | None = None) -> None:
    """Replace a file so that at any moment, also after a power cut, either the old or the new one is there.

    It has its final mode and owner (user and group id) from birth. Missing parent directories are made, mode 0755.
    """
    make_directory(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".ringfence-")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            if owner:
                os.fchown(handle.fileno(), *owner)
            os.fchmod(handle.fileno(), mode)
            handle.flush()
            os.fsync(handle.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    sync_directory(path.parent)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Make a directory and its missing parents, each with the mode whatever the umask; those that exist stay."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        path.chmod(mode)


def sync_directory(path: Path) -> None:
    """Make what was renamed or removed in a directory outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- kept: What is costly to find out and always comes out the same, kept until the host restarts.


MEMORY = Path("/run/ringfence/kept")
_RINGFENCE = Path("/etc/ringfence")


def recall(kind: str, key: str) -> bytes | None:
    """Return what was kept under a key, None where nothing was or somebody but root could have changed it.

    Nothing is kept for others than root, nor on a host without ringfence.
    """
    path = MEMORY / f"{kind}-{_name(key)}"
    with contextlib.suppress(OSError):
        if _may() and _own(MEMORY.parent) and _own(MEMORY) and _own(path):
            return path.read_bytes()
    return None


def keep(kind: str, key: str, data: bytes, most: int) -> None:
    """Keep something where only root can read and write; what was kept first goes when there is more of its kind.

    Args:
        key: all that it follows from.
        most: of its kind.
    """
    if not _may():
        return
    with contextlib.suppress(OSError):
        MEMORY.mkdir(0o700, parents=True, exist_ok=True)
        if _own(MEMORY.parent) and _own(MEMORY):
            replace_file(MEMORY / f"{kind}-{_name(key)}", data, 0o600)
            there = sorted(MEMORY.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime_ns)
            for path in there[:-most]:
                path.unlink(missing_ok=True)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _may() -> bool:
    return not os.geteuid() and _RINGFENCE.is_dir()


def _own(path: Path) -> bool:
    """Whether it is this user's and nobody else can have changed it. Raises OSError where it is not there."""
    status = path.lstat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)


# -- lock: One at a time: an engine, a unit, a timer, a person.


LOCK_SECONDS = 600.0  # seconds that another one is waited for, where nothing else is said
LOCK_UNSAID, LOCK_REMINDS = 1.0, 10.0  # seconds of waiting that nobody is told of, and between two words about it


@contextlib.contextmanager
def lock(
    path: Path,
    seconds: float = LOCK_SECONDS,
    take: Callable[[Any, int], None] = fcntl.flock,
    shared: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold the lock in a file; it is let go of when the process ends, however it does.

    Args:
        seconds: that another process is waited for.
        take: `fcntl.lockf` where others take it in that way. That one knows no lock within a lock.
        shared: with all others that hold it so.
        tell: says that it waits, and for whom; `say` where it is not given.

    Raises:
        Fault: another process keeps it for longer than that.
    """
    make_directory(path.parent)
    with path.open("a+") as handle:
        begun = time.monotonic()
        speaks = begun + LOCK_UNSAID
        while True:
            try:
                take(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):  # lockf may say either
                now = time.monotonic()
                if now - begun > seconds:
                    raise Fault(f"{lock_holder(path)} is still at work (it holds {path}); try again") from None
                if now >= speaks:
                    speaks = now + LOCK_REMINDS
                    (tell or say)(
                        f"waits, for {now - begun:.0f} of at most {seconds:.0f} s: {lock_holder(path)} is at work"
                    )
                time.sleep(0.1)  # between two tries, as flock itself knows no deadline
        if not shared and take is fcntl.flock:  # a file of ringfence's own
            words = f"process {os.getpid()}, {' '.join([Path(sys.argv[0]).name, *sys.argv[1:2]])}\n"
            with contextlib.suppress(OSError):  # a full disk keeps nobody from working
                os.ftruncate(handle.fileno(), 0)
                os.write(handle.fileno(), words.encode())
        yield


def lock_holder(path: Path) -> str:
    """Say who holds a lock, as far as it is known."""
    with contextlib.suppress(OSError):
        if (said := path.read_text(encoding="utf-8", errors="replace").strip()) and "," in said:
            return f"another run ({said})"
    return "another run"


def held(path: Path) -> bool:
    """Whether any process holds a file for itself, by either kind of lock; asked without taking it, so that nobody is
    refused.

    Raises:
        OSError: the kernel does not tell.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with Path("/proc/locks").open(encoding="ascii") as lines:
        # "1: FLOCK  ADVISORY  WRITE 735 00:1a:1234 0 EOF"; one that waits has "->" in front.
        return any({wanted, "WRITE"} <= set(line.split()) and "->" not in line.split() for line in lines)


# -- packages: Debian's packages.


def package_states(names: Iterable[str]) -> dict[str, str]:
    """Return dpkg's status of those of the packages that it knows: {package: "installed", "half-configured", …}.

    Raises:
        Fault: dpkg does not answer.
    """
    # It ends with 1 when it does not know one of them.
    out = must("dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\\n", *names, codes=(0, 1))
    return dict(line.split(" ", 1) for line in out.splitlines() if " " in line)


LOCKED = 300.0  # seconds that another program is given to end its own work with packages
LOCKED_PAUSE, LOCKED_SPEAKS = 2.0, 10.0  # seconds between two attempts, and between two words about them
# How apt and dpkg word it. apt itself waits for dpkg's lock only, up to its release 3.0 at least, and tells nobody; the
# locks of its lists and of its archives it asks for once.
_AT_WORK = re.compile(r"(Could not get lock|Unable to acquire the dpkg|.*lock was locked by another process)[^\n]*")
# An answer takes a moment or does not come; apt itself would wait for minutes, many times.
_GET = (
    "apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=1", "-o", "Acquire::Retries=1",
    "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20",
)  # fmt: skip


def update_lists() -> None:
    """Fetch apt's lists of packages. Raises Fault with apt's own words."""
    _once_free(*_GET, "update", timeout=600)


def install_packages(*names: str) -> None:
    """Install packages without what they merely recommend, keeping configuration files that were changed.

    Raises:
        Fault: apt cannot; with its own words.
    """
    # What would have to go is the user's decision: apt refuses, and says what it is.
    options = ("--no-install-recommends", "--no-remove", "-o", "Dpkg::Options::=--force-confold")
    install = ("install", *options, *names)
    try:
        _once_free(*_GET, *install, timeout=1800)
        return
    except Fault as fault:
        if _AT_WORK.search(str(fault)):
            raise
        if "dpkg --configure -a" in str(fault):  # a run was killed inside dpkg
            _once_free("dpkg", "--configure", "-a", "--force-confold", timeout=600)
    update_lists()  # they may be old, or missing
    _once_free(*_GET, *install, timeout=1800)


def _once_free(*command: str, timeout: float) -> None:
    """Run a command of apt or dpkg, again while another program is at work with packages, and say so.

    Raises:
        Fault: it fails, or the other one is at work for longer than `LOCKED`.
    """
    begun, spoke = time.monotonic(), float("-inf")
    while True:
        try:
            must(*command, timeout=timeout)
            return
        except Fault as fault:
            held, waited = _AT_WORK.search(str(fault)), time.monotonic() - begun
            if not held or waited >= LOCKED:
                raise
            if time.monotonic() - spoke >= LOCKED_SPEAKS:
                spoke = time.monotonic()
                say(f"waits, for {waited:.0f} of at most {LOCKED:.0f} s, to install packages: {held[0]}")
        time.sleep(LOCKED_PAUSE)  # whether the lock is free is told by trying: apt cannot be made to wait for all three


# -- units: systemd's units.


FRESH = 1.0  # seconds


def booted() -> bool:
    """Whether systemd runs this host."""
    return Path("/run/systemd/system").is_dir()


def enable_units(*names: str) -> None:
    """Enable units, and have systemd read all units once: `enable` alone would have them read after every call.

    Raises:
        Fault: systemd does not take one of them.
    """
    if names:
        must("systemctl", "enable", "--quiet", "--no-reload", *names, timeout=90)
    must("systemctl", "daemon-reload", timeout=90)


def unit_states(names: Sequence[str], properties: Sequence[str], *, now: bool = False) -> dict[str, dict[str, str]]:
    """Return the properties of units, asked for in one command: {unit: {property: value}}.

    A unit that does not exist has ``LoadState`` "not-found". ``names`` must be the units' own names, not aliases.

    Args:
        now: ask also for what the one who asks all programs at once has found out for them up to `FRESH` ago.

    Raises:
        Fault: systemd does not answer.
    """
    if not names:
        return {}
    known: tuple[dict[str, dict[str, str]], float] = (globals().get("REQUEST") or {}).get("units") or ({}, 0.0)
    told, asked = known
    if now or time.monotonic() - asked > FRESH:  # somebody has waited for something meanwhile
        told = {}
    if all(name in told and (not told[name] or told[name].keys() >= set(properties)) for name in names):
        return {name: dict(told[name]) for name in names}
    out = must("systemctl", "show", "--property", ",".join(["Id", *properties]), "--", *names)
    states: dict[str, dict[str, str]] = {name: {} for name in names}
    for block in out.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id"):
            states[values["Id"]] = values
    return states


# -- advice: What to do about a failure whose own words do not say it.


# How programs word it, and the fix. The first that fits counts.
_FIXES = (
    (
        r"No space left on device|enough free space|Disk quota exceeded",
        "a disk is full: `df -h` and `df -i` say which; make room (apt-get clean, docker system df), then run again",
    ),
    (r"Read-only file system", "a file system is read-only: `dmesg` says why; mend it, then run again"),
    (
        r"Could not get lock|Unable to acquire the dpkg|lock was locked by another process",
        "another program is installing packages: wait until it has ended, then run again",
    ),
    (
        r"is not valid yet|is not yet valid|Release file .* is expired|certificate has expired",
        "this host's clock says {now}: if that is wrong, set it (timedatectl set-ntp true), then run again",
    ),
    (
        r"Temporary failure resolving|Could not resolve|Could not connect|Failed to fetch|Unable to connect"
        r"|Unable to locate package|Connection timed out \[IP",
        "this host does not get what it asks of its package mirror: check its resolv.conf, its way out and "
        "/etc/apt/sources.list*, then run again",
    ),
)


def with_advice(words: str) -> str:
    """Return a message with what to do about it on a line of its own, where that is known and not said."""
    for pattern, fix in _FIXES:
        if re.search(pattern, words):
            return f"{words}\n{fix.format(now=time.strftime('%Y-%m-%d %H:%M %Z'))}"
    return words


# -- forked: A program of ringfence, run in a process that is forked and not started: the interpreter is there already.


class Forked:
    """A program in a process of its own, which reads nothing and writes to memory: it waits for nobody.

    Args:
        request: ``{name, program: its text, arguments: [verb], desired, …}``, as `ringfence.host.program` takes it.

    Attributes:
        out, err: what it writes (`text_of`).
        code: exit code, None as long as it runs.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.out, self.err = memory(), memory()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        self.code: int | None = None
        if self.pid == 0:
            _become(request, self.out, self.err)
        # Here too: whoever comes first, it is a group that can be killed with all that it starts.
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)

    def ended(self, deadline: float) -> bool:
        """Wait for it to end; False where it did not before the deadline, in seconds of `time.monotonic`."""
        if self.code is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            finally:
                os.close(descriptor)
            if not readable:
                return False
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return True

    def kill(self) -> None:
        """Kill it with all that it started, unless it has ended."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def load() -> None:
    """Import modules that several programs use, before they are forked."""
    for name in (
        "dataclasses", "difflib", "http.client", "ipaddress", "secrets", "shutil", "socket", "urllib.parse",
    ):  # fmt: skip
        importlib.import_module(name)


def code_of(name: str, text: str) -> CodeType:
    """Compile a program, or take what was made of the same text before: compiling takes longer than most checks."""
    key = f"{sys.version}{text}"
    known = recall(name, key)
    if known is not None:
        with contextlib.suppress(ValueError, EOFError, TypeError):
            code = marshal.loads(known)  # noqa: S302 - from root's own files alone: recall
            if isinstance(code, CodeType):
                return code
    code = compile(text, "ringfence", "exec")
    keep(name, key, marshal.dumps(code), most=1)
    return code


def memory(content: bytes = b"") -> BinaryIO:
    """A file that is on no disk, with its position at the start."""
    file = os.fdopen(os.memfd_create("ringfence"), "w+b")
    file.write(content)
    file.seek(0)
    return file


def text_of(file: BinaryIO) -> str:
    """All that such a file holds."""
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _become(request: dict[str, Any], out: BinaryIO, err: BinaryIO) -> NoReturn:
    """Turn this forked process into a program that reads nothing and writes to memory."""
    code: object = 70
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        # They stay open as long as this process lives, which is the program's own.
        sys.argv, sys.stdin = ["-c"], os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        # A role's program, which the engine sent, or which root installed: running it is what is asked for.
        exec(code_of(request["name"], request["program"]), {"__name__": "__main__", "REQUEST": request})  # noqa: S102
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


# <<< ringfence.host

LOADER = (
    "import gc,json,sys; gc.set_threshold(100000); r=json.load(sys.stdin); "  # it soon ends, with all its garbage
    'exec(compile(r["program"], "ringfence", "exec"), {"__name__": "__main__", "REQUEST": r})'
)
CHECK_SECONDS = 60
REMOVE_SECONDS = 900
GUARD = "/usr/local/sbin/ringfence-guard"
UNITS = Path("/etc/systemd/system")
CONFIGURATION, RUNTIME = Path("/etc/ringfence"), Path("/run")
# What the programs ask systemd for, all at once: a command of its own for each is a tenth of what a survey costs.
_ASKED = (
    "docker.service", "ssh.service", "sshd.service", "ssh.socket", "ufw.service", "nftables.service",
    "systemd-timesyncd.service", "apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service",
    "ringfence-guard-boot.service", "ringfence-policy.service", "ringfence-policy-docker.service",
    "ringfence-ulogd.service", "ringfence-pki.timer", "ringfence-pki.service", "ringfence-watch.timer",
    "ringfence-watch.service", "ringfence-wireguard.timer", "ringfence-wireguard.service",
)  # fmt: skip
_PROPERTIES = (
    "LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload", "MainPID", "ActiveEnterTimestampMonotonic",
)  # fmt: skip
SHOWN_BYTES = 1 << 20  # larger files are replaced without being shown

# What systemd said of its units, {unit: {property: value}}, and when (`time.monotonic`).
Units = tuple[dict[str, dict[str, str]], float]
# One role's wishes: {packages: [name], files: [{path, sha256, mode, user, group}], program: text, desired: {…}}.
Wish = dict[str, Any]


def missing_packages(wanted: list[str], states: Mapping[str, str] | None = None) -> list[str]:
    """Name the packages that dpkg does not report as installed. Raises Fault where dpkg does not answer.

    Args:
        states: what dpkg reports, where it has been asked already.
    """
    states = (package_states(wanted) if wanted else {}) if states is None else states
    return [name for name in wanted if states.get(name) != "installed"]


def file_difference(want: dict[str, str]) -> str | None:
    """Say how a file differs from what is wanted: ``missing``, ``content``, ``mode``, ``owner`` or None."""
    try:
        status = os.lstat(want["path"])
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        with open(want["path"], "rb") as handle:  # noqa: PTH123 - one call less per file than pathlib
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing"
    if digest != want["sha256"]:
        return "content"
    if stat.S_IMODE(status.st_mode) != int(want["mode"], 8):
        return "mode"
    try:
        owner = (pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name)
    except KeyError:
        return "owner"
    return None if owner == (want["user"], want["group"]) else "owner"


def shown(path: str) -> str:
    """Return the text of a file for a diff; "" for one that is not there, or that not everybody may read."""
    try:
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH and status.st_size <= SHOWN_BYTES:
            return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        pass
    return ""


class Check(Forked):
    """A role's program, asked what it would do."""

    def __init__(
        self,
        role: str,
        want: Wish,
        verb: Sequence[str] = ("check",),
        units: tuple[Mapping[str, Any], float] | None = None,
    ) -> None:
        self.role = role
        super().__init__({
            "program": want["program"], "arguments": list(verb), "desired": want["desired"],
            "name": f"ringfence-{role}", "units": units,
        })  # fmt: skip

    def answer(self, deadline: float) -> dict[str, list[str]]:
        """Wait for what it says: ``changes``, ``refusals`` and ``notices``; no answer is a refusal."""
        if not self.ended(deadline):
            self.kill()
            return _refused(f"the check of role {self.role} did not answer within {CHECK_SECONDS} s")
        if self.code:
            said = text_of(self.err).strip()[-2000:] or f"exit code {self.code}"
            return _refused(f"the check of role {self.role} failed on this host: {said}")
        try:
            found = json.loads(text_of(self.out))
            return {key: [str(line) for line in found[key]] for key in ("changes", "refusals", "notices")}
        except (ValueError, KeyError, TypeError) as error:
            return _refused(f"the check of role {self.role} gave no answer that can be read: {error!r}")


def _refused(message: str) -> dict[str, list[str]]:
    return {"changes": [], "refusals": [message], "notices": []}


def survey(wishes: dict[str, Wish], *, diff: bool = False, called: dict[str, str] | None = None) -> dict[str, Any]:
    """Compare what roles want with this host; all their programs are asked at once.

    Args:
        wishes: role → what it wants.
        diff: whether to answer with the present text of files that everybody may read.
        called: role variable → what the user calls it, for the messages.

    Returns:
        ``{role: {packages: [name], files: {path: difference}, changes: [...], refusals: [...], notices: [...]}}``,
        with ``diff`` also ``before: {path: text}``.
    """
    units = None
    if booted():
        with contextlib.suppress(Fault):  # each program asks for itself, and says so
            units = unit_states(_ASKED, _PROPERTIES), time.monotonic()
    if len(wishes) > 1:
        load()
    # Each program spends most of its time waiting for iptables or Docker to answer.
    checks = {role: Check(role, want, units=units) for role, want in wishes.items()}
    deadline = time.monotonic() + CHECK_SECONDS
    results: dict[str, Any] = {}
    try:
        wanted = sorted({name for want in wishes.values() for name in want["packages"]})
        packages = package_states(wanted) if wanted else {}
        for role, want in wishes.items():
            differences = {file["path"]: file_difference(file) for file in want["files"]}
            found: dict[str, Any] = {
                "packages": missing_packages(want["packages"], packages),
                "files": {path: difference for path, difference in differences.items() if difference},
            }
            if diff:
                found["before"] = {path: shown(path) for path in found["files"]}
            results[role] = found
        answers = {role: {**found, **checks[role].answer(deadline)} for role, found in results.items()}
        if why := not_root() if any(answer["refusals"] for answer in answers.values()) else "":
            # What the programs say of a host that they may not read is of no use, nor is what they would change.
            nothing: dict[str, Any] = {"packages": [], "files": {}, "changes": [], "notices": []}
            return {role: {**nothing, "refusals": [why][number:]} for number, role in enumerate(answers)}
        return {role: renamed(answer, called or {}) for role, answer in answers.items()}
    finally:
        for check in checks.values():
            check.kill()


def renamed(answer: dict[str, Any], called: dict[str, str]) -> dict[str, Any]:
    """Return an answer whose messages name what the user has written, and not the variables that follow from it."""
    if not called:
        return answer
    words = "|".join(re.escape(name) for name in sorted(called, key=len, reverse=True))
    form = re.compile(rf"(?<![\w./-])({words})(?![\w-])")

    def said(line: str) -> str:
        return form.sub(lambda found: called[found[0]], line)

    return answer | {key: [said(line) for line in answer[key]] for key in ("changes", "refusals", "notices")}


def not_root() -> str:
    """Return the likely reason why something fails here, and the fix; "" for root."""
    if not os.geteuid():
        return ""
    try:
        who = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        who = f"user {os.geteuid()}"
    return f"this run is {who} on the host, not root: set `ansible_become: true` for it, which both engines understand"


def install(names: list[str]) -> None:
    """Install Debian packages, also after an interrupted installation.

    Raises:
        Fault: they cannot be installed; with apt's own words.
    """
    lists = Path("/var/lib/apt/lists").glob("*_Packages*")
    if not any(path.stat().st_mtime > time.time() - 86400 for path in lists):
        update_lists()
    install_packages(*names)


def place(files: list[dict[str, str]]) -> None:
    """Put files in place, ``[{path, content, mode, user, group}]``, each whole and with its mode from birth."""
    for want in files:
        owner = (pwd.getpwnam(want["user"]).pw_uid, grp.getgrnam(want["group"]).gr_gid)
        replace_file(Path(want["path"]), want["content"], int(want["mode"], 8), owner)


def apply(
    role: str, program: str, desired: dict[str, Any], window: dict[str, Any] | None, hears: bool = False
) -> dict[str, Any] | None:
    """Have a role's program bring about the desired state; it says on standard error what it does.

    Args:
        role: name of the role, for the guard's journal.
        program: path of the role's program.
        desired: what it reads on standard input.
        window: the guard's, ``{"name": this run's name for it, "seconds": until it has to be confirmed, counted from
            the end of applying, "limit": seconds that applying may take}``; None for a change that cannot cut anybody
            off.
        hears: whether the controller answers what the program asks.

    Returns:
        ``{"asks": what the program asks of the controller}``: the answer comes with a second call, below ``answer`` in
        the desired state. None where it asks nothing.

    Raises:
        Fault: it failed, and what it did inside the guard's window is taken back.
    """
    if window is not None:
        _arm(role, window)
    try:
        asks = _apply(role, program, desired)
        if asks and not hears:
            raise Fault(f"role {role}: its program asks the controller something, and the role has no answer.py")
        if window is not None:
            must(GUARD, "applied", "--window", window["name"], timeout=120)
        return {"asks": asks} if asks else None
    except BaseException:
        if window is not None:
            _restore(window)
        raise


def _arm(reason: str, window: dict[str, Any]) -> None:
    """Open the guard's window, or extend it; where another run is in the middle of a change, once that is settled."""
    if not os.access(GUARD, os.X_OK):
        raise Fault(f"role {reason}: ringfence-guard is not on this host: apply the role guard first")
    given = {"seconds": window["seconds"], "limit": window["limit"], "window": window["name"], "holder": os.getpid()}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    # Not captured: it says that it waits.
    if subprocess.run([GUARD, "arm", "--reason", reason, *words], stdout=subprocess.DEVNULL, check=False).returncode:
        raise Fault(
            f"role {reason}: the guard could not be armed, so nothing was changed (does it need its role first?)"
        )


def _restore(window: dict[str, Any]) -> None:
    """Take back what was done in the guard's window."""
    sys.stderr.write(run(GUARD, "restore", "--window", window["name"], timeout=120).stderr)


def _apply(role: str, program: str, desired: dict[str, Any]) -> Any:
    # Memory, no pipe: what the program leaves running would hold that open.
    with memory(json.dumps(desired).encode()) as given, memory() as said:
        try:
            done = subprocess.run([program, "apply"], stdin=given, stdout=said, check=False)
        except OSError as error:
            raise Fault(f"role {role}: {program} cannot be run: {error.strerror} (apply its role first)") from None
        if done.returncode:
            raise Fault(f"role {role}: {Path(program).name} apply failed (exit code {done.returncode})")
        try:
            answer = json.loads(text_of(said))
        except ValueError:
            return None
    return answer.get("asks") if isinstance(answer, dict) else None


def bring(role: str, want: Wish, program: str, window: dict[str, Any] | None) -> dict[str, Any]:
    """Install, place and apply what differs, in one go: for engines whose every command is a round trip.

    Args:
        want: the role's wishes, its files with their ``content``.

    Returns:
        ``{"applied": whether the program changed anything}``, with what it asks of the controller as `apply` has it.

    Raises:
        Fault: a step failed, or the host refuses what is wanted now that packages and files are there.
    """
    packages = missing_packages(want["packages"])
    if packages:
        install(packages)
    place([file for file in want["files"] if file_difference(file)])
    # Asked again: what was installed may have brought its own state, and what is there now counts.
    found = Check(role, want).answer(time.monotonic() + CHECK_SECONDS)
    if found["refusals"]:
        raise Fault("\n".join(found["refusals"]))
    asked = apply(role, program, want["desired"], window, hears=True) if found["changes"] else None
    return {"applied": bool(found["changes"]), **(asked or {})}


# A role that leaves: {role, program: text, "" where another role's is its own, guarded: bool, files: [path]}.
Leaving = dict[str, Any]
LISTED = ("remove", "--dry")
LAST = "guard"  # it watches over the others' leaving


def share(role: str, want: Wish, make: bool = False) -> dict[str, Any]:
    """Ask a role's program what other hosts are to know of this one, such as a public key.

    Args:
        make: whether it makes what it does not have yet; else it says what it would make.

    Returns:
        ``{"shared": what they are to know, "changes": [what was, or would be, made]}``
    """
    missing = missing_packages(want["packages"])
    if make and missing:
        install(missing)
    check = Check(role, want, ("make",) if make else ("share",))
    try:
        if not check.ended(time.monotonic() + CHECK_SECONDS):
            raise Fault(f"role {role}: its program did not say within {CHECK_SECONDS} s what it shares")
        if check.code:
            raise Fault(f"role {role}: {text_of(check.err).strip()[-2000:] or f'exit code {check.code}'}")
        found = json.loads(text_of(check.out))
        changes = [*(f"+ package {name}" for name in missing), *found["changes"]]
        return {"shared": found["shared"], "changes": changes}
    except (ValueError, KeyError, TypeError) as error:
        raise Fault(f"role {role}: what its program shares cannot be read: {error!r}") from None
    finally:
        check.kill()


def removal(roles: list[Leaving]) -> dict[str, Any]:
    """Say what would go if roles left this host, in this order; nothing is changed.

    Returns:
        ``{role: {changes: [what its program takes away], files: [path], refusals: [...], notices: [...]}}``
    """
    checks = {each["role"]: Check(each["role"], {**each, "desired": {}}, LISTED) for each in roles if each["program"]}
    deadline = time.monotonic() + CHECK_SECONDS
    try:
        answers = {role: check.answer(deadline) for role, check in checks.items()}
    finally:
        for check in checks.values():
            check.kill()
    nothing: dict[str, list[str]] = {"changes": [], "refusals": [], "notices": []}
    return {
        each["role"]: {
            **answers.get(each["role"], nothing),
            "files": [path for path in each["files"] if os.path.lexists(path)],
        }
        for each in roles
    }


def remove(roles: list[Leaving], window: dict[str, Any] | None) -> None:
    """Have the programs of all roles but `guard` take away what they made; their files stay, so that the guard can
    take that back.

    Args:
        window: the guard's, as in `apply`, which opens before the first role that can cut the controller off; None
            where no such role has anything to take away.

    Raises:
        Fault: a program failed, and what was done inside the guard's window is taken back.
    """
    armed = False
    try:
        for each in roles:
            if each["role"] == LAST:
                continue
            if each["guarded"] and window is not None:
                _arm(f"{each['role']} removed", window)
                armed = True
            if each["program"]:
                _take_away(each, window["limit"] if armed and window else REMOVE_SECONDS)
        if armed and window:
            must(GUARD, "applied", "--window", window["name"], timeout=120)
    except BaseException:
        if armed and window:
            _restore(window)
        raise


def _take_away(each: Leaving, seconds: int) -> None:
    """Run a program's ``remove``: the text that was sent, so that one of an older release is replaced by today's."""
    name = f"ringfence-{each['role']}"
    request = {"program": each["program"], "arguments": ["remove"], "desired": {}, "name": name}
    with memory(json.dumps(request).encode()) as given:
        try:
            done = subprocess.run(
                # The words are for whoever looks at the process.
                [sys.executable, "-I", "-c", LOADER, name, "remove"],
                stdin=given, stdout=subprocess.DEVNULL, check=False, timeout=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Fault(f"role {each['role']}: {name} remove took longer than {seconds} s") from None
    if done.returncode:
        raise Fault(f"role {each['role']}: {name} remove failed (exit code {done.returncode})")


def clear(roles: list[Leaving]) -> None:
    """Take away what is left of roles once nothing is to be taken back any more: units, files, the guard itself.

    Raises:
        Fault: a step failed; the next removal goes on from there.
    """
    for each in roles:
        if each["role"] == LAST:
            _take_away(each, REMOVE_SECONDS)
    paths = [Path(path) for each in roles for path in each["files"] if os.path.lexists(path)]
    units = [path.name for path in paths if path.parent == UNITS]
    if units:
        must("systemctl", "disable", "--now", "--quiet", *units, timeout=90)
    for path in paths:
        sys.stderr.write(f"- file {path}\n")
        path.unlink()
    if units:
        must("systemctl", "daemon-reload", timeout=90)
    for directory in [*sorted(CONFIGURATION.rglob("*"), reverse=True), CONFIGURATION]:
        with contextlib.suppress(OSError):
            directory.rmdir()  # those that are empty
    shutil.rmtree(RUNTIME / "ringfence", ignore_errors=True)
    for path in RUNTIME.glob("ringfence-*.lock"):
        path.unlink(missing_ok=True)


VERBS: dict[str, Callable[..., Any]] = {
    "survey": survey, "install": install, "place": place, "apply": apply, "bring": bring, "share": share,
    "removal": removal, "remove": remove, "clear": clear,
}  # fmt: skip


ASKED = ("survey", "share", "removal")  # verbs whose answer is waited for by whoever asks, who can ask again
TURN = Path("/run/ringfence/run.lock")
TURN_SECONDS = 3600.0  # that a step of another run is waited for: images may be pulled in it
BUSY_SECONDS = 2.0  # after which whoever asks is told that another run is at work


@contextlib.contextmanager
def in_turn(verb: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Let the steps of two runs on this host come one after the other; a comparison sees no step that is half done.

    A run that is cut off ends its step first, and the next one waits for that.

    Raises:
        Fault: another run is at work for too long.
    """
    looks = verb in ASKED and not given.get("make")
    # Whoever is not root changes nothing, and is told so by what fails; who only looks leaves nothing behind.
    if os.geteuid() or (looks and not TURN.exists()):
        yield
        return
    with lock(TURN, BUSY_SECONDS if verb in ASKED else TURN_SECONDS, shared=looks):
        yield


def main(request: dict[str, Any]) -> int:
    """Do what is asked for; returns the exit code, after a message where it is not 0.

    What is merely asked is answered by ``{"busy": why}`` while another run is at work.
    """
    os.umask(0o022)
    verb, given = request["arguments"][0], request["desired"]
    sys.argv = ["ringfence", f"{verb} {given.get('role', '')}".strip()]  # how it is called in messages
    try:
        with contextlib.ExitStack() as turn:
            try:
                turn.enter_context(in_turn(verb, given))
            except Fault:
                if verb not in ASKED:
                    raise
                answer: Any = {"busy": f"{lock_holder(TURN)} is at work"}
            else:
                answer = VERBS[verb](**given)
    except (Fault, OSError) as error:
        sys.stderr.write("\n".join(filter(None, [with_advice(str(error)), not_root()])) + "\n")
        return 1
    if answer is not None:
        json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(globals()["REQUEST"]))
