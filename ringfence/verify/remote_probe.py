"""Sent to a host and run there: real connections from inside a host's containers, and proof of what arrived there.

Verbs, each with a JSON object on stdin and one JSON object on stdout:

prepare  looks at the host (addresses, listening sockets, containers) and starts a listener in the background
probe    opens the given cells, each from its source's own network namespace or from a given address
collect  stops the listener and prints which datagrams arrived, and where

Nothing on the host is changed, but for a private routing table that lives as long as `probe` does, on hosts that are
places to probe from (without it a router would be needed to try a container's own address from outside).
Python 3.11 of the distribution, no dependencies.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import ipaddress
import json
import os
import re
import resource
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]
TABLE = 4646  # first routing table, and rule priority, of `probe`; nothing else on a host should use them
CLONE_NEWNET = 0x40000000
SO_RCVBUFFORCE = 33  # Python has no name for it: a larger buffer than the system allows by default
SO_ATTACH_FILTER = 26
SOL_RAW = 255
ECHO_REQUEST, ECHO_REPLY, ECHO_REQUEST6, ECHO_REPLY6 = 8, 0, 128, 129
PROTOS = {
    socket.AF_INET: (socket.IPPROTO_UDP, socket.IPPROTO_TCP, socket.IPPROTO_ICMP),
    socket.AF_INET6: (socket.IPPROTO_UDP, socket.IPPROTO_TCP, socket.IPPROTO_ICMPV6),
}
GROUPS = {socket.AF_INET: ("224.0.0.251", "239.255.255.250"), socket.AF_INET6: ("ff02::fb", "ff02::c")}
KINDS: dict[str, dict[int, tuple[int, int]]] = {
    "tcp": dict.fromkeys(PROTOS, (socket.SOCK_STREAM, 0)),
    "udp": dict.fromkeys(PROTOS, (socket.SOCK_DGRAM, 0)),
    "icmp": {
        socket.AF_INET: (socket.SOCK_RAW, socket.IPPROTO_ICMP),
        socket.AF_INET6: (socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    },
}
SPORT = 46464  # of forged packets
LIBC = ctypes.CDLL(None, use_errno=True)
# Seconds before asking again. The kernel's table of neighbours is one for all containers: when many are probed at once
# it may be full, and has room only 5 s later. Then nothing can be sent, or no answer comes from what is open.
PAUSES = (0.5, 6.0, 12.0)
TRIES = 3  # of what must be open, where something could be sent
LIFE = 60.0  # seconds a listener lives at most unless the caller asks for another bound
REACHED = {errno.ECONNREFUSED: "refused"}  # an answer came back: the packet passed every filter on its way
BLOCKED = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "host unreachable",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.EADDRNOTAVAIL: "no address of that family",
    errno.EAFNOSUPPORT: "no address of that family",
}


class ProbeFailedError(Exception):
    """Something the caller has to know, in one sentence."""


# --- looking -------------------------------------------------------------------------------------------------------


def run(*argv: str, text: str | None = None, seconds: float = 20) -> str | None:
    """Standard output of a command, or None when it is missing, fails or hangs."""
    try:
        return asked(*argv, text=text, seconds=seconds)
    except ProbeFailedError:
        return None


def asked(*argv: str, text: str | None = None, seconds: float = 20) -> str:
    """Standard output of a command. What it cannot tell must not look like "there is nothing"."""
    what = " ".join(argv[:4])
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise ProbeFailedError(f"{what}: no answer within {seconds:.0f} s") from error
    except OSError as error:
        raise ProbeFailedError(f"{what}: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it failed without a message"]
        raise ProbeFailedError(f"{what}: {said[-1]}")
    return done.stdout


def addresses() -> list[Json]:
    """Every address of the host that others could aim at: loopback and link-local ones are left out."""
    found = []
    for link in json.loads(asked("ip", "-j", "address", "show")):
        for entry in link.get("addr_info", []):
            if entry.get("scope") == "global" and "local" in entry:
                found.append({"device": link["ifname"], "address": entry["local"], "prefix": entry["prefixlen"]})
    return found


def routes() -> list[Json]:
    """The host's routes, without default ones and those of links: [{network, gateway}], gateway "" for a neighbour."""
    found = []
    for flag in ("-4", "-6"):
        # Where there is none it says nothing at all.
        for entry in json.loads(asked("ip", flag, "-j", "route", "show") or "[]"):
            network = entry.get("dst", "default")
            if network != "default" and not ipaddress.ip_network(network, strict=False).is_link_local:
                found.append({"network": network, "gateway": entry.get("gateway", "")})
    return found


