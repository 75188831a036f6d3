"""Who listens on the host: its processes, and containers by the ports that are published."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ringfence.host.engine import bridge_of, docker_runs, engine, engine_version
from ringfence.host.running import Fault, must
from ringfence.host.translations import translated, translated_by_family
from ringfence.host.units import booted

EVERY = ("0.0.0.0", "::", "")
PROXY = "docker-proxy"  # listens for a container that is listed by itself
ENGINE = "dockerd"
RAW = "ip"  # "protocol" of sockets that take a protocol of IP as it is, whose number is in the place of a port
# Those that tell nothing: ICMP is ufw's own matter, TCP and UDP are listened to without an answer, 255 only sends.
_SILENT = (1, 6, 17, 58, 255)


class Listener(NamedTuple):
    """A port that somebody holds.

    Attributes:
        proto: tcp or udp; ip for a protocol of IP itself, whose number is in the place of the port.
        address: that it is bound to; "" for every one of the host.
        port: number.
        holder: the process or the container, as a person would look for it.
        container: its name; "" for a process.
        own: whether ringfence made that container.
        inner: the port in the container; 0 for a process.
        device: the interface that it is bound to; "" for every one.
        families: IP versions by which it answers: "4", "6" or "46".
    """

    proto: str
    address: str
    port: int
    holder: str
    container: str = ""
    own: bool = False
    inner: int = 0
    device: str = ""
    families: str = "46"

    @property
    def key(self) -> str:
        return f"{self.port}/{self.proto}"

    @property
    def on(self) -> str:
        """Where it answers, in words."""
        if self.device:
            return f"{self.address} of {self.device}" if self.address else self.device
        return self.address or "every address"

    @property
    def inward(self) -> bool:
        """Whether only the host itself reaches it."""
        return bool(self.address) and ipaddress.ip_address(self.address).is_loopback


def parse_ss(text: str) -> list[Listener]:
    """Read `ss -Hlntupw`: one listener for each protocol, address, port and process; IPv6 that is IPv4 is IPv4.

    Raises:
        Fault: an address that is none.
    """
    found: dict[Listener, str] = {}
    for line in text.splitlines():
        words = line.split()
        proto = {"tcp": "tcp", "udp": "udp", "raw": RAW, "???": RAW}.get(words[0]) if len(words) > 4 else None
        host, _, port = words[4].rpartition(":") if proto else ("", "", "")
        if not proto or not port.isdecimal() or (proto == RAW and int(port) in _SILENT):
            continue
        address, device, families = bound_to(host)
        process = re.search(r'\(\("([^"]*)",pid=(\d+)', line)
        holder = f"{process[1]} (process {process[2]})" if process else "the kernel"
        one = Listener(proto, address, int(port), holder, device=device, families="")
        found[one] = "".join(sorted({*found.get(one, ""), *families}))
    return [one._replace(families=families) for one, families in found.items()]


def bound_to(host: str) -> tuple[str, str, str]:
    """Take apart what stands before the port in a line of ss: `*`, `0.0.0.0%virbr0`, `[::ffff:10.0.0.1]`,
    `[fe80::1]%eth0`.

    Returns:
        The address, "" for every one; the interface, "" for every one; the IP versions.

    Raises:
        Fault: it holds no address.
    """
    text, _, device = host.replace("[", "").replace("]", "").partition("%")
    if text == "*":
        text, families = "", "46"
    else:
        try:
            parsed = ipaddress.ip_address(text)
        except ValueError:
            raise Fault(f"ss lists a listener at {host!r}, which is no address: who listens is not known") from None
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        text, families = str(parsed), str(parsed.version)
    if device == "lo":
        return "127.0.0.1" if text in EVERY else text, "", families
    return "" if text in EVERY else text, device, families


def parse_published(containers: list[dict[str, Any]]) -> list[Listener]:
    """Read the ports that running containers publish, as the engine lists them."""
    found: dict[Listener, None] = {}
    for one in containers:
        labels = one.get("Labels") or {}
        name = (one.get("Names") or ["?"])[0].lstrip("/")
        project = labels.get("com.docker.compose.project", "")
        holder = f"the container {name}" + (f" of the compose project {project}" if project else "")
        for port in one.get("Ports") or []:
            if port.get("PublicPort"):
                address = str(port.get("IP") or "")
                address = "" if address in EVERY else address
                own = any(label.startswith("ringfence.") for label in labels)
                outer, inner = int(port["PublicPort"]), int(port.get("PrivatePort") or 0)
                entry = Listener(str(port["Type"]), address, outer, holder, name, own, inner)
                found[entry] = None
    return list(found)


def processes() -> list[Listener]:
    """Ports that processes of the host hold, those of containers in its network among them. Raises Fault."""
    return parse_ss(must("ss", "-Hlntupw"))


def apart(listeners: list[Listener], containers: list[Listener]) -> tuple[list[Listener], set[tuple[str, int]]]:
    """Tell processes from those that listen for a container, and return (protocol, port) of those that answer for one.

    The engine from 28 on without its proxy holds a published port itself, and answers nobody there.
    """
    published = {(one.proto, one.port) for one in containers}
    proxies = [one for one in listeners if one.holder.startswith(f"{PROXY} ")]
    held = [one for one in listeners if one.holder.startswith(f"{ENGINE} ") and (one.proto, one.port) in published]
    own = [one for one in listeners if one not in proxies and one not in held]
    return own, {(one.proto, one.port) for one in proxies}


def answered_to_all(
    listeners: list[Listener], containers: list[Listener], skips: dict[str, set[tuple[str, int]]]
) -> list[Listener]:
    """Return the published ports of others' containers that a process of the host answers to whoever asks, and by which
    IP versions: the engine forwards nothing there, as the container's network has no IPv6.

    Args:
        skips: IP version → (protocol, port) of what the engine forwards.
    """
    found = []
    for one in containers:
        proxies = [
            p for p in listeners if p.holder.startswith(f"{PROXY} ") and (p.proto, p.port) == (one.proto, one.port)
        ]
        held = {family for proxy in proxies for family in proxy.families}
        families = "".join(sorted(family for family in held if (one.proto, one.port) not in skips[family]))
        if families and not one.own and not one.inward:
            found.append(one._replace(families=families))
    return found


def asks_the_host() -> bool:
    """Whether a container that asks for a published port by the host's address is answered by the host's own process,
    and so through ufw: since 29 the engine forwards it. Raises Fault."""
    return bool(booted() and docker_runs()) and int(engine_version().split(".")[0]) < 29


def published() -> list[Listener]:
    """Ports that containers publish; [] where no engine runs. Raises Fault where it does not answer."""
    return parse_published(engine("GET", "/containers/json")) if booted() and docker_runs() else []


def foreign_networks() -> dict[str, str]:
    """The engine's bridges that ringfence did not make: {subnet: name}. Raises Fault."""
    found = {}
    for network in engine("GET", "/networks") if booted() and docker_runs() else []:
        if network.get("Driver") == "bridge" and not bridge_of(network).startswith("rf-"):
            for entry in (network.get("IPAM") or {}).get("Config") or []:
                if entry.get("Subnet"):
                    found[str(entry["Subnet"])] = str(network["Name"])
    return found


