"""The running interface as `wg show INTERFACE dump` tells of it."""

from __future__ import annotations

from typing import NamedTuple

from ringfence.host.running import Fault, run

ASKED = 15  # seconds


class Peered(NamedTuple):
    """A peer as it is configured, or runs.

    Attributes:
        secret: the preshared key, "" for none.
        endpoint: address and port, "" while none is known.
        allowed: its networks.
        handshake: when the last one was, seconds since the epoch; 0 for never.
        received, sent: bytes.
        keepalive: seconds, 0 for none.
    """

    secret: str
    endpoint: str
    allowed: frozenset[str]
    handshake: int = 0
    received: int = 0
    sent: int = 0
    keepalive: int = 0


class Device(NamedTuple):
    """An interface as it runs: its keys, its port, and its peers by their public keys."""

    private: str
    public: str
    port: int
    peers: dict[str, Peered]


def read_dump(text: str) -> Device:
    """Read what `wg show INTERFACE dump` prints.

    Raises:
        Fault: it is something else; what it is is not told, it may hold keys.
    """
    rows = [line.split("\t") for line in text.splitlines()]
    try:
        [private, public, port, _], *others = rows
        peers = {
            key: Peered(
                _some(secret), _some(endpoint), frozenset(_some(allowed).split(",")) - {""}, int(handshake),
                int(received), int(sent), 0 if keepalive == "off" else int(keepalive),
            )
            for key, secret, endpoint, allowed, handshake, received, sent, keepalive in others
        }  # fmt: skip
        return Device(_some(private), _some(public), int(port), peers)
    except ValueError:
        raise Fault(f"`wg show … dump` says something that cannot be read, in {len(rows)} lines") from None


def _some(text: str) -> str:
    return "" if text == "(none)" else text


def read_device(interface: str) -> Device:
    """Ask for the running interface, which must be there.

    Raises:
        Fault: `wg` fails or hangs, or the interface is somebody else's. Its output is not told: it holds keys.
    """
    done = run("wg", "show", interface, "dump", timeout=ASKED)
    if done.returncode:
        raise Fault(
            f"{interface}: `wg show {interface} dump` failed: {done.stderr.strip() or f'exit code {done.returncode}'} "
            "(if another program made this interface, set wireguard_interface to another name)"
        )
    return read_dump(done.stdout)
