"""Why a policy cannot be loaded, each reason with the fix."""

from __future__ import annotations

import re
from typing import Any

from ringfence.host.engine import DAEMON_CONFIG
from ringfence.host.policy.rule import OWN, address, family_of, span
from ringfence.host.policy.rules import vpn_egress, vpn_of
from ringfence.host.policy.slices import slices_of
from ringfence.host.running import Fault
from ringfence.host.tables import parse_save

SEGMENT_BRIDGE = re.compile(r"rf-[A-Za-z0-9_.-]{1,12}")


CHAINS = (  # no segment's name
    "PRE", "FROM", "NEIGHBOUR", "TRIED", "RAW", "FORGED", "FRAME", "FWD", "IN", "PUBLIC", "DROP", "HOST", "PROXY",
    "GUESTS", "OUT", "NAT", "OPEN", "BRIDGED", "SHUT", "VPN", "ASTRAY",
)  # fmt: skip


INTERFACE = re.compile(r"[A-Za-z0-9_.@-]{1,15}")


SLICE = re.compile(r"ringfence-[A-Za-z0-9_.]{1,64}\.slice")
SLICE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


class Refused(Fault):
    """What is desired is refused; one reason a line."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


def wish_refusals(wish: dict[str, Any]) -> list[str]:
    """Why this cannot be loaded on any host."""
    refusals = []
    bridges, vpn = {segment["bridge"] for segment in wish["segments"]}, vpn_of(wish)
    for segment in wish["segments"]:
        owner, bridge = f"policy_segments.{segment['name']}", segment["bridge"]
        if not SEGMENT_BRIDGE.fullmatch(bridge):
            refusals.append(f"{owner}.bridge: '{bridge}' must begin with 'rf-' and have at most 15 characters")
        elif bridge.removeprefix("rf-") in CHAINS:
            refusals.append(f"{owner}.bridge: '{bridge}' would take a chain of ringfence's own; give it another name")
    used = [(f"policy_flows.{f['name']}", f[key]) for f in wish["flows"] for key in ("from_bridge", "to_bridge")]
    for kind in ("endpoints", "egress", "published", "host"):
        used += [(f"policy_{kind}.{entry['name']}", entry["bridge"]) for entry in wish[kind] if entry.get("bridge")]
    refusals += [
        f"{owner}: bridge '{bridge}' is not in policy_segments; add it, or correct the name"
        for owner, bridge in used
        if bridge not in bridges and not (vpn and bridge == vpn["interface"] and owner.startswith("policy_flows."))
    ]
    refusals += vpn_refusals(wish, vpn) if vpn else []
    refusals += slice_refusals(wish)
    for kind, keys in (
        ("flows", ("port",)),
        ("egress", ("port",)),
        ("published", ("port", "published")),
        ("host", ("port",)),
    ):
        for entry in wish[kind]:
            for key in keys:
                if not is_port(span(entry.get(key))) and not (kind == "egress" and entry.get("proto", "any") == "any"):
                    refusals.append(
                        f"policy_{kind}.{entry['name']}.{key}: '{entry.get(key)}' is neither a port nor a range "
                        "such as '8000-8010'"
                    )
    refusals += address_refusals(wish)
    refusals += endpoint_refusals(wish) if not refusals else []
    refusals += [
        f"policy_places.{place['name']}.interfaces: '{name}' is no interface's name (at most 15 characters)"
        for place in wish["places"]
        for name in place["interfaces"]
        if not INTERFACE.fullmatch(name)
    ]
    refusals += [
        f"policy_uplinks: '{name}' is no interface's name (at most 15 characters)"
        for name in wish["uplinks"]
        if not INTERFACE.fullmatch(name)
    ]
    return list(dict.fromkeys(refusals))


def vpn_refusals(wish: dict[str, Any], vpn: dict[str, Any]) -> list[str]:
    """Why the interface that leads to other hosts cannot be one."""
    found, name = [], vpn["interface"]
    if not INTERFACE.fullmatch(name) or name.startswith("rf-"):
        found.append(f"policy_vpn.interface: '{name}' must have at most 15 characters and not begin with 'rf-'")
    for flow in wish["flows"]:
        if flow["from_bridge"] == flow["to_bridge"] == name:
            found.append(f"policy_flows.{flow['name']}: both ends are other hosts; write it as policy_vpn.transit")
    for entry in vpn["transit"]:
        if not is_port(span(entry["port"])):
            found.append(f"policy_vpn.transit.{entry['name']}.port: '{entry['port']}' is no port and no range of them")
    for entry in vpn_egress(wish):
        if entry.get("proto", "any") != "any" and not is_port(span(entry.get("port", "any"))):
            found.append(f"policy_vpn.egress.{entry['name']}.port: '{entry['port']}' is no port and no range of them")
    values = [("networks", network) for network in vpn["networks"]]
    keys = ("source", "source6", "destination", "destination6")
    values += [(f"transit.{e['name']}.{key}", e[key]) for e in vpn["transit"] for key in keys if e.get(key)]
    values += [
        (f"egress.{e['name']}.{key}", e[key])
        for e in vpn_egress(wish)
        for key in ("source", "source6", "to")
        if e.get(key) and e[key] != "internet"
    ]
    for key, value in values:
        try:
            address(value)
        except ValueError:
            found.append(f"policy_vpn.{key}: '{value}' is not a network in CIDR notation")
    return found


def slice_refusals(wish: dict[str, Any]) -> list[str]:
    """Why a service in the host's network cannot be told by its slice."""
    found = []
    for one in slices_of(wish):
        owner = f"policy_slices.{one['name']}"
        if not SLICE.fullmatch(one["slice"]):
            found.append(
                f"{owner}.slice: '{one['slice']}' is not of the form ringfence-name.slice, without further '-'"
            )
        if not SLICE_NAME.fullmatch(one["name"]):
            found.append(f"{owner}: its name is to have letters, digits, '_' and '-' only")
        for kind in ("flows", "doors", "egress"):
            for entry in one[kind]:
                if not is_port(span(entry.get("port", "any"))):
                    found.append(
                        f"{owner}.{kind}.{entry['name']}.port: '{entry['port']}' is no port and no range of them"
                    )
                for key in ("destination", "destination6", "to"):
                    value = entry.get(key) or "internet"
                    try:
                        _ = value == "internet" or address(value)
                    except ValueError:
                        found.append(
                            f"{owner}.{kind}.{entry['name']}.{key}: '{value}' is not a network in CIDR notation"
                        )
    return found


