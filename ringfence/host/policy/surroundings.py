"""What only the host knows: its bridges, Docker, the live rules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.host.engine import daemon_config, engine, firewall_backend
from ringfence.host.policy.nft import TABLE, read_nft
from ringfence.host.policy.places import Live
from ringfence.host.policy.rules import Around
from ringfence.host.running import MISSING, Fault, must, run
from ringfence.host.tables import Tables, live_text, parse_save
from ringfence.host.units import unit_states

BRIDGE_FILTER = Path("/proc/sys/net/bridge")


UNITS = ("ringfence-policy.service", "ringfence-policy-docker.service", "ringfence-ulogd.service")


DOCKER_BRIDGE = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}")


def matches(interface: str, pattern: str) -> bool:
    """iptables' way of matching an interface name."""
    return interface.startswith(pattern[:-1]) if pattern.endswith("+") else interface == pattern


def surroundings(
    bridges: list[str], default_routes: set[str], networks: list[dict[str, Any]], patterns: list[str]
) -> Around:
    """Tell the host's bridges apart: pure.

    Args:
        bridges: every Linux bridge that is no segment.
        default_routes: interfaces with a default route.
        networks: Docker's, as it tells them.
        patterns: declared names of other bridges.
    """
    docker: dict[str, list[str]] = {}
    for network in networks:
        if network["Driver"] == "bridge":
            bridge = (network.get("Options") or {}).get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}"
            if not bridge.startswith("rf-"):
                docker[bridge] = [
                    c["Subnet"] for c in (network.get("IPAM") or {}).get("Config") or [] if c.get("Subnet")
                ]

    def known(bridge: str) -> bool:
        return any(matches(bridge, pattern) for pattern in patterns)

    def is_docker(bridge: str) -> bool:
        return bridge in docker or DOCKER_BRIDGE.fullmatch(bridge) is not None

    return Around(
        leading=tuple(b for b in bridges if known(b) and not is_docker(b) and b in default_routes),
        named=tuple(b for b in sorted(docker) if not known(b)),
        bridged=tuple(b for b in bridges if not is_docker(b)),
        docker=tuple(sorted(docker)),
        subnets=tuple(sorted(subnet for found in docker.values() for subnet in found)),
    )


class Host(NamedTuple):
    """What was read of the host.

    Attributes:
        around: its bridges.
        backend: Docker's firewall back end, as the running engine or its configuration says.
        running: whether the engine runs (and was asked).
        outside: containers outside the fence, as sentences.
        units: states of our units.
        daemon: Docker's configuration.
    """

    around: Around
    backend: str
    running: bool
    outside: list[str]
    units: dict[str, dict[str, str]]
    daemon: dict[str, Any]


def look(wish: dict[str, Any], persisted: dict[str, Any] | None) -> Host:
    """Read the host's bridges and, if Docker runs, its networks and containers.

    Raises:
        Fault: something that should answer does not: nothing is known then, and nothing may be changed.
    """
    properties = ["ActiveState", "UnitFileState", "NeedDaemonReload", "ActiveEnterTimestampMonotonic"]
    states = unit_states(["docker.service", *UNITS], properties)
    daemon = daemon_config() or {}
    # Asking the socket would start Docker where only docker.socket is active.
    running = states["docker.service"].get("ActiveState") == "active"
    names = sorted(
        p.parent.name for p in Path("/sys/class/net").glob("*/bridge") if not p.parent.name.startswith("rf-")
    )
    routes: set[str] = set()
    for family in ("-4", "-6") if names else ():
        for route in json.loads(must("ip", "-j", family, "route", "show", "default") or "[]"):
            routes |= {route["dev"]} if "dev" in route else {hop["dev"] for hop in route.get("nexthops", [])}
    backend = str(daemon.get("firewall-backend") or "iptables")
    networks, outside = [], []
    if running:
        backend = firewall_backend(engine("GET", "/info"))
        networks = engine("GET", "/networks")
        outside = outside_the_fence(engine("GET", "/containers/json"))
    around = surroundings(names, routes, networks, wish["other_bridges"])
    if not running and persisted:  # while Docker cannot be asked, nothing of what it said is forgotten
        before = Around(*(tuple(part) for part in persisted["around"]))
        around = Around(*(tuple(dict.fromkeys([*old, *new])) for old, new in zip(before, around, strict=True)))
    return Host(around, backend, running, outside, states, daemon)


