"""What fail2ban, crowdsec and the like do: they shut out an address ahead of everybody else's rules."""

from __future__ import annotations

from tests.live.labs import Lab

CHAIN = "f2b-ring"
TABLE = f"table inet {CHAIN}"


def ban(lab: Lab, address: str) -> None:
    """Shut an IPv4 address out, by DOCKER-USER, or by an own table where Docker has no such chain."""
    hook = "type filter hook forward priority -1"
    lab.sh(
        "if iptables -nL DOCKER-USER >/dev/null 2>&1; then"
        f" iptables -N {CHAIN}; iptables -A {CHAIN} -s {address} -j DROP; iptables -A {CHAIN} -j RETURN;"
        f" iptables -I DOCKER-USER -j {CHAIN};"
        f" else nft '{TABLE} {{ chain forward {{ {hook}; ip saddr {address} drop; }}; }}'; fi"
    )


def banned_first(lab: Lab) -> bool:
    """Whether the ban is still there, and ahead of everything."""
    rules = lab.sh("iptables -S DOCKER-USER 2>/dev/null | grep '^-A'; nft list tables", check=False).splitlines()
    return TABLE in rules or rules[0] == f"-A DOCKER-USER -j {CHAIN}"


def unban(lab: Lab) -> None:
    lab.sh(
        f"nft delete {TABLE} 2>/dev/null ||"
        f" {{ iptables -D DOCKER-USER -j {CHAIN}; iptables -F {CHAIN}; iptables -X {CHAIN}; }}"
    )
