"""Segments for a project's networks, and how a service is connected."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from ringfence.compile.hosts import DOCKER_ADDRESS_POOLS
from ringfence.importing.files import Project
from ringfence.importing.forms import text_of
from ringfence.importing.names import Names, networks_of
from ringfence.importing.said import Said, question

_HOST_RULE = re.compile(r"Host(?:SNI)?\(([^)]*)\)")


def segments(project: Project, names: Names, remarks: list[str]) -> dict[str, dict[str, Any]]:
    """Return the segments for the networks that services use."""
    found: dict[str, dict[str, Any]] = {}
    for network, segment in names.segments.items():
        declared = project.sections["networks"].get(network) or {}
        said = Said()
        if declared.get("internal"):
            said.entry["internet"] = False
        if not _bridged(declared):
            driver = declared["driver"]
            said.questions["driver"] = (
                f"the network '{network}' was of the kind {driver}: its services had addresses in your own network. "
                "Here they have addresses of the segment, and publish opens their ports on the host's: do they still "
                "do what they did?"
            )
        else:
            _subnet(project, network, declared, said)
        rest = sorted(set(declared) - {"driver", "internal", "ipam", "external", "name"})
        if rest:
            remarks.append(f"networks.{network}: {', '.join(rest)} (the lab makes its networks itself)")
        if declared.get("name"):
            remarks.append(f"networks.{network}: its name on the host was {declared['name']}")
        found[segment] = said.whole
    for network in sorted(set(project.sections["networks"]) - set(names.segments)):
        remarks.append(f"networks.{network}: no service uses it")
    return found


def _bridged(declared: Mapping[str, Any]) -> bool:
    return str(declared.get("driver") or "bridge") in ("bridge", "default")


def _subnet(project: Project, network: str, declared: Mapping[str, Any], said: Said) -> None:
    subnets = [
        text_of(one.get("subnet")) for one in (declared.get("ipam") or {}).get("config") or [] if one.get("subnet")
    ]
    if not subnets:
        return
    fixed = any((networks_of(service).get(network) or {}).get("ipv4_address") for service in project.services.values())
    four = [one for one in subnets if ":" not in one]
    if not fixed or not four:
        said.questions["subnet"] = (
            f"it was {', '.join(subnets)}: the lab chooses another one, so remove this line if nobody outside relies "
            "on it, or write subnet as well"
        )
        return
    said.entry["subnet"] = four[0]
    try:
        found = ipaddress.ip_network(four[0])
    except ValueError:
        found = ipaddress.ip_network("0.0.0.0/0")
    if not 16 <= found.prefixlen <= 28:
        said.entry["subnet"] = question(f"it was {four[0]}: write one from /16 to /28 in which its addresses are")
    elif any(found.overlaps(ipaddress.ip_network(pool["base"])) for pool in DOCKER_ADDRESS_POOLS):
        said.entry["subnet"] = question(
            f"it was {four[0]}, of which Docker takes networks of its own (docker_address_pools): write another one, "
            "and the services' addresses to fit, also where their settings name them; or set docker_address_pools aside"
        )


def connect(project: Project, names: Names, segments: Mapping[str, Any], name: str, said: Said) -> None:
    """Say the segments of a service, its fixed addresses in them, or whose network it shares."""
    service = project.services[name]
    mode = text_of(service.get("network_mode") or "")
    if mode and mode != "bridge":
        _mode(project, names, mode, said)
        return
    said.entry["segments"] = [names.segments[network] for network in networks_of(service)]
    if mode:
        default = project.sections["networks"].get("default") or {}
        told = "it was in Docker's own bridge, where containers reach each other by address alone"
        if default.get("internal") or default.get("external"):
            said.questions["network_mode"] = (
                f"{told}, with a way out: is {said.entry['segments'][0]} the segment for it?"
            )
        else:
            said.remarks.append(f"network_mode: {told}; here it is in a segment, and calls nobody unless it says so")
    addresses: dict[str, Any] = {}
    for network, given in networks_of(service).items():
        declared = project.sections["networks"].get(network) or {}
        if declared.get("external"):
            said.questions[f"network {network}"] = (
                f"'{network}' is shared with other projects, and whoever is in it reached {names.services[name]}: let "
                "them say so under calls (or give this one a site, which the lab's proxy serves)"
            )
        given = given or {}
        if given.get("ipv4_address") and not _bridged(declared):
            said.remarks.append(
                f"networks.{network}: its address there, {given['ipv4_address']}, was of your own network"
            )
        elif given.get("ipv4_address"):
            moved = not isinstance(segments[names.segments[network]].get("subnet"), str)
            address = text_of(given["ipv4_address"])
            addresses[names.segments[network]] = (
                question(f"it was {address}: write one of the segment's new subnet") if moved else address
            )
        if given.get("ipv6_address"):
            said.remarks.append(f"networks.{network}: the IPv6 address has the IPv4 one's number")
        if given.get("aliases"):
            others = ", ".join(str(alias) for alias in given["aliases"])
            said.remarks.append(f"networks.{network}: also called {others} (who calls it finds it so)")
        rest = sorted(set(given) - {"ipv4_address", "ipv6_address", "aliases"})
        if rest:
            said.questions[f"network {network}"] = f"it said {', '.join(rest)} of '{network}': do without?"
    if addresses:
        said.entry["address"] = addresses


def _mode(project: Project, names: Names, mode: str, said: Said) -> None:
    kind, _, other = mode.partition(":")
    shares = names.services.get(names.hosts.get(other, other)) if other else None
    value = shares if kind in ("service", "container") else mode
    if value and value in ("host", "none", shares):
        said.entry["network"] = value
        if value == "host":
            said.entry["publish"] = question(
                "it listens on the host itself, at ports that the files do not tell: write them with the places that "
                "use them, such as [{port: 8123, from: [lan]}], or [] where nobody outside does"
            )
        return
    meaning = {
        "host": "was in the host's own network, past every bridge",
        "none": "had no network",
        "service": f"shared the network of '{other}'",
        "container": f"shared the network of the container '{other}'",
    }.get(kind, f"had the network mode '{mode}'")
    said.entry["segments"] = question(f"it {meaning}: name the segments that it shall be connected to")


def routed_by_labels(service: Mapping[str, Any], name: str, said: Said) -> None:
    """Ask for the site of a service that told another proxy by its labels to serve it."""
    labels = service.get("labels") or {}
    routers = {key: text_of(value) for key, value in labels.items()}
    known = sorted({key.partition(".")[0] for key in routers if re.match(r"(?:traefik|caddy|nginx|swag)\b", key)})
    if known and routers.get("traefik.enable", "true").lower() != "false":
        hosts = sorted({host for value in routers.values() for host in _HOST_RULE.findall(value)})
        served = f" as {', '.join(hosts)}" if hosts else ""
        said.questions["site"] = (
            f"labels told {', '.join(known)} to serve {name}{served}: write site and access, so that the lab's proxy "
            "does it, or let that proxy call it"
        )
