"""A private way for probes to hosts' inner addresses: else a router would be needed to try them from outside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ringfence.verify.remote.commands import Json, ProbeFailedError, run
from ringfence.verify.remote.looking import addresses

TABLE = 4646  # first routing table, and rule priority, of `probe`; nothing else on a host should use them


def route_lines(wanted: Json, seen: list[Json]) -> tuple[list[str], list[str]]:
    """`ip -batch` lines (v4, v6) that lead a vantage's probes to each target by the neighbour in `ways`."""
    lines: tuple[list[str], list[str]] = ([], [])
    # A table for each vantage: the same target is next to one and behind a host for another.
    for table, source in enumerate(wanted["sources"], TABLE):
        for family, key in ((0, "address"), (1, "address6")):
            own = source.get(key)
            device = next((a["device"] for a in seen if own == a["address"]), None)
            routes = [
                f"route replace {target} via {way} dev {device} table {table}"
                for target, way in source.get("ways", {}).items()
                if (":" in target) == bool(family)
            ]
            if device and routes:
                lines[family].extend([*routes, f"rule add from {own} lookup {table} priority {TABLE}"])
    return lines


@contextlib.contextmanager
def ways(wanted: Json) -> Iterator[None]:
    """Within, hosts' inner addresses are routed to the hosts themselves, for the vantages' addresses only."""
    lines = route_lines(wanted, addresses()) if any("pid" not in s for s in wanted["sources"]) else ([], [])
    try:
        for flag, text in zip(("-4", "-6"), lines, strict=True):
            if text:
                forget(flag, len(wanted["sources"]))
                if run("ip", flag, "-batch", "-", text="\n".join(text) + "\n") is None:
                    raise ProbeFailedError(f"cannot route the probes (ip {flag} -batch): {text[0]}")
        yield
    finally:
        for flag, text in zip(("-4", "-6"), lines, strict=True):
            if text:
                forget(flag, len(wanted["sources"]))


def forget(flag: str, tables: int) -> None:
    """Remove our rules and routes, also those of a run that was killed."""
    while run("ip", flag, "rule", "del", "priority", str(TABLE)) is not None:
        pass
    for table in range(TABLE, TABLE + tables):
        run("ip", flag, "route", "flush", "table", str(table))
