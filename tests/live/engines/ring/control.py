"""The control: without the fence every probe must arrive, or its silence would prove nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.live.engines.ring.attack import Attack, begun, host_network_reaches, must_hold, start_odd
from tests.live.engines.ring.guests import invite, leave
from tests.live.labs import Lab, waited_for

# What Docker and UFW themselves close, opened ahead of their rules and taken away again. On Docker's nftables back end
# a drop is final, so that the chains that hold them are emptied; an engine that starts fills them.
_HOOKS = "'raw PREROUTING' 'filter FORWARD' 'filter INPUT'"
_EACH = f"for t in iptables ip6tables; do for h in {_HOOKS}; do set -- $h; $t -w -t $1 {{}} $2 -j ACCEPT; done; done"
_CHAINS = "filter-FORWARD raw-PREROUTING"
_HAS = "nft list table ip docker-bridges >/dev/null 2>&1"
_EMPTY = f"for f in ip ip6; do for c in {_CHAINS}; do nft flush chain $f docker-bridges $c; done; done"
# The timer would put the fence back; the run that follows starts it again.
_UNWATCHED = "systemctl stop ringfence-watch.timer ringfence-watch.service 2>/dev/null"
# What the kernel itself refuses: sources that do not fit the interface, or are the host's own.
_KNOBS = "/proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/conf/*/accept_local"
_KEEP = f'for f in {_KNOBS}; do echo "echo $(cat $f) > $f 2>/dev/null"; done > /run/knobs'
_LOOSE = "for f in /proc/sys/net/ipv4/conf/*; do echo 0 > $f/rp_filter; echo 1 > $f/accept_local; done"
_AWAY = f"{_UNWATCHED}; ringfence-policy remove >/dev/null"
OPEN = f"{_AWAY}; {_EACH.format('-I')}; if {_HAS}; then {_EMPTY}; fi; {_KEEP}; {_LOOSE}"
CLOSE = f"sh /run/knobs; {_EACH.format('-D')}; if {_HAS}; then systemctl restart docker; fi"
SEEN = 30.0  # seconds until every probe must have arrived


def _missing(attack: Attack, begin: float) -> set[str]:
    """The probes that were not seen: of frames to the host, at the host, as others' ears prove nothing about its own.

    Of the rest anywhere: without the fence one attack leads astray what another one sends.
    """
    found = attack.look(begin)
    seen = {number: found.places.get(number, set()) for number in attack.probes}
    at_host = {number for number, probe in attack.probes.items() if probe.frames and probe.into == "atlas"}
    return {number for number, places in seen.items() if not places or (number in at_host and "atlas" not in places)}


def take_the_fence_away(attack: Attack, *others: Callable[[Attack], bool]) -> set[str]:
    """Open everything and see what arrives; returns the names of the probes that never did. A run must follow.

    Args:
        others: tries of another kind, which say whether they arrived.
    """
    begin = time.time()
    attack.lab.sh(OPEN)
    waited_for(lambda: not _missing(attack, begin), SEEN, 0.5)
    missing = _missing(attack, begin)
    failed = {other.__name__ for other in others if not other(attack)}
    attack.lab.sh(CLOSE, timeout=180)
    return failed | {attack.names[probe] for probe in missing}


def must_hold_against_raw_sockets(lab: Lab) -> None:
    """Have packets and frames tried that no ordinary program sends: each arrives without the fence, none with it.

    Raises:
        AssertionError: it is otherwise.
    """
    raw = start_odd(lab)
    silent = take_the_fence_away(raw, host_network_reaches)
    assert not silent, f"they do not arrive without the fence either: {sorted(silent)}"
    raw.lab.pyinfra()
    # What was seen while the fence was away stays as it was seen: not masqueraded; an echo of a stranger and a
    # connection by link-local addresses, which tell no segment, are answered on; and so is what a process of the host
    # has opened, which the policy takes for the host's own matter.
    own = [address for pair in raw.addresses.gateways.values() for address in pair]
    opened = "; ".join(f"conntrack -D -f {'ipv6' if ':' in a else 'ipv4'} -s {a}" for a in dict.fromkeys(own))
    raw.lab.sh(f"conntrack -D -p icmp; conntrack -D -f ipv6 -s fe80::/10; {opened}", check=False)
    begun(raw)
    # The strangers come after the run, which knows nothing of them.
    must_hold(raw, raw.during(lambda lab: invite(lab, raw.addresses)))
    assert not host_network_reaches(raw)
    leave(raw.lab)