def sockets(text: str) -> list[Json]:
    """The listening sockets in the output of `ss -ltnupH`, without those that only loopback can reach."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[0] not in ("tcp", "udp"):
            continue
        address, _, port = fields[4].rpartition(":")
        address = address.strip("[]").split("%")[0].strip("[]")
        if not port.isdigit() or (address not in ("*", "") and ipaddress.ip_address(address).is_loopback):
            continue
        process = re.search(r'users:\(\("([^"]+)"', line)
        found.append(
            {
                "proto": fields[0],
                "address": "" if address in ("*", "0.0.0.0", "::") else address,
                "port": int(port),
                "process": process.group(1) if process else "",
            }
        )
    return found


def containers() -> list[Json]:
    """Running containers: where they are attached, what they publish, which process holds their namespace."""
    found = []
    for one in inspected(["docker", "ps", "-q", "--no-trunc"], ["docker", "inspect"]):
        labels = one["Config"].get("Labels") or {}
        network = one["NetworkSettings"]
        published = [
            {
                "proto": key.partition("/")[2],
                "port": int(key.partition("/")[0]),
                "published": int(b["HostPort"]),
                "address": "" if b["HostIp"] in ("0.0.0.0", "::", "") else b["HostIp"],
            }
            for key, bindings in (network.get("Ports") or {}).items()
            for b in bindings or []
        ]
        found.append(
            {
                "name": one["Name"].lstrip("/"),
                "id": one["Id"],
                "pid": one["State"]["Pid"],
                "space": namespace_number(one["State"]["Pid"]),
                "project": labels.get("com.docker.compose.project", ""),
                "service": labels.get("com.docker.compose.service", ""),
                "networks": {
                    name: {"address": n.get("IPAddress", ""), "address6": n.get("GlobalIPv6Address", "")}
                    for name, n in (network.get("Networks") or {}).items()
                },
                "published": [p for n, p in enumerate(published) if p not in published[:n]],
            }
        )
    return found


def networks() -> list[Json]:
    """Docker's bridge networks: {name, internal, label} (label: the segment it is, if ringfence made it)."""
    listing = ["docker", "network", "ls", "-q", "--no-trunc", "--filter", "driver=bridge"]
    found = inspected(listing, ["docker", "network", "inspect"])
    return [
        {"name": n["Name"], "internal": n["Internal"], "segment": (n.get("Labels") or {}).get("ringfence.segment", "")}
        for n in found
    ]


def inspected(listing: list[str], inspect: list[str], tries: int = 3) -> list[Json]:
    """Docker's words on everything that it lists; asked again where something is gone before it is inspected."""
    listed = asked(*listing).split()
    if not listed:
        return []
    try:
        found: list[Json] = json.loads(asked(*inspect, *listed, seconds=60))
    except ProbeFailedError:
        if tries == 1:
            raise
        return inspected(listing, inspect, tries - 1)
    return found


def engine() -> Json:
    """What Docker runs here, nothing where it is not installed; in `complaints`, why it does not tell."""
    nothing: Json = {"containers": [], "networks": [], "engine": "", "complaints": []}
    if shutil.which("docker") is None:
        return nothing
    try:
        return {
            **nothing,
            "engine": asked("docker", "version", "--format", "{{.Server.Version}}").strip(),
            "containers": containers(),
            "networks": networks(),
        }
    except ProbeFailedError as failure:
        return {**nothing, "complaints": [f"what Docker runs is not known: {failure}"]}


