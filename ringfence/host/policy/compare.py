"""What differs between a wanted and a live policy, by name."""

from __future__ import annotations

from typing import Any

from ringfence.host.policy.nft import grouped
from ringfence.host.policy.places import Live, Place, Rules
from ringfence.host.policy.rules import Rule
from ringfence.host.policy.xtables import words


def settled(rules: Any) -> Any:
    """Rules of a live or a wanted policy as they can be compared: what is one word to a back end has one verdict, and
    what a map or a set holds has no order."""
    found = {}
    for place, own in rules.items():
        held = [n for n, rule in enumerate(own) if place.medium == "nft" and grouped(rule)]
        inside = iter(sorted((own[n] for n in held), key=lambda rule: (rule.verdict, rule.into, rule.destination)))
        found[place] = [next(inside) if n in held else _one_word(place, rule) for n, rule in enumerate(own)]
    return found


def _one_word(place: Place, rule: Rule | str) -> Rule | str:
    passes = isinstance(rule, Rule) and rule.verdict == "pass" and place.medium != "nft"
    return rule._replace(verdict="return") if isinstance(rule, Rule) and passes else rule


def rule_changes(want: Rules, have: Live) -> list[str]:
    """Compare own chains; one line per name, not per rule. The order in a chain counts."""
    named = {rule.name for rules in want.values() for rule in rules}
    missing: dict[str, list[Rule]] = {}
    extra: dict[str, list[Rule]] = {}
    present: set[str] = set()
    changes: list[str] = []
    for place in sorted(want.keys() | have.keys()):
        wanted, live = want.get(place, []), have.get(place, [])
        unmatched = list(live)
        for rule in wanted:
            if rule in unmatched:
                unmatched.remove(rule)
                present.add(rule.name)
            else:
                missing.setdefault(rule.name, []).append(rule)
        for found in unmatched:
            if isinstance(found, str):
                changes.append(f"- rule in {place.chain} that ringfence did not write: {found}")
            else:
                extra.setdefault(found.name, []).append(found)
        if place not in want:
            changes.append(f"- chain {place.table} {place.chain}")
        elif place not in have:
            if not wanted:
                changes.append(f"+ chain {place.table} {place.chain}")
        elif not unmatched and wanted != live and len(wanted) == len(live):
            changes.append(f"~ order of the rules in {place.table} {place.chain}")
    for name in sorted(missing.keys() | extra.keys()):
        if name not in named:
            changes.append(f"- {name}")
        elif name in missing and name not in present and name not in extra:
            changes.append(f"+ {name}")
        else:
            lost = [f"missing: {spoken(rule)}" for rule in missing.get(name, [])]
            found_there = [f"not declared: {spoken(rule)}" for rule in extra.get(name, [])]
            changes.append(f"~ {name}: {'; '.join(found_there + lost)}")
    return changes


def spoken(rule: Rule) -> str:
    """A rule as a person reads it."""
    return " ".join(words(rule, comment=False))


def both_families(lines: dict[str, list[str]]) -> list[str]:
    """Merge the change lines of v4 and v6: what is the same in both is said once, the rest names its family."""
    merged = []
    for family, other in (("v4", "v6"), ("v6", "v4")):
        for line in lines.get(family, []):
            if line in lines.get(other, []):
                if family == "v4":
                    merged.append(line)
            else:
                merged.append(f"{line} ({family})" if other in lines else line)
    return list(dict.fromkeys(merged))
