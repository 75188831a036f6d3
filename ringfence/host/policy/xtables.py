"""What iptables is told: to accept what this policy lets pass, where others drop it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ringfence.host.policy.nft import PASS, RAW
from ringfence.host.policy.rule import OWN, Around
from ringfence.host.tables import Tables

HOLD = "RF-HOLD"  # of the role ufw: it holds INPUT while ufw starts anew


def marked(mark: int) -> str:
    return f"-m mark --mark {mark:#x}/{mark:#x} -j ACCEPT"


# Docker owns its bridges and says itself what they pass. All others must go on bridging, although frames on bridges
# are filtered now: nobody but Docker and this policy asks for that.
BRIDGED = ("! -i rf-+ -m physdev --physdev-is-bridged -j ACCEPT",)


def opens(unmanaged: str, around: Around, backend: str) -> Tables:
    """The own chains of iptables and their rules, the same for both families.

    Args:
        unmanaged: keep or close.
        backend: "iptables" or "nftables", Docker's.
    """
    if backend == "iptables":
        return {
            "raw": {"RF-RAW": [marked(RAW)]},
            "filter": {"RF-OPEN": [marked(PASS)], "RF-BRIDGED": list(BRIDGED)},
        }
    # With Docker's nftables back end nobody accepts anything in iptables, where UFW drops what is forwarded.
    docker = around.docker if unmanaged == "keep" else ()
    return {
        "filter": {
            "RF-OPEN": [marked(PASS), *(f"{way} {bridge} -j ACCEPT" for bridge in docker for way in ("-i", "-o"))],
            "RF-BRIDGED": list(BRIDGED),
        }
    }


class Jump(NamedTuple):
    """A jump into an own chain (or into DOCKER-USER).

    Attributes:
        ahead_of: what it must not stand behind.
        behind: what it must not stand ahead of.
        late: whether it is put as far down as it may, where bans of others keep their place before it.
    """

    table: str
    chain: str
    target: str
    ahead_of: re.Pattern[str]
    behind: re.Pattern[str] | None = None
    late: bool = False


_UFW = re.compile(r"^-j (DROP|REJECT)\b|-[jg] ufw6?-")


# Up to 27 it puts what it drops inside a bridge at the end, behind what others have put there.
_DOCKER = re.compile(r"-[jg] DOCKER|-[io] (docker|br-)|-i (?!rf-)(\S+) -o \2 -j")


# Docker says first what its own bridges pass.
BRIDGING = Jump("filter", "FORWARD", "RF-BRIDGED", _UFW, _DOCKER, late=True)


JUMPS = {
    # What opens has to stand ahead of what Docker drops.
    "iptables": (
        Jump("raw", "PREROUTING", "RF-RAW", re.compile(r"-j DROP$")),
        Jump(
            "filter", "DOCKER-USER", "RF-OPEN", re.compile(r"^-j (ACCEPT|DROP|REJECT)\b|-j RETURN$"), late=True
        ),
        Jump("filter", "FORWARD", "DOCKER-USER", re.compile(r"-[jg] DOCKER(?!-USER)|-[io] (rf-|docker|br-)")),
        BRIDGING,
    ),
    "nftables": (Jump("filter", "FORWARD", "RF-OPEN", _UFW, late=True), BRIDGING),
}  # fmt: skip


def standing(jump: Jump, rules: list[str]) -> tuple[int, int, int]:
    """(position of the jump, the first and the last where it may stand), from 1; 0 where there is none."""
    own = f"-j {jump.target}"
    others = [rule for rule in rules if rule != own]
    after = [n for n, rule in enumerate(others, 1) if jump.behind and jump.behind.search(rule)]
    before = [n for n, rule in enumerate(others, 1) if jump.ahead_of.search(rule)]
    first = after[-1] + 1 if after else 1
    last = max(first, before[0] if before else len(others) + 1)
    return rules.index(own) + 1 if own in rules else 0, first, last


def jump_changes(tables: Tables, backend: str) -> list[str]:
    """What has to change so that ringfence's chains are entered where they have to be."""
    changes = []
    for jump in JUMPS[backend]:
        rules = tables.get(jump.table, {}).get(jump.chain, [])
        position, first, last = standing(jump, rules)
        way = f"jump {jump.table} {jump.chain} > {jump.target}"
        if not position:
            changes.append(f"+ {way}")
        elif position > last:
            changes.append(f"~ {way}: rule {position} → {last}, behind: {rules[last - 1]}")
        elif position < first:
            changes.append(f"~ {way}: rule {position} → {first}, ahead of: {rules[first - 1]}")
        elif rules.count(f"-j {jump.target}") > 1:
            changes.append(f"~ {way}: there twice")
    for table, chains in tables.items():
        for chain, rule in strays(table, chains, backend):
            changes.append(f"- jump {table} {chain} > {leads_to(rule)}")
    return changes