def ufw_allows() -> list[Json]:
    """What UFW's own rules let in, whoever made them: [{proto, port, source}], "any" for no limit."""
    found = []
    for name in ("user.rules", "user6.rules"):
        try:
            with Path("/etc/ufw", name).open(encoding="utf-8") as rules:
                lines = [line.split()[3:] for line in rules if line.startswith("### tuple ###")]
        except OSError:
            continue
        for fields in lines:
            if len(fields) >= 7 and fields[0].split("_")[0] in ("allow", "limit"):
                source = "any" if fields[5] in ("0.0.0.0/0", "::/0") else fields[5]
                found.append({"proto": fields[1], "port": fields[2], "source": source})
    return found


# --- network namespaces --------------------------------------------------------------------------------------------


def namespace_number(pid: int) -> int:
    """Which network namespace a process lives in; 0 when it is gone."""
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


@contextlib.contextmanager
def inside(space: int | None) -> Iterator[None]:
    """Within, sockets are made in another namespace (an open descriptor); a socket stays where it was made."""
    if space is None:
        yield
        return
    enter(space)
    try:
        yield
    finally:
        enter(own_space())


_own: list[int] = []


def own_space() -> int:
    if not _own:
        _own.append(os.open("/proc/self/ns/net", os.O_RDONLY))
    return _own[0]


def enter(space: int) -> None:
    own_space()
    if LIBC.setns(space, CLONE_NEWNET) != 0:
        raise ProbeFailedError(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())} (is this root?)")


def open_space(pid: int, number: int) -> int:
    """A descriptor of a container's namespace, if it is still the one that was seen."""
    try:
        space = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    except OSError as error:
        raise ProbeFailedError(f"the container's process {pid} is gone ({error.strerror})") from error
    if number and os.fstat(space).st_ino != number:
        os.close(space)
        raise ProbeFailedError("the container was restarted meanwhile")
    return space


# --- listening -----------------------------------------------------------------------------------------------------


def ears(space: int | None, *, groups: bool = False) -> list[socket.socket]:
    """Raw sockets that see a namespace's datagrams, first segments of connections and requests for an echo.

    Raw, not packet, sockets: they are served after the INPUT chain. What a host's firewall drops never shows here,
    although it came in by the wire; and no application has to answer. With `groups` the namespace becomes a member of
    the groups that hosts listen to, by every interface: without one nothing that is sent to them would be seen.
    """
    made = []
    with inside(space):
        for family, protos in PROTOS.items():
            for proto in protos:
                with contextlib.suppress(OSError):  # no IPv6 in this namespace: nothing can arrive by it
                    made.append(socket.socket(family, socket.SOCK_RAW, proto))
                    narrow(made[-1])
        made += members() if groups else []
    for ear in made:
        ear.setblocking(False)
        with contextlib.suppress(OSError):
            ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
    return made


def narrow(ear: socket.socket) -> None:
    """Let a raw socket see requests for an echo only, or SYN only: the rest is others' business, and plenty."""
    if ear.proto == socket.IPPROTO_ICMP:
        ear.setsockopt(SOL_RAW, 1, struct.pack("I", 0xFFFFFFFF & ~(1 << ECHO_REQUEST)))
    elif ear.proto == socket.IPPROTO_ICMPV6:
        words = [0xFFFFFFFF & ~(1 << ECHO_REQUEST6 % 32 if n == ECHO_REQUEST6 // 32 else 0) for n in range(8)]
        ear.setsockopt(socket.IPPROTO_ICMPV6, 1, struct.pack("8I", *words))
    elif ear.proto == socket.IPPROTO_TCP:
        # Classic BPF. IPv4 is handed over with its header, IPv6 without: X is where TCP begins.
        start = (0xB1, 0, 0, 0) if ear.family == socket.AF_INET else (0x01, 0, 0, 0)  # X = header length, or 0
        program = [start, (0x50, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]
        code = b"".join(struct.pack("HBBI", *line) for line in program)
        kept = ctypes.create_string_buffer(code)
        ear.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(kept)))


def members() -> list[socket.socket]:
    """Sockets by which every interface of this namespace is a member of the groups that hosts listen to."""
    made = []
    for number, _ in socket.if_nameindex():  # one for each: a socket may join only so many times
        for family, groups in GROUPS.items():
            member = socket.socket(family, socket.SOCK_DGRAM)
            made.append(member)
            with contextlib.suppress(OSError):  # it has no multicast
                for group in groups:
                    packed = socket.inet_pton(family, group)
                    if family == socket.AF_INET:
                        wanted = packed + bytes(4) + struct.pack("i", number)
                        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, wanted)
                    else:
                        wanted = packed + struct.pack("i", number)
                        member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, wanted)
    return made


