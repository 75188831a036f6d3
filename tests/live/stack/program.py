"""The program ringfence-stack on a lab host, called as any role calls it."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.live.labs import Lab

BUSYBOX = "docker.io/library/busybox:1.37"
STACKS = "/opt/ringfence/stacks"


def stack(lab: Lab, desired: dict[str, Any], verb: str = "apply", check: bool = True) -> str:
    """What the program on the host answers, with its messages where it fails."""
    text = base64.b64encode(json.dumps(desired).encode()).decode()
    catch = "" if check else " 2>&1; true"
    return lab.sh(f"echo {text} | base64 -d | ringfence-stack {verb}{catch}", timeout=300)


def changes(lab: Lab, desired: dict[str, Any]) -> list[str]:
    return list(json.loads(stack(lab, desired, "check"))["changes"])


def sleeper(**more: Any) -> dict[str, Any]:
    return {"name": "main", "image": BUSYBOX, "command": ["sleep", "86400"], "init": True, **more}


def container(lab: Lab, name: str) -> str:
    """The container and its start: the same text is the same process."""
    return lab.sh(f"docker inspect -f '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {name}")
