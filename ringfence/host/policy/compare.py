"""What differs between the wanted and the live rules of nftables, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ringfence.host.policy.nft import Line

Chains = dict[tuple[str, str], list[Line]]


def rule_changes(want: Iterable[Line], have: Iterable[Line]) -> list[str]:
    """Compare own tables as nft lists them; one line per name, not per rule. The order in a chain counts."""
    wanted, live = by_chain(want), by_chain(have)
    missing: dict[str, list[Line]] = {}
    extra: dict[str, list[Line]] = {}
    present: set[str] = set()
    changes: list[str] = []
    named = {line.name for lines in wanted.values() for line in lines}
    for place in sorted({**wanted, **live}):
        rest = list(live.get(place, []))
        for line in wanted.get(place, []):
            if line in rest:
                rest.remove(line)
                present.add(line.name)
            else:
                missing.setdefault(line.name, []).append(line)
        for line in rest:
            if line.name:
                extra.setdefault(line.name, []).append(line)
            else:
                changes.append(f"- rule in {line.chain} that ringfence did not write: {line.text}")
        same = sorted(live.get(place, [])) == sorted(wanted.get(place, []))
        if same and live.get(place) != wanted.get(place):
            changes.append(f"~ order of the rules in {place[0]} {place[1]}")
    for name in sorted({**missing, **extra}):
        if name not in named:
            changes.append(f"- {name}")
        elif name in missing and name not in present and name not in extra:
            changes.append(f"+ {name}")
        else:
            changes.append(f"~ {name}: {'; '.join(_differences(missing.get(name, []), extra.get(name, [])))}")
    return changes


def by_chain(lines: Iterable[Line]) -> Chains:
    found: Chains = {}
    for line in lines:
        found.setdefault((line.table, line.chain), []).append(line)
    return found


def _differences(missing: list[Line], extra: list[Line]) -> list[str]:
    """What to say of one name: of two rules that differ in what a set holds, only that."""
    said = []
    unpaired = list(extra)
    for line in missing:
        twin = next((e for e in unpaired if e.chain == line.chain and _frame(e) == _frame(line) != line.text), None)
        if twin:
            unpaired.remove(twin)
            lost, found = _held(line) - _held(twin), _held(twin) - _held(line)
            said += [f"missing in {line.chain}: {', '.join(sorted(lost))}"] if lost else []
            said += [f"not declared in {line.chain}: {', '.join(sorted(found))}"] if found else []
        else:
            said.append(f"missing in {line.chain}: {line.text}")
    return said + [f"not declared in {line.chain}: {line.text}" for line in unpaired]


def _frame(line: Line) -> str:
    """A rule without what its set holds. A set of one is written like no set at all."""
    return re.sub(r"\{ [^{}]* \}", "{}", line.text)


def _held(line: Line) -> set[str]:
    found = re.search(r"\{ ([^{}]*) \}", line.text)
    return set(found[1].split(", ")) if found else set()


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
