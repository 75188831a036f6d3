"""What came of a try, in plain words, and what an echo is made of."""

from __future__ import annotations

import errno
import os
import struct

ECHO_REQUEST, ECHO_REPLY, ECHO_REQUEST6, ECHO_REPLY6 = 8, 0, 128, 129
REACHED = {errno.ECONNREFUSED: "refused"}  # an answer came back: the packet passed every filter on its way
BLOCKED = {
    errno.ENETUNREACH: "no route",
    errno.EHOSTUNREACH: "host unreachable",
    errno.EACCES: "forbidden",
    errno.EPERM: "forbidden",
    errno.EADDRNOTAVAIL: "no address of that family",
    errno.EAFNOSUPPORT: "no address of that family",
}


def outcome(error: OSError) -> str:
    number = error.errno or 0
    return REACHED.get(number) or BLOCKED.get(number) or f"failed: {os.strerror(number) if number else error}"


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)
