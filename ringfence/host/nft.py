"""nftables' tables as text: read from the kernel, replaced in one transaction."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.host.running import MISSING, must


def nft_tables() -> list[str]:
    """Return the names of all tables, such as "inet ringfence"; none where nft is not installed.

    Raises:
        Fault: nft failed or hung: that is never taken for no tables.
    """
    out = must("nft", "list", "tables", codes=(0, MISSING))
    return [line.removeprefix("table ").strip() for line in out.splitlines() if line.startswith("table ")]


def nft_table(name: str) -> str:
    """Return what nft prints of a table ("inet ringfence"), without counters; "" where it, or nft, is not there.

    Raises:
        Fault: nft failed or hung: that is never taken for a table that is not there.
    """
    return must("nft", "--stateless", "list", "table", *name.split()) if name in nft_tables() else ""


def replacement(tables: Mapping[str, str]) -> str:
    """Return nft's input that replaces tables, {"inet ringfence": what nft printed of it, "" for none at all}."""
    # Added first, so that there is one to delete.
    return "".join(f"add table {name}\ndelete table {name}\n{text}\n" for name, text in tables.items())


def replace_nft_tables(tables: Mapping[str, str]) -> None:
    """Replace tables with what their texts say, "" for none at all; at no moment is a part of it there.

    Raises:
        Fault: nft does not take it; then the old tables are still there.
    """
    must("nft", "-f", "-", text=replacement(tables))
