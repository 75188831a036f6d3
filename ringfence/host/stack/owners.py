"""Volumes that belong to a user from the start: what runs as somebody can write into them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ringfence.host.engine import engine
from ringfence.host.stack.containers import there


def own_volumes(project: dict[str, Any], services: list[str]) -> None:
    """Make the named volumes that have an owner, where they are not there, and give them to it. Raises Fault.

    Compose makes a volume as the engine does, as root's. One that has something in it is left as it is.
    """
    for service in project["services"]:
        for volume in service["volumes"]:
            if (
                service["name"] in services
                and volume.get("name")
                and volume.get("owner")
                and not volume.get("external")
            ):
                place, owner = _made(str(project["name"]), str(volume["name"])), int(volume["owner"])
                if place.stat().st_uid != owner and not any(place.iterdir()):
                    os.chown(place, owner, owner)
                    place.chmod(0o700)


def _made(project: str, name: str) -> Path:
    """Return where a volume is; it is made as compose makes it, which then takes it for its own."""
    full = f"{project}_{name}"
    found = there(f"/volumes/{quote(full)}")
    if not found:
        labels = {"com.docker.compose.project": project, "com.docker.compose.volume": name}
        found = engine("POST", "/volumes/create", {"Name": full, "Labels": labels})
    return Path(str(found["Mountpoint"]))
