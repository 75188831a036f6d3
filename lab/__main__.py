"""`python3 -m lab up|down|status|ssh|poweroff|start|reboot NAME`."""
from __future__ import annotations

import argparse
import os
import sys

from lab import hosts
from lab.plan import HOSTS, SUITES
from lab.shell import LabError, say


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("up", "down", "status", "ssh", "poweroff", "start", "reboot"):
        sub = verbs.add_parser(verb)
        sub.add_argument("name", nargs="?" if verb == "status" else None, default="")
        if verb == "up":
            sub.add_argument("--engine", choices=list(SUITES))
        if verb in ("ssh", "poweroff", "start", "reboot"):
            sub.add_argument("--host", choices=HOSTS, default="atlas")
        if verb == "ssh":
            sub.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(argv)
    if given.verb == "up":
        instance = hosts.up(given.name, given.engine)
        say(f"'{instance.name}' is up: engine {instance.engine}, atlas {instance.lan.address('atlas')}, "
            f"outside {instance.lan.address('outside')}; `python3 -m lab ssh {instance.name}`")
    elif given.verb == "down":
        hosts.down(given.name)
    elif given.verb == "status":
        for instance in sorted(hosts.existing().values(), key=lambda one: one.slot):
            if given.name in ("", instance.name):
                print(f"{instance.name} slot {instance.slot} engine {instance.engine} {instance.lan.address('atlas')}")
    elif given.verb == "ssh":
        instance = hosts.get(given.name)
        command = hosts.ssh_command(instance, given.host)
        os.execvp(command[0], [*command, *given.command])
    else:
        hosts.reboot(given.name, given.host, given.verb)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
