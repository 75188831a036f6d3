"""What an instance of the lab is made of: names, slots, addresses, engines. Pure: nothing here touches the machine."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lab.shell import LabError

DEMO = "demo"
SLOTS = range(8)
LABEL = "ringfence.lab"

# Debian release whose own Docker packages (or, for 29, the engine built for it) give that engine.
SUITES = {"none": "trixie", "20.10": "bookworm", "26.1": "trixie", "28.5": "sid", "29": "trixie"}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Side:
    """One network of an instance, and the numbers of the hosts that are on it.

    `lan` has the machine as gateway, `wan` leads nowhere, `supply` (IPv4 only) is how hosts on the wan alone get
    packages.
    """

    name: str
    subnet: ipaddress.IPv4Network
    subnet6: ipaddress.IPv6Network | None
    numbers: Mapping[str, int]

    @property
    def gateways(self) -> tuple[str, ...]:
        """The machine's addresses there: of IPv4, and of IPv6 where there is one."""
        return tuple(str(subnet[1]) for subnet in self.subnets)

    @property
    def subnets(self) -> tuple[Network, ...]:
        return (self.subnet, self.subnet6) if self.subnet6 else (self.subnet,)

    def address(self, host: str) -> str:
        return str(self.subnet[self.numbers[host]])

    def address6(self, host: str) -> str:
        """Its number is written as in IPv4: 10.213.0.30 is fd52:4600::30. Raises LabError where there is no IPv6."""
        if not self.subnet6:
            raise LabError(f"{self.name} has no IPv6")
        return str(self.subnet6[int(str(self.numbers[host]), 16)])

    def addresses(self, host: str) -> tuple[str, ...]:
        return (self.address(host), self.address6(host)) if self.subnet6 else (self.address(host),)

    def with_lengths(self, host: str) -> tuple[str, ...]:
        pairs = zip(self.addresses(host), self.subnets, strict=True)
        return tuple(f"{address}/{subnet.prefixlen}" for address, subnet in pairs)


@dataclass(frozen=True)
class Host:
    """A host: its engine (`none`: what installs one is a role, if anything) and its number on each of its networks."""

    name: str
    engine: str
    numbers: Mapping[str, int]

    @property
    def sides(self) -> str:
        """The networks that were asked for, as they are asked for: `lan`, `wan` or `lan+wan`."""
        return "+".join(side for side in ("lan", "wan") if side in self.numbers)


# It plays the other machines, and nothing is provisioned there.
OUTSIDE = Host("outside", "none", {"lan": 20, "wan": 20})


@dataclass(frozen=True)
class Instance:
    """A named set of hosts and their networks: `atlas` (with the engine), `outside`, and perhaps further ones."""

    name: str
    slot: int
    engine: str
    further: tuple[Host, ...] = ()

    @property
    def hosts(self) -> tuple[Host, ...]:
        return (Host("atlas", self.engine, {"lan": 10, "wan": 10}), OUTSIDE, *self.further)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(host.name for host in self.hosts)

    def host(self, name: str) -> Host:
        """The host of that name. Raises LabError when there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(
            f"instance '{self.name}' has no host '{name}', only {', '.join(self.names)}; "
            f"`./run lab up {self.name} --host {name}` adds it"
        )

    def _side(self, name: str, subnet: str, subnet6: str | None) -> Side:
        return Side(
            name,
            ipaddress.IPv4Network(subnet),
            ipaddress.IPv6Network(subnet6) if subnet6 else None,
            {host.name: host.numbers[name] for host in self.hosts if name in host.numbers},
        )

    @property
    def lan(self) -> Side:
        return self._side("lan", f"10.213.{self.slot}.0/24", f"fd52:4600:{self.slot}::/64")

    @property
    def wan(self) -> Side:
        return self._side("wan", f"198.51.100.{32 * self.slot}/27", f"2001:db8:{self.slot}::/64")

    @property
    def supply(self) -> Side:
        return self._side("supply", f"10.213.255.{16 * self.slot}/28", None)

    @property
    def sides(self) -> tuple[Side, ...]:
        """The networks that there are; each host's first one is that by which this machine reaches it."""
        return (self.lan, self.wan, *((self.supply,) if self.supply.numbers else ()))

    def sides_of(self, host: str) -> tuple[Side, ...]:
        """A host's networks. Raises LabError when there is no such host."""
        return tuple(side for side in self.sides if side.name in self.host(host).numbers)

    def address(self, host: str) -> str:
        """Where this machine reaches a host. Raises LabError when there is no such host."""
        return self.sides_of(host)[0].address(host)

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


def check_engine(engine: str, option: str = "--engine") -> str:
    """Return the engine. Raises LabError when there is no such engine, naming the nearest one."""
    if engine in SUITES:
        return engine
    near = difflib.get_close_matches(engine, SUITES, n=1, cutoff=0.3)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise LabError(f"{option} {engine}: not one of {', '.join(SUITES)}{hint}")


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


def clashes(slot: int, needed: Iterable[tuple[str, str]], further: Sequence[Host] = ()) -> list[str]:
    """What the machine needs and an instance with these further hosts in that slot would cut off, as sentences.

    `needed` holds (network or address, what it is) pairs; own bridges must be left out by the caller.
    """
    found = []
    instance = Instance("", slot, "none", tuple(further))
    for destination, purpose in needed:
        try:
            network = ipaddress.ip_network(destination, strict=False)
        except ValueError:
            continue
        if network.prefixlen == 0:
            continue
        for side in instance.sides:
            found += [
                f"{side.name} {subnet} overlaps {destination} ({purpose})"
                for subnet in side.subnets
                if network.version == subnet.version and network.overlaps(subnet)
            ]
    return found
