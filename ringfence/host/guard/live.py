"""Our part of the live rules: read, and put back in an order that leaves no window."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ringfence.host.nft import nft_table, nft_tables, replace_nft_tables, replacement
from ringfence.host.running import Fault, must
from ringfence.host.tables import families, iptables, live_text, parse_policies, parse_save

NFT_TABLE = "ringfence"  # of whatever family
BUILTINS = {"INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING"}
DENYING = ("mangle", "filter")
RING = re.compile(r"^RF-")
OUR_CHAIN = re.compile(r"^(RF-|ufw6?-)")
JUMP = re.compile(r"(?:^| )(?:-j|-g) (\S+)")


def own_part(chains: dict[str, list[str]], policies: dict[str, str]) -> dict[str, Any]:
    """Our part of a table: {"policies": {chain: policy}, "chains": {own chain: [rule]}, "jumps": {…}, "lengths": {…}}.

    Only own chains are kept, and of the others the rules that jump to own chains, with their place in the chain
    (counted from 0), and how many rules there are; Docker's rules are none of our business.
    """
    jumps: dict[str, list[list[Any]]] = {}
    for chain, rules in chains.items():
        for place, rule in enumerate(rules):
            target = JUMP.search(rule)
            if not OUR_CHAIN.match(chain) and target and OUR_CHAIN.match(target[1]):
                jumps.setdefault(chain, []).append([place, rule])
    return {
        "policies": policies,
        "chains": {chain: rules for chain, rules in chains.items() if OUR_CHAIN.match(chain)},
        "jumps": jumps,
        "lengths": {chain: len(rules) for chain, rules in chains.items() if rules},
    }


def kernel_state() -> dict[str, Any]:
    """Our part of the live rules: {"4": {table: part}, "6": {table: part}, "nft": {"inet ringfence": text}}.

    Raises:
        Fault: a program that is installed fails or hangs: what it does not say is not nothing.
    """
    state: dict[str, Any] = {"4": {}, "6": {}}
    for family in families():
        text = live_text(family) or ""
        policies = parse_policies(text)
        state[family[1]] = {
            table: own_part(chains, policies.get(table, {})) for table, chains in parse_save(text).items()
        }
    state["nft"] = {name: nft_table(name) for name in nft_tables() if name.split()[1:] == [NFT_TABLE]}
    return state


def must_load_again(state: dict[str, Any]) -> None:
    """Raises Fault where nft does not take what it listed itself: such a snapshot could not be brought back."""
    try:
        if state["nft"]:
            must("nft", "--check", "-f", "-", text=replacement(state["nft"]))
    except Fault as fault:
        raise Fault(f"nft does not read what it lists of our own tables, so nothing may be changed: {fault}") from None


def transaction(table: str, wanted: dict[str, Any], present: dict[str, Any]) -> str:
    """Build the iptables-restore --noflush input that turns our part of a table into what it was; "" if it is so."""
    old = {key: wanted.get(key, {}) for key in ("policies", "chains", "jumps")}
    new = {key: present.get(key, {}) for key in ("policies", "chains", "jumps", "lengths")}
    same_jumps = {chain: [rule for _, rule in jumps] for chain, jumps in old["jumps"].items()} == {
        chain: [rule for _, rule in jumps] for chain, jumps in new["jumps"].items()
    }
    # Also where the kernel has nothing of the table any more (nft flush ruleset): its chains would come back open.
    chains = {**old["policies"], **new["policies"]} if table == "filter" else {}
    policies = {chain: old["policies"].get(chain, "ACCEPT") for chain in chains}
    same_policies = all(new["policies"].get(chain, "ACCEPT") == policy for chain, policy in policies.items())
    if same_jumps and same_policies and old["chains"] == new["chains"]:
        return ""
    lines = [f"*{table}"]
    lines += [f":{chain} {policy} [0:0]" for chain, policy in policies.items()]
    # Declared chains are emptied first, those of today as well: nothing refers to them when they are deleted below.
    lines += [f":{chain} - [0:0]" for chain in {**old["chains"], **new["chains"]}]
    if not same_jumps:
        for chain, jumps in new["jumps"].items():
            lines += [f"-D {chain} {rule}" for _, rule in jumps]
        for chain, jumps in old["jumps"].items():
            length = new["lengths"].get(chain, 0) - len(new["jumps"].get(chain, []))
            if chain not in BUILTINS and chain not in new["lengths"]:
                continue  # Docker's chain is gone: there is nothing to jump from
            for place, rule in jumps:
                lines.append(f"-I {chain} {min(place, length) + 1} {rule}")
                length += 1
    for chain, rules in old["chains"].items():
        lines += [f"-A {chain} {rule}" for rule in rules]
    lines += [f"-X {chain}" for chain in new["chains"] if chain not in old["chains"]]
    return "\n".join([*lines, "COMMIT", ""])


class Step(NamedTuple):
    """One transaction of a restore: of a family ("4", "6") and table, or of our own tables of nftables."""

    family: str
    table: str
    text: str | dict[str, str]
    goes: bool  # takes a deny of the ring away


def steps(wanted: dict[str, Any], present: dict[str, Any]) -> list[Step]:
    """What turns our rules into what they were, in an order in which the ring is shut at every moment.

    The deny of the ring stands in mangle or in filter (older releases) or in our tables of nftables; what comes back
    is there before what replaced it goes. What opens (raw, the rest) never goes without a deny beside it.
    """
    coming: list[Step] = []
    changing: list[Step] = []
    going: list[Step] = []
    # Where a deny comes, mangle before filter, where it goes, filter before mangle: filter may only open.
    for table in ("mangle", "filter", "raw", "nat"):
        for family in ("4", "6"):
            old, new = (state.get(family, {}).get(table, {}) for state in (wanted, present))
            text = transaction(table, old, new)
            before, after = (any(RING.match(chain) for chain in part.get("chains", {})) for part in (new, old))
            goes = table in DENYING and before and not after
            step = Step(family, table, text, goes)
            if not text:
                continue
            if goes:
                going.insert(0, step)
            elif table in DENYING and after and not before:
                coming.append(step)
            else:
                changing.append(step)
    old_tables, new_tables = nft_part(wanted), nft_part(present)
    come = {name: text for name, text in old_tables.items() if name not in new_tables}
    change = {name: text for name, text in old_tables.items() if new_tables.get(name, text) != text}
    go = {name: "" for name in new_tables if name not in old_tables}
    coming[:0] = _nft_step(come, goes=False)
    # One that is replaced may have taken its deny over from mangle, or hand it back.
    changing[:0] = _nft_step(change, goes=False)
    going += _nft_step(go, goes=True)
    return [*coming, *changing, *going]


def nft_part(state: dict[str, Any]) -> dict[str, str]:
    """Our tables of nftables in a state; one of an earlier release has the text of the only one there was."""
    part = state.get("nft") or {}
    return {f"inet {NFT_TABLE}": part} if isinstance(part, str) else part


def _nft_step(tables: dict[str, str], *, goes: bool) -> list[Step]:
    return [Step("nft", ", ".join(tables), tables, goes)] if tables else []


def loaded() -> bool:
    """Whether the kernel has any of our chains."""
    state = kernel_state()
    return bool(state["nft"]) or any(part["chains"] for family in ("4", "6") for part in state[family].values())


def restore_kernel(wanted: dict[str, Any]) -> list[str]:
    """Bring our chains, the jumps to them and the filter policies back; return what could not be done.

    Raises:
        Fault: the live rules cannot be read; then nothing was changed.
    """
    failures: list[str] = []
    for step in steps(wanted, kernel_state()):
        if failures and step.goes and step.table != "filter":
            failures.append(f"{step.table} stays as it is: what replaces it is not in force")
            continue
        try:
            if isinstance(step.text, dict):
                replace_nft_tables(step.text)
            else:
                must(iptables(f"v{step.family}", "restore"), "--noflush", "--wait", "10", text=step.text)
        except Fault as fault:
            failures.append(f"{step.table} (v{step.family}): {fault}" if step.family != "nft" else str(fault))
    return failures
