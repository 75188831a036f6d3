"""``python -m ringfence new LAB``: an inventory of one's own, with one host and nothing else in it."""

from __future__ import annotations

import argparse
import ipaddress
import re
import sys
from pathlib import Path

from ringfence.inventory.front import ROOT

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
HOSTS = """---
# The machines. Groups, group_vars/ and host_vars/ work as in any Ansible inventory; `docker_hosts` are those that
# ringfence provisions, all of which lab_hosts declares.
all:
  children:
    docker_hosts:
      hosts:
        {host}:
          ansible_host: {address}
"""
LAB = """---
# All that is in this lab. Every setting is described in docs/model.md. What is not said does not happen.
lab_domain: {lab}.home.arpa

# Networks that traffic may come from, by the names that `from:` uses. `anywhere` is built in.
lab_places:
  lan: [{lan}]

# Machines that ringfence provisions, with every address that others reach them by. The machine that you type on must be
# in one of ssh's places, or the first run refuses to go on.
lab_hosts:
  {host}:
    addresses: [{address}]
    services:
      ssh: {{port: 22, from: [lan]}}

# DNS servers that services with egress may ask, usually your router.
lab_resolvers: []

lab_segments:
  frontend: {{}}

# What runs. This one is Caddy's own welcome page, for everybody in the LAN: take the '# ' away, run, and look at
# http://{address}:8080/
lab_services: {{}}
#  welcome:
#    host: {host}
#    image: docker.io/library/caddy:2.11.7
#    segments: [frontend]
#    volumes: ["data:/data", "config:/config"]
#    publish: [{{port: 80, published: 8080, from: [lan]}}]

# The user that ssh logs in as, with your usual key.
ansible_user: {user}
# Root's rights come from sudo. Where it asks for a password: `ansible_become_password`, in a vault (docs/inventory.md).
ansible_become: {become}
"""
NEXT = """{directory}: hosts.yml and group_vars/all/lab.yml are written; look them through. Then:

  export RINGFENCE_LAB={lab}
  pyinfra --dry inventory.py deploys/site.py      what a run would change
  pyinfra inventory.py deploys/site.py            shows it, asks, applies
  pyinfra inventory.py deploys/verify.py          probes every pair, and prints who reaches what
"""


class StarterError(Exception):
    """The lab cannot be made; the message says why and what to write."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m ringfence new",
        description="Make inventories/LAB: a lab with one host and nothing else in it. Nothing is changed on any host.",
        epilog="docs/first-lab.md goes on from there.",
    )
    made.add_argument("lab", help="its name, as RINGFENCE_LAB says it afterwards")
    made.add_argument("--host", required=True, metavar="NAME=ADDRESS", help="the first host, as in atlas=192.168.1.5")
    made.add_argument("--user", default="root", help="whom ssh logs in as; by default root")
    made.add_argument(
        "--lan", default="", help="the network that you type from; by default the address's own /24 or /64"
    )
    return made


def make(lab: str, host: str, user: str = "root", lan: str = "", root: Path = ROOT) -> Path:
    """Write the inventory; returns its directory.

    Args:
        lab: its name.
        host: ``NAME=ADDRESS`` of the first host.
        user: whom ssh logs in as.
        lan: network that the place `lan` is; "" for the address's own /24, or /64.
        root: directory that has ``inventories/``.

    Raises:
        StarterError: a name or an address is none, or the inventory is there already.
    """
    if not _NAME.fullmatch(lab):
        raise StarterError(f"'{lab}' is not a name (write letters, digits, '.', '-' and '_', such as home)")
    name, equals, text = host.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise StarterError(f"--host {host}: write a name and an address, such as atlas=192.168.1.5")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise StarterError(f"--host {host}: '{text}' is not an IP address (write atlas=192.168.1.5)") from None
    try:
        near = ipaddress.ip_network(lan or f"{address}/{24 if address.version == 4 else 64}", strict=False)
    except ValueError:
        raise StarterError(f"--lan {lan}: that is not a network (write 192.168.1.0/24)") from None
    directory = root / "inventories" / lab
    if directory.exists():
        raise StarterError(f"{directory} is there already (choose another name, or edit it)")
    said = {"lab": lab, "host": name, "address": f'"{address}"' if address.version == 6 else address, "lan": near}
    said |= {"user": user, "become": "false" if user == "root" else "true"}
    (directory / "group_vars" / "all").mkdir(parents=True)
    (directory / "hosts.yml").write_text(HOSTS.format(**said), encoding="utf-8")
    (directory / "group_vars" / "all" / "lab.yml").write_text(LAB.format(**said), encoding="utf-8")
    return directory


def main(arguments: list[str]) -> int:
    """Make a lab; returns the exit status."""
    given = parser().parse_args(arguments)
    try:
        directory = make(given.lab, given.host, given.user, given.lan)
    except (StarterError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(NEXT.format(directory=directory, lab=given.lab))
    return 0
