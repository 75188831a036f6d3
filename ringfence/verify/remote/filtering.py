"""Whether a proxy for Docker's socket filters: it is asked, from its host, for what it must never let through."""

from __future__ import annotations

import http.client
import json
from typing import Any

from ringfence.verify.remote.commands import Json

SECONDS = 5.0
# Docker takes none of these, as they are empty: it says what is missing, and the proxy has let them through.
REQUESTS = (("POST", "/containers/create"), ("POST", "/volumes/create"), ("POST", "/build"), ("POST", "/swarm/init"))
_OF_DOCKER = ("Api-Version", "Docker-Experimental", "Ostype")  # headers of every answer of its own


def asked_of(proxies: list[Json]) -> dict[str, Json]:
    """Return what each proxy lets through to Docker: ``{name: {passed: [request], error: text}}``.

    Args:
        proxies: ``[{name, address, port}]``.
    """
    return {str(proxy["name"]): _asked(str(proxy["address"]), int(proxy["port"])) for proxy in proxies}


def _asked(address: str, port: int) -> dict[str, Any]:
    passed = []
    for method, path in REQUESTS:
        connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
        try:
            connection.request(method, path, json.dumps({}), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if any(answer.getheader(name) for name in _OF_DOCKER):
                passed.append(f"{method} {path}")
        except (OSError, http.client.HTTPException) as error:
            return {"passed": passed, "error": f"{method} {path}: {error}"}
        finally:
            connection.close()
    return {"passed": passed, "error": ""}
