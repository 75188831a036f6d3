"""Whether Docker's own rules are as the engine means them: Docker alone makes them, most when it starts."""

from __future__ import annotations

import ipaddress
import re
import time
from typing import Any

from ringfence.host.docker.remains import DOCKERS
from ringfence.host.engine import NotThereError, bridge_of, engine
from ringfence.host.nft import nft_table
from ringfence.host.tables import Tables, families, live_text, parse_save
from ringfence.host.translations import NFT_TABLES, Translation, in_rules, in_table

# Chains that are never empty where Docker has a bridge: of engines before 28, and since.
FULL = ("DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2", "DOCKER-FORWARD", "DOCKER-CT", "DOCKER-BRIDGE")
# Chains of nftables that lead to all others.
BASE = ("filter-FORWARD", "nat-OUTPUT", "nat-POSTROUTING", "nat-PREROUTING")
# A published port: (protocol, port of the host, port in the container).
Port = tuple[str, int, int]


def wrong_own(backend: str, ipv6: bool) -> list[str]:
    """What is missing of the rules of the running engine, and which it has for a container that is gone, one line each;
    asked of the engine and of the kernel. A restart of Docker brings both in order.

    Args:
        backend: the engine's firewall back end, "iptables" or "nftables".
        ipv6: whether the engine makes rules for IPv6 at all.

    Raises:
        Fault: one of them does not answer.
    """
    lines = _wrong(backend, ipv6)
    # A container may just be starting or stopping: what is really missing stays so.
    deadline = time.monotonic() + 1
    while lines and time.monotonic() < deadline:
        time.sleep(0.1)
        later = _wrong(backend, ipv6)
        lines = [line for line in lines if line in later]
    return lines


def _wrong(backend: str, ipv6: bool) -> list[str]:
    networks = [n for n in engine("GET", "/networks") if n.get("Driver") == "bridge" and n.get("Scope") == "local"]
    containers = engine("GET", "/containers/json")
    lines: list[str] = []
    for family in families():
        there = [n for n in networks if family == "v4" or n.get("EnableIPv6")]
        if family == "v6" and not (ipv6 and there):
            continue
        bridges = [bridge_of(network) for network in there if not network.get("Internal")]
        ports = published(containers, there, family)
        if backend == "nftables":
            table = nft_table(NFT_TABLES[family == "v6"])
            lines += missing_nft(table, family, bridges, ports)
            translated = in_table(table)
        else:
            tables = parse_save(live_text(family) or "")
            lines += missing_iptables(tables, family, bridges, ports)
            translated = in_rules(tables.get("nat", {}).get("DOCKER", []))
        if left := left_over(translated, containers):
            taken = {address for network in there for address in endpoints(network["Id"])}
            lines += [f"{line} ({family})" for address, line in left if ipaddress.ip_address(address) not in taken]
    return lines