def strays(table: str, chains: dict[str, list[str]], backend: str) -> Iterator[tuple[str, str]]:
    """(chain, rule) of the jumps from chains of others into own ones that have no business there."""
    wanted = {(jump.chain, jump.target) for jump in JUMPS[backend] if jump.table == table}
    for chain, rules in chains.items():
        for rule in rules if not chain.startswith(OWN) else ():
            target = leads_to(rule)
            if target.startswith(OWN) and target != HOLD and ((chain, target) not in wanted or rule != f"-j {target}"):
                yield chain, rule


def leads_to(rule: str) -> str:
    """The chain, or whatever a rule's target is, at its end."""
    found = re.search(r"-[jg] (\S+)$", rule)
    return found[1] if found else ""


def changes(want: Tables, tables: Tables, backend: str) -> list[str]:
    """What differs in iptables: own chains and the ways into them."""
    lines = []
    for table in {**want, **tables}:
        own, live = want.get(table, {}), tables.get(table, {})
        for chain, rules in own.items():
            if chain not in live:
                lines.append(f"+ chain {table} {chain}")
            elif live[chain] != rules:
                lost = [f"missing: {rule}" for rule in rules if rule not in live[chain]]
                found = [f"not declared: {rule}" for rule in live[chain] if rule not in rules]
                lines.append(f"~ chain {table} {chain}: {'; '.join(found + lost) or 'order of the rules'}")
        stale = (chain for chain in live if chain.startswith(OWN) and chain not in own and chain != HOLD)
        lines += [f"- chain {table} {chain}" for chain in stale]
    return lines + jump_changes(tables, backend)


def restore_input(want: Tables, tables: Tables, backend: str) -> str:
    """The input of iptables-restore --noflush: own chains, stale ones gone (those of earlier releases as well), jumps
    in their places.

    Chains of others are never declared (that would flush them), except DOCKER-USER where it does not exist.
    """
    out = []
    leaving = [table for table in tables if table not in want and any(c.startswith(OWN) for c in tables[table])]
    for table in (*want, *leaving):
        live, own = tables.get(table, {}), want.get(table, {})
        stale = [chain for chain in live if chain.startswith(OWN) and chain not in own and chain != HOLD]
        out.append(f"*{table}")
        if "DOCKER-USER" in {jump.chain for jump in JUMPS[backend] if jump.table == table} - live.keys():
            out.append(":DOCKER-USER - [0:0]")
        out += [f":{chain} - [0:0]" for chain in [*own, *stale]]
        out += [f"-A {chain} {line}" for chain, lines in own.items() for line in lines]
        out += _jumping(table, live, backend)
        out += [f"-D {chain} {rule}" for chain, rule in strays(table, live, backend)]
        out += [f"-X {chain}" for chain in stale]
        out.append("COMMIT")
    return "\n".join([*out, ""])


def _jumping(table: str, live: dict[str, list[str]], backend: str) -> Iterator[str]:
    chains = {chain: list(rules) for chain, rules in live.items()}
    for jump in JUMPS[backend]:
        if jump.table != table:
            continue
        rules = chains.setdefault(jump.chain, [])
        own = f"-j {jump.target}"
        position, first, last = standing(jump, rules)
        if not first <= position <= last or rules.count(own) > 1:
            yield from [f"-D {jump.chain} {own}"] * rules.count(own)
            place = last if jump.late else first
            others = [rule for rule in rules if rule != own]
            rules[:] = [*others[: place - 1], own, *others[place - 1 :]]
            yield f"-I {jump.chain} {place} {own}"


SHUT = "RF-SHUT"


def shut_input() -> str:
    """What closes the segments by iptables, where nftables cannot: nothing from or to one passes."""
    chain = [f"-A {SHUT} {way} rf-+ -j DROP" for way in ("-i", "-o")]
    jumps = [f"-I {builtin} 1 -j {SHUT}" for builtin in ("INPUT", "FORWARD", "OUTPUT")]
    return "\n".join(["*mangle", f":{SHUT} - [0:0]", *chain, *jumps, "COMMIT", ""])


def removal_input(tables: Tables) -> str:
    """The transactions that take everything of ringfence out of a family, the deny of earlier releases last."""
    out = []
    for name in sorted(tables, key=lambda name: name == "mangle"):
        own = [chain for chain in tables[name] if chain.startswith(OWN) and chain != HOLD]
        if own:
            out.append(f"*{name}")
            out += [f":{chain} - [0:0]" for chain in own]
            for chain, rules in tables[name].items():
                out += [f"-D {chain} {rule}" for rule in rules if chain not in own and leads_to(rule) in own]
            out += [f"-X {chain}" for chain in own]
            out.append("COMMIT")
    return "\n".join([*out, ""]) if out else ""
