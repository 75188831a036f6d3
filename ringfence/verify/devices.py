"""What people's devices reach through the VPN: said in every run, as none of them takes part in it."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.verify.declared import INTERNET, Declared


def notices(declared: Declared) -> Iterator[str]:
    """Yield a line per device with what it may reach beyond the hub; its key is its own, so nothing was tried as it."""
    vpn = declared.vpn
    hosts = {machine.name for machine in declared.machines}
    for device in sorted(vpn.addresses.keys() - hosts):
        ways = [(to, f"{proto}/{port}") for of, to, proto, port in vpn.egress if of == device]
        shown = [f"the {INTERNET}" if to == INTERNET else f"{to.partition('/')[0]} {door}" for to, door in sorted(ways)]
        beyond = ", ".join(sorted(shown, key=lambda one: one != f"the {INTERNET}")) or "nothing"
        yield f"{device}: reaches {beyond} beyond {vpn.hub}; it takes no part in this run, so nothing was tried as it"
