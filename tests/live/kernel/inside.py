"""Process 1 of the machine that `machine.py` boots: makes the scene, sends the frames, says who got them.

The host is this machine, with its bridges; each container is a network namespace. Modules are not loaded ahead: the
kernel asks for them as it would on any host.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import platform
import re
import socket
import subprocess
import termios
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence.host.nft import nft_table, replace_nft_tables
from ringfence.host.policy.compare import rule_changes
from ringfence.host.policy.nft import TABLES
from ringfence.host.policy.surroundings import as_listed, ensure_bridge_filter, live_nft, tells_bridges
from ringfence.host.running import Fault, must, run
from tests.live.kernel.scene import BRIDGES, CALLERS_PORT, HOST, MEMBERS, PORT, ROUNDS, A, B, Member, Round

RULES, RULESETS, ANSWER = Path("/rules.nft"), Path("/rulesets"), Path("/dev/ttyS1")
CGROUPS = "/sys/fs/cgroup"
NEW_NET = 0x40000000  # CLONE_NEWNET
EVERY_KIND = 0x0003  # ETH_P_ALL
PATIENCE = 30  # seconds: an emulated machine on a busy one


def main() -> None:
    try:
        answer = _measured()
    except BaseException:
        answer = {"error": traceback.format_exc()}
    with ANSWER.open("w", encoding="ascii") as out:
        json.dump(answer, out)
        out.flush()
        termios.tcdrain(out)
    Path("/proc/sysrq-trigger").write_text("b", encoding="ascii")


def _measured() -> dict[str, Any]:
    _mount()
    answer: dict[str, Any] = {"kernel": platform.release(), "tells": tells_bridges()}
    _stage()
    ensure_bridge_filter()
    ports = {member.name: Port(member) for member in (*MEMBERS, *BRIDGES)}
    _listen()
    answer["open"] = {name: _arrivals(of, ports) for name, of in ROUNDS.items()}
    text = RULES.read_text(encoding="utf-8")
    must("nft", "-f", "-", text=text)
    answer["connections"] = _connections()
    answer["closed"] = {name: _arrivals(of, ports) for name, of in ROUNDS.items()}
    answer["status"] = rule_changes(as_listed(text), live_nft())
    replace_nft_tables({table: nft_table(table) for table in TABLES})  # as what is taken back is
    answer["restored"] = rule_changes(as_listed(text), live_nft())
    answer["rulesets"] = {path.name: _taken(path.read_text(encoding="utf-8")) for path in sorted(RULESETS.iterdir())}
    return answer


def _mount() -> None:
    for kind, place in (
        ("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("cgroup2", CGROUPS),
    ):  # fmt: skip
        Path(place).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", kind, kind, place], check=True)
    # The slices that the rulesets name, as systemd makes them: nft looks them up when it takes a rule.
    for ruleset in RULESETS.iterdir():
        for path in re.findall(r'socket cgroupv2 level 2 "([^"]+)"', ruleset.read_text(encoding="utf-8")):
            (Path(CGROUPS) / path).mkdir(parents=True, exist_ok=True)


def _stage() -> None:
    """The bridges, and the containers on them. Nobody's addresses are tried first, which would take seconds."""
    batch = ["link set lo up"]
    for bridge in BRIDGES:
        batch += [
            f"link add {bridge.bridge} address {bridge.mac} type bridge",
            f"link set {bridge.bridge} up",
            f"address add {bridge.address}/24 dev {bridge.bridge}",
            f"address add {bridge.address6}/64 dev {bridge.bridge} nodad",
        ]
    for member in MEMBERS:
        must("ip", "netns", "add", member.name)
        batch += [
            f"link add veth-{member.name} type veth peer name eth0 address {member.mac} netns {member.name}",
            f"link set veth-{member.name} master {member.bridge} up",
        ]
    must("ip", "-batch", "-", text="\n".join(batch))
    for member in MEMBERS:
        inside = [
            "link set lo up",
            "link set eth0 up",
            f"address add {member.address}/24 dev eth0",
            f"address add {member.address6}/64 dev eth0 nodad",
        ]
        must("ip", "-n", member.name, "-batch", "-", text="\n".join(inside))