def outside_the_fence(containers: list[dict[str, Any]]) -> list[str]:
    """Sentences about running containers that the policy does not hold."""
    lines = []
    for container in containers:
        name = container["Names"][0].lstrip("/")
        networks = sorted(container.get("NetworkSettings", {}).get("Networks") or {})
        foreign = [n for n in networks if not n.startswith("rf-") and n not in ("none", "host")]
        if container.get("HostConfig", {}).get("NetworkMode") == "host":
            lines.append(f"outside the fence: container {name} uses the host's own network")
        elif foreign and len(foreign) < len(networks):
            lines.append(f"outside the fence: container {name}, in a segment, is also on network {', '.join(foreign)}")
        elif foreign:
            lines.append(f"outside the fence: container {name} on network {', '.join(foreign)}")
    return sorted(lines)


def live_tables(family: str) -> Tables:
    """The live rules of iptables; nothing where it is not installed."""
    return parse_save(live_text(family) or "")


def live_nft(wish: dict[str, Any]) -> Live:
    """The live rules of the own table; nothing where nftables is not installed or the table is not there.

    Raises:
        Fault: nft fails or hangs.
    """
    result = run("nft", "-j", "list", "table", "inet", TABLE)
    if result.returncode == MISSING or (result.returncode and "No such file or directory" in result.stderr):
        return {}
    if result.returncode:
        raise Fault(f"nft: {result.stderr.strip()}; nothing is changed while the live rules cannot be read")
    try:
        listing = json.loads(result.stdout)
    except ValueError as error:
        raise Fault(f"nft answers with something that is not JSON: {error}") from None
    return read_nft(listing, {segment["bridge"]: segment["name"] for segment in wish["segments"]})


def other_backend(version: str) -> tuple[str, str]:
    """Which back end iptables writes to, and a dump of the other one if anything is in it."""
    if "nf_tables" not in version:
        return "legacy", run("iptables-nft-save").stdout
    names = Path("/proc/net/ip_tables_names")  # lists the legacy tables in use, without loading any
    in_use = names.exists() and names.read_text(encoding="ascii").strip()
    return "nf_tables", run("iptables-legacy-save").stdout if in_use else ""


def bridge_filter_changes() -> list[str]:
    """What to switch on so that frames between two ports of one bridge pass the rules too."""
    if not BRIDGE_FILTER.is_dir():
        return ["+ kernel module br_netfilter"]
    return [
        f"~ sysctl net.bridge.{name} {value} → 1"
        for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
        if (value := (BRIDGE_FILTER / name).read_text(encoding="ascii").strip()) != "1"
    ]


def ensure_bridge_filter() -> None:
    """Make frames between two ports of one bridge pass the rules.

    Raises:
        Fault: the kernel cannot do it, so that the rules inside a segment would silently do nothing.
    """
    if not BRIDGE_FILTER.is_dir():
        run("modprobe", "br_netfilter")
    if not BRIDGE_FILTER.is_dir():
        # In a container modprobe finds no modules, but a rule that needs one makes the kernel load it.
        run("unshare", "--net", "iptables", "-A", "FORWARD", "-m", "physdev", "--physdev-is-bridged")
    if not BRIDGE_FILTER.is_dir():
        raise Fault(
            "kernel: module br_netfilter cannot be loaded, so nothing inside a bridge can be filtered; "
            "install the kernel's modules (`apt install linux-image-$(uname -r)`), "
            "or load it on the machine that hosts this one"
        )
    for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
        if (BRIDGE_FILTER / name).read_text(encoding="ascii").strip() != "1":
            try:
                (BRIDGE_FILTER / name).write_text("1\n", encoding="ascii")
            except OSError as error:
                raise Fault(f"sysctl net.bridge.{name}: cannot be set to 1: {error.strerror}") from error
