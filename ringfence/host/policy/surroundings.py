"""What only the host knows: its bridges, Docker, the live rules."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.host.bridges import INTERFACES, filter_frames, segment_bridges, unfiltered
from ringfence.host.engine import daemon_config, engine, running_backend
from ringfence.host.nft import nft_table
from ringfence.host.nowhere import tried_nowhere
from ringfence.host.policy.nft import TABLES, Line, listed
from ringfence.host.policy.rule import Around
from ringfence.host.policy.rules import vpn_of
from ringfence.host.policy.slices import slices_of, tells_slices
from ringfence.host.running import HUNG, MISSING, Fault, must, run, search_path
from ringfence.host.tables import Tables, families, live_text, parse_save
from ringfence.host.units import unit_states

BRIDGE_FILTER = Path("/proc/sys/net/bridge")


UNITS = ("ringfence-policy.service", "ringfence-policy-docker.service", "ringfence-ulogd.service")


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


DOCKER_BRIDGE = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}")


def surroundings(
    interfaces: dict[str, bool],
    routes: list[dict[str, Any]],
    networks: list[dict[str, Any]],
    wish: dict[str, Any],
    *,
    tells: bool,
) -> Around:
    """Which of the host's interfaces lead outside: pure.

    An interface that has an address and is no bridge leads somewhere else, and so does a bridge with a default route or
    with a route to a declared place (a br-lan), unless it is Docker's. All other bridges have containers or machines of
    this host behind them, whoever makes them and however they are called.

    Args:
        interfaces: {name: whether it is a bridge} of those that are no ports of another one.
        routes: entries of `ip -j route show table all`, both families.
        networks: Docker's, as it tells them.
        tells: see `Around`.
    """
    docker: dict[str, list[str]] = {}
    for network in networks:
        if network["Driver"] == "bridge":
            bridge = (network.get("Options") or {}).get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}"
            if not bridge.startswith("rf-"):
                docker[bridge] = [
                    c["Subnet"] for c in (network.get("IPAM") or {}).get("Config") or [] if c.get("Subnet")
                ]
    docker |= {name: [] for name in interfaces if DOCKER_BRIDGE.fullmatch(name) and name not in docker}
    places = [ipaddress.ip_network(n, strict=False) for place in wish["places"] for n in place["networks"]]
    leading = {dev for route in routes if _leads_outside(route, places) for dev in _devices(route)}
    # What has none is on its way into a container, or carries others.
    addressed = {dev for route in routes if not _every_interface_has(route) for dev in _devices(route)}
    uplinks = {
        name
        for name, bridge in interfaces.items()
        if name != "lo"
        and not name.startswith("rf-")
        and name not in docker
        and name in (leading if bridge else addressed)
    }
    named = {name for place in wish["places"] for name in place.get("interfaces", ())}
    named |= {vpn["interface"]} if (vpn := vpn_of(wish)) else set()  # also while the tunnel is down
    return Around(
        uplinks=tuple(sorted(uplinks | named | set(wish["uplinks"]))),
        docker=tuple(sorted(docker)),
        subnets=tuple(sorted(subnet for found in docker.values() for subnet in found)),
        tells=tells,
    )


def _leads_outside(route: dict[str, Any], places: list[Network]) -> bool:
    destination = route.get("dst", "default")
    if route.get("type", "unicast") != "unicast":
        return False
    if destination == "default":
        return True
    network = ipaddress.ip_network(destination, strict=False)
    # Two halves of the internet (VPNs that take everything) are a default route in disguise.
    return network.prefixlen <= 1 or any(p.version == network.version and p.overlaps(network) for p in places)


def _every_interface_has(route: dict[str, Any]) -> bool:
    return str(route.get("dst", "default")).startswith(("fe80:", "ff00:"))


def _devices(route: dict[str, Any]) -> list[str]:
    return [route["dev"]] if "dev" in route else [hop["dev"] for hop in route.get("nexthops", []) if "dev" in hop]


def known(around: Any) -> Around:
    """What only the host knows, as it was persisted; nothing is known from an earlier release's."""
    if not isinstance(around, dict):
        return Around()
    yes = ("tells", "slices")
    lists = {key: tuple(found) for key, found in around.items() if key not in yes}
    return Around(**lists, tells=bool(around["tells"]), slices=bool(around.get("slices")))


def matters(around: Around, wish: dict[str, Any], backend: str) -> Around:
    """What of it the rules depend on: a network that somebody makes beside the segments is no drift of theirs."""
    close = wish["unmanaged"] == "close"
    named = backend == "nftables" and not close
    return around._replace(docker=around.docker if named else (), subnets=around.subnets if close else ())


def remembering(around: Around, persisted: Any) -> Around:
    """The same, with the bridges of Docker's that were there when the policy was applied and are gone now."""
    before = known((persisted or {}).get("around")) if isinstance(persisted, dict) else Around()
    gone = {bridge for bridge in before.docker if not (INTERFACES / bridge).exists()} if around.docker else set()
    return around._replace(docker=tuple(sorted({*around.docker, *gone})))


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


