"""Services in the host's own network, told from all else that it sends by their control groups.

Each has a slice of systemd's, in which its container is started. It stands before the rules are loaded, as nftables
looks a control group up when it takes a rule, and stays when the container goes.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from typing import Any

from ringfence.host.nowhere import tried_nowhere
from ringfence.host.policy.rule import (
    ECHO,
    ICMP,
    NEIGHBOURS,
    Around,
    Rule,
    address,
    among,
    ends,
    family_of,
    networks,
    of_proto,
    outside,
    span,
)
from ringfence.host.running import HUNG, MISSING, Fault, must, search_path
from ringfence.host.slices import CGROUPS, SLICES, depth_of, path_within

# What may go to the loopback addresses: what a program says to itself, and to whom else listens there.
_LOOPBACK = {"v4": "127.0.0.0/8", "v6": "::1"}


def slices_of(wish: dict[str, Any]) -> list[dict[str, Any]]:
    """What is wished of services in the host's network."""
    return list(wish.get("slices") or ())


def tells_slices() -> bool:
    """Whether this host can tell by which control group something is sent. Raises Fault."""
    if not (CGROUPS / "cgroup.controllers").exists():
        return False  # control groups of version 1
    if not shutil.which("nft", path=search_path()):
        return True  # before a first run it need not be installed
    there = next(iter(sorted(path.name for path in CGROUPS.iterdir() if path.is_dir())), "")
    match = f'socket cgroupv2 level 1 "{there}"'
    trial = f"table inet t {{ chain c {{ type filter hook output priority 0; {match} drop; }}; }}"
    answer = tried_nowhere(f"nft {shlex.quote(trial)}", ["nft"])
    if answer.returncode in (MISSING, HUNG):
        raise Fault(answer.stderr)
    return answer.returncode == 0


def absent(wish: dict[str, Any]) -> list[str]:
    """Return the slices that are not there yet."""
    return [one["slice"] for one in slices_of(wish) if not (CGROUPS / SLICES / one["slice"]).is_dir()]


def ensure_slices(wish: dict[str, Any]) -> None:
    """Start the slices that are not there. Raises Fault."""
    for name in absent(wish):
        must("systemctl", "start", name, timeout=30)
        if not (CGROUPS / SLICES / name).is_dir():
            raise Fault(f"{name} was started and has no control group: see `systemctl status {name}`")


def idle_slices() -> list[str]:
    """Return the slices in which nothing runs any more."""
    found = sorted((CGROUPS / SLICES).glob("ringfence-*.slice"))
    return [path.name for path in found if "populated 0" in (path / "cgroup.events").read_text(encoding="ascii")]


def tellable(rules: list[Rule], wish: dict[str, Any]) -> list[Rule]:
    """Return rules as nft takes them while slices are not there yet, to compare them by their names."""
    gone = {_words(name) for name in absent(wish)}
    return [rule._replace(words="meta mark 0") if rule.words in gone else rule for rule in rules]


def _words(name: str) -> str:
    return f'socket cgroupv2 level {depth_of(name)} "{path_within(name)}"'


def from_slices(wish: dict[str, Any], around: Around) -> Iterator[Rule]:
    """What services in the host's network send: declared calls and egress, and what they say to themselves."""
    for one in slices_of(wish) if around.slices else ():
        yield Rule("RF-OUT", f"service {one['name']}", f"goto RF-OUT/{one['name']}", words=_words(one["slice"]))


def slice_chains(wish: dict[str, Any], around: Around) -> Iterator[Rule]:
    """The chains that `from_slices` leads to."""
    for one in slices_of(wish) if around.slices else ():
        yield from _chain(wish, one, around)


def _chain(wish: dict[str, Any], one: dict[str, Any], around: Around) -> Iterator[Rule]:
    chain, name = f"RF-OUT/{one['name']}", f"service {one['name']}"
    # Who makes packets by hand could pose as anybody towards whom it may call, and towards the host itself.
    yield Rule(chain, name, "drop", words="fib saddr type != local")
    yield Rule(chain, name, "accept", state="established")
    for family, own in _LOOPBACK.items():
        yield Rule(chain, name, "accept", family, out="lo", destination=own)
    for kind in (*NEIGHBOURS, "130", "131", "132", "143"):
        yield Rule(chain, name, "accept", "v6", proto="icmp6", type=kind)
    yield Rule(chain, name, "accept", "v4", proto="igmp")
    for flow in one["flows"]:
        label = of_proto(f"flow {flow['name']}", flow["proto"], flow["port"])
        for family, destination in ends(flow, "destination"):
            yield Rule(
                chain, label, "accept", family, destination=destination, proto=flow["proto"], dport=span(flow["port"])
            )
    for door in one["doors"]:  # what the host itself answers it
        label = of_proto(f"host {door['name']}", door["proto"], door["port"])
        yield Rule(chain, label, "accept", out="lo", proto=door["proto"], dport=span(door["port"]))
    # As for segments: egress is for what is outside. Behind anything else are containers, and the host's own addresses.
    yield Rule(chain, name, f"goto {chain}/drop", **outside(around, "!oifname"))
    for entry in one["egress"]:
        yield from _egress(wish, chain, entry)
    yield Rule(chain, name, f"goto {chain}/drop")
    yield Rule(f"{chain}/drop", name, f"log RF DROP {one['name']}")
    yield Rule(f"{chain}/drop", name, "drop")


def _egress(wish: dict[str, Any], chain: str, entry: dict[str, Any]) -> Iterator[Rule]:
    proto, port = entry["proto"], entry["port"]
    label = of_proto(f"egress {entry['name']}", proto, port)
    for family, key in (("v4", "ip daddr"), ("v6", "ip6 daddr")):
        match: dict[str, Any] = {"proto": proto, "dport": span(port)}
        if proto == "icmp":
            match = {"proto": ICMP[family], "type": ECHO[family]}
        if entry["to"] == "internet":
            private = among(networks(wish["private"], family))
            yield Rule(chain, label, "accept", family, keys=(f"!{key}",), elements=private, **match)
        elif family_of(entry["to"]) == family:
            yield Rule(chain, label, "accept", family, destination=address(entry["to"]), **match)
