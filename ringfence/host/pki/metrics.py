"""When certificates end, as a text file for Prometheus' node exporter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from ringfence.host.files import read, replace_file

EXPIRY, FAILED_RENEWAL = "ringfence_certificate_expiry_timestamp_seconds", "ringfence_certificate_renewal_failed"


def exposition(ends: Mapping[str, float], failed: Collection[str]) -> str:
    """Return the text.

    Args:
        ends: name of a leaf, or root, or intermediate → seconds since the epoch.
        failed: those that were not renewed, or not read again, when they should have been.
    """
    lines = [f"# HELP {EXPIRY} When a certificate of this host ends.", f"# TYPE {EXPIRY} gauge"]
    lines += [f'{EXPIRY}{{name="{name}"}} {until:.0f}' for name, until in sorted(ends.items())]
    lines += [f"# HELP {FAILED_RENEWAL} Whether its last renewal failed.", f"# TYPE {FAILED_RENEWAL} gauge"]
    lines += [f'{FAILED_RENEWAL}{{name="{name}"}} {int(name in failed)}' for name in sorted({*ends, *failed})]
    return "\n".join(lines) + "\n"


def write_metrics(path: str, ends: Mapping[str, float], failed: Collection[str]) -> None:
    """Replace the file in one step, unless nothing of it has changed; "" writes none."""
    text = exposition(ends, failed)
    if path and read(Path(path)) != text:
        replace_file(Path(path), text, 0o644)
