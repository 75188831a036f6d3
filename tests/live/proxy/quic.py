"""A client of HTTP/3, which Debian's curl is not yet."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

from tests.live.labs import Lab
from tests.live.proxy.client import SECONDS, Answer, root_of


class Client(QuicConnectionProtocol):
    """One request on one connection."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.http = H3Connection(self._quic)
        self.headers: dict[str, str] = {}
        self.body = b""
        self.done = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event: QuicEvent) -> None:
        for found in self.http.handle_event(event):
            if isinstance(found, HeadersReceived):
                self.headers |= {name.decode(): value.decode() for name, value in found.headers}
            elif isinstance(found, DataReceived):
                self.body += found.data
            if getattr(found, "stream_ended", False) and not self.done.done():
                self.done.set_result(None)

    async def ask(self, name: str, target: str, headers: dict[str, str]) -> Answer:
        stream = self._quic.get_next_available_stream_id()
        named = {":method": "GET", ":scheme": "https", ":authority": name, ":path": target, "accept": "text/html"}
        self.http.send_headers(
            stream, [(key.encode(), value.encode()) for key, value in (named | headers).items()], end_stream=True
        )
        self.transmit()
        await asyncio.wait_for(self.done, SECONDS)
        return Answer(int(self.headers[":status"]), self.headers, self.body.decode())


def ask_by_http3(
    lab: Lab, name: str, target: str = "/", *, sni: str = "", cookie: str = "", address: str = ""
) -> Answer:
    """Send one request by HTTP/3; the certificate must be the lab's for the name. Status 0 where none came back."""

    async def go() -> Answer:
        configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=sni or name)
        configuration.load_verify_locations(cadata=root_of(lab).encode())
        opened = connect(address or lab.address(), 443, configuration=configuration, create_protocol=Client)
        async with asyncio.timeout(SECONDS), opened as client:
            return await cast(Client, client).ask(name, target, {"cookie": cookie} if cookie else {})

    try:
        return asyncio.run(go())
    except (OSError, TimeoutError) as error:
        return Answer(0, why=repr(error))
