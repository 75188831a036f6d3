"""Deletes every rule of the applied policy, one of each chain at once, and asks whether all are missed.

Runs on the host.

Prints one JSON object: {"rules": how many there are, "unseen": those whose absence nobody named}.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import SourceFileLoader

TABLES = ("inet ringfence", "bridge ringfence")


def run(*argv: str, text: str = "") -> str:
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True, timeout=60).stdout


sys.argv = ["ringfence-policy", "status"]
spec = importlib.util.spec_from_loader("policy", SourceFileLoader("policy", "/usr/local/sbin/ringfence-policy"))
policy = importlib.util.module_from_spec(spec)
sys.modules["policy"] = policy
spec.loader.exec_module(policy)
# The declaration stays the same, and so does what nft and the kernel make of it: only what is live is read each time.
for _name in ("as_listed", "tells_bridges"):
    setattr(policy, _name, functools.cache(getattr(policy, _name)))


def status() -> str:
    """What `ringfence-policy status` says to what it finds; "" if it finds nothing wrong."""
    said, answer = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(answer):
        try:
            policy.serve("", {}, {"status": policy.status})
        except SystemExit as end:
            said.seek(0)
            return said.read() if end.code else ""
    raise AssertionError("it did not end")


@dataclass(frozen=True)
class Rule:
    """A rule: its chain, its name or what it leads to, and the commands that delete it and put it back."""

    chain: str
    name: str
    delete: list[str]
    back: list[str] = field(default_factory=list)
    place: int = 0


def of_nftables() -> list[Rule]:
    """Return every rule; they come back together with their tables."""
    found = []
    for table in TABLES:
        chain = ""
        for line in run("nft", "-a", "list", "table", *table.split()).splitlines():
            head = re.match(r"\s*chain (\S+) \{", line)
            chain = head[1] if head else chain
            rule = re.search(r'comment "([^"]*)" # handle (\d+)$', line)
            if rule:
                command = ["nft", "delete", "rule", *table.split(), chain, "handle", rule[2]]
                found.append(Rule(chain, rule[1], command))
    return found


def of_iptables() -> list[Rule]:
    """Return every rule and every jump."""
    found = []
    for command in ("iptables", "ip6tables"):
        place: dict[tuple[str, str], int] = {}
        table = ""
        for line in run(f"{command}-save").splitlines():
            table = line[1:] if line.startswith("*") else table
            if line.startswith("-A "):
                _, chain, rule = line.split(" ", 2)
                number = place[table, chain] = place.get((table, chain), 0) + 1
                if "RF-" in line and "RF-HOLD" not in line:
                    target = chain if chain.startswith("RF-") else rule.split()[-1]
                    at = [command, "-w", "-t", table]
                    back = [*at, "-I", chain, str(number), *rule.split()]
                    found.append(Rule(chain, target, [*at, "-D", chain, str(number)], back))
    return found


def rounds(rules: Sequence[Rule]) -> list[list[Rule]]:
    """Share rules out so that no chain and no name is among those that are gone at once for a second time."""
    made: list[list[Rule]] = []
    for rule in rules:
        free = (one for one in made if all(rule.chain != other.chain and rule.name != other.name for other in one))
        together = next(free, None)
        if together is None:
            made.append(together := [])
        together.append(rule)
    return made


def missed(rule: Rule, said: str) -> bool:
    """Whether what was said names the rule, and where it belongs."""
    return rule.name in said and (rule.chain in said or f"+ {rule.name}" in said)


def told(rule: Rule, said: str) -> str:
    return f"{rule.chain}: {rule.name}: {said or 'nothing was said'}"


def main() -> None:
    begin = status()
    unseen = [f"at first: {begin}"] if begin else []
    # Every handle is another one once the tables are loaded again, so that a rule is known by its place.
    rules = of_nftables()
    saved = "".join(f"add table {t}\ndelete table {t}\n{run('nft', '-s', 'list', 'table', *t.split())}" for t in TABLES)
    for together in rounds([replace(rule, place=number) for number, rule in enumerate(rules)]):
        now = of_nftables()
        for rule in together:
            run(*now[rule.place].delete)
        said = status()
        unseen += [told(one, said) for one in together if not missed(one, said)]
        run("nft", "-f", "-", text=saved)
    jumps = of_iptables()
    for together in rounds(jumps):
        for rule in together:
            run(*rule.delete)
        said = status()
        unseen += [told(one, said) for one in together if one.name not in said]
        for rule in together:
            run(*rule.back)
    end = status()
    unseen += [f"at last: {end}"] if end else []
    print(json.dumps({"rules": len(rules) + len(jumps), "unseen": unseen}))


main()
