"""Tailscale and headscale, which Debian does not carry, built from their Go modules and cached.

Tests of a tailnet use them; they are built only when somebody asks, because it takes long::

    RINGFENCE_TAILNET="$(./run -- python -m lab.tailnet)" ./run test -m tailnet
"""

from __future__ import annotations

import sys
from pathlib import Path

from lab.gomodule import GoModule
from lab.shell import LabError

PROGRAMS = GoModule(
    folder=Path(__file__).parent / "tailnet",
    title="Tailscale 1.102.3 and headscale 0.29.2",
    name="tailnet-1.102.3-0.29.2",
    # tailscaled is tailscale as well, called by that name.
    programs={"headscale": "github.com/juanfont/headscale/cmd/headscale", "tailscaled": "tailscale.com/cmd/tailscaled"},
    instead="do without the tests of a tailnet",
    revision=("1",),
    flags=("-tags", "ts_include_cli", "-ldflags", "-s -w"),
    environment={"CGO_ENABLED": "0"},
)


if __name__ == "__main__":
    try:
        print(PROGRAMS.ensure())
    except LabError as error:
        sys.exit(str(error))
