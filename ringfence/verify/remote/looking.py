"""What a host has and runs."""

from __future__ import annotations

import configparser
import ipaddress
import itertools
import json
import re
import shlex
import shutil
import socket
from pathlib import Path

from ringfence.verify.remote.commands import Json, ProbeFailedError, asked, run
from ringfence.verify.remote.slices import control_groups
from ringfence.verify.remote.spaces import namespace_number


def addresses() -> list[Json]:
    """Every address of the host that others could aim at: loopback and link-local ones are left out."""
    found = []
    for link in json.loads(asked("ip", "-j", "address", "show")):
        for entry in link.get("addr_info", []):
            if entry.get("scope") == "global" and "local" in entry:
                found.append({"device": link["ifname"], "address": entry["local"], "prefix": entry["prefixlen"]})
    return found


def routes() -> list[Json]:
    """The host's routes, without default ones and those of links: [{network, gateway, device}], gateway "" for a
    neighbour."""
    found = []
    for flag in ("-4", "-6"):
        # Where there is none it says nothing at all.
        for entry in json.loads(asked("ip", flag, "-j", "route", "show") or "[]"):
            network = entry.get("dst", "default")
            if network != "default" and not ipaddress.ip_network(network, strict=False).is_link_local:
                found.append({"network": network, "gateway": entry.get("gateway", ""), "device": entry.get("dev", "")})
    return found


def sockets(text: str) -> list[Json]:
    """The listening sockets in the output of `ss -ltnupH`, without those that only loopback can reach."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6 or fields[0] not in ("tcp", "udp"):
            continue
        address, _, port = fields[4].rpartition(":")
        address = address.strip("[]").split("%")[0].strip("[]")
        if not port.isdigit() or (address not in ("*", "") and ipaddress.ip_address(address).is_loopback):
            continue
        process = re.search(r'users:\(\("([^"]+)"', line)
        found.append(
            {
                "proto": fields[0],
                "address": "" if address in ("*", "0.0.0.0", "::") else address,
                "port": int(port),
                "process": process.group(1) if process else "",
            }
        )
    return found


def alien(mode: str) -> str:
    """The network mode of a container that has no network of its own, "" for every other."""
    return mode if mode in ("host", "none") or mode.startswith("container:") else ""


def containers() -> list[Json]:
    """Running containers: where they are attached, what they publish, which process holds their namespace."""
    found = []
    for one in inspected(["docker", "ps", "-q", "--no-trunc"], ["docker", "inspect"]):
        labels = one["Config"].get("Labels") or {}
        network = one["NetworkSettings"]
        mode = alien(one["HostConfig"].get("NetworkMode", ""))
        published = [
            {
                "proto": key.partition("/")[2],
                "port": int(key.partition("/")[0]),
                "published": int(b["HostPort"]),
                "address": "" if b["HostIp"] in ("0.0.0.0", "::", "") else b["HostIp"],
            }
            for key, bindings in (network.get("Ports") or {}).items()
            for b in bindings or []
        ]
        found.append(
            {
                "name": one["Name"].lstrip("/"),
                "id": one["Id"],
                "pid": one["State"]["Pid"],
                "space": namespace_number(one["State"]["Pid"]),
                "mode": mode,
                "groups": control_groups(one["State"]["Pid"]) if mode == "host" else [],
                "task": labels.get("com.docker.swarm.service.name", ""),
                "project": labels.get("com.docker.compose.project", ""),
                "service": labels.get("com.docker.compose.service", ""),
                "networks": {
                    name: {"address": n.get("IPAddress", ""), "address6": n.get("GlobalIPv6Address", "")}
                    for name, n in (network.get("Networks") or {}).items()
                },
                "published": [p for n, p in enumerate(published) if p not in published[:n]],
            }
        )
    return found


def networks() -> list[Json]:
    """Docker's bridge networks: {name, internal, label} (label: the segment it is, if ringfence made it)."""
    listing = ["docker", "network", "ls", "-q", "--no-trunc", "--filter", "driver=bridge"]
    found = inspected(listing, ["docker", "network", "inspect"])
    return [
        {"name": n["Name"], "internal": n["Internal"], "segment": (n.get("Labels") or {}).get("ringfence.segment", "")}
        for n in found
    ]


def inspected(listing: list[str], inspect: list[str], tries: int = 3) -> list[Json]:
    """Docker's words on everything that it lists; asked again where something is gone before it is inspected."""
    listed = asked(*listing).split()
    if not listed:
        return []
    try:
        found: list[Json] = json.loads(asked(*inspect, *listed, seconds=60))
    except ProbeFailedError:
        if tries == 1:
            raise
        return inspected(listing, inspect, tries - 1)
    return found


def engine() -> Json:
    """What Docker runs here, nothing where it is not installed; in `complaints`, why it does not tell."""
    nothing: Json = {"containers": [], "networks": [], "engine": "", "complaints": []}
    if shutil.which("docker") is None:
        return nothing
    try:
        return {
            **nothing,
            "engine": asked("docker", "version", "--format", "{{.Server.Version}}").strip(),
            "containers": containers(),
            "networks": networks(),
        }
    except ProbeFailedError as failure:
        return {**nothing, "complaints": [f"what Docker runs is not known: {failure}"]}


