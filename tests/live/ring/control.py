"""The control: without the fence every probe must arrive, or its silence would prove nothing."""

from __future__ import annotations

import time

from tests.live.ring.attack import Attack

# What Docker and UFW themselves close, opened ahead of their rules and taken away again.
_HOOKS = ("raw PREROUTING", "filter FORWARD", "filter INPUT")
_EACH = " ".join(f"'{hook}'" for hook in _HOOKS)
_FOR_EACH = (
    f"for t in iptables ip6tables; do for h in {_EACH}; do set -- $h; $t -w -t $1 {{verb}} $2 {{rule}}; done; done"
)
OPEN = f"ringfence-policy remove >/dev/null; {_FOR_EACH.format(verb='-I', rule='-j ACCEPT')}"
CLOSE = _FOR_EACH.format(verb="-D", rule="-j ACCEPT")
SEEN = 30.0  # seconds until every probe must have arrived


def take_the_fence_away(attack: Attack) -> set[str]:
    """Open everything and see what arrives; returns the names of the probes that never did. A run must follow."""
    begin = time.time()
    attack.lab.ssh(OPEN)
    deadline = time.monotonic() + SEEN
    while (missing := attack.names.keys() - attack.look(begin).arrived.keys()) and time.monotonic() < deadline:
        time.sleep(0.2)
    attack.lab.ssh(CLOSE)
    return {attack.names[probe] for probe in missing}
