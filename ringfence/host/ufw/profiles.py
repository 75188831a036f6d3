"""ufw's application profiles: names for ports, in files that packages bring along."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Any

PROFILES = Path("/etc/ufw/applications.d")


def parse_profiles(text: str) -> dict[str, list[tuple[str, str]]]:
    """Read a file of profiles: {profile: [(ports, protocol)]}; {} where it is none."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    found = {}
    for name in parser.sections():
        parts = [part.strip().partition("/") for part in parser.get(name, "ports", fallback="").split("|")]
        found[name] = [(ports, proto or "any") for ports, _, proto in parts if ports]
    return found


def with_ports(entries: list[dict[str, Any]], directory: Path = PROFILES) -> tuple[list[dict[str, Any]], list[str]]:
    """Return rules with the ports of the profiles that they name in the place of those, and what names none.

    The ports are what is declared then: a package that changes its profile opens nothing.
    """
    if not any(entry.get("application") for entry in entries):
        return entries, []
    known: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(directory.glob("*")):
        if path.is_file():
            known |= parse_profiles(path.read_text(encoding="utf-8", errors="replace"))
    found: list[dict[str, Any]] = []
    faults = []
    for entry in entries:
        name = entry.get("application")
        if not name:
            found.append(entry)
        elif name not in known:
            there = f"there are: {', '.join(sorted(known))}" if known else "there are none"
            faults.append(
                f"ufw_rules.{entry['name']}: ufw has no application profile {name!r} ({there}; or write port)"
            )
        else:
            parts = known[name]
            labels = [entry["name"], *(f"{entry['name']}-{number}" for number in range(2, len(parts) + 1))]
            found += [
                {**entry, "application": "", "name": label, "port": ports, "proto": proto}
                for label, (ports, proto) in zip(labels, parts, strict=True)
            ]
    return found, faults
