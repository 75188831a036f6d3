"""The first verb: look at a host, and listen there."""

from __future__ import annotations

import os
import socket
import time

from ringfence.verify.remote.commands import Json, ProbeFailedError, asked
from ringfence.verify.remote.filtering import asked_of
from ringfence.verify.remote.listening import background, doors, ears, listen
from ringfence.verify.remote.looking import addresses, engine, routes, sockets, ufw_allows, ufw_profiles
from ringfence.verify.remote.others import podman, swarm
from ringfence.verify.remote.slices import fenced
from ringfence.verify.remote.spaces import open_space, own_space

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
        "profiles": ufw_profiles(),
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