def left_over(translated: list[Translation], containers: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Docker's translations of ports that no running container publishes, as (address, what to say of it).

    A start of a container that the power cut ends leaves its port taken: no container can have it until Docker starts
    once more ("port is already allocated"). While a container starts, its port is translated before it is listed as
    running: its address is known to its network then.

    Args:
        translated: (protocol, port, address, port of the address) each.
        containers: those that run, as the engine lists them.
    """
    known = {(p["Type"], str(p["PublicPort"])) for c in containers for p in c.get("Ports") or [] if p.get("PublicPort")}
    return [
        (address.strip("[]"), f"port {port}/{proto} is still taken for a container that is gone")
        for proto, port, address, _ in translated
        if (proto, port) not in known
    ]


def endpoints(network: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses that a network knows, that of a container that is just starting as well; none if it is gone."""
    try:
        ends = engine("GET", f"/networks/{network}").get("Containers") or {}
    except NotThereError:
        return set()
    texts = [end.get(key) for end in ends.values() for key in ("IPv4Address", "IPv6Address")]
    return {ipaddress.ip_interface(text).ip for text in texts if text}


def published(containers: list[dict[str, Any]], networks: list[dict[str, Any]], family: str) -> list[Port]:
    """The ports that running containers publish by Docker's rules in a family."""
    routed = f"com.docker.network.bridge.gateway_mode_ip{family}"
    plain = {n["Name"] for n in networks if not (n.get("Options") or {}).get(routed, "nat").startswith("routed")}
    key = "GlobalIPv6Address" if family == "v6" else "IPAddress"
    found = set()
    for container in containers:
        legs = (container.get("NetworkSettings") or {}).get("Networks") or {}
        if not any(leg.get(key) for name, leg in legs.items() if name in plain):
            continue
        for port in container.get("Ports") or []:
            if port.get("PublicPort") and (":" in port.get("IP", "")) == (family == "v6"):
                found.add((port["Type"], port["PublicPort"], port["PrivatePort"]))
    return sorted(found)


def missing_iptables(tables: Tables, family: str, bridges: list[str], ports: list[Port]) -> list[str]:
    """What is missing in a family of iptables.

    Args:
        bridges: of Docker's networks that lead outside.
    """
    nat, chains = tables.get("nat", {}), tables.get("filter", {})
    lines = [
        f"nat {chain} does not lead to Docker's rules"
        for chain in ("PREROUTING", "OUTPUT")
        if not any(rule.endswith("-j DOCKER") for rule in nat.get(chain, []))
    ]
    if not any(re.search(r"-j DOCKER(-FORWARD)?$", rule) for rule in chains.get("FORWARD", [])) and bridges:
        lines.append("filter FORWARD does not lead to Docker's rules")
    lines += [f"filter {chain} is empty" for chain in FULL if bridges and chains.get(chain) == []]
    dockers = [rule for chain, rules in chains.items() if chain == "FORWARD" or DOCKERS.match(chain) for rule in rules]
    lines += [
        f"filter knows nothing of the bridge {bridge}"
        for bridge in bridges
        if not any(re.search(rf"-[io] {re.escape(bridge)}\b", rule) for rule in dockers)
    ]
    for proto, public, private in ports:
        translated = re.compile(rf"-p {proto} .*--dport {public} .*-j DNAT --to-destination \S+:{private}$")
        accepted = re.compile(rf"-p {proto} .*--dport {private} -j ACCEPT$")
        if not any(translated.search(rule) for rule in nat.get("DOCKER", [])):
            lines.append(f"port {public}/{proto} is translated to no container")
        elif not any(accepted.search(rule) for rule in chains.get("DOCKER", [])):
            lines.append(f"port {public}/{proto} is let through to no container")
    return [f"{line} ({family})" for line in lines]


def missing_nft(text: str, family: str, bridges: list[str], ports: list[Port]) -> list[str]:
    """What is missing in Docker's table of a family, as nft prints it; see `missing_iptables`."""
    if not text:
        return [f"table {NFT_TABLES[family == 'v6']} is gone"]
    chains = dict(re.findall(r"chain (\S+) \{\n(.*?)\n?\t\}", text, re.S))
    lines = [f"chain {chain} leads nowhere" for chain in BASE if len(chains.get(chain, "").splitlines()) < 2]
    for bridge in bridges:
        known = text.count(f'"{bridge}" : jump ') >= 4 and chains.get(f"filter-forward-in__{bridge}", "").strip()
        lines += [] if known else [f"the bridge {bridge} is led nowhere"]
    for proto, public, private in ports:
        if not re.search(rf"{proto} dport {public} .*dnat to \S+:{private}\b", text):
            lines.append(f"port {public}/{proto} is translated to no container")
        elif not re.search(rf"{proto} dport {private} (counter )?accept", text):
            lines.append(f"port {public}/{proto} is let through to no container")
    return [f"{line} ({family})" for line in lines]