def same_port(one: Listener, proto: str, address: str, port: int) -> bool:
    """Whether a listener is in the way of who wants a port on an address ("" for every one)."""
    return (one.proto, one.port) == (proto, port) and ("" in (one.address, address) or one.address == address)


class Ground(NamedTuple):
    """Who answers on the host.

    Attributes:
        processes: ports that the host's own processes hold.
        containers: ports that containers publish.
        through: those of them that the host answers itself where another container asks for them by its address.
        networks: of containers that ringfence did not make: {subnet: name}; none where nothing goes through the host.
        proxied: ports of others' containers that the host itself answers to everybody, by the families of each.
    """

    processes: list[Listener]
    containers: list[Listener]
    through: list[Listener]
    networks: dict[str, str]
    proxied: Sequence[Listener] = ()


def ground() -> Ground:
    """Look who answers on the host. Raises Fault."""
    containers, listeners = published(), processes()
    own, proxies = apart(listeners, containers)
    # A power cut in a container's start leaves its port with the engine, which answers nobody there and lets go of it
    # when it starts again: the role docker sees to that.
    if any(one.holder.startswith(f"{ENGINE} ") for one in own):
        left = translated()
        own = [one for one in own if not (one.holder.startswith(f"{ENGINE} ") and (one.proto, one.port) in left)]
    foreign = [one for one in containers if not one.own and (one.proto, one.port) in proxies]
    through = foreign if foreign and asks_the_host() else []
    by_proxy = answered_to_all(listeners, foreign, translated_by_family()) if foreign else []
    return Ground(own, containers, through, foreign_networks() if through else {}, by_proxy)
