"""What many hosts cost. Run as root: python benchmarks/hosts.py [HOSTS]

Twenty hosts without Docker on this machine, all in one VPN, are provisioned in one run; then a run that changes
nothing, of all of them against one alone. The goal is at most four times as long on two processors; the exit status is
1 if it is missed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.live.labs import NO_DOOR, Lab

HOSTS = 20
GOAL = 4.0
TIMES = 3


def declared(lab: Lab) -> dict[str, Any]:
    """Nothing but hosts: a hub, and all others behind it."""
    hosts = {name: {**host, "docker": False, "vpn": {}} for name, host in lab.variables()["lab_hosts"].items()}
    hosts["atlas"]["vpn"] = {"endpoint": hosts["atlas"]["addresses"][0]}
    return {
        **NO_DOOR,
        "lab_hosts": hosts,
        "lab_services": {},
        "lab_places": {"lan": lab.variables()["lab_places"]["lan"]},
        "lab_vpn": {"hub": "atlas", "secret": "0123456789abcdef" * 2},
        "watch_seconds": 3600,
    }


def seconds(lab: Lab, *flags: str) -> float:
    """The shortest of some runs, which must not change anything."""
    found = []
    for _ in range(TIMES):
        begin = time.monotonic()
        run = lab.pyinfra("site", *flags)
        found.append(time.monotonic() - begin)
        assert run.changed == [], run.text
    return min(found)


def main(arguments: list[str]) -> int:
    count = int(arguments[0]) if arguments else HOSTS
    names = [f"h{number:02}" for number in range(1, count)]
    lab = Lab("b-hosts", "none", preinstalled=True, hosts=dict.fromkeys(names, ""))
    try:
        begin = time.monotonic()
        lab.up()
        lab.stand(declared(lab))
        print(f"{count} hosts made in {time.monotonic() - begin:.0f} s", flush=True)
        begin = time.monotonic()
        lab.pyinfra()
        print(f"{count} hosts provisioned in one run in {time.monotonic() - begin:.0f} s", flush=True)
        one, all_of_them = seconds(lab, "--limit", "atlas"), seconds(lab)
        ratio = all_of_them / one
        print(f"nothing to change: one host {one:.1f} s, {count} hosts {all_of_them:.1f} s, ratio {ratio:.1f}")
        return ratio > GOAL
    finally:
        lab.lab("down")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
