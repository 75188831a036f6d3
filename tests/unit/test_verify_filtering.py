"""A proxy for Docker's socket is asked for what it must never let through, with and without a version in front."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from ringfence.verify.declared import Service
from ringfence.verify.handing import unfiltered
from ringfence.verify.remote.filtering import REQUESTS, asked_of
from ringfence.verify.seen import Seen

Answer = tuple[int, dict[str, str], str]
DOCKER = {"Api-Version": "1.51", "Ostype": "linux", "Content-Type": "application/json"}
REFUSED: Answer = (403, {"Content-Type": "text/html"}, "<h1>403 Forbidden</h1>")
DAEMON: Answer = (404, DOCKER, '{"message":"No such container: x"}')


@contextmanager
def proxy(answers: Callable[[str, str], Answer]) -> Iterator[tuple[dict[str, Any], list[tuple[str, str, bytes]]]]:
    """A proxy on loopback: what verify says of it, asked when the block begins, and what it was asked."""
    seen: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.command, self.path, body))
            status, headers, text = answers(self.command, self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *words: object) -> None:
            del words

    for method in ("POST", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield asked_of([{"name": "sock", "address": "127.0.0.1", "port": server.server_port}])["sock"], seen
        finally:
            server.shutdown()


def letting(pattern: str, through: Answer = DAEMON) -> Callable[[str, str], Answer]:
    return lambda method, path: through if re.search(pattern, f"{method} {path}") else REFUSED


@pytest.mark.parametrize("refusal", [REFUSED, (403, {}, '{"message":"denied"}'), (405, {}, ""), (404, {}, "not found")])
def test_one_that_filters_lets_nothing_through(refusal: Answer) -> None:
    with proxy(lambda method, path: refusal) as (said, seen):
        assert said == {"passed": [], "error": ""}
        assert len(seen) == 2 * len(REQUESTS)


@pytest.mark.parametrize(
    ("pattern", "passed"),
    [
        (r"^POST /v1\.[0-9]+/containers/create", ["POST /v1.41/containers/create"]),
        (r"^POST /containers/create", ["POST /containers/create"]),
        (r"/containers/[^/]+/exec", ["POST /containers/NAME/exec"]),
        (r"/exec/[^/]+/start", ["POST /exec/NAME/start"]),
        (r"/containers/[^/]+/update", ["POST /containers/NAME/update"]),
        (r"^PUT .*/archive", ["PUT /containers/NAME/archive"]),
        (r"POST (/v[0-9.]+)?/networks/", [
            "POST /networks/create", "POST /networks/NAME/connect", "POST /networks/NAME/disconnect",
        ]),
        (r"/images/create", ["POST /images/create"]),
        (r"/commit", ["POST /commit"]),
        (r"/plugins/", ["POST /plugins/pull", "POST /plugins/NAME/enable"]),
        (r"/services/", ["POST /services/create"]),
        (r"/(start|stop|kill|restart)$", ["POST /exec/NAME/start"]),
        (r"/containers/[^/]+/(start|stop|kill|restart)$", []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("headers", [DOCKER, {}], ids=["headers", "without"])
def test_what_a_filter_lets_through_is_told(pattern: str, passed: list[str], headers: dict[str, str]) -> None:
    through = (DAEMON[0], headers, DAEMON[2])
    with proxy(letting(pattern, through)) as (said, _):
        assert said == {"passed": passed, "error": ""}


def test_what_is_named_exists_nowhere_and_no_body_can_be_read() -> None:
    """Whatever answers, nothing is made, changed or removed."""
    with proxy(lambda method, path: DAEMON) as (said, seen):
        assert len(said["passed"]) == len(REQUESTS)
    paths = [path.partition("?")[0].removeprefix("/v1.41") for _, path, _ in seen]
    assert not [path for path in paths if path.endswith(("/prune", "/leave", "/unlock"))]
    for path, (_, whole, body) in zip(paths, seen, strict=True):
        with pytest.raises(ValueError, match="Expecting"):
            json.loads(body)
        named = "ringfence-verify-" in whole
        kind = path.split("/")[1]
        assert named or "create" in path or kind in ("build", "session", "grpc", "plugins", "swarm"), whole
    assert (
        len({re.findall("ringfence-verify-[0-9a-f]{16}", whole)[0] for _, whole, _ in seen if "-verify-" in whole}) == 1
    )


def test_one_that_would_attach_is_told_in_plain_text() -> None:
    with proxy(letting("/attach", (404, {}, "No such container: ringfence-verify\r\n"))) as (said, _):
        assert said["passed"] == ["POST /containers/NAME/attach"]


def test_an_answer_without_a_fault_is_one_of_docker() -> None:
    with proxy(letting("/build", (200, {}, "{}"))) as (said, _):
        assert said["passed"] == ["POST /build"]


def test_one_that_does_not_reach_docker_is_no_filter() -> None:
    with proxy(lambda method, path: (503, {}, "<h1>503 Service Unavailable</h1>")) as (said, _):
        assert said["passed"] == []
        assert said["error"] == "POST /containers/create: it answers 503, and so reaches no Docker"


def test_many_are_told_in_one_line() -> None:
    service = Service("sock", "atlas", "sock", (), (), socket=True)
    passed = tuple(f"{method} {path.partition('?')[0]}" for method, path in REQUESTS)
    [line] = unfiltered(service, Seen("atlas", filters={"sock": (passed, "")}))
    assert line.startswith("sock: lets POST /containers/create, POST /containers/NAME/exec, ")
    assert f" and {len(REQUESTS) - 4} more through to Docker" in line
    [short] = unfiltered(service, Seen("atlas", filters={"sock": (passed[:2], "")}))
    assert "lets POST /containers/create, POST /containers/NAME/exec through to Docker" in short
