"""What a host forwards that is not Docker's: a bridge of virtual machines, a VPN, a network behind it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.host.engine import bridge_of, docker_runs, engine
from ringfence.host.files import read, sysctl_path
from ringfence.host.running import must
from ringfence.host.tables import live_text, parse_save
from ringfence.host.ufw.endings import others_tables
from ringfence.host.ufw.kernel import policies
from ringfence.host.ufw.rules import ANY, OWN, Lists
from ringfence.host.ufw.state import State
from ringfence.host.units import booted

ROUTE = "kept-route-"  # names of the rules that keep what was forwarded
FORWARDS = {"4": "net.ipv4.ip_forward", "6": "net.ipv6.conf.all.forwarding"}
_OTHERS = re.compile(r"lo|docker\d+|docker_gwbridge|br-[0-9a-f]{12}|veth.*|rf-.*")


class Routed(NamedTuple):
    """What is forwarded today and denied once ufw is in force.

    Attributes:
        pairs: interfaces by which it comes and goes → IP versions.
        why: what tells that the host forwards for others, in words; none where nothing does.
    """

    pairs: Mapping[tuple[str, str], str]
    why: list[str]


def routed(state: State) -> Routed:
    """Look what ufw's default would cut. Raises Fault."""
    if policies(state)["FORWARD"] == "ACCEPT":
        return Routed({}, [])
    # A table that nobody has used yet is not there, and lets pass whatever comes.
    open_ = [family for family in state.families if state.live[family].policies.get("FORWARD", "ACCEPT") == "ACCEPT"]
    families = [family for family in open_ if read(sysctl_path(FORWARDS[family])).strip() == "1"]
    if not families:
        return Routed({}, [])
    dockers = {bridge_of(network) for network in engine("GET", "/networks")} if booted() and docker_runs() else set()
    names = sorted(name for name in state.interfaces if name not in dockers and not _OTHERS.fullmatch(name))
    bridges = [name for name in names if Path("/sys/class/net", name, "bridge").is_dir()]
    tunnels = [name for name in names if is_tunnel(Path("/sys/class/net", name))]
    why = [f"the bridge {name}" for name in bridges] + [f"the tunnel {name}" for name in tunnels]
    for family in families:
        why += [f"the rule `{rule}`" for rule in translations(live_text(f"v{family}") or "", dockers)]
    why += [f"nft's table {name}" for name, text in others_tables() if re.search(r"masquerade|[sd]nat ", text)]
    return Routed(pairs(names, bridges, addressed(must("ip", "-o", "addr", "show")), families), why)


def is_tunnel(path: Path) -> bool:
    """Whether an interface is one of a VPN."""
    return (path / "tun_flags").exists() or "DEVTYPE=wireguard" in read(path / "uevent")


def addressed(text: str) -> dict[str, set[str]]:
    """Read `ip -o addr show`: IP version → interfaces that have an address which others may send to."""
    found: dict[str, set[str]] = {"4": set(), "6": set()}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[2] in ("inet", "inet6") and "scope global" in line:
            found["6" if words[2] == "inet6" else "4"].add(words[1])
    return found


def translations(text: str, dockers: Iterable[str]) -> list[str]:
    """The rules of iptables' table nat by which something is forwarded, and that are not Docker's."""
    own = tuple(f"-o {name} " for name in dockers)
    found = []
    for chain, rules in parse_save(text).get("nat", {}).items():
        for rule in rules:
            way = re.search(r"-j (MASQUERADE|SNAT|DNAT)\b", rule)
            ends = re.match(r"-s (\S+)/32 -d (\S+)/32 ", rule)
            hairpin = ends and ends[1] == ends[2]  # Docker's, of a container that asks itself
            theirs = chain.startswith(("DOCKER", "RF-")) or hairpin or any(mine in rule for mine in own)
            if way and not theirs and not re.search(r"-o (docker|br-|rf-)", rule):
                found.append(f"{chain} {rule}")
    return found


def pairs(
    names: list[str], bridges: list[str], addresses: Mapping[str, set[str]], families: Iterable[str]
) -> dict[tuple[str, str], str]:
    """Between which interfaces something may be forwarded, by which IP versions; from a bridge's port to another."""
    found: dict[tuple[str, str], str] = {}
    for family in families:
        ways = [name for name in names if name in addresses[family] or name in bridges]
        both = itertools.permutations(ways, 2)
        for pair in [*both, *((name, name) for name in bridges)]:
            found[pair] = found.get(pair, "") + family
    return found


def route_entries(found: Routed, rules: Lists, answer: str) -> list[dict[str, Any]]:
    """The rules that keep what is forwarded, and those that an earlier run made."""
    if answer != "keep":
        return []
    made: dict[tuple[str, str], set[str]] = {}
    for family, there in rules.items():
        for rule in there:
            if rule.comment.startswith(OWN + ROUTE):
                made.setdefault((rule.match.iface_in, rule.match.iface_out), set()).add(family)
    for pair, families in found.pairs.items():
        made.setdefault(pair, set()).update(families)
    return [
        {
            "name": f"{ROUTE}{one}-{other}", "action": "allow", "direction": "route",
            "source": "any" if len(families) > 1 else ANY[min(families)],
            "interface": one, "interface_out": other,
        }
        for (one, other), families in sorted(made.items())
    ]  # fmt: skip


def routed_refusals(found: Routed, answer: str, declared: bool) -> list[str]:
    """The refusal where what is forwarded today would be cut, and nobody has said that it may be.

    Args:
        declared: whether a rule of the user's lets through something that is forwarded.
    """
    if not found.why or not found.pairs or answer in ("keep", "close") or declared:
        return []
    ways = sorted({name for pair in found.pairs for name in pair})
    return [
        "this host forwards whatever it gets, and ufw denies that by default. Whoever sends through it, by "
        f"{', '.join(ways)}, is cut off ({'; '.join(found.why[:5])}). Say `ufw_unmanaged_routed: keep` (it stays open "
        "between these interfaces) or `ufw_unmanaged_routed: close`, or declare what is to pass in rules of your own "
        "with `direction: route` (docs/inventory.md)"
    ]