FOREIGN, UNMANAGED = "ufw_foreign: keep", "ufw_unmanaged: keep"  # what the user has said so that it stays
_KEPT = b"rf:kept-".hex()


def ufw_allows(etc: Path = Path("/etc/ufw")) -> list[Json]:
    """What is let in to the host itself by UFW's rules, whoever made them, by its own files, and by INPUT beside it.

    Returns:
        ``[{proto, port, source, destination, interface, by}]``: "any" for every protocol or port, "" for every
        interface; by: what lets in, and what the user has said of it.
    """
    found = []
    for family, suffix in (("4", ""), ("6", "6")):
        found += [entry for line in _lines(etc / f"user{suffix}.rules") for entry in _of_tuple(line)]
        file = etc / f"before{suffix}.rules"
        lines = _lines(file)
        for chain in led_to(lines, f"ufw{suffix}-before-input"):
            found += input_allows(lines, chain, family, f"{file} ({FOREIGN})")
        save = f"ip{suffix}tables-save"
        if shutil.which(save):
            live = (run(save, "-t", "filter") or "").splitlines()  # without an answer nothing is excused
            found += input_allows(live, "INPUT", family, f"a rule of INPUT beside UFW ({FOREIGN})")
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()  # a comment may be in any encoding
    except OSError:
        return []


def _of_tuple(line: str) -> list[Json]:
    """What one line of UFW's rules lets in to the host: at most one entry."""
    body, _, comment = line.partition(" comment=")
    fields = body.split()[3:] if body.startswith("### tuple ###") else []
    # What goes out and what is routed ("route:allow") lets nobody in.
    if len(fields) < 7 or fields[0].split("_")[0] not in ("allow", "limit"):
        return []
    way, _, interface = fields[-1].partition("_")
    if way != "in":
        return []
    by = f"a UFW rule of the host ({UNMANAGED if comment.startswith(_KEPT) else FOREIGN})"
    entry = {"proto": fields[1], "port": fields[2], "source": fields[5], "destination": fields[3]}
    return [{**entry, "interface": interface, "by": by}]


# What people write in place of what iptables-save prints.
_SHORT = {
    "--protocol": "-p", "--source": "-s", "--src": "-s", "--destination": "-d", "--dst": "-d", "--in-interface": "-i",
    "--jump": "-j", "--source-port": "--sport", "--destination-port": "--dport", "--destination-ports": "--dports",
}  # fmt: skip


def led_to(lines: list[str], start: str) -> list[str]:
    """A chain, and those of somebody's own that it leads to in the same file."""
    chains = [start]
    for chain in chains:  # which grows
        for line in lines:
            found = re.match(rf"-[AI] {re.escape(chain)} (?:.* )?(?:-j|-g|--jump|--goto) (\S+)", line)
            if found and not found[1].startswith("ufw") and found[1] not in chains:
                chains.append(found[1])
    return chains


def input_allows(lines: list[str], chain: str, family: str, by: str) -> list[Json]:
    """What rules of a chain, as iptables-save prints them, let in of new connections by TCP and UDP, but for loopback.

    What else such a rule asks for is not looked at: it lets in less than is said here. What cannot be read excuses
    nothing.
    """
    found = []
    everywhere = "0.0.0.0/0" if family == "4" else "::/0"
    for line in lines:
        if not line.startswith((f"-A {chain} ", f"-I {chain} ")):
            continue
        try:
            words = [_SHORT.get(word, word) for word in shlex.split(line)]
        except ValueError:
            continue
        given = {word: words[n + 1] for n, word in enumerate(words[:-1]) if word.startswith("-")}
        state = given.get("--ctstate", given.get("--state", "NEW"))
        narrow = given.get("-i") == "lo" or "--sport" in given or "NEW" not in state
        if given.get("-j") != "ACCEPT" or narrow or given.get("-p", "all") not in ("tcp", "udp", "all"):
            continue
        port = _number(given.get("--dport") or given.get("--dports") or "any", given.get("-p", ""))
        ends = [everywhere if "!" in words else given.get(end, everywhere) for end in ("-s", "-d")]
        if not re.fullmatch(r"any|[0-9:,]+", port):
            continue
        # In a file several addresses may stand with commas between them, and names.
        for source, destination in itertools.product(*(filter(_is_network, end.split(",")) for end in ends)):
            found.append(
                {
                    "proto": given.get("-p", "all").replace("all", "any"),
                    "port": port,
                    "source": source,
                    "destination": destination,
                    "interface": "" if "!" in words else given.get("-i", ""),
                    "by": by,
                }
            )
    return found


def _number(port: str, proto: str) -> str:
    try:
        return str(socket.getservbyname(port, proto)) if port.isalpha() and port != "any" else port
    except OSError:
        return port


def _is_network(text: str) -> bool:
    try:
        return bool(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return False


def ufw_profiles(directory: Path = Path("/etc/ufw/applications.d")) -> Json:
    """UFW's application profiles, {name: [[ports, protocol]]}, "any" for both; what is no file of profiles has none."""
    found: Json = {}
    for path in sorted(directory.glob("*")):
        profiles = configparser.RawConfigParser(strict=False)
        try:
            profiles.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        for name in profiles.sections():
            parts = [part.strip().partition("/") for part in profiles.get(name, "ports", fallback="").split("|")]
            found[name] = [[ports, proto or "any"] for ports, _, proto in parts if ports]
    return found