def await_boot(seconds: float = 60) -> None:
    """Wait until the unit is through that puts the policy in order when Docker has started.

    Who restarts Docker is not told of it, and what it is about to do would look like a change that nobody announced.
    That unit takes the lock, so this is for those who do not hold it.

    Raises:
        Fault: it does not come to its end, or systemd does not answer.
    """
    unit = "ringfence-policy-docker.service"
    deadline = time.monotonic() + seconds
    while True:
        states = unit_states(["docker.service", unit], ["ActiveState", "Job"], now=True)
        # While Docker itself starts, which may take long, the unit only waits for it.
        if states["docker.service"].get("ActiveState") != "active" or not states[unit].get("Job"):
            return
        if time.monotonic() > deadline:
            raise Fault(f"{unit} does not come to an end: see `systemctl status {unit}`, then run again")
        time.sleep(0.1)  # between two questions


def look(wish: dict[str, Any], persisted: dict[str, Any] | None) -> Host:
    """Read the host's bridges and, if Docker runs, its networks and containers.

    Raises:
        Fault: something that should answer does not: nothing is known then, and nothing may be changed.
    """
    properties = ["ActiveState", "UnitFileState", "NeedDaemonReload", "ActiveEnterTimestampMonotonic"]
    states = unit_states(["docker.service", *UNITS], properties, now=True)  # those of before `await_boot` are of no use
    daemon = daemon_config() or {}
    # Asking the socket would start Docker where only docker.socket is active.
    running = states["docker.service"].get("ActiveState") == "active"
    backend = str(daemon.get("firewall-backend") or "iptables")
    networks, outside = [], []
    if running:
        backend = running_backend()
        networks = engine("GET", "/networks")
        outside = outside_the_fence(engine("GET", "/containers/json"))
    there = interfaces()
    around = surroundings(there, routes(), networks, wish, tells=tells_bridges())
    around = around._replace(slices=bool(slices_of(wish)) and tells_slices())
    if not running and persisted:
        # While Docker cannot be asked, nothing of what it said is forgotten, and any bridge may be one of its own.
        before = known(persisted["around"])
        around = around._replace(
            uplinks=tuple(name for name in around.uplinks if name in before.uplinks or not there.get(name)),
            docker=tuple(sorted({*before.docker, *around.docker})),
            subnets=tuple(sorted({*before.subnets, *around.subnets})),
        )
    return Host(around, backend, running, outside, states, daemon)


def interfaces() -> dict[str, bool]:
    """{name: whether it is a bridge} of all interfaces that are no ports of another one."""
    return {
        path.name: (path / "bridge").is_dir() for path in sorted(INTERFACES.iterdir()) if not (path / "master").exists()
    }


def routes() -> list[dict[str, Any]]:
    """All routes, both families. Raises Fault."""
    found: list[dict[str, Any]] = []
    for family in families():
        answer = must("ip", "-j", f"-{family[1]}", "route", "show", "table", "all")
        try:
            found += json.loads(answer or "[]")
        except ValueError as error:
            raise Fault(f"`ip -j -{family[1]} route` answers something that is not JSON: {error}") from None
    return found


def tells_bridges() -> bool:
    """Whether this kernel can tell by which bridge a frame comes. Raises Fault."""
    if not shutil.which("nft", path=search_path()):
        return True  # before a first run it need not be installed
    trial = 'table bridge t { chain c { type filter hook prerouting priority 0; meta ibrname "rf-*" drop; }; }'
    answer = tried_nowhere(f"nft {shlex.quote(trial)}", ["nft"])
    if answer.returncode in (MISSING, HUNG):
        raise Fault(answer.stderr)
    return answer.returncode == 0


def outside_the_fence(containers: list[dict[str, Any]]) -> list[str]:
    """Sentences about running containers that the policy does not hold."""
    lines = []
    for container in containers:
        if "ringfence.project" in (container.get("Labels") or {}) and not container.get("NetworkSettings", {}).get(
            "Networks", {}
        ).keys() - {"host", "none"}:
            continue  # declared to be in no network of its own
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


def live_nft() -> list[Line]:
    """The live rules of the own tables; nothing where nftables is not installed or a table is not there.

    Raises:
        Fault: nft fails or hangs.
    """
    return [line for table in TABLES for line in listed(table, nft_table(table))]


def as_listed(rules: str) -> list[Line]:
    """What nft would list of rules: they are loaded into a network namespace that nobody uses.

    Raises:
        Fault: nft does not take them; the message has the line.
    """
    script = "; ".join(["nft -f - || exit 9", *(f"nft --stateless list table {table}" for table in TABLES), ":"])
    answer = tried_nowhere(script, ["nft"], rules)
    if answer.returncode:
        place = re.search(r"stdin>?:(\d+)", answer.stderr)
        at = rules.splitlines()[int(place[1]) - 1].strip() if place else ""
        why = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[0]
        raise Fault(f"nft refuses the declared rules: {why} {at}".rstrip())
    head, found, tail = answer.stdout.partition(f"table {TABLES[1]} {{")
    return [*listed(TABLES[0], head), *listed(TABLES[1], found + tail)]


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
    ] + [f"~ bridge {bridge}: its own frames pass the rules" for bridge in unfiltered(segment_bridges())]


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
    filter_frames(segment_bridges())
