"""Judges what the probes said, and shows it: matrix, differences, summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree

from ringfence.verify.cells import Cell, Matrix
from ringfence.verify.visited import SiteReport

OPEN, REFUSED, CLOSED, UNKNOWN = "open", "refused", "closed", "unknown"
SILENT = ("timeout", "no route", "host unreachable", "forbidden", "no address of that family")
LEGEND = "● open as declared   ◐ open on the declared addresses only   · closed   ~ not judged   ✗ DIFFERENCE"


@dataclass(frozen=True)
class Answers:
    """What the hosts answered.

    Attributes:
        results: cell number → (outcome, the source address that was used).
        arrivals: cell number → where its datagram arrived (container names, "" for a host itself).
        errors: source name → why it could not be probed from.
        deaf: hosts whose listener was gone before it was asked: silence means nothing there.
    """

    results: Mapping[int, tuple[str, str]]
    arrivals: Mapping[int, Sequence[str]]
    errors: Mapping[str, str]
    deaf: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """A cell with what became of it: got is ``open``, ``refused``, ``closed`` or ``unknown``."""

    cell: Cell
    got: str
    detail: str

    @property
    def wrong(self) -> bool:
        """Whether it differs from the declaration. A refusal is an answer: the packet passed."""
        if self.cell.expected == "either":
            return False
        return self.got != self.cell.expected


@dataclass(frozen=True)
class Report:
    """The outcome of a run.

    Attributes:
        judged: every cell that was tried.
        differences: a line each; only they make a run fail.
        outside: what lies outside the fence.
        notices: what the roles say about the hosts, and what verify could not do.
        skipped: number of closed cells that were left out, because there are too many.
        untried: (source's host, destination) → number of cells to which no way leads.
        destinations: their names, in the order in which they are shown.
        sites: who may reach which site, and how the sites answered; `with_sites` adds it.
        from_outside: whether a vantage took part. Without one, what containers cannot reach may be open to a LAN.
    """

    judged: tuple[Judged, ...]
    differences: tuple[str, ...]
    outside: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    skipped: int = 0
    untried: Mapping[tuple[str, str], int] = field(default_factory=dict)
    destinations: tuple[str, ...] = ()
    sites: SiteReport = field(default_factory=SiteReport)
    from_outside: bool = True

    @property
    def summary(self) -> str:
        """One line with the counts."""
        count = {got: sum(j.got == got for j in self.judged) for got in (OPEN, REFUSED, CLOSED, UNKNOWN)}
        parts = [f"{len(self.judged)} cells: {count[OPEN]} open", f"{count[CLOSED]} closed"]
        parts += [f"{count[other]} {other}" for other in (REFUSED, UNKNOWN) if count[other]]
        parts += [f"{sum(self.untried.values())} not tried"] if self.untried else []
        parts.append(f"{len(self.differences)} difference{'' if len(self.differences) == 1 else 's'}")
        return ", ".join(parts)


def judge(matrix: Matrix, answers: Answers, drift: Iterable[str] = (), notices: Iterable[str] = ()) -> Report:
    """Compare every cell with its answer.

    Args:
        matrix: what was asked.
        answers: what came back.
        drift: lines on what the roles would change; each is a difference.
        notices: lines on what the roles say besides.
    """
    judged = tuple(_judge(cell, answers) for cell in matrix.cells)
    lines = [*matrix.problems]
    lines += [f"{name}: could not be probed from: {why}" for name, why in sorted(answers.errors.items())]
    lines += [f"{host}: its listener ended too early; what arrived there by UDP is not known" for host in answers.deaf]
    lines += _differences(j for j in judged if j.wrong and j.cell.source not in answers.errors)
    lines += drift
    return Report(
        judged,
        tuple(lines),
        notices=tuple(notices),
        skipped=matrix.skipped,
        untried=matrix.untried,
        destinations=matrix.destinations,
        from_outside=any(source.vantage for source in matrix.sources.values()),
    )


def with_sites(report: Report, sites: SiteReport) -> Report:
    """Add what the visits to the sites said; their differences are the run's."""
    return replace(report, differences=(*report.differences, *sites.differences), sites=sites)


def _judge(cell: Cell, answers: Answers) -> Judged:
    outcome, used = answers.results.get(cell.number, ("was not tried", ""))
    arrived = cell.number in answers.arrivals
    if arrived:
        return Judged(cell, OPEN, "the datagram arrived" if cell.proto == "udp" else "the packet arrived")
    if outcome == OPEN and cell.proto != "tcp":
        return Judged(cell, OPEN, "answered")
    if outcome == OPEN:
        return Judged(cell, OPEN, f"connected from {used}")
    if outcome == REFUSED:
        what = "reset" if cell.proto == "tcp" else "port unreachable"
        return Judged(cell, REFUSED, f"{what} came back: the packet passed, nobody listens")
    if outcome in SILENT:
        return Judged(cell, CLOSED, outcome)
    return Judged(cell, UNKNOWN, outcome)


def _differences(wrong: Iterable[Judged]) -> list[str]:
    """One line per source, destination, port and kind of difference; addresses of the same kind share it."""
    groups: dict[tuple[str, str, str, str, str, str], list[Judged]] = {}
    for one in wrong:
        cell = one.cell
        key = (cell.source, cell.destination, cell.door, cell.expected, one.got, cell.reason)
        groups.setdefault(key, []).append(one)
    lines = []
    for (source, destination, door, expected, got, reason), group in groups.items():
        families = "+".join(f"IPv{f}" for f in sorted({one.cell.family for one in group}))
        addresses = list(dict.fromkeys(one.cell.address for one in group))
        shown = ", ".join(addresses[:4]) + (f" and {len(addresses) - 4} more" if len(addresses) > 4 else "")
        lines.append(
            f"{source} → {destination} {door} {families} ({shown}): "
            f"expected {expected} ({reason}), got {got} ({group[0].detail})"
        )
    return lines


def matrix_text(report: Report) -> str:
    """Draw the matrix: rows are sources, columns destinations with ports; columns closed throughout are only named."""
    groups: dict[tuple[str, str], list[Judged]] = {}
    rows: dict[str, None] = {}
    columns: dict[str, None] = {}
    rows.update(dict.fromkeys(one.cell.source for one in report.judged))
    ranks = {name: rank for rank, name in enumerate(report.destinations)}
    own = [one for one in report.judged if not one.cell.forged]
    for one in sorted(own, key=lambda one: (ranks.get(one.cell.destination, 0), one.cell.port)):
        cell = one.cell
        column = f"{cell.destination}:{cell.door.removeprefix('tcp/')}"
        column = f"{cell.destination}:{cell.port}/udp" if cell.proto == "udp" else column
        groups.setdefault((one.cell.source, column), []).append(one)
        columns.setdefault(column)
    marks = {key: _mark(group) for key, group in groups.items()}
    shown = [c for c in columns if any(marks.get((row, c), " ") not in " ·" for row in rows)]
    hidden = [c for c in columns if c not in shown]
    width = max((len(row) for row in rows), default=0)
    lines = []
    for number, column in enumerate(shown):
        lines.append(" " * (width + 1) + "│ " * number + column)
    for row in rows:
        lines.append(f"{row:<{width}} " + " ".join(marks.get((row, column), " ") for column in shown).rstrip())
    lines.append(LEGEND)
    if hidden:
        lines.append(f"closed from {'everywhere' if report.from_outside else 'every container'}: {', '.join(hidden)}")
    return "\n".join(lines)


def _mark(group: Sequence[Judged]) -> str:
    if any(one.wrong for one in group):
        return "✗"
    expected = {one.cell.expected for one in group}
    if "open" in expected:
        return "◐" if "closed" in expected else "●"
    return "~" if "either" in expected else "·"


def text(report: Report) -> str:
    """Everything a person reads after a run."""
    lines = [matrix_text(report)] if report.judged else []
    if report.skipped:
        lines.append(f"{report.skipped} cells that are expected closed were left out: there are too many of them")
    lines += untried_lines(report)
    lines += _forged(report)
    if report.sites.lines():
        lines += ["", *report.sites.lines()]
    if report.outside:
        lines += ["", "outside the fence (running, but not ringfence's):", *(f"  {line}" for line in report.outside)]
    if report.notices:
        lines += ["", "notices:", *(f"  {line}" for line in report.notices)]
    if report.differences:
        lines += ["", "differences:", *(f"  ✗ {line}" for line in report.differences)]
    ends = [report.sites.summary, report.summary] if report.sites.lines() else [report.summary]
    return "\n".join([*lines, "", *ends])


def _forged(report: Report) -> list[str]:
    """Say how many packets with another's address were tried, and how many of them arrived."""
    forged = [one for one in report.judged if one.cell.forged]
    arrived = sum(one.got != CLOSED for one in forged)
    return [f"{len(forged)} packets said that they come from another's address: {arrived} arrived"] if forged else []


def untried_lines(report: Report) -> list[str]:
    """Say what could not be tried, a line per host to probe from."""
    lines = []
    for host in sorted({host for host, _ in report.untried}):
        counts = {to: count for (source, to), count in sorted(report.untried.items()) if source == host}
        lines.append(
            f"{sum(counts.values())} cells were not tried: from {host} no way leads to the inner addresses of "
            f"{', '.join(counts)} (a probe might wander off)"
        )
    return lines


def as_json(report: Report) -> dict[str, Any]:
    """The same for machines."""
    return {
        "summary": report.summary,
        "differences": list(report.differences),
        "outside": list(report.outside),
        "notices": list(report.notices),
        "skipped": report.skipped,
        "untried": untried_lines(report),
        "cells": [
            {
                "source": j.cell.source, "destination": j.cell.destination, "address": j.cell.address,
                "family": j.cell.family, "proto": j.cell.proto, "port": j.cell.port, "expected": j.cell.expected,
                "reason": j.cell.reason, "forged": j.cell.forged, "got": j.got, "detail": j.detail, "wrong": j.wrong,
            }
            for j in report.judged
        ],
        "sites": report.sites.as_json(),
    }  # fmt: skip


def junit(report: Report) -> str:
    """JUnit XML: one test case per cell that is judged, one per visit, one for everything that is neither."""
    wrong = [j for j in report.judged if j.wrong]
    judged = [j for j in report.judged if j.cell.expected != "either"]
    visited = report.sites.visited
    suite = ElementTree.Element("testsuite", name="ringfence verify", tests=str(len(judged) + len(visited) + 1))
    for one in judged:
        cell = one.cell
        name = f"{cell.destination} {cell.address} {cell.door} {cell.expected}"
        case = ElementTree.SubElement(suite, "testcase", classname=cell.source, name=name)
        if one.wrong:
            ElementTree.SubElement(case, "failure", message=f"got {one.got} ({one.detail}); {cell.reason}")
    report.sites.cases(suite)
    case = ElementTree.SubElement(suite, "testcase", classname="lab", name="runs as declared")
    shown = {*_differences(wrong), *report.sites.shown}
    others = [line for line in report.differences if line not in shown]
    for line in others:
        ElementTree.SubElement(case, "failure", message=line)
    suite.set("failures", str(len(wrong) + sum(v.wrong for v in visited) + bool(others)))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)