@contextlib.contextmanager
def _within(name: str) -> Iterator[None]:
    """Sockets that are made meanwhile belong to a container's network."""
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as opened:
        here, there = (opened.enter_context(Path(path).open()) for path in ("/proc/self/ns/net", f"/run/netns/{name}"))
        if libc.setns(there.fileno(), NEW_NET):
            raise OSError(ctypes.get_errno(), f"setns {name}")
        try:
            yield
        finally:
            libc.setns(here.fileno(), NEW_NET)


class Port:
    """What a container, or the host on a bridge, sends and receives."""

    def __init__(self, member: Member) -> None:
        self.name = member.name
        inside = member in MEMBERS
        with _within(member.name) if inside else contextlib.nullcontext():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_KIND))
        self.socket.bind(("eth0" if inside else member.bridge, EVERY_KIND))
        self.socket.setblocking(False)

    def received(self) -> Iterator[bytes]:
        """What has come since it was asked last."""
        while True:
            try:
                data, (_, _, kind, *_) = self.socket.recvfrom(4096)
            except BlockingIOError:
                return
            if kind != socket.PACKET_OUTGOING:
                yield data


def _arrivals(of: Round, ports: dict[str, Port]) -> dict[str, list[str]]:
    """{frame: who received it}.

    Frames keep their order on a bridge: when everybody has the control, nothing else is on its way.
    """
    near = [port for member in (*MEMBERS, *BRIDGES) if member.bridge == of.by.bridge
            if (port := ports[member.name]).name != of.by.name]  # fmt: skip
    for port in near:
        list(port.received())
    marks = {f"RF{number:06d}".encode(): name for number, name in enumerate(of.frames)}
    for mark, name in marks.items():
        ports[of.by.name].socket.send(of.frames[name](mark))
    last = b"RF-LAST!"
    ports[of.by.name].socket.send(of.control(last))
    found: dict[str, list[str]] = {name: [] for name in of.frames}
    deadline = time.monotonic() + PATIENCE
    for port in near:
        done = False
        while not done:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{port.name} does not receive the control of {of.by.name}")
            for data in port.received():
                done = done or last in data
                for mark, name in marks.items():
                    if mark in data and port.name not in found[name]:
                        found[name].append(port.name)
    return found


def _listen() -> None:
    """Servers of B on both families, which end with the machine."""
    with _within(B.name):
        for port in (PORT, CALLERS_PORT):
            for address in (B.address, B.address6):
                server = socket.create_server((address, port), family=_family(address))
                server.detach()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _connections() -> dict[str, str]:
    """What becomes of real connections: neighbours find each other, and answers come back."""
    found = {}
    for by, port, opens in ((A, PORT, True), (HOST, PORT, True), (A, CALLERS_PORT, False)):
        for address in (B.address, B.address6):
            with _within(by.name) if by in MEMBERS else contextlib.nullcontext():
                client = socket.socket(_family(address))
            with client:
                client.settimeout(PATIENCE if opens else 2)
                try:
                    client.connect((address, port))
                    said = "open"
                except OSError as error:
                    said = type(error).__name__
            found[f"{by.name} > {address} {port}"] = said
    return found


def _taken(text: str) -> str:
    """What the kernel has against a ruleset, or what of it comes back differently; "" for nothing."""
    trial = run("unshare", "--net", "nft", "-c", "-f", "-", text=text)
    if trial.returncode:
        return trial.stderr or f"exit code {trial.returncode}"
    try:
        once, twice = as_listed(text), as_listed(text + text)
    except Fault as fault:
        return str(fault)
    return "; ".join(rule_changes(once, twice)) or ("" if once else "nothing is listed")
