"""What to do first so that rules become what is wanted: what opens a way in comes before what closes one."""

from __future__ import annotations

from typing import NamedTuple

from ringfence.host.running import Fault
from ringfence.host.ufw.rules import Rule, declared_as, overlap, replayable


def leaving(current: list[Rule], wanted: list[Rule], foreign: str) -> list[Rule]:
    """The rules that have to go: own ones that are no longer declared, and foreign ones as far as asked for."""
    matches = {rule.match for rule in wanted}
    gone = []
    for rule in current:
        if rule.match in matches:
            continue
        if (
            rule.own
            or (foreign == "remove" and not comes_and_goes(rule))
            or (foreign == "stop" and declared_as(rule, wanted))
        ):
            gone.append(rule)
    return gone


def comes_and_goes(rule: Rule) -> bool:
    """Whether a program bans somebody by a rule, and takes it back itself."""
    return not rule.opens and rule.comment.lower().startswith("by fail2ban")


class Step(NamedTuple):
    """One command to ufw: at ``place`` (from 0) of the family's list."""

    verb: str  # set | insert | delete
    place: int
    rule: Rule


def next_step(current: list[Rule], wanted: list[Rule], gone: list[Rule]) -> Step | None:
    """What to do first so that one family's rules become what is wanted; None when they are.

    What opens a way in comes before what closes one: a renamed or narrowed rule is in place before the old one goes.
    """
    index = {rule.match: place for place, rule in enumerate(wanted)}
    for place, rule in enumerate(current):
        if rule.match in index and rule != wanted[index[rule.match]]:
            return Step("set", place, wanted[index[rule.match]])
    barrier = first_barrier(current, wanted, gone)
    kept = in_order([(place, index[rule.match]) for place, rule in enumerate(current) if rule.match in index], barrier)
    present = {rule.match for rule in current}
    for number, rule in enumerate(wanted):
        if rule.match not in present:
            before = [place for place, other in kept if other < number]
            behind = [place for place, other in kept if other > number]
            return Step("insert", max(before) + 1 if before else min(behind, default=head(current)), rule)
    settled = {place for place, _ in kept}
    for place, rule in enumerate(current):
        if rule.match in index and place not in settled:
            return Step("delete", place, rule)
    for place, rule in enumerate(current):
        if rule in gone:
            return Step("delete", place, rule)
    return None


def head(current: list[Rule]) -> int:
    """Where the first own rule goes: behind what others deny right at the top."""
    place = 0
    while place < len(current) and not current[place].own and not current[place].opens:
        place += 1
    return place


def first_barrier(current: list[Rule], wanted: list[Rule], gone: list[Rule]) -> int:
    """Place of the first kept foreign rule that would open what a named deny closes; all own rules go before it."""
    denies = [rule for rule in wanted if not rule.opens and rule.match.direction == "in" and not rule.match.forward]
    matches = {rule.match for rule in wanted}
    for place, rule in enumerate(current):
        if (
            rule.match in matches
            or rule in gone
            or not rule.opens
            or rule.match.direction != "in"
            or rule.match.forward
        ):
            continue
        for deny in denies:
            same = "any" in (deny.match.proto, rule.match.proto) or deny.match.proto == rule.match.proto
            if same and (rule.match.dapp or overlap(deny.match.dport, rule.match.dport)):
                return place
    return len(current)


def in_order(pairs: list[tuple[int, int]], barrier: int) -> list[tuple[int, int]]:
    """The longest run of (place, wanted index) in rising order before the barrier: these need not move."""
    best: list[list[tuple[int, int]]] = []
    for pair in (pair for pair in pairs if pair[0] < barrier):
        longest = max((run for run in best if run[-1][1] < pair[1]), key=len, default=[])
        best.append([*longest, pair])
    return max(best, key=len, default=[])


def simulate(current: list[Rule], wanted: list[Rule], foreign: str) -> tuple[list[Rule], list[str]]:
    """The rules of one family after apply, and what changes, one line per rule."""
    rules = list(current)
    gone = leaving(rules, wanted, foreign)
    lines: dict[str, str] = {}
    before = {rule.match: rule for rule in current}
    for _ in range(4 * (len(current) + len(wanted)) + 4):
        step = next_step(rules, wanted, gone)
        if step is None:
            return rules, list(lines.values())
        key = str(step.rule.match)
        if step.verb == "set":
            old = rules[step.place]
            rules[step.place] = step.rule
            lines[key] = f"~ rule {step.rule.name}: `{replayable(old)}` → `{replayable(step.rule)}`"
        elif step.verb == "insert":
            rules.insert(step.place, step.rule)
            if step.rule.match in before:
                lines[key] = f"~ rule {step.rule.name}: moved, because the first rule that matches decides"
            else:
                lines[key] = f"+ rule {step.rule.name}: `{replayable(step.rule)}`"
        else:
            names = declared_as(step.rule, wanted)
            why = f" (declared as {', '.join(names)})" if names and not step.rule.own else ""
            lines[key] = f"- rule {step.rule.name if step.rule.own else '(foreign)'}: `{replayable(step.rule)}`{why}"
            del rules[step.place]
    raise Fault("the rules cannot be brought into order; `ufw status numbered` shows them")
