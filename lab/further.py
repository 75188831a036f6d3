"""Further hosts of an instance: how they are asked for, and which numbers they get. Pure, as `lab.plan` is."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lab.plan import Host, check_engine
from lab.shell import LabError

SIDES = ("lan", "wan", "lan+wan")
# Names of hosts that are there anyway, and of groups of the inventory.
TAKEN = {"all", "atlas", "demo", "localhost", "outside", "ungrouped", "vantages"}
# The numbers that further hosts have, in order: the wan has 32 addresses for each instance.
NUMBERS = {"lan": range(30, 254), "wan": range(24, 28)}
# The supply has 16 of them, for those that are on the wan alone.
SUPPLY = -16


@dataclass(frozen=True)
class Wish:
    """A further host as it was asked for; None where nothing was said."""

    name: str
    engine: str | None
    sides: str | None


def parse(text: str) -> Wish:
    """Read `NAME[=ENGINE][@SIDES]`. Raises LabError when that is not what it is."""
    found = re.fullmatch(r"([^=@]*)(?:=([^=@]*))?(?:@([^=@]*))?", text)
    if not found:
        raise LabError(f"--host {text}: write NAME, NAME=ENGINE, NAME@SIDES or NAME=ENGINE@SIDES, as in nas=20.10@lan")
    name, engine, sides = found.groups()
    # No '-': the container rf-a-b-c belongs to host c of instance a-b, and never to b-c of a.
    if not re.fullmatch(r"[a-z][a-z0-9]{0,23}", name):
        raise LabError(f"--host {text}: a host's name has 1 to 24 characters from a-z and 0-9 and starts with a letter")
    if name in TAKEN:
        raise LabError(f"--host {text}: the name '{name}' is taken, choose another one")
    if sides is not None and sides not in SIDES:
        raise LabError(f"--host {text}: '{sides}' is not one of {', '.join(SIDES)}")
    return Wish(name, None if engine is None else check_engine(engine, f"--host {name} with engine"), sides)


def join(instance: str, there: Sequence[Host], wishes: Sequence[Wish]) -> tuple[Host, ...]:
    """The further hosts of an instance: those that are there, and after them what is asked for besides.

    Raises:
        LabError: one is asked for twice, or otherwise than it is, or there is no room for it.
    """
    hosts = {host.name: host for host in there}
    for name in (names := [wish.name for wish in wishes]):
        if names.count(name) > 1:
            raise LabError(f"--host {name}: it is asked for twice, name it once")
    for wish in wishes:
        if wish.name in hosts:
            _must_be(instance, hosts[wish.name], wish)
        else:
            hosts[wish.name] = _new(wish, hosts.values())
    return tuple(hosts.values())


def _must_be(instance: str, host: Host, wish: Wish) -> None:
    fix = f"first `./run lab down {instance}`, or give the new host another name"
    if wish.engine not in (None, host.engine):
        raise LabError(f"host '{host.name}' of '{instance}' has engine {host.engine}, not {wish.engine}: {fix}")
    if wish.sides not in (None, host.sides):
        raise LabError(f"host '{host.name}' of '{instance}' is on {host.sides}, not on {wish.sides}: {fix}")


def _new(wish: Wish, others: Collection[Host]) -> Host:
    numbers = {}
    for side in (wish.sides or "lan").split("+"):
        used = {host.numbers.get(side) for host in others}
        free = [number for number in NUMBERS[side] if number not in used]
        if not free:
            raise LabError(
                f"--host {wish.name}: the {side} has room for {len(NUMBERS[side])} further hosts, and they are there: "
                f"{', '.join(host.name for host in others if side in host.numbers)}; "
                + ("put it on the lan alone (@lan)" if side == "wan" else "use another instance")
            )
        numbers[side] = free[0]
    if "lan" not in numbers:
        numbers["supply"] = numbers["wan"] + SUPPLY
    return Host(wish.name, wish.engine or "none", numbers)


def written(host: Host) -> str:
    """A host's numbers as its container is labelled with them: `lan:30+wan:24`."""
    return "+".join(f"{side}:{number}" for side, number in host.numbers.items())


def read(name: str, engine: str, numbers: str) -> Host:
    """The host that a container is labelled with."""
    pairs = (pair.split(":") for pair in numbers.split("+"))
    return Host(name, engine, {side: int(number) for side, number in pairs})
