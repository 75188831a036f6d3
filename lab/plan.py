"""What an instance of the lab is made of: names, slots, addresses, engines. Pure: nothing here touches the machine."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lab.shell import LabError

DEMO = "demo"
SLOTS = range(8)
HOSTS = ("atlas", "outside")
LABEL = "ringfence.lab"

# Debian release whose own Docker packages (or, for 29, the engine built for it) give that engine.
SUITES = {"none": "trixie", "20.10": "bookworm", "26.1": "trixie", "28.5": "sid", "29": "trixie"}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Side:
    """One network of an instance: `lan` (has the machine as gateway) or `wan` (leads nowhere)."""

    name: str
    subnet: ipaddress.IPv4Network
    subnet6: ipaddress.IPv6Network

    @property
    def gateway(self) -> str:
        return str(self.subnet[1])

    @property
    def gateway6(self) -> str:
        return str(self.subnet6[1])

    def address(self, host: str) -> str:
        return str(self.subnet[OFFSETS[host]])

    def address6(self, host: str) -> str:
        return str(self.subnet6[int(str(OFFSETS[host]), 16)])


OFFSETS = {"atlas": 10, "outside": 20}


@dataclass(frozen=True)
class Instance:
    """A named pair of hosts and their two networks."""

    name: str
    slot: int
    engine: str

    @property
    def suite(self) -> str:
        return SUITES[self.engine]

    @property
    def lan(self) -> Side:
        return Side(
            "lan",
            ipaddress.IPv4Network(f"10.213.{self.slot}.0/24"),
            ipaddress.IPv6Network(f"fd52:4600:{self.slot}::/64"),
        )

    @property
    def wan(self) -> Side:
        return Side(
            "wan",
            ipaddress.IPv4Network(f"198.51.100.{32 * self.slot}/27"),
            ipaddress.IPv6Network(f"2001:db8:{self.slot}::/64"),
        )

    @property
    def sides(self) -> tuple[Side, Side]:
        return (self.lan, self.wan)

    def container(self, host: str) -> str:
        return f"rf-{self.name}-{host}"

    def network(self, side: Side) -> str:
        return f"rf-{self.name}-{side.name}"

    def volumes(self, host: str) -> dict[str, str]:
        """Volume name → where it is mounted: what an engine inside the host writes must not lie on overlayfs."""
        return {
            f"rf-{self.name}-{host}-docker": "/var/lib/docker",
            f"rf-{self.name}-{host}-containerd": "/var/lib/containerd",
        }


def check_name(name: str) -> str:
    """Return the name of an instance. Raises LabError when it cannot be one."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,23}", name):
        raise LabError(
            f"instance '{name}': a name has 1 to 24 characters from a-z, 0-9 and '-' and starts with a letter"
        )
    return name


def check_engine(engine: str) -> str:
    """Return the engine. Raises LabError when there is no such engine, naming the nearest one."""
    if engine in SUITES:
        return engine
    near = difflib.get_close_matches(engine, SUITES, n=1, cutoff=0.3)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise LabError(f"--engine {engine}: not one of {', '.join(SUITES)}{hint}")


def allocate_slot(name: str, taken: Mapping[str, int], unusable: Mapping[int, str] | None = None) -> int:
    """The slot of an instance: its old one, 0 for the demo, else the first free one.

    `taken` maps the names of existing instances to their slots, `unusable` maps slots to the reason why this machine
    cannot have them. Raises LabError when none is left.
    """
    unusable = unusable or {}
    if name in taken:
        return taken[name]
    if name == DEMO:
        if 0 in unusable:
            raise LabError(
                f"instance '{name}': {unusable[0]}. Free that network, or use a lab with another name, "
                "which gets other addresses"
            )
        return 0
    free = [slot for slot in SLOTS if slot and slot not in taken.values() and slot not in unusable]
    if free:
        return free[0]
    others = ", ".join(sorted(other for other in taken if other != DEMO))
    reasons = "".join(f"; slot {slot}: {reason}" for slot, reason in unusable.items() if slot)
    raise LabError(
        f"instance '{name}': no slot is free" + (f", take one down first: {others}" if others else "") + reasons
    )


def clashes(slot: int, needed: Iterable[tuple[str, str]]) -> list[str]:
    """What the machine needs and an instance in that slot would cut off, as sentences.

    `needed` holds (network or address, what it is) pairs; own bridges must be left out by the caller.
    """
    found = []
    instance = Instance("", slot, "none")
    for destination, purpose in needed:
        try:
            network = ipaddress.ip_network(destination, strict=False)
        except ValueError:
            continue
        if network.prefixlen == 0:
            continue
        for side in instance.sides:
            subnet: Network = side.subnet if network.version == 4 else side.subnet6
            if network.overlaps(subnet):
                found.append(f"{side.name} {subnet} overlaps {destination} ({purpose})")
    return found