def doors(address: str, ports: list[int]) -> tuple[list[socket.socket], list[str]]:
    """TCP listeners on one of the host's addresses; a port that is taken already answers by itself."""
    made, complaints = [], []
    for port in ports:
        door = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((address, port))
            door.listen(512)
            door.setblocking(False)
            made.append(door)
        except OSError as error:
            door.close()
            if error.errno != errno.EADDRINUSE:
                complaints.append(f"cannot listen on {address} port {port}: {error.strerror}")
    return made, complaints


def control_name(token: str) -> str:
    return f"\0ringfence-probe-{token}"  # abstract: leaves nothing behind, and only this host's namespace sees it


def listen(
    token: str,
    named: dict[str, list[socket.socket]],
    opened: list[socket.socket],
    life: float,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until somebody collects, or until `life` seconds are over. Blocks."""
    chooser = selectors.DefaultSelector()
    arrivals: dict[str, set[str]] = {}
    mark = re.compile(rb"ringfence " + re.escape(token.encode()) + rb" (\d+) ")
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.bind(control_name(token))
    control.listen(1)
    chooser.register(control, selectors.EVENT_READ, None)
    for name, group in named.items():
        for ear in group:
            chooser.register(ear, selectors.EVENT_READ, name)
    for door in opened:
        chooser.register(door, selectors.EVENT_READ, "")
    ready()
    end = time.monotonic() + life

    def hear(ear: socket.socket, name: str) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                for number in mark.findall(ear.recv(2048)):
                    arrivals.setdefault(number.decode(), set()).add(name)

    while (left := end - time.monotonic()) > 0:
        for key, _ in chooser.select(left):
            ready_socket: socket.socket = key.fileobj  # type: ignore[assignment]
            if key.data is None:  # somebody collects: what has arrived by now still counts
                for name, group in named.items():
                    for ear in group:
                        hear(ear, name)
                caller, _ = control.accept()
                with caller:
                    caller.sendall(json.dumps({i: sorted(names) for i, names in arrivals.items()}).encode())
                return
            if key.data == "":
                with contextlib.suppress(OSError):
                    ready_socket.accept()[0].close()
            else:
                hear(ready_socket, key.data)


def prepare(wanted: Json) -> Json:
    """Look around, then listen in the background unless `listen` is false: `token`, `life`, `doors`."""
    seen: Json = {
        "addresses": addresses(),
        "routes": routes(),
        "sockets": sockets(asked("ss", "-ltnupH")),
        "ufw": ufw_allows(),
        **engine(),
    }
    if not wanted.get("listen", True):
        return seen
    named: dict[str, list[socket.socket]] = {"": ears(None, groups=True)}
    own = os.fstat(own_space()).st_ino
    for one in seen["containers"]:
        if not one["space"] or one["space"] == own:
            continue
        try:
            space = open_space(one["pid"], one["space"])
        except ProbeFailedError as failure:
            seen["complaints"].append(f"{one['name']}: {failure}")
            continue
        named[one["name"]] = ears(space)
        os.close(space)
    opened: list[socket.socket] = []
    for entry in wanted.get("doors", []):
        made, complaints = doors(entry["address"], entry["ports"])
        opened += made
        seen["complaints"] += complaints
    background(lambda ready: listen(wanted["token"], named, opened, wanted.get("life", LIFE), ready))
    return seen


def background(work: Callable[[Callable[[], None]], None]) -> None:
    """Run `work` detached from this session; returns when it says that it is ready."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        answer = os.read(reader, 200)
        os.close(reader)
        os.wait()
        if answer != b"ready":
            raise ProbeFailedError(f"the listener did not start: {answer.decode() or 'it ended at once'}")
        return
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(reader)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)

        def ready() -> None:
            os.write(writer, b"ready")
            os.close(writer)

        work(ready)
    except BaseException as error:  # a forked child must never return into its parent's code
        with contextlib.suppress(OSError):
            os.write(writer, str(error).encode()[:200])
    finally:
        os._exit(0)


