"""Hosts in network namespaces of their own, on which the program runs with the real `wg`, `wg-quick` and `ip`.

What each host keeps is in a directory of its own; systemd is a script that starts and stops what the program asks for,
and every command of the program is noted before it runs. Where the kernel does not know WireGuard, wireguard-go is
used; its sockets are those of all namespaces, so every interface of a test has a name of its own.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import path_of

TOOLS = ("ip", "wg", "wg-quick", "conntrack", "nft")
WRAPPED = ("ip", "wg", "conntrack", "getent", "systemctl")
IP = shutil.which("ip") or "ip"  # not the wrapped one, which belongs to the program
_count = itertools.count()

# Each command is noted; the program is killed where a test wants it, before or after a command.
WRAPPER = """#!/bin/sh
[ -z "$INSIDE" ] || exec {real} "$@"
echo "{name} $*" >> {state}/commands
[ ! -e {state}/snapshot ] || cat /proc/[0-9]*/cmdline >> {state}/cmdlines 2>/dev/null
n=$(wc -l < {state}/commands)
[ "$n" != "$KILL_BEFORE" ] || {{ kill -9 $PPID; exit 1; }}
if [ "$n" = "$KILL_AFTER" ]; then {real} "$@"; kill -9 $PPID; exit 1; fi
exec {real} "$@"
"""
SYSTEMCTL = """#!/bin/sh
export INSIDE=1
units={state}/units
verb=$1; shift
case "$verb" in
show) shift 2; [ "$1" != -- ] || shift
    for unit; do printf 'Id=%s\\nUnitFileState=%s\\nActiveState=%s\\nNeedDaemonReload=no\\n\\n' "$unit" \
        "$(cat $units/$unit.enabled 2>/dev/null)" "$(cat $units/$unit.active 2>/dev/null)"; done ;;
enable|disable|restart|stop)
    for unit; do case "$unit" in --now) verb=now ;; --*) ;; *)
        case "$verb:$unit" in
        restart:wg-quick@*) i=${{unit#wg-quick@}}; wg-quick up {etc}/${{i%.service}}.conf || exit 1 ;;
        stop:wg-quick@*) i=${{unit#wg-quick@}}; wg-quick down {etc}/${{i%.service}}.conf || exit 1 ;;
        esac
        case "$verb" in
        enable) echo enabled > $units/$unit.enabled ;;
        disable) rm -f $units/$unit.enabled ;;
        now) rm -f $units/$unit.enabled $units/$unit.active ;;
        restart) echo active > $units/$unit.active ;;
        stop) rm -f $units/$unit.active ;;
        esac
    ;; esac; done ;;
