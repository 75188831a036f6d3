"""`python3 -m lab up|down|status|ssh|load|poweroff|start|reboot NAME`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lab import hosts
from lab.networks import get
from lab.plan import SUITES
from lab.shell import LabError, say
from lab.state import ssh_command, state_of

VERBS = {
    "up": "make an instance, or start what of it is stopped",
    "down": "remove everything of an instance",
    "status": "list the instances, or print an address of one",
    "ssh": "log in on a host, or run a command there",
    "load": "load the applications' images into the host's engine now",
    "poweroff": "cut a host's power",
    "start": "start a host again",
    "reboot": "restart a host",
}


def main(argv: list[str]) -> int:
    """Run one verb; returns the exit code. Raises LabError with what the user can do about a failure."""
    parser = argparse.ArgumentParser(prog="lab", description="Throwaway hosts on this machine (docs/lab.md).")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in VERBS.items():
        sub = verbs.add_parser(verb, help=text, description=text)
        sub.add_argument("name", nargs="?" if verb == "status" else None, default="")
        if verb == "up":
            sub.add_argument("--engine", help=f"one of {', '.join(SUITES)} (default: 26.1)")
            sub.add_argument(
                "--host",
                action="append",
                default=[],
                metavar="NAME[=ENGINE][@SIDES]",
                help="a further host to provision (default: none@lan); SIDES: lan, wan or lan+wan; may be repeated",
            )
            sub.add_argument(
                "--vars",
                action="append",
                type=Path,
                default=[],
                metavar="FILE",
                help="variables that its inventory gets besides; may be repeated",
            )
            sub.add_argument(
                "--preinstalled",
                action="store_true",
                help="the roles' Debian packages are there already: saves a minute",
            )
        if verb == "status":
            sub.add_argument("--address-of", metavar="HOST", help="print only where this host is reached")
        if verb in ("ssh", "load", "poweroff", "start", "reboot"):
            sub.add_argument("--host", default="atlas", help="which host (default: atlas)")
    words: list[str] = []
    if argv[:1] == ["ssh"]:
        argv, words = split_command(argv)
    given = parser.parse_args(argv)
    if given.verb == "up":
        instance = hosts.up(given.name, given.engine, given.host, preinstalled=given.preinstalled, variables=given.vars)
        further = [f"{one.name} {instance.address(one.name)} (engine: {one.engine})" for one in instance.further]
        say(
            f"'{instance.name}' is up: atlas {instance.address('atlas')} (engine: {instance.engine}), "
            + ", ".join([f"outside {instance.address('outside')}", *further])
            + f"; `./run lab ssh {instance.name}` logs in"
        )
        if further:
            say(f"RINGFENCE_LAB={state_of(instance.name) / 'inventory'} is the inventory that has them all")
    elif given.verb == "down":
        hosts.down(given.name)
    elif given.verb == "status":
        if given.address_of:
            print(get(given.name).address(given.address_of))
        else:
            print("\n".join(hosts.status(given.name)) or "no instance is up")
    elif given.verb == "ssh":
        command = ssh_command(get(given.name), given.host)
        os.execvp(command[0], [*command, *words])  # noqa: S606
    elif given.verb == "load":
        hosts.load(given.name, given.host)
    else:
        hosts.switch(given.name, given.host, given.verb)
    return 0


def split_command(argv: list[str]) -> tuple[list[str], list[str]]:
    """Split `ssh NAME [--host H] COMMAND…` into the lab's own words and the remote command."""
    rest, own = list(argv[1:]), ["ssh"]
    named = False
    while rest:
        word = rest[0]
        if word == "--host":
            own += rest[:2]
            rest = rest[2:]
        elif word.startswith("--host=") or word in ("-h", "--help"):
            own.append(rest.pop(0))
        elif not named:
            own.append(rest.pop(0))
            named = True
        else:
            break
    return own, rest[1:] if rest[:1] == ["--"] else rest


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
