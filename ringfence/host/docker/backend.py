"""Docker's firewall back end: what is wanted, what goes with it, and when it may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ringfence.host.docker.engines import expected_version
from ringfence.host.nft import nft_table

# What Docker 29's nftables back end needs on the host and does not do itself.
SYSCTL = Path("/etc/sysctl.d/60-ringfence-docker.conf")
FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
MARK = "0x10000000/0x10000000"  # carried by the flows that the role policy declares
WITH_BACKENDS = (29, 0)  # the first engine that has a choice
BACKEND, ACCEPT_MARK = "firewall-backend", "bridge-accept-fwmark"  # keys of daemon.json
POLICY = Path("/etc/ringfence/policy")


def wanted_backend(desired: dict[str, Any], facts: dict[str, Any]) -> str:
    """The firewall back end that the daemon has to run with; "" where it has no choice."""
    if expected_version(desired, facts) < WITH_BACKENDS:
        return ""
    said = desired["firewall_backend"] or facts["flags"].get(BACKEND) or (facts["config"] or {}).get(BACKEND)
    return str(said or "iptables")


def firewall_keys(desired: dict[str, Any], facts: dict[str, Any]) -> dict[str, str]:
    """The keys of daemon.json that go with the back end; what nobody decided stays as it is."""
    backend, keys, file = wanted_backend(desired, facts), {}, facts["config"] or {}
    if not backend:
        return {}
    if desired["firewall_backend"] and BACKEND not in facts["flags"]:
        keys[BACKEND] = backend
    elif BACKEND in file and BACKEND in facts["record"]:
        keys[BACKEND] = str(file[BACKEND])
    if backend == "nftables" and ACCEPT_MARK not in facts["flags"]:
        keys[ACCEPT_MARK] = MARK
    return keys


def switches(desired: dict[str, Any], facts: dict[str, Any]) -> bool:
    """Whether the running daemon has to change its back end, for which it must be restarted."""
    return bool(facts["info"]) and wanted_backend(desired, facts) not in ("", facts["firewall_backend"])


def refuse_backend(desired: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """Why Docker's firewall back end cannot be as wanted, each with the fix."""
    found: list[str] = []
    backend, flags, version = wanted_backend(desired, facts), facts["flags"], expected_version(desired, facts)
    wish = desired["firewall_backend"]
    if BACKEND in desired["daemon"]:
        found.append(
            f"docker_daemon: {BACKEND} is set by docker_firewall_backend, with what goes with it: take the key out of "
            f"docker_daemon and set docker_firewall_backend: {desired['daemon'][BACKEND]}"
        )
    if wish == "nftables" and not backend:
        found.append(
            f"docker_firewall_backend: nftables needs Docker 29 or newer, this host has {version[0]}.{version[1]}: "
            "upgrade the engine (docker_source: docker on a host without Docker), or leave the variable empty"
        )
    if wish and BACKEND in flags and flags[BACKEND] != wish:
        found.append(
            f"dockerd's command line says --{BACKEND} {flags[BACKEND]}, docker_firewall_backend says {wish}: take the "
            "option out of docker.service"
        )
    if backend != "nftables":
        return found
    if facts["swarm"]:
        found.append("docker_firewall_backend: Docker's nftables back end does not work in swarm mode: use iptables")
    file = {} if ACCEPT_MARK in facts["record"] else facts["config"] or {}
    for name, values in ((facts["config_path"], file), ("docker_daemon", desired["daemon"]), ("dockerd", flags)):
        if values.get(ACCEPT_MARK, MARK) != MARK:
            found.append(
                f"{name}: {ACCEPT_MARK} is {values[ACCEPT_MARK]}, but the flows that ringfence declares carry {MARK}: "
                "take it out, and have what needs it set this mark"
            )
    return found


def refuse_open_ring(desired: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """Why the back end is not changed now: only the policy's own deny holds while Docker has no rules."""
    if not switches(desired, facts) or facts["ring"] != "open":
        return []
    return [
        "docker_firewall_backend: the policy is installed here, but its deny is not in force, so segments would be "
        "open while Docker changes its back end: apply the role policy first, with the back end as it is "
        f"(docker_firewall_backend: {facts['firewall_backend']})"
    ]


def ring() -> str:
    """Whether the policy's deny is "loaded", or "open"; "" where the policy is not installed."""
    if not POLICY.is_dir() or not any(POLICY.iterdir()):
        return ""
    return "loaded" if "hook forward" in nft_table("inet ringfence") else "open"


def sysctl_file(backend: str, facts: dict[str, Any]) -> str | None:
    """What becomes of the file that switches forwarding on: its text, "" where it has to go, None if it is right."""
    head = "# Managed by ringfence. Changes made by hand are undone by the next run.\n"
    wanted = head + "".join(f"{key} = 1\n" for key in facts["forwarding"]) if backend == "nftables" else ""
    return None if facts["sysctl"] == wanted else wanted
