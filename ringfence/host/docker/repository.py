"""Docker's own apt repository, with the key that the user has pinned."""

from __future__ import annotations

import base64
import hashlib
import re
import urllib.request
from pathlib import Path
from typing import Any

from ringfence.host.files import read, replace_file
from ringfence.host.running import Fault

SOURCES = Path("/etc/apt/sources.list.d/docker.sources")
KEYRING = Path("/etc/apt/keyrings/docker.asc")


def add_repository(desired: dict[str, Any], facts: dict[str, Any]) -> None:
    """Docker's own apt source, with a key whose fingerprint is the declared one."""
    where, pinned = desired["repository"]["key"], desired["repository"]["fingerprint"].replace(" ", "").upper()
    if where.startswith("https://"):
        try:
            with urllib.request.urlopen(where, timeout=30) as answer:  # noqa: S310 - https only, see above
                key = answer.read(200_000).decode()
        except (OSError, ValueError) as error:
            raise Fault(
                f"docker_repository_key: {where} cannot be fetched ({error}); put the key on the host and give its path"
            ) from None
    else:
        key = read(Path(where))
    try:
        found = fingerprint(key)
    except (Fault, ValueError, IndexError) as error:
        raise Fault(f"docker_repository_key: {where}: {error}") from None
    if found != pinned:
        raise Fault(f"docker_repository_key: {where} has the fingerprint {found}, declared is {pinned}: not installed")
    replace_file(KEYRING, key)
    replace_file(SOURCES, sources_text(desired, facts))


def sources_text(desired: dict[str, Any], facts: dict[str, Any]) -> str:
    """The deb822 source of Docker's own repository."""
    return (
        "# Managed by ringfence. Changes made by hand are undone by the next run.\n"
        f"Types: deb\nURIs: {desired['repository']['url']}\n"
        f"Suites: {desired['repository']['suite'] or facts['codename']}\n"
        f"Components: stable\nSigned-By: {KEYRING}\n"
    )


def fingerprint(armored: str) -> str:
    """The fingerprint of the first OpenPGP v4 public key in an ASCII-armored block, 40 upper-case hex digits.

    Raises Fault for anything else.
    """
    found = re.search(r"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END", armored, re.S)
    if not found:
        raise Fault("not an ASCII-armored OpenPGP public key")
    body = re.split(r"\r?\n\s*\r?\n", found[1], maxsplit=1)[-1]
    lines = [line for line in body.split() if not (line.startswith("=") and len(line) == 5)]
    raw = base64.b64decode("".join(lines))
    tag = raw[0]
    if tag & 0x40:  # new packet format
        one = raw[1]
        if one < 192:
            start, length = 2, one
        elif one < 224:
            start, length = 3, ((one - 192) << 8) + raw[2] + 192
        else:
            start, length = 6, int.from_bytes(raw[2:6], "big")
        kind = tag & 0x3F
    else:
        size = 1 << (tag & 3)
        start, length, kind = 1 + size, int.from_bytes(raw[1 : 1 + size], "big"), (tag >> 2) & 0xF
    packet = raw[start : start + length]
    if kind != 6 or packet[:1] != b"\x04":
        raise Fault("its first packet is not a version 4 public key")
    # SHA-1 is what RFC 4880 defines a v4 fingerprint to be; it is compared with a pinned value, not trusted by itself
    return hashlib.sha1(b"\x99" + len(packet).to_bytes(2, "big") + packet, usedforsecurity=False).hexdigest().upper()