def collect(wanted: Json) -> Json:
    """What arrived: {"arrivals": {cell: [container names, "" = the host itself]}}; ends the listener."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(10)
    try:
        caller.connect(control_name(wanted["token"]))
        text = b"".join(iter(lambda: caller.recv(1 << 16), b""))
        return {"arrivals": json.loads(text)}
    except (OSError, ValueError):
        return {"arrivals": {}, "gone": True}
    finally:
        caller.close()


# --- probing -------------------------------------------------------------------------------------------------------


def outcome(error: OSError) -> str:
    number = error.errno or 0
    return REACHED.get(number) or BLOCKED.get(number) or f"failed: {os.strerror(number) if number else error}"


async def connect_tcp(sock: socket.socket, target: tuple[str, int], seconds: float) -> str:
    """open, refused, timeout, or why nothing could be sent."""
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, target), seconds)
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return outcome(error)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT on busy hosts
    return "open"


async def send_udp(sock: socket.socket, target: tuple[str, int], payload: bytes, seconds: float) -> str:
    """open (somebody answered), refused (port unreachable came back), timeout (says nothing: ask the listener)."""
    loop = asyncio.get_running_loop()
    try:
        sock.connect(target)
        for pause in (0.15, 0.35, max(seconds - 0.5, 0.1)):  # a lost datagram is not a closed port
            await loop.sock_sendall(sock, payload)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(sock, 2048), pause)
                return "open"
    except OSError as error:
        return outcome(error)
    return "timeout"


async def ask_echo(sock: socket.socket, target: str, payload: bytes, seconds: float) -> str:
    """open (an echo came back), timeout (says nothing: ask the listener)."""
    loop = asyncio.get_running_loop()
    kind = ECHO_REQUEST if sock.family == socket.AF_INET else ECHO_REQUEST6
    head = struct.pack("!BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, 1)
    if sock.family == socket.AF_INET:  # the kernel fills in the sum of ICMPv6 only
        head = head[:2] + struct.pack("!H", checksum(head + payload)) + head[4:]
    try:
        sock.connect((target, 0))
        for pause in (0.15, 0.35, max(seconds - 0.5, 0.1)):
            await loop.sock_sendall(sock, head + payload)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(echoed(sock, payload), pause)
                return "open"
    except OSError as error:
        return outcome(error)
    return "timeout"


async def echoed(sock: socket.socket, payload: bytes) -> None:
    """Wait until an echo with this payload comes back; whatever else a raw socket sees is passed over."""
    reply = ECHO_REPLY if sock.family == socket.AF_INET else ECHO_REPLY6
    while True:
        seen = await asyncio.get_running_loop().sock_recv(sock, 2048)
        body = seen[(seen[0] & 15) * 4 :] if sock.family == socket.AF_INET else seen
        if body[:1] == bytes([reply]) and payload in body:
            return


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def forged_packet(claim: str, address: str, proto: str, port: int, payload: bytes) -> bytes:
    """A datagram, or the first segment of a connection with data, that says it comes from `claim`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ends = socket.inet_pton(family, claim) + socket.inet_pton(family, address)
    number = socket.IPPROTO_TCP if proto == "tcp" else socket.IPPROTO_UDP

    def body(total: int) -> bytes:
        if proto == "tcp":
            return struct.pack("!HHIIBBHHH", SPORT, port, 1, 0, 5 << 4, 0x02, 8192, total, 0) + payload
        return struct.pack("!HHHH", SPORT, port, 8 + len(payload), total) + payload

    size = len(body(0))
    total = checksum(ends + struct.pack("!II" if family == socket.AF_INET6 else "!HH", number, size) + body(0))
    content = body(total or 0xFFFF)
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, size, number, 64) + ends + content

    def header(total: int) -> bytes:
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, number, total) + ends

    return header(checksum(header(0))) + content


