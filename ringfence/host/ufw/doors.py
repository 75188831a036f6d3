"""Side doors: chains of other programs by which something comes in that ufw is to decide alone."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ringfence.host.ufw.state import PREFIX, opening

Chains = dict[str, list[str]]
INTO = re.compile(r"(?:^|\s)(! )?-i (\S+)")
TARGET = re.compile(r"(?:^|\s)(?:-j|-g) (\S+)")


def side_doors(chains: Chains, interfaces: Iterable[str]) -> list[str]:
    """The rules of INPUT that lead to a chain, not ufw's, that lets in what comes by one of the interfaces.

    Args:
        chains: the filter table's, rules as iptables-save prints them.
    """
    found = []
    for rule in chains.get("INPUT", []):
        if any(meets(rule, name) and lets_in(chains, target(rule), name, frozenset()) for name in interfaces):
            found.append(rule)
    return found


def lets_in(chains: Chains, chain: str, interface: str, seen: frozenset[str]) -> bool:
    """Whether a chain, or one that it leads to, accepts something that comes by an interface. What else a rule asks
    for is not looked at: the chain is another program's, and may hold another rule tomorrow."""
    if chain not in chains or chain in seen or chain.startswith(tuple(PREFIX.values())):
        return False
    mine = [rule for rule in chains[chain] if meets(rule, interface)]
    return bool(opening(mine)) or any(lets_in(chains, target(rule), interface, seen | {chain}) for rule in mine)


def target(rule: str) -> str:
    """The chain that a rule leads to; "" for none."""
    found = TARGET.search(rule)
    return found[1] if found else ""


def meets(rule: str, interface: str) -> bool:
    """Whether a rule may be meant for what comes by an interface."""
    found = INTO.search(rule)
    if not found:
        return True
    name = found[2]
    same = interface.startswith(name[:-1]) if name.endswith("+") else interface == name
    return same != bool(found[1])