esac
"""


def secret() -> str:
    """A preshared key."""
    return base64.b64encode(os.urandom(32)).decode()


class Node:
    """A host: a network namespace with an interface `eth0`, and the program."""

    def __init__(self, directory: Path, name: str, number: int) -> None:
        self.directory, self.name = directory, name
        unique = f"{os.getpid() % 10**5}x{next(_count)}"
        self.namespace, self.interface = f"rfwg{unique}", f"w{unique}"
        self.outside = f"v{unique}"
        self.address = f"192.0.2.{number}"
        self.etc, self.state = directory / "etc" / "wireguard", directory / "state"
        for path in (self.etc, self.state / "units", directory / "bin", directory / "booted"):
            path.mkdir(parents=True)
        text = path_of("wireguard").read_text(encoding="utf-8")
        for there, here in {
            "/etc/wireguard": self.etc, "/etc/ringfence": directory / "etc" / "ringfence",
            "/run/ringfence": directory / "run", "/run/systemd/system": directory / "booted",
        }.items():  # fmt: skip
            assert f'Path("{there}' in text
            text = text.replace(f'Path("{there}', f'Path("{here}')
        self.program = directory / "ringfence-wireguard"
        self.program.write_text(text, encoding="utf-8")
        (directory / "systemctl").write_text(SYSTEMCTL.format(state=self.state, etc=self.etc))
        for tool in WRAPPED:
            real = str(directory / "systemctl") if tool == "systemctl" else shutil.which(tool)
            (directory / "bin" / tool).write_text(WRAPPER.format(real=real, name=tool, state=self.state))
        for path in (directory / "systemctl", *(directory / "bin").iterdir()):
            path.chmod(0o755)
        self.desired: dict[str, Any] = {
            "userspace": "auto", "interface": self.interface, "host": name, "addresses": [f"10.99.{number}.1/24"],
            "port": 51820, "mtu": 1420, "key": 1, "peers": [], "secrets": {}, "keys": {},
        }  # fmt: skip
        self.outputs: list[str] = []
        self.history: list[str] = []

    def inside(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [IP, "netns", "exec", self.namespace, *words], capture_output=True, text=True, check=False, **more
        )

    def must(self, *words: str) -> str:
        done = self.inside(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [IP, "netns", "exec", self.namespace, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, verb: str, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run the program; every byte that it says is kept."""
        (self.state / "commands").unlink(missing_ok=True)
        done = self.inside(
            sys.executable, str(self.program), verb, *words, input=json.dumps(self.desired),
            env={**os.environ, "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}", **extra},
        )  # fmt: skip
        self.outputs += [done.stdout, done.stderr]
        self.history += self.commands()
        return done

    def asked(self, verb: str) -> dict[str, Any]:
        done = self.run(verb)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def check(self) -> dict[str, list[str]]:
        return self.asked("check")

    def apply(self) -> list[str]:
        return list(self.asked("apply")["changes"])

    def settled(self) -> None:
        assert self.check() == {"changes": [], "refusals": [], "notices": []}

    def key(self) -> str:
        return str(self.asked("make")["shared"])

    def commands(self) -> list[str]:
        """What the last run of the program has run."""
        path = self.state / "commands"
        return path.read_text().splitlines() if path.exists() else []

    def wg(self, what: str) -> str:
        return self.must("wg", "show", self.interface, what).strip()

    def private(self) -> str:
        return (self.etc / "ringfence" / f"{self.interface}.key").read_text().strip()

    def conf(self) -> str:
        return (self.etc / f"{self.interface}.conf").read_text()

    def routes(self) -> list[str]:
        out = [self.must("ip", family, "route", "show", "dev", self.interface) for family in ("-4", "-6")]
        return sorted(line.split()[0] for text in out for line in text.splitlines() if "proto kernel" not in line)


def peer(name: str, *allowed: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "public_key": "", "key": 1, "allowed": list(allowed), "endpoint": "", "keepalive": 0, **more}


class Lab:
    """Nodes on one wire: 192.0.2.0/24."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.nodes = directory, list[Node]()
        self.wire = f"rfwgw{os.getpid() % 10**5}x{next(_count)}"
        sh("ip", "netns", "add", self.wire)
        sh("ip", "-n", self.wire, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", self.wire, "link", "set", "br0", "up")

    def node(self, name: str) -> Node:
        node = Node(self.directory / name, name, len(self.nodes) + 1)
        self.nodes.append(node)
        sh("ip", "netns", "add", node.namespace)
        sh("ip", "-n", node.namespace, "link", "set", "lo", "up")
        sh("ip", "-n", self.wire, "link", "add", node.outside, "type", "veth", "peer", "eth0", "netns", node.namespace)
        sh("ip", "-n", self.wire, "link", "set", node.outside, "master", "br0", "up")
        sh("ip", "-n", node.namespace, "address", "add", f"{node.address}/24", "dev", "eth0")
        sh("ip", "-n", node.namespace, "link", "set", "eth0", "up")
        return node

    def close(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(OSError):
                for one in json.loads(node.inside("ip", "-j", "link", "show").stdout or "[]"):
                    if one["ifname"].startswith("w"):
                        node.inside("ip", "link", "delete", one["ifname"])
            for pid in sh("ip", "netns", "pids", node.namespace).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)
            sh("ip", "netns", "delete", node.namespace)
        sh("ip", "netns", "delete", self.wire)


def sh(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    missing = [name for name in TOOLS if not shutil.which(name)]
    if os.geteuid() or missing:
        pytest.skip(
            f"needs root and {', '.join(missing or TOOLS)} (apt-get install wireguard-tools wireguard-go conntrack)"
        )
    made = Lab(tmp_path)
    yield made
    made.close()


# An echo by UDP, and who asks it: prints how many of how many came back.
ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7)); print("ready", flush=True)
while True:
    data, where = s.recvfrom(2000); s.sendto(data, where)
"""
ASK = """
import select, socket, sys, time
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.setblocking(False)
s.connect((sys.argv[1], 7)); pause = float(sys.argv[2]); sent, back, over = 0, set(), False
print("asking", flush=True)
def hear(until):
    while (left := until - time.monotonic()) > 0:
        if sys.stdin in (ready := select.select([s, sys.stdin], [], [], left)[0]): return True
        if ready:
            try: back.add(s.recv(2000))
            except OSError: pass
    return False
due = time.monotonic()
while not over:
    try: s.send(b"%d" % sent)
    except OSError: pass
    sent += 1; due += pause
    over = hear(due)
end = time.monotonic() + 3
while time.monotonic() < end and len(back) < sent:
    if select.select([s], [], [], 0.2)[0]:
        try: back.add(s.recv(2000))
        except OSError: pass
print(len(back), sent)
"""


