"""The lab's own wires: what is sent with somebody's address arrives with that address, or the attack proves nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.live.engines.ring.attacks import World
from tests.live.engines.ring.declared import UNDECLARED
from tests.live.engines.ring.forge import IP4, IP6, UDP, datagram, ether, packet
from tests.live.labs import Lab

SENT = "RING wire\n"
# Seen before any filter of the host; each until it has come, as it was sent or not.
_HEAR = """
import socket
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.bind(("eth1", 0))
wire.settimeout(15)
wanted = {{bytes.fromhex(frame) for frame in {frames!r}}}
seen = set()
while wanted:
    frame = wire.recv(2048)
    if {mark!r} in frame:
        same = {{one for one in wanted if one.rstrip(bytes(1)) == frame.rstrip(bytes(1))}}  # but for padding
        if not same and frame not in seen:
            raise SystemExit(f"changed on its way: {{frame.hex()}}")
        wanted -= same
        seen.add(frame)
print("as sent")
"""
_SAY = """
import socket, time
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
wire.bind(("eth1", 0))
for _ in range(30):
    for frame in {frames!r}:
        wire.send(bytes.fromhex(frame))
    time.sleep(0.1)  # said again: who listens says nothing, but when it has heard
"""


def must_arrive_as_sent(lab: Lab, world: World) -> None:
    """Raises RunError when the machine changes what passes between the hosts, such as another place's address."""
    me, there = world.at["outside"], world.at["wan"]
    frames = []
    for number, source in enumerate(world.addresses.outside["lan"]):
        ends = (source, world.addresses.wan[number])
        body = partial(datagram, *ends, UNDECLARED)(SENT.encode())
        frames.append(ether(there.mac, me.mac, IP6 if number else IP4, packet(*ends, UDP, body)).hex())
    with ThreadPoolExecutor() as pool:
        heard = pool.submit(lab.sh, "python3 -", text=_HEAR.format(frames=frames, mark=SENT.encode()))
        lab.sh("python3 -", "outside", text=_SAY.format(frames=frames))
        assert heard.result() == "as sent\n"
