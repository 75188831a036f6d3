"""The program's verbs, each with a JSON object on stdin and one JSON object on stdout:

prepare  looks at the host (clock, addresses, listening sockets, containers) and starts a listener in the background
probe    opens the given cells, each from its source's own network namespace or from a given address
ask      asks for names from containers, and sees which of the questions leave the host
visit    sends requests to sites from given addresses, without logging in, and prints how each was answered
collect  stops the listener and prints which datagrams arrived, and where

Nothing on the host is changed, but for a private routing table that lives as long as `probe` does, on hosts that are
places to probe from.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable

from ringfence.verify.remote.commands import Json, ProbeFailedError, asked
from ringfence.verify.remote.filtering import asked_of
from ringfence.verify.remote.listening import background, collect, doors, ears, listen
from ringfence.verify.remote.looking import addresses, engine, routes, sockets, ufw_allows
from ringfence.verify.remote.names import ask
from ringfence.verify.remote.others import podman, swarm
from ringfence.verify.remote.probing import probe
from ringfence.verify.remote.slices import fenced
from ringfence.verify.remote.spaces import open_all_files, open_space, own_space
from ringfence.verify.remote.visiting import visit

LIFE = 60.0  # seconds a listener lives at most unless the caller asks for another bound


def prepare(wanted: Json) -> Json:
    """Look around, then listen in the background unless `listen` is false: `token`, `life`, `doors`.

    Which services of `slices` the policy holds is seen, and `proxies` of Docker's socket are asked whether they filter.
    """
    seen: Json = {
        "time": time.time(),
        "addresses": addresses(),
        "routes": routes(),
        "sockets": sockets(asked("ss", "-ltnupH")),
        "ufw": ufw_allows(),
        **engine(),
    }
    seen["others"] = podman(seen["sockets"])
    try:
        seen["others"] += swarm(seen["networks"])
    except ProbeFailedError as failure:
        seen["complaints"].append(f"what the swarm publishes is not known: {failure}")
    seen["fenced"] = fenced(wanted.get("slices", {}))
    seen["filters"] = asked_of(wanted.get("proxies", []))
    if not wanted.get("listen", True):
        return seen
    named: dict[str, list[socket.socket]] = {"": ears(None, groups=True)}
    own = os.fstat(own_space()).st_ino
    for one in seen["containers"]:
        if not one["space"] or one["space"] == own:
            continue
        try:
            space = open_space(one["pid"], one["space"])
            try:
                named[one["name"]] = ears(space)
            finally:
                os.close(space)
        except ProbeFailedError as failure:
            seen["complaints"].append(f"{one['name']}: {failure}")
    opened: list[socket.socket] = []
    for entry in wanted.get("doors", []):
        made, complaints = doors(entry["address"], entry["ports"])
        opened += made
        seen["complaints"] += complaints
    background(lambda ready: listen(wanted["token"], named, opened, wanted.get("life", LIFE), ready))
    return seen


VERBS: dict[str, Callable[[Json], Json]] = {
    "prepare": prepare, "probe": probe, "ask": ask, "visit": visit, "collect": collect,
}  # fmt: skip


def main(argv: list[str], wanted: Json | None = None) -> int:
    """Run a verb with what is wanted, or with what standard input says; returns the exit code."""
    if len(argv) != 1 or argv[0] not in VERBS:
        print(f"usage: python3 -m ringfence.verify.remote {'|'.join(VERBS)} < request.json", file=sys.stderr)
        return 2
    open_all_files()
    try:
        answer = VERBS[argv[0]](json.load(sys.stdin) if wanted is None else wanted)
    except ProbeFailedError as failure:
        print(f"the probe failed: {failure}", file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