async def send_forged(cell: list[Any], space: int | None, payload: bytes) -> list[str]:
    """Send a packet with another's address, three times; nothing comes back to its sender, so ask the listener."""
    _, _, address, proto, port, _, claim, through = cell
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    device = next((a["device"] for a in addresses() if a["address"] == through), "") if through else ""
    try:
        with inside(space):
            sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        with sock:
            if device:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            for pause in (0.15, 0.35, 0):
                sock.sendto(forged_packet(claim, address, proto, port, payload), (address, 0))
                await asyncio.sleep(pause)
    except OSError as error:
        return [outcome(error), ""]
    return ["timeout", claim]


def leave_by(sock: socket.socket, through: str, space: int | None) -> None:
    """Have what a socket sends to a group leave by the interface that has an address."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(through))
        return
    wanted = socket.inet_pton(socket.AF_INET6, through).hex()
    with inside(space):
        table = Path("/proc/thread-self/net/if_inet6").read_text(encoding="ascii")
    for line in table.splitlines():
        if line.split()[0] == wanted:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, int(line.split()[1], 16))


async def probe_cell(token: str, cell: list[Any], source: Json, space: int | None, seconds: float) -> list[str]:
    """[outcome, the source address that was used] of one cell.

    A cell is [id, source, address, proto, port, must be open, another's address to say it comes from or "", own address
    by whose interface it goes or ""].
    """
    cell = [*cell, "", ""][:8]
    number, _, address, proto, port, must, claim, through = cell
    payload = f"ringfence {token} {number} ".encode()
    if claim:
        return await send_forged(cell, space, payload)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = source.get("address6" if family == socket.AF_INET6 else "address") if space is None else None
    result = ["timeout", ""]
    for number_of_try, pause in enumerate((*PAUSES, None), 1):
        try:
            with inside(space):
                sock = socket.socket(family, *KINDS[proto][family])
        except OSError as error:
            return [outcome(error), ""]
        with sock:
            sock.setblocking(False)
            try:
                if bound:
                    sock.bind((bound, 0))
                elif space is None:
                    return ["no address of that family", ""]
                if through:
                    leave_by(sock, through, space)
                if proto == "tcp":
                    said = await connect_tcp(sock, (address, port), seconds)
                elif proto == "icmp":
                    said = await ask_echo(sock, address, payload, seconds)
                else:
                    said = await send_udp(sock, (address, port), payload, seconds)
                result = [said, "{} port {}".format(*sock.getsockname()[:2])]
            except OSError as error:
                result = [outcome(error), ""]
        if result[0] == "open" or (proto == "udp" and result[0] == "refused"):
            break
        failed = result[0].startswith("failed")
        if pause is None or not (failed or (must and number_of_try < TRIES)):
            break
        # Who gets a datagram often says nothing: that needs no rest.
        await asyncio.sleep(pause if failed or proto == "tcp" else 0)
    return result


def room_for(connections: int, spaces: int) -> int:
    """Raise this process's limit of open files for so many connections; returns how many there may be."""
    others = spaces + 50
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = connections + others if hard == resource.RLIM_INFINITY else min(connections + others, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    return max(1, min(connections, enough - others))


async def probe_all(wanted: Json) -> Json:
    gate = asyncio.Semaphore(room_for(wanted.get("parallel", 200), len(wanted["sources"])))
    seconds = float(wanted.get("seconds", 2.0))
    spaces: list[int | None] = []
    errors: dict[str, str] = {}
    for index, source in enumerate(wanted["sources"]):
        space = None
        if "pid" in source:
            try:
                space = open_space(source["pid"], source.get("space", 0))
            except ProbeFailedError as failure:
                errors[str(index)] = str(failure)
        spaces.append(space)
    results: dict[str, list[str]] = {}

    async def one(cell: list[Any]) -> None:
        async with gate:
            index = cell[1]
            if str(index) not in errors:
                results[str(cell[0])] = await probe_cell(
                    wanted["token"], cell, wanted["sources"][index], spaces[index], seconds
                )

    await asyncio.gather(*(one(cell) for cell in wanted["cells"]))
    for space in spaces:
        if space is not None:
            os.close(space)
    return {"results": results, "errors": errors}


def route_lines(wanted: Json, seen: list[Json]) -> tuple[list[str], list[str]]:
    """`ip -batch` lines (v4, v6) that lead a vantage's probes to each target by the neighbour in `ways`."""
    lines: tuple[list[str], list[str]] = ([], [])
    # A table for each vantage: the same target is next to one and behind a host for another.
    for table, source in enumerate(wanted["sources"], TABLE):
        for family, key in ((0, "address"), (1, "address6")):
            own = source.get(key)
            device = next((a["device"] for a in seen if own == a["address"]), None)
            routes = [
                f"route replace {target} via {way} dev {device} table {table}"
                for target, way in source.get("ways", {}).items()
                if (":" in target) == bool(family)
            ]
            if device and routes:
                lines[family].extend([*routes, f"rule add from {own} lookup {table} priority {TABLE}"])
    return lines


@contextlib.contextmanager
def ways(wanted: Json) -> Iterator[None]:
    """Within, hosts' inner addresses are routed to the hosts themselves, for the vantages' addresses only."""
    lines = route_lines(wanted, addresses()) if any("pid" not in s for s in wanted["sources"]) else ([], [])
    try:
        for flag, text in zip(("-4", "-6"), lines, strict=True):
            if text:
                forget(flag, len(wanted["sources"]))
                if run("ip", flag, "-batch", "-", text="\n".join(text) + "\n") is None:
                    raise ProbeFailedError(f"cannot route the probes (ip {flag} -batch): {text[0]}")
        yield
    finally:
        for flag, text in zip(("-4", "-6"), lines, strict=True):
            if text:
                forget(flag, len(wanted["sources"]))


def forget(flag: str, tables: int) -> None:
    """Remove our rules and routes, also those of a run that was killed."""
    while run("ip", flag, "rule", "del", "priority", str(TABLE)) is not None:
        pass
    for table in range(TABLE, TABLE + tables):
        run("ip", flag, "route", "flush", "table", str(table))


def probe(wanted: Json) -> Json:
    """Open all cells concurrently: `token`, `sources`, `cells` [[id, source, address, proto, port, must be open]]."""
    with ways(wanted):
        return asyncio.run(probe_all(wanted))


VERBS: dict[str, Callable[[Json], Json]] = {"prepare": prepare, "probe": probe, "collect": collect}


def main(argv: list[str], wanted: Json | None) -> int:
    if len(argv) != 1 or argv[0] not in VERBS:
        print(f"usage: remote_probe.py {'|'.join(VERBS)} < request.json", file=sys.stderr)
        return 2
    # Every container has several sockets, and there may be hundreds.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        answer = VERBS[argv[0]](json.load(sys.stdin) if wanted is None else wanted)
    except ProbeFailedError as failure:
        print(f"the probe failed: {failure}", file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


if __name__ in ("__main__", "ringfence"):
    request = globals().get("REQUEST")  # as ringfence sends it; by hand it reads standard input
    sys.exit(main(request["arguments"] if request else sys.argv[1:], request["desired"] if request else None))
