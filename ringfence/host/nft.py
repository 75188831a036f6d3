"""nftables' tables as text: read from the kernel, replaced in one transaction."""

from __future__ import annotations

from ringfence.host.running import MISSING, must


def nft_table(name: str) -> str:
    """Return what nft prints of a table ("inet ringfence"), without counters; "" where it, or nft, is not there.

    Raises:
        Fault: nft failed or hung: that is never taken for a table that is not there.
    """
    if f"table {name}" not in must("nft", "list", "tables", codes=(0, MISSING)).splitlines():
        return ""
    return must("nft", "--stateless", "list", "table", *name.split())


def replace_nft_table(name: str, text: str) -> None:
    """Replace a table with what ``text`` says, "" for none at all; at no moment is half of it there.

    Raises:
        Fault: nft does not take it; then the old table is still there.
    """
    # Added first, so that there is one to delete.
    must("nft", "-f", "-", text=f"add table {name}\ndelete table {name}\n{text}\n")
