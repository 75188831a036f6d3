"""Every cell, concurrently."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from typing import Any

from ringfence.verify.remote.commands import Json, ProbeFailedError
from ringfence.verify.remote.connecting import ask_echo, connect_tcp, leave_by, send_udp
from ringfence.verify.remote.forging import send_forged
from ringfence.verify.remote.outcomes import outcome
from ringfence.verify.remote.routing import ways
from ringfence.verify.remote.slices import Maker, makers
from ringfence.verify.remote.spaces import inside, open_space

FAMILIES = (socket.AF_INET, socket.AF_INET6)
KINDS: dict[str, dict[int, tuple[int, int]]] = {
    "tcp": dict.fromkeys(FAMILIES, (socket.SOCK_STREAM, 0)),
    "udp": dict.fromkeys(FAMILIES, (socket.SOCK_DGRAM, 0)),
    "icmp": {
        socket.AF_INET: (socket.SOCK_RAW, socket.IPPROTO_ICMP),
        socket.AF_INET6: (socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    },
}
# Seconds before asking again. The kernel's table of neighbours is one for all containers: when many are probed at once
# it may be full, and has room only 5 s later. Then nothing can be sent, or no answer comes from what is open.
PAUSES = (0.5, 6.0, 12.0)
TRIES = 3  # of what must be open, where something could be sent


async def _lie(cell: list[Any], space: int | None, payload: bytes, maker: Maker | None) -> list[str]:
    """Send a packet with another's address, again where the system itself could not send it."""
    for pause in PAUSES:
        result = await send_forged(cell, space, payload, maker)
        if not result[0].startswith("failed"):
            return result
        await asyncio.sleep(pause)
    return await send_forged(cell, space, payload, maker)


async def probe_cell(
    token: str, cell: list[Any], source: Json, space: int | None, seconds: float, maker: Maker | None = None
) -> list[str]:
    """[outcome, the source address that was used] of one cell.

    A cell is [id, source, address, proto, port, must be open, another's address to say it comes from or "", own address
    by whose interface it goes or ""].
    """
    cell = [*cell, "", ""][:8]
    number, _, address, proto, port, must, claim, through = cell
    payload = f"ringfence {token} {number} ".encode()
    if claim:
        return await _lie(cell, space, payload, maker)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = source.get("address6" if family == socket.AF_INET6 else "address") if space is None else None
    result = ["timeout", ""]
    for number_of_try, pause in enumerate((*PAUSES, None), 1):
        try:
            with inside(space):
                sock = (maker.socket if maker else socket.socket)(family, *KINDS[proto][family])
        except OSError as error:
            return [outcome(error), ""]
        with sock:
            sock.setblocking(False)
            try:
                if bound:
                    sock.bind((bound, 0))
                elif space is None:
                    return ["no address of that family", ""]
                if through:
                    leave_by(sock, through, space)
                if proto == "tcp":
                    said = await connect_tcp(sock, (address, port), seconds)
                elif proto == "icmp":
                    said = await ask_echo(sock, address, payload, seconds)
                else:
                    said = await send_udp(sock, (address, port), payload, seconds)
                result = [said, "{} port {}".format(*sock.getsockname()[:2])]
            except OSError as error:
                result = [outcome(error), ""]
        if result[0] == "open" or (proto == "udp" and result[0] == "refused"):
            break
        failed = result[0].startswith("failed")
        if pause is None or not (failed or (must and number_of_try < TRIES)):
            break
        # Who gets a datagram often says nothing: that needs no rest.
        await asyncio.sleep(pause if failed or proto == "tcp" else 0)
    return result


def room_for(connections: int, spaces: int) -> int:
    """Raise this process's limit of open files for so many connections; returns how many there may be."""
    others = spaces + 50
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = connections + others if hard == resource.RLIM_INFINITY else min(connections + others, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
    return max(1, min(connections, enough - others))


async def probe_all(wanted: Json) -> Json:
    gate = asyncio.Semaphore(room_for(wanted.get("parallel", 200), len(wanted["sources"])))
    seconds = float(wanted.get("seconds", 2.0))
    spaces: list[int | None] = []
    errors: dict[str, str] = {}
    for index, source in enumerate(wanted["sources"]):
        space = None
        if "pid" in source:
            try:
                space = open_space(source["pid"], source.get("space", 0))
            except ProbeFailedError as failure:
                errors[str(index)] = str(failure)
        spaces.append(space)
    results: dict[str, list[str]] = {}

    with makers(wanted["sources"], errors) as making:

        async def one(cell: list[Any]) -> None:
            async with gate:
                index = cell[1]
                if str(index) not in errors:
                    results[str(cell[0])] = await probe_cell(
                        wanted["token"], cell, wanted["sources"][index], spaces[index], seconds, making.get(index)
                    )

        await asyncio.gather(*(one(cell) for cell in wanted["cells"]))
    for space in spaces:
        if space is not None:
            os.close(space)
    return {"results": results, "errors": errors}


def probe(wanted: Json) -> Json:
    """Open all cells concurrently: `token`, `sources`, `cells` [[id, source, address, proto, port, must be open]]."""
    with ways(wanted):
        return asyncio.run(probe_all(wanted))
