"""The networks of the instances: which slots this machine can have, made and checked."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import urllib.parse
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from lab.engine import docker
from lab.further import read
from lab.plan import LABEL, OUTSIDE, SLOTS, Host, Instance, Side, check_name, clashes
from lab.shell import LabError, run
from lab.state import ROOT


def existing() -> dict[str, Instance]:
    """The instances that this engine has networks of, by name."""
    lines = docker(
        "network",
        "ls",
        "--filter",
        f"label={LABEL}",
        "--format",
        '{{.Label "ringfence.lab"}} {{.Label "ringfence.slot"}} {{.Label "ringfence.engine"}}',
    )
    found = {}
    for line in lines.splitlines():
        name, slot, wanted = line.split()
        found[name] = Instance(name, int(slot), wanted)
    for name, further in _further().items():
        if name in found:
            found[name] = replace(found[name], further=tuple(further))
    return found


def _further() -> dict[str, list[Host]]:
    """The further hosts of every instance, in the order in which they were made."""
    labels = ("lab", "host", "engine", "numbers")
    form = "\t".join(f'{{{{.Label "ringfence.{label}"}}}}' for label in labels)
    lines = docker("ps", "-a", "--no-trunc", "--filter", "label=ringfence.numbers", "--format", form).splitlines()
    found: dict[str, list[Host]] = {}
    for line in reversed(lines):  # the newest is listed first
        name, host, engine, numbers = line.split("\t")
        found.setdefault(name, []).append(read(host, engine, numbers))
    return found


def get(name: str) -> Instance:
    """The instance of that name. Raises LabError when it is not up."""
    check_name(name)
    known = existing()
    if name not in known:
        others = f"; there are: {', '.join(sorted(known))}" if known else ""
        raise LabError(f"instance '{name}' does not exist, make it with `./run lab up {name}`{others}")
    return known[name]


def check_ours(name: str) -> None:
    """Raises LabError when the instance belongs to another clone of this repository that still exists."""
    for root in set(
        docker(
            "network", "ls", "--filter", f"label={LABEL}={name}", "--format", '{{.Label "ringfence.root"}}'
        ).splitlines()
    ):
        if root and Path(root) != ROOT and Path(root).is_dir():
            raise LabError(f"instance '{name}' belongs to the clone in {root}: use it there, or another name here")


def needed() -> list[tuple[str, str]]:
    """(network, what it is) of everything that this machine reaches and that no lab may hide."""
    own = {
        f"br-{network[:12]}"
        for network in docker("network", "ls", "-q", "--no-trunc", "--filter", f"label={LABEL}").split()
    }
    found = []
    for family in ("-4", *(["-6"] if Path("/proc/net/if_inet6").exists() else [])):
        # A table that cannot be read is no reason to take everything for free. Where there is none it says nothing.
        done = run(["ip", "-j", family, "route", "show", "table", "all"])
        for route in json.loads(done.stdout or b"[]"):
            if route.get("type", "unicast") == "unicast" and route.get("dev") not in own:
                found.append((route["dst"], f"reached by {route.get('dev', 'a route')}"))
    found += [(server, "a name server of this machine") for server in nameservers()]
    sites = run(["apt-get", "indextargets", "--format", "$(SITE)"], check=False).stdout.decode().split()
    for host in {urllib.parse.urlsplit(site).hostname for site in sites}:
        with contextlib.suppress(OSError):
            found += [
                (str(answer[4][0]), f"{host}, where this machine gets packages from")
                for answer in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)
            ]
    return found


def unusable_slots(further: Sequence[Host] = ()) -> dict[int, str]:
    """Why this machine cannot have an instance with these further hosts, for each slot where it cannot."""
    everything = needed()
    return {slot: "; ".join(found) for slot in SLOTS if (found := clashes(slot, everything, further))}


def ensure_networks(instance: Instance) -> None:
    """Make the networks of an instance that are missing."""
    have = set(docker("network", "ls", "--filter", f"label={LABEL}={instance.name}", "--format", "{{.Name}}").split())
    for side in instance.sides:
        if instance.network(side) not in have:
            docker(
                "network",
                "create",
                "--driver",
                "bridge",
                *_options(side),
                "--label",
                f"{LABEL}={instance.name}",
                "--label",
                f"ringfence.slot={instance.slot}",
                "--label",
                f"ringfence.engine={instance.engine}",
                "--label",
                f"ringfence.root={ROOT}",
                instance.network(side),
            )


def _options(side: Side) -> list[str]:
    options = {
        # Leads nowhere, as no host routes by it. An `--internal` one would drop forged sources.
        "wan": ["-o", "com.docker.network.bridge.enable_ip_masquerade=false"],
        # A way to packages, and to nobody of the lab.
        "supply": ["-o", "com.docker.network.bridge.enable_icc=false"],
    }.get(side.name, [])
    if side.subnet6:
        options.append("--ipv6")
    for subnet, gateway in zip(side.subnets, side.gateways, strict=True):
        options += ["--subnet", str(subnet), "--gateway", gateway]
    return options


def _table(name: str) -> str:
    return f"inet rf-lab-{name}"


def set_rules(instance: Instance) -> None:
    """Have what passes the wan arrive as it was sent, and nothing pass from one network of an instance to another.

    Docker masquerades what has an address of the lan and leaves by another bridge than the lan's, also where the
    machine only bridges it: a forged source would arrive as an honest one.

    The machine is on all the networks, and forwards. Engines that leave IPv6 alone keep only IPv4 from going from one
    to another by it; and those on the supply are strangers to each other, also by addresses that they gave themselves.
    """
    sides = [side.name for side in instance.sides]
    ids = docker("network", "inspect", "--format", "{{.Id}}", *(instance.network(side) for side in instance.sides))
    bridges = dict(zip(sides, (f"br-{one[:12]}" for one in ids.split()), strict=True))
    pairs = [*permutations(sides, 2), *([("supply", "supply")] if "supply" in sides else [])]
    apart = ", ".join(f'"{bridges[one]}" . "{bridges[other]}"' for one, other in pairs)
    table = _table(instance.name)
    rules = f"""add table {table}
        delete table {table}
        table {table} {{
            chain wan {{
                type filter hook prerouting priority raw; policy accept;
                iifname "{bridges["wan"]}" notrack
            }}
            chain apart {{
                type filter hook forward priority filter; policy accept;
                iifname . oifname {{ {apart} }} drop
            }}
        }}"""
    run(["nft", "-f", "-"], data=rules.encode())


def forget_rules(name: str) -> None:
    """Take back what `set_rules` did, where it was done."""
    table = _table(name)
    run(["nft", "-f", "-"], data=f"add table {table}\ndelete table {table}\n".encode())


def check_wires(instance: Instance, names: Sequence[str]) -> None:
    """Raises LabError when `outside` does not see these hosts: the machine's own firewall is in between."""
    inside = ["docker", "exec", instance.container(OUTSIDE.name)]
    for host in (name for name in names if name != OUTSIDE.name):
        for target in (address for side in (instance.lan, instance.wan) for address in _addresses(side, host)):
            if run([*inside, "ping", "-c", "1", "-W", "3", target], check=False).returncode:
                raise LabError(
                    f"outside does not reach {host} at {target}: a firewall of this machine drops traffic "
                    "between containers of one network (see `iptables -S FORWARD`, `ip6tables -S FORWARD`)"
                )


def _addresses(side: Side, host: str) -> tuple[str, ...]:
    return side.addresses(host) if host in side.numbers else ()


def nameservers() -> list[str]:
    """The machine's name servers that something else than the machine itself can ask."""
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            words = [line.split() for line in Path(path).read_text().splitlines()]
        except OSError:
            continue
        found = [
            w[1]
            for w in words
            if w[:1] == ["nameserver"] and len(w) > 1 and not w[1].startswith("127.") and w[1] != "::1"
        ]
        if found:
            return found
    return []


def resolvers() -> list[str]:
    """The hosts' name servers. Raises LabError when the machine's own listen on loopback only."""
    found = os.environ.get("RINGFENCE_LAB_DNS", "").split() or nameservers()
    if not found:
        raise LabError(
            "this machine's resolver listens on loopback only, where the hosts cannot reach it: "
            "set RINGFENCE_LAB_DNS to the address of a name server"
        )
    return found
