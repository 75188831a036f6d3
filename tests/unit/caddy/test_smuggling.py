"""Requests that two servers may cut at different places: what the proxy takes for a body must not become a request.

The prize is the same everywhere: a second request that nobody was asked about reaches the application, or is put in
front of another person's. The site is an open one, so that everything the proxy passes on arrives.
"""

from __future__ import annotations

import pytest

from tests.unit.caddy.client import connect
from tests.unit.caddy.conftest import World

HEAD = b"POST / HTTP/1.1\r\nHost: open.lab.home\r\n"
SECOND = b"GET /smuggled HTTP/1.1\r\nHost: open.lab.home\r\nRemote-User: eve\r\n\r\n"
CHUNKED = b"0\r\n\r\n"

FORMS = {
    "length and chunks": HEAD
    + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(CHUNKED + SECOND)
    + CHUNKED
    + SECOND,
    "chunks and length": HEAD
    + b"Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n" % len(CHUNKED + SECOND)
    + CHUNKED
    + SECOND,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SECOND) + SECOND,
    "lengths in one line": HEAD + b"Content-Length: 0, %d\r\n\r\n" % len(SECOND) + SECOND,
    "a signed length": HEAD + b"Content-Length: +%d\r\n\r\n" % len(SECOND) + SECOND,
    "a length in hexadecimals": HEAD + b"Content-Length: 0x%x\r\n\r\n" % len(SECOND) + SECOND,
    "a length and a space": HEAD + b"Content-Length : %d\r\n\r\n" % len(SECOND) + SECOND,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n" + SECOND,
    "an underscored length": HEAD + b"Content_Length: %d\r\n\r\n" % len(SECOND) + SECOND,
    "chunks and a space": HEAD + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED + SECOND,
    "chunks twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + CHUNKED + SECOND,
    "chunks in a list": HEAD + b"Transfer-Encoding: identity, chunked\r\n\r\n" + CHUNKED + SECOND,
    "chunks of another name": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED + SECOND,
    "chunks behind a tab": HEAD + b"Transfer-Encoding:\tchunked\r\nContent-Length: 5\r\n\r\n" + CHUNKED + SECOND,
    "chunks behind a control": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKED + SECOND,
    "chunks in quotes": HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKED + SECOND,
    "a folded line": HEAD + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n" + CHUNKED + SECOND,
    "a folded value": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED + SECOND,
    "a folded first line": b"GET / HTTP/1.1\r\n Host: open.lab.home\r\n\r\n" + SECOND,
    "bare line feeds": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: %d\n\n" % len(SECOND) + SECOND,
    "a bare carriage return": HEAD + b"X: a\rContent-Length: 0\r\n\r\n" + SECOND,
    "a NUL in a name": HEAD + b"Content-Length\0: %d\r\n\r\n" % len(SECOND) + SECOND,
    "a line without a colon": HEAD + b"Transfer-Encoding chunked\r\n\r\n" + CHUNKED + SECOND,
    "a chunk that is too short": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n" + SECOND + b"\r\n0\r\n\r\n",
    "a chunk of a negative size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + SECOND,
    "a chunk of 2^64": HEAD + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + SECOND,
    "a chunk ended by a line feed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\n\n" + SECOND,
    "an extension with a line feed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;\nx\r\na\r\n0\r\n\r\n" + SECOND,
    "a body of GET": b"GET / HTTP/1.1\r\nHost: open.lab.home\r\nContent-Length: %d\r\n\r\n" % len(SECOND) + SECOND,
    "chunks of HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED + SECOND,
    "two hosts": b"GET / HTTP/1.1\r\nHost: open.lab.home\r\nHost: app.lab.home\r\n\r\n",
    "a host with a space": b"GET / HTTP/1.1\r\nHost: open.lab.home app.lab.home\r\n\r\n",
    "a space in the target": b"GET / /smuggled HTTP/1.1\r\nHost: open.lab.home\r\n\r\n",
    "a tab in the first line": b"GET\t/\tHTTP/1.1\r\nHost: open.lab.home\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2 in the first line": b"GET / HTTP/2.0\r\nHost: open.lab.home\r\n\r\n",
    "a version that is none": b"GET / HTTP/1.9\r\nHost: open.lab.home\r\n\r\n",
    "a name that is none": HEAD + b"Remote User: eve\r\n\r\n",
    "a name of other letters": HEAD + "Remote\u2010User: eve\r\n\r\n".encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_the_application_reads_is_what_the_proxy_read(world: World, form: str) -> None:
    with connect(world.proxy.https, "open.lab.home") as link:
        link.sendall(FORMS[form])
        try:
            link.settimeout(1)  # what is not refused at once is waited for by the proxy
            while link.recv(65536):
                pass
        except OSError:
            pass
    # What it takes for a second request, it has read itself, by all its rules; nothing else has become one.
    for seen in world.app.seen:
        assert not seen.all("Remote-User")
        assert len(seen.all("Content-Length")) + len(seen.all("Transfer-Encoding")) < 2
        assert seen.one("X-Forwarded-For") == "127.0.0.1"
    assert world.proxy.healthy() == 200