def echo(node: Node, address: str) -> subprocess.Popen[str]:
    process = node.start(sys.executable, "-c", ECHO, address)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@contextlib.contextmanager
def asking(node: Node, address: str, pause: float = 0.1) -> Iterator[list[tuple[int, int]]]:
    """Ask an echo all the time; afterwards the list holds how many of how many were answered."""
    counted: list[tuple[int, int]] = []
    process = subprocess.Popen(
        [IP, "netns", "exec", node.namespace, sys.executable, "-c", ASK, address, str(pause)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "asking\n"
    try:
        yield counted
    finally:
        out = process.communicate("stop\n", timeout=30)[0].split()
        counted.append((int(out[0]), int(out[1])))


def track_connections(node: Node) -> None:
    """Let the kernel track connections here: it does where a rule asks for it."""
    rules = ("add table inet t", "add chain inet t in { type filter hook input priority 0; }")
    node.must("nft", "; ".join([*rules, "add rule inet t in ct state new accept"]))


def reaches(node: Node, address: str, seconds: float = 8) -> bool:
    """Whether an echo answers within a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with asking(node, address, 0.2) as counted:
            time.sleep(0.7)  # how long it asks before it is looked at whether anything came back
        if counted[0][0]:
            return True
    return False


@pytest.fixture
def hub(lab: Lab) -> Iterator[Callable[..., tuple[Node, dict[str, Node]]]]:
    """Make a host with peers that call it, each a host with an echo at its address of the VPN."""
    echoes: list[subprocess.Popen[str]] = []

    def make(*names: str) -> tuple[Node, dict[str, Node]]:
        center = lab.node("hub")
        center.desired["addresses"] = ["10.99.0.1/24", "fd52::1/64"]
        spokes = {name: lab.node(name) for name in names}
        for number, (name, spoke) in enumerate(spokes.items(), start=2):
            spoke.desired["addresses"] = [f"10.99.0.{number}/24", f"fd52::{number}/64"]
            center.desired["keys"][name] = spoke.key()
            center.desired["secrets"][name] = spoke.desired["secrets"]["hub"] = secret()
            spoke.desired["keys"]["hub"] = center.key()
            called = peer("hub", "10.99.0.0/24", "fd52::/64", endpoint=f"{center.address}:51820", keepalive=1)
            spoke.desired["peers"] = [called]
            center.desired["peers"].append(peer(name, f"10.99.0.{number}/32", f"fd52::{number}/128"))
            spoke.apply()
            echoes.append(echo(spoke, f"10.99.0.{number}"))
        return center, spokes

    yield make
    for process in echoes:
        process.kill()
        process.communicate()
