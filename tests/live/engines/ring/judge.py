"""From what the agents wrote to what it means. Pure."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# A cell that was tried less often, while its place was there, says nothing.
LEAST_SHARE = 0.4  # of the tries that there should have been
LEAST_TRIES = 50

Entry = dict[str, Any]


@dataclass
class Findings:
    """What happened between two moments.

    Attributes:
        seconds: how long.
        sent, arrived: {probe id: how often}.
        places: {probe id: the places in which it arrived}.
        rates: {probe id: attempts per second in which its place was there}.
        trouble: what the agents could not do: {what: how often}.
        beats, begun, echoed, ended: {flow id: times that it was tried, connections made, bytes that came back,
            connections that ended}.
        pauses: {flow id: longest time without a byte, seconds}.
    """

    seconds: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)
    arrived: Counter[str] = field(default_factory=Counter)
    places: dict[str, set[str]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    trouble: Counter[str] = field(default_factory=Counter)
    begun: Counter[str] = field(default_factory=Counter)
    beats: Counter[str] = field(default_factory=Counter)
    echoed: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    pauses: dict[str, float] = field(default_factory=dict)


class Ledger:
    """What a place has written so far, read piece by piece.

    Attributes:
        entries: its lines; one that a power cut left unfinished is left out.
        bytes_read: how much of it was read.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.bytes_read = 0
        self._rest = b""

    def add(self, text: bytes) -> None:
        """Take in what comes next."""
        self.bytes_read += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            try:
                self.entries.append(json.loads(line))
            except ValueError:
                continue


def judge(ledgers: dict[str, list[Entry]], begin: float, end: float, places: dict[str, str]) -> Findings:
    """Add up what happened from `begin` to `end`, seconds since 1970.

    Args:
        ledgers: {place: entries}.
        places: {probe id: the place that tries it}.
    """
    found = Findings(seconds=end - begin)
    arrived: dict[str, Counter[str]] = {"packets": Counter(), "accepted": Counter()}
    here: Counter[str] = Counter()
    heard: dict[str, list[float]] = {}
    for place, entries in ledgers.items():
        for entry in entries:
            if not begin <= entry["t"] < end:
                continue
            found.sent.update(entry.get("sent", {}))
            found.begun.update(entry.get("begun", {}))
            found.beats.update(entry.get("beats", {}))
            found.ended.update(entry.get("ended", {}))
            found.trouble.update({f"{place}: {what}": n for what, n in entry.get("errors", {}).items()})
            here[place] += entry.get("here", {}).get("ms", 0)
            for kind, counts in arrived.items():
                # What a place sends to a group comes back to itself, which is no arrival.
                here_too = {probe: n for probe, n in entry.get(kind, {}).items() if places.get(probe) != place}
                counts.update(here_too)
                for probe, n in here_too.items():
                    if n:
                        found.places.setdefault(probe, set()).add(place)
            for flow, bytes_ in entry.get("echoed", {}).items():
                found.echoed[flow] += bytes_
                heard.setdefault(flow, []).append(entry["t"])
    for probe in arrived["packets"].keys() | arrived["accepted"].keys():
        # One attempt may be seen on the wire and at the socket.
        found.arrived[probe] = max(counts[probe] for counts in arrived.values())
    found.rates = {
        probe: found.sent[probe] * 1000 / here[place] if here[place] else 0.0 for probe, place in places.items()
    }
    found.pauses = {flow: _longest_gap(times, begin, end) for flow, times in heard.items()}
    return found


def _longest_gap(times: Iterable[float], begin: float, end: float) -> float:
    moments = [begin, *sorted(times), end]
    return max(later - earlier for earlier, later in itertools.pairwise(moments))


def blind(found: Findings, names: dict[str, str], rates: Mapping[str, float]) -> list[str]:
    """Why these findings prove nothing, as sentences.

    Args:
        names: {probe id: name}.
        rates: {probe id: tries per second that there should have been}.
    """
    reasons = [f"{what}: {n}" for what, n in found.trouble.items() if "not looked at" in what]
    for probe, name in names.items():
        if found.sent[probe] < LEAST_TRIES:
            reasons.append(f"{name}: tried {found.sent[probe]} times only")
        elif found.rates[probe] < LEAST_SHARE * rates[probe]:
            reasons.append(f"{name}: tried {found.rates[probe]:.0f} times a second only")
    return reasons


def leaks(found: Findings, names: dict[str, str]) -> list[str]:
    """What arrived although it must not, as sentences."""
    return [f"{names.get(probe, probe)}: {n} of {found.sent[probe]} arrived" for probe, n in found.arrived.items() if n]


def summary(found: Findings) -> str:
    """One line: how much was tried, how fast, what arrived, and what became of the declared connections."""
    rates = found.rates.values() or [0.0]
    pause = max(found.pauses.values(), default=0.0)
    return (
        f"{found.seconds:.1f} s, {len(found.rates)} cells at {min(rates):.0f} to {max(rates):.0f} a second:"
        f" {found.sent.total()} attempts, {found.arrived.total()} arrived; {len(found.pauses)} declared connections,"
        f" longest pause {pause:.1f} s, {found.ended.total()} ended"
    )
