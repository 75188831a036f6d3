"""Containers that are stopped, and hold a port all the same: the engine starts them again."""

from __future__ import annotations

import json
from urllib.parse import quote

from ringfence.host.engine import docker_runs, engine
from ringfence.host.listening import EVERY, Listener
from ringfence.host.returning import returning
from ringfence.host.units import booted


def stopped_holders() -> list[Listener]:
    """Ports of stopped containers that start again with the engine; [] where no engine runs.

    Raises:
        Fault: it does not answer.
    """
    if not (booted() and docker_runs()):
        return []
    ended = engine("GET", f"/containers/json?all=1&filters={quote(json.dumps({'status': ['exited']}))}")
    names = {
        one["Id"]: (one.get("Names") or ["?"])[0].lstrip("/")
        for one in ended
        if not any(label.startswith("ringfence.") for label in one.get("Labels") or {})
    }
    return [
        Listener(
            one.proto, "" if one.address in EVERY else one.address, one.port,
            f"the container {names[identity]}, which is stopped, but starts again with Docker,", names[identity],
        )
        for identity, ports in returning(names).items()
        for one in ports
    ]  # fmt: skip
