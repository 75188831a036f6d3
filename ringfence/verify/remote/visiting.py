"""Requests to sites, written to the byte: nothing here tidies a path or follows a redirect."""

from __future__ import annotations

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ringfence.verify.remote.commands import Json, ProbeFailedError
from ringfence.verify.remote.outcomes import BLOCKED, outcome

HEAD_AT_MOST = 64 << 10
KEPT = 2000  # characters of a header that are reported
PARALLEL = 40
# Seconds before what must answer is asked again: the kernel's table of neighbours may still be full of the probes.
PAUSES = (0.5, 6.0)
SILENT = ("timeout", *BLOCKED.values())


def contexts(root: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(one that trusts the given certificates, or the system's, and one that asks nobody who he is)."""
    try:
        trusting = ssl.create_default_context(cadata=root or None)
    except (ssl.SSLError, ValueError) as error:
        raise ProbeFailedError(f"verify_root: not a certificate in PEM: {error}") from error
    # For names that are nobody's: who answers there is asked for no certificate, and gets nothing but the question.
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    careless.verify_mode = ssl.CERT_NONE
    for context in (trusting, careless):
        context.set_alpn_protocols(["http/1.1"])
    return trusting, careless


def visit_once(one: Json, trusting: ssl.SSLContext, careless: ssl.SSLContext, wanted: Json) -> Json:
    """Connect, ask and read the head of one answer.

    Returns:
        `outcome`: answered (with `status` and `location`), untrusted, tls, closed, silent, or why there is no
        connection; `why`.
    """
    family = socket.AF_INET6 if ":" in one["address"] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(wanted["connect"])
        sock.bind((one["own"], 0))
        sock.connect((one["address"], one["port"]))
    except TimeoutError:
        sock.close()
        return {"outcome": "timeout"}
    except OSError as error:
        sock.close()
        return {"outcome": outcome(error)}
    deadline = time.monotonic() + wanted["seconds"]
    try:
        sock.settimeout(wanted["seconds"])
        if one["tls"]:
            context = trusting if one["trust"] else careless
            sock = context.wrap_socket(sock, server_hostname=one["sni"] or None)
        sock.sendall(one["request"].encode("latin-1"))
        return head(sock, deadline)
    except ssl.SSLCertVerificationError as error:
        return {"outcome": "untrusted", "why": error.verify_message}
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError):
        return {"outcome": "closed"}
    except TimeoutError:
        return {"outcome": "silent", "why": f"connected, but no answer within {wanted['seconds']:.0f} s"}
    except ssl.SSLError as error:
        return {"outcome": "tls", "why": str(error.reason or error)}
    except OSError as error:
        return {"outcome": outcome(error)}
    finally:
        sock.close()


def head(sock: socket.socket, deadline: float) -> Json:
    """Read an answer up to the end of its head, past those that only announce one. Raises TimeoutError, OSError."""
    seen = b""
    while True:
        while b"\r\n\r\n" not in seen:
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise TimeoutError
            sock.settimeout(rest)
            more = sock.recv(4096)
            seen += more
            if not more and not seen:
                return {"outcome": "closed"}
            if not more or len(seen) > HEAD_AT_MOST:
                break
        said, _, seen = seen.partition(b"\r\n\r\n")
        answer = parsed(said.decode("latin-1"))
        # 100 and 103 come before the answer; 101 is one.
        if not (100 <= answer["status"] < 200 and answer["status"] != 101):
            return answer


def parsed(text: str) -> Json:
    """Status and Location of an answer's head; status 0 is no HTTP."""
    first, *lines = text.split("\r\n")
    version, _, rest = first.partition(" ")
    code = rest[:3]
    status = int(code) if version.startswith("HTTP/") and code.isascii() and code.isdigit() else 0
    headers = [line.partition(":") for line in lines]
    location = next((value.strip() for name, _, value in headers if name.strip().lower() == "location"), "")
    why = "" if status else f"not HTTP: {first[:80]!r}"
    return {"outcome": "answered", "status": status, "location": location[:KEPT], "why": why}


def visit(wanted: Json) -> Json:
    """Make every visit: `root`, `connect` and `seconds`, `visits` [{number, own, address, port, tls, sni, trust, must,
    request}].

    Returns:
        `results` {number: what `visit_once` says}.
    """
    trusting, careless = contexts(wanted["root"])

    def one(asked: Json) -> tuple[str, Any]:
        said = visit_once(asked, trusting, careless, wanted)
        for pause in PAUSES if asked["must"] else ():
            if said["outcome"] not in SILENT and not said["outcome"].startswith("failed"):
                break
            time.sleep(pause)
            said = visit_once(asked, trusting, careless, wanted)
        return str(asked["number"]), said

    with ThreadPoolExecutor(PARALLEL) as pool:
        return {"results": dict(pool.map(one, wanted["visits"]))}
