"""Where INPUT ends: what is dropped there whatever ufw's rules say."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ringfence.host.nft import nft_table, nft_tables
from ringfence.host.ufw.state import HOLD, PREFIX, State, options

# What a rule may ask for and still be about every new connection, and about all of an interface's or a protocol's.
_EVERY = re.compile(r"! -i lo|--(ct)?state \S*NEW\S*|! --(ct)?state (?!\S*NEW)\S+|--reject-with \S+|-[jg] \S+")
_WIDE = re.compile(_EVERY.pattern + r"|-i (?!lo$)\S+|-p (tcp|udp)")
# Those of Docker and ringfence.
_OURS = re.compile(r"\w+ (docker-bridges|ringfence.*)")
# iptables' own tables as nft shows them, which are read as iptables', and the chains that the kernel asks in them:
# somebody may call a table of his own so.
_TABLES = re.compile(r"(ip|ip6|arp|bridge) (raw|mangle|nat|filter|security)")
_BUILT_IN = frozenset({"BROUTING", "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
_ASKED = re.compile(r"chain (\S+) \{\s*type \w+ hook ")


def others_tables() -> Iterator[tuple[str, str]]:
    """Yield somebody's own tables of nftables, name and text. Raises Fault."""
    for name in nft_tables():
        if _OURS.fullmatch(name):
            continue
        text = nft_table(name)
        if not (_TABLES.fullmatch(name) and _BUILT_IN.issuperset(_ASKED.findall(text))):
            yield name, text


def closed(state: State, family: str) -> bool:
    """Whether what comes in by an IP version is denied unless a rule lets it in, whoever has said so."""
    return state.live[family].policies.get("INPUT") == "DROP" or bool(dead_end(state.chains[family], _EVERY))


def dead_end(
    chains: dict[str, list[str]], asks: re.Pattern[str] = _WIDE, chain: str = "INPUT", depth: int = 0
) -> tuple[str, str] | None:
    """Return the first rule, as (chain, rule), by which whatever no rule before it lets in is dropped; None where ufw's
    own rules come before any.

    Args:
        chains: the filter table's, rules as iptables-save prints them.
        asks: what such a rule may ask for.
        depth: how many jumps led to the chain.
    """
    for rule in chains.get(chain, []):
        asked = options(rule)
        way = next((option.split()[1] for option in asked if option.startswith(("-j ", "-g "))), "")
        if way.startswith(HOLD) or not all(asks.fullmatch(option) for option in asked):
            continue
        if way.startswith(tuple(PREFIX.values())) or way in ("ACCEPT", "RETURN"):
            return None
        if way in ("DROP", "REJECT"):
            return chain, rule
        if way in chains and depth < 9 and (found := dead_end(chains, asks, way, depth + 1)):
            return found
    return None


def end_refusals(state: State) -> list[str]:
    """Rules of INPUT that drop what ufw would let in, each with what to do."""
    found = []
    for family, command in (("4", "iptables"), ("6", "ip6tables")):
        end = dead_end(state.chains[family]) if family in state.families else None
        if end is None:
            continue
        chain, rule = end
        delete = f"{command} -D {chain} {rule}"
        whole = all(_EVERY.fullmatch(option) for option in options(rule))
        found.append(
            f"`{command} -A {chain} {rule}` drops what comes in before ufw's rules are asked: what they let in would "
            "stay closed. "
            + (
                f"Say it by the policy, which keeps all as it is: `{command} -P INPUT DROP; {delete}`"
                if whole
                else f"Remove it: `{delete}`"
            )
            + ", also where it is made (a unit or script at boot). What other rules of yours let in is listed then"
        )
    return found


def table_refusals() -> list[str]:
    """Tables of nftables that drop by default what comes in, each with what to do. Raises Fault."""
    return [
        f"nft's table {name} drops what comes in by its own policy, whatever ufw lets in. Declare what it lets in, and "
        f"remove it: `nft delete table {name}`, also where it is made; of what is listed then, say `close` for what it "
        "kept shut (ufw_unmanaged_ports)"
        for name, text in others_tables()
        if re.search(r"hook input priority [^;]*; policy drop;", text)
    ]