def is_port(text: str) -> bool:
    first, _, last = text.partition("-")
    if not text:
        return True
    return all(n.isdecimal() and 0 < int(n) < 65536 for n in (first, last or first)) and int(first) <= int(
        last or first
    )


def address_refusals(wish: dict[str, Any]) -> list[str]:
    """Values that are no addresses."""
    found = []
    keys = ("subnet", "subnet6", "address", "address6", "source", "source6", "destination", "destination6", "to",
            "host_address")  # fmt: skip
    for kind in ("segments", "endpoints", "flows", "egress", "published", "host"):
        for entry in wish[kind]:
            values = [(key, entry[key]) for key in keys if entry.get(key)]
            values += [("sources", place) for place in entry.get("sources", [])]
            for key, value in values:
                try:
                    family = family_of(address(value)) if value not in ("internet", "any") else ""
                except ValueError:
                    family = "none"
                if family == "none" or (key.endswith("6") and family == "v4") or (
                    key in ("subnet", "address", "source", "destination") and family == "v6"
                ):  # fmt: skip
                    found.append(f"policy_{kind}.{entry['name']}.{key}: '{value}' is not an address of that family")
    for place in wish["places"]:
        for network in place["networks"]:
            try:
                address(network)
            except ValueError:
                found.append(f"policy_places.{place['name']}: '{network}' is not a network in CIDR notation")
    for network in wish["private"]:
        try:
            address(network)
        except ValueError:
            found.append(f"policy_private: '{network}' is not a network in CIDR notation")
    return found


def endpoint_refusals(wish: dict[str, Any]) -> list[str]:
    """What is declared for an address that no endpoint has would be there and do nothing."""
    found = [
        f"policy_endpoints.{entry['name']}.mac: '{entry['mac']}' is not a MAC address such as 02:42:ac:14:00:0a"
        for entry in wish["endpoints"]
        if not MAC.fullmatch(entry["mac"])
    ]
    known = {
        (entry["bridge"], entry.get(key)) for entry in wish["endpoints"] for key in ("address", "address6")
    }  # fmt: skip
    elsewhere = vpn_of(wish).get("interface")
    sources = [("flows", flow, flow["from_bridge"]) for flow in wish["flows"] if flow["from_bridge"] != elsewhere]
    sources += [(kind, entry, entry["bridge"]) for kind in ("egress", "host") for entry in wish[kind]]
    for kind, entry, bridge in sources:
        for key in ("source", "source6"):
            if entry.get(key) and (bridge, entry[key]) not in known:
                found.append(
                    f"policy_{kind}.{entry['name']}.{key}: '{entry[key]}' is no endpoint on {bridge}, and what "
                    "comes from no endpoint is dropped; add it to policy_endpoints, or correct the address"
                )
    return found


def docker_refusals(daemon: dict[str, Any]) -> list[str]:
    """Settings of Docker with which the rules would be there and do nothing."""
    if daemon.get("iptables") is False:
        return [f'{DAEMON_CONFIG}: "iptables": false takes Docker\'s own isolation away; remove it and restart docker']
    return []


def backend_refusal(speaks: str, other: str) -> str:
    """Why rules in two back ends of iptables at once are refused.

    Args:
        speaks: "nf_tables" or "legacy", what `iptables` on this host writes to.
        other: dump of the other back end's rules.
    """
    chains = sorted(c for t in parse_save(other).values() for c in t if c.startswith(("DOCKER", OWN)))
    if not chains:
        return ""
    theirs = "legacy" if speaks == "nf_tables" else "nf_tables"
    return (
        f"iptables writes to {speaks}, but {', '.join(chains[:3])} of a running Docker are in {theirs}, where this "
        f"policy cannot see them; choose one with `update-alternatives --config iptables` (and ip6tables) and reboot, "
        "or say `policy_force: true` if they are left over and Docker no longer uses them"
    )
