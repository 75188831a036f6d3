"""nftables' tables as text: read from the kernel, replaced in one transaction."""

from __future__ import annotations

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


def replace_nft_table(name: str, text: str) -> None:
    """Replace a table with what ``text`` says, "" for none at all; at no moment is half of it there.

    Raises:
        Fault: nft does not take it; then the old table is still there.
    """
    # Added first, so that there is one to delete.
    must("nft", "-f", "-", text=f"add table {name}\ndelete table {name}\n{text}\n")
