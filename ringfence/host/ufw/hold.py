"""Stopping and starting ufw without an open moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ringfence.host.running import must
from ringfence.host.tables import families, iptables, live_text, parse_save
from ringfence.host.ufw.state import HOLD


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Keep new connections out; what is established goes on. Lifted only when what happens inside succeeds."""
    for family in families():
        passing = [
            f"-A {HOLD} -i lo -j ACCEPT",
            f"-A {HOLD} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ]
        if family == "v6":
            # Without neighbour discovery what is established would soon end, too.
            passing += [
                f"-A {HOLD} -p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j ACCEPT" for kind in (133, 134, 135, 136)
            ]
        jumps = [f"-I {chain} 1 -j {HOLD}" for chain in ("INPUT", "FORWARD")]
        text = "\n".join(["*mangle", f":{HOLD} - [0:0]", *passing, f"-A {HOLD} -j DROP", *jumps, "COMMIT", ""])
        must(iptables(family, "restore"), "--noflush", text=text)
    yield
    release()


def release() -> None:
    """Take the hold away, as often as it was put there."""
    for family in families():
        chains = parse_save(live_text(family) or "").get("mangle", {})
        if HOLD not in chains:
            continue
        jumps = [
            f"-D {chain} {rule}"
            for chain, rules in chains.items()
            for rule in rules
            if chain != HOLD and rule.endswith(f"-j {HOLD}")
        ]
        # Declared, hence emptied: nothing is left in it when it goes.
        text = "\n".join(["*mangle", f":{HOLD} - [0:0]", *jumps, f"-X {HOLD}", "COMMIT", ""])
        must(iptables(family, "restore"), "--noflush", text=text)


def restart_held() -> None:
    """Stop and start ufw without an open moment."""
    release()
    with held():
        init = "/usr/lib/ufw/ufw-init" if Path("/usr/lib/ufw/ufw-init").exists() else "/lib/ufw/ufw-init"
        must(init, "force-stop", timeout=60)
        must(init, "start", timeout=60)
