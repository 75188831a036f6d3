"""Connections of networks that are no longer behind a peer: they would live on."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

from ringfence.host.running import Fault, must, run
from ringfence.host.wireguard.declared import Network, network

DELETED_NONE = 1  # conntrack's exit code where nothing was deleted: it has ended by itself


class Flow(NamedTuple):
    """The ends of a tracked connection: who opened it to whom, and who answers."""

    source: str
    destination: str
    callee: str
    answered: str  # whom the callee answers: another one after masquerading


def vanished(before: Iterable[tuple[str, str]], after: Iterable[tuple[str, str]]) -> list[Network]:
    """Return the networks that a peer had and has no longer, each as (name of the peer, network)."""
    kept: dict[str, list[Network]] = {}
    for name, text in after:
        kept.setdefault(name, []).append(network(text))
    gone = set[Network]()
    for name, text in before:
        left = [network(text)]
        for other in kept.get(name, []):
            left = [part for one in left for part in without(one, other)]
        gone |= set(left)
    return sorted(gone, key=lambda one: (one.version, one))


def without(one: Network, other: Network) -> list[Network]:
    """Return what is left of a network without another."""
    if one.version != other.version or not one.overlaps(other):
        return [one]
    if one.subnet_of(other):  # type: ignore[arg-type]  # of one version
        return []
    return list(one.address_exclude(other))  # type: ignore[arg-type]


def read_flows(listing: str) -> list[Flow]:
    """Take the output of `conntrack -L` apart."""
    found = []
    for line in listing.splitlines():
        sources, destinations = re.findall(r"\bsrc=(\S+)", line), re.findall(r"\bdst=(\S+)", line)
        if len(sources) == len(destinations) == 2:
            found.append(Flow(sources[0], destinations[0], sources[1], destinations[1]))
    return found


def concerned(flows: Iterable[Flow], networks: Iterable[Network]) -> list[Flow]:
    """Return the connections with an end in one of the networks, each once."""
    places = list(networks)
    return list(
        dict.fromkeys(
            flow for flow in flows if any(ipaddress.ip_address(end) in place for end in set(flow) for place in places)
        )
    )


def end_flows(networks: Iterable[Network]) -> int:
    """Delete the connections from and to networks; returns how many were there.

    Raises:
        Fault: they cannot be listed or deleted, so they live on.
    """
    count = 0
    for version, family in ((4, "ipv4"), (6, "ipv6")):
        places = [place for place in networks if place.version == version]
        if not places:
            continue
        found = concerned(read_flows(must("conntrack", "-L", "-f", family, timeout=60)), places)
        count += len(found)
        for flow in found:
            ends = ("-s", flow.source, "-d", flow.destination, "-r", flow.callee, "-q", flow.answered)
            done = run("conntrack", "-D", "-f", family, *ends)
            if done.returncode not in (0, DELETED_NONE):
                raise Fault(f"connections of a removed peer live on: {done.stderr.strip()}")
    return count
