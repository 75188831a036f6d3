"""What passes an interface of a host, for those who look for plain text in it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from tests.live.labs import Lab

HERE = Path(__file__).parent


def heard(lab: Lab, interface: str, ask_for: Callable[[], object]) -> bytes:
    """What passes an interface while something is asked for."""
    lab.sh("rm -f /run/hear*; cat > /run/hear.py", text=(HERE / "hear.py").read_text())
    # A unit of its own each time: the one before may not have been collected yet.
    lab.sh(
        f"systemd-run --quiet --collect --unit=hear-{secrets.token_hex(4)} python3 /run/hear.py {interface} &&"
        " timeout 10 sh -c 'until test -e /run/hearing; do sleep 0.1; done'"
    )
    try:
        ask_for()
    finally:
        lab.sh("touch /run/heard; timeout 30 sh -c 'until test -e /run/heard.bytes; do sleep 0.1; done'")
    return (lab.root() / "run/heard.bytes").read_bytes()
