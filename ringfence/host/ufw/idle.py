"""Declared rules that decide nothing: for what a container publishes, or by an interface that is not there."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from ringfence.host.listening import Listener
from ringfence.host.ufw.rules import expand, overlap


def passed_by(
    entries: Iterable[dict[str, Any]], containers: Iterable[Listener], networks: Iterable[str]
) -> Iterator[str]:
    """Say which rules are about a port that somebody's container publishes: Docker decides that, before ufw.

    Args:
        entries: declared rules, profiles taken apart.
        containers: ports that containers publish.
        networks: of containers that ringfence did not make: what these ask of the host's address may come to ufw.
    """
    foreign = [one for one in containers if not one.own and not one.inward]
    inside = [ipaddress.ip_network(one, strict=False) for one in networks]
    for entry in entries:
        # A rule for a range, or for all ports, is for what the host answers in it.
        if ":" in (port := str(entry.get("port") or "").replace("-", ":")) or not port:
            continue
        if entry.get("direction", "in") != "in" or _from_within(str(entry.get("source") or "any"), inside):
            continue
        for one in (one for one in foreign if _is_about(entry, one)):
            yield (
                f"{one.key}, declared as the host's own ({entry['name']}, {entry.get('action') or 'allow'}), is "
                f"published by {one.holder}: what is published does not pass through ufw, so `from` would mean "
                "nothing, and nothing is denied. Take it out of ufw_rules, or stop that container and declare the "
                "service in lab_services"
            )
            break


def _is_about(entry: dict[str, Any], one: Listener) -> bool:
    ends = str(entry.get("destination") or "any")
    return any(
        rule.match.proto in ("any", one.proto)
        and overlap(rule.match.dport, str(one.port))
        and (ends == "any" or not one.address or rule.match.dst == one.address)
        for rule in expand(entry)
    )


def _from_within(source: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    if source == "any":
        return False
    asked = ipaddress.ip_network(source, strict=False)
    return any(asked.network_address in one and asked.broadcast_address in one for one in networks)


def by_no_interface(entries: Iterable[dict[str, Any]], interfaces: Collection[str]) -> Iterator[str]:
    """Say which rules are about an interface that is not there; a VPN's, and a bridge of ringfence's, come later."""
    for entry in entries:
        for key in ("interface", "interface_out"):
            name = str(entry.get(key) or "")
            if name and "+" not in name and not name.startswith("rf-") and name not in interfaces:
                like = difflib.get_close_matches(name, interfaces, n=1)
                meant = f", did you mean {like[0]}?" if like else ""
                yield (
                    f"rule {entry['name']} decides nothing as long as there is no interface {name} (there are: "
                    f"{', '.join(sorted(interfaces))}{meant})"
                )
