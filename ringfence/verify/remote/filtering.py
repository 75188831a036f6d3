"""Whether a proxy for Docker's socket filters: it is asked, from its host, for what it must never let through.

Nothing is changed by that, even where Docker itself answers: what is named exists nowhere, and the body is no JSON.
"""

from __future__ import annotations

import http.client
import json
import secrets
import time
from typing import Any

from ringfence.verify.remote.commands import Json

SECONDS = 5.0
SECONDS_OF_ALL = 60.0
NAME = "NAME"  # stands for what exists nowhere
VERSION = "/v1.41"
# By each of these whoever may send it has the host, has what is in other containers, or lifts what is declared of them.
# To start, stop, kill or restart a container is none of it, and whatever only reads is not asked for. Nor is what
# takes no name and no body, such as .../prune and swarm/leave: Docker would do it.
REQUESTS = (
    ("POST", "/containers/create"),
    ("POST", "/containers/NAME/exec"),
    ("POST", "/exec/NAME/start"),
    ("POST", "/containers/NAME/update"),
    ("POST", "/containers/NAME/attach"),
    ("PUT", "/containers/NAME/archive?path=/"),
    ("DELETE", "/containers/NAME"),
    ("POST", "/commit?container=NAME"),
    ("POST", "/build?ulimits=x"),  # a wrong setting is refused ahead of what is built
    ("POST", "/session"),
    ("POST", "/grpc"),
    ("POST", "/images/create?fromImage=NOT-AN-IMAGE"),  # no image has capitals
    ("DELETE", "/images/NAME"),
    ("POST", "/volumes/create"),
    ("DELETE", "/volumes/NAME"),
    ("POST", "/networks/create"),
    ("POST", "/networks/NAME/connect"),
    ("POST", "/networks/NAME/disconnect"),
    ("DELETE", "/networks/NAME"),
    ("POST", "/plugins/pull"),
    ("POST", "/plugins/NAME/enable"),
    ("POST", "/swarm/init"),
    ("POST", "/swarm/join"),
    ("POST", "/services/create"),
    ("POST", "/secrets/create"),
    ("POST", "/configs/create"),
)
_BODY = "{"
_OF_DOCKER = ("Api-Version", "Docker-Experimental", "Ostype")  # headers of every answer of its own
_REFUSED = (401, 403, 405)  # what filters say; Docker says none of them to these
_AWAY = (502, 503, 504)  # what a proxy says that does not reach Docker


def asked_of(proxies: list[Json]) -> dict[str, Json]:
    """Return what each proxy lets through to Docker: ``{name: {passed: [request], error: text}}``.

    Args:
        proxies: ``[{name, address, port}]``.
    """
    return {str(proxy["name"]): _asked(str(proxy["address"]), int(proxy["port"])) for proxy in proxies}


def _asked(address: str, port: int) -> dict[str, Any]:
    passed: list[str] = []
    nobody = f"ringfence-verify-{secrets.token_hex(8)}"
    end = time.monotonic() + SECONDS_OF_ALL
    for method, path in REQUESTS:
        # Docker's clients put a version in front, and a filter may know only one of the two.
        for version in ("", VERSION):
            what = f"{method} {version}{path.partition('?')[0]}"
            if time.monotonic() > end:
                return {"passed": passed, "error": f"{what}: it has answered too slowly, {SECONDS_OF_ALL:.0f} s in all"}
            connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
            try:
                connection.request(method, f"{version}{path}".replace(NAME, nobody), _BODY, _HEADERS)
                answer = connection.getresponse()
                if _is_docker(answer):
                    passed.append(what)
                    break
                if answer.status in _AWAY:
                    return {"passed": passed, "error": f"{what}: it answers {answer.status}, and so reaches no Docker"}
            except (OSError, http.client.HTTPException) as error:
                return {"passed": passed, "error": f"{what}: {error}"}
            finally:
                connection.close()
    return {"passed": passed, "error": ""}


_HEADERS = {"Content-Type": "application/json"}


def _is_docker(answer: http.client.HTTPResponse) -> bool:
    """Whether Docker has answered, also where the proxy leaves its headers out."""
    if any(answer.getheader(name) for name in _OF_DOCKER) or answer.status < 300:
        return True
    if answer.status in _REFUSED:
        return False
    text = answer.read(64 << 10)
    try:
        said = json.loads(text)
    except ValueError:
        return text.startswith(b"No such container: ")  # what it says to who would attach to one
    return isinstance(said, dict) and isinstance(said.get("message"), str)
