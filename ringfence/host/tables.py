"""iptables' rules as text: read from the kernel, taken apart."""

from __future__ import annotations

from pathlib import Path

from ringfence.host.running import MISSING, Fault, run

# {table: {chain: rules}}, each rule as iptables-save prints it, without "-A CHAIN ".
Tables = dict[str, dict[str, list[str]]]


def iptables(family: str, what: str = "") -> str:
    """Return the name of a command: iptables, ip6tables-save, …; family is "v4" or "v6"."""
    name = "ip6tables" if family == "v6" else "iptables"
    return f"{name}-{what}" if what else name


def families() -> list[str]:
    """Return ["v4", "v6"], or ["v4"] where this kernel runs without IPv6: then nothing can pass by it."""
    return ["v4", "v6"] if Path("/proc/net/if_inet6").exists() else ["v4"]


def parse_save(text: str) -> Tables:
    """Take the output of iptables-save, or a file for iptables-restore, apart."""
    tables: Tables = {}
    table: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table = tables.setdefault(line[1:].strip(), {})
        elif line.startswith(":"):
            table.setdefault(line[1:].split()[0], [])
        elif line.startswith("-A "):
            _, chain, rule = (line + " ").split(" ", 2)
            table.setdefault(chain, []).append(rule.strip())
    return tables


def parse_policies(text: str) -> dict[str, dict[str, str]]:
    """Return the policies of the built-in chains in such a text: {table: {chain: "ACCEPT" or "DROP"}}."""
    policies: dict[str, dict[str, str]] = {}
    table: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table = policies.setdefault(line[1:].strip(), {})
        elif line.startswith(":"):
            chain, policy = line[1:].split()[:2]
            if policy != "-":
                table[chain] = policy
    return policies


# With nftables as its firewall, Tailscale writes rules into iptables' tables that no release of iptables-save reads.
TAILSCALES_CHAIN = "chain ts-input "
TAILSCALES = " (Tailscale has written into them: `tailscale set --netfilter-mode=off`)"


def live_text(family: str) -> str | None:
    """Return what iptables-save prints; None where iptables is not installed.

    Raises:
        Fault: it failed or hung: that is never taken for an empty ruleset.
    """
    command = iptables(family, "save")
    result = run(command)
    if result.returncode == MISSING:
        return None
    if result.returncode:
        said = result.stderr.strip() or f"exit code {result.returncode}"
        hint = TAILSCALES if TAILSCALES_CHAIN in run("nft", "list", "chains").stdout else ""
        raise Fault(f"{command}: {said}; nothing is changed while the live rules cannot be read{hint}")
    return result.stdout
