"""Who calls whom: what services declare, and what follows from other declarations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ringfence.model import Lab
from ringfence.model.expand import HTTPS, PORTAL_PORT
from ringfence.model.identity import PORTAL, PROXY
from ringfence.model.lab import Call as Declared

DNS = 53  # port


class Call(NamedTuple):
    """A flow that one service may open to another, as it is declared: either may be in the network of a third."""

    caller: str
    callee: str
    proto: str
    port: int


def declared(lab: Lab) -> Iterable[Call]:
    """Yield every call that a service declares."""
    for caller, service in lab.services.items():
        for call in service.calls:
            port, proto = _port_of(lab, call)
            yield Call(caller, call.service, proto, port)


def _port_of(lab: Lab, call: Declared) -> tuple[int, str]:
    """Return port and protocol of a call, the callee's own where the call does not say."""
    own = lab.services[call.service].port_and_proto
    if call.port is not None:
        return call.port, call.proto or "tcp"
    if own is None:
        raise ValueError(f"the call to {call.service} has no port; check_lab refuses this")
    return own[0], call.proto or own[1]


def implied(lab: Lab) -> Iterable[Call]:
    """Yield the calls that nobody writes down because they follow from something else that is declared.

    A site: the proxy calls its service. The portal: the proxy asks it. OIDC: the service asks the portal, through the
    proxy. A service among the resolvers of another answers its questions. This is their one place: whatever is yielded
    here opens segments, gets flows in the policy and is expected open by verify.
    """
    for name, service in lab.services.items():
        for resolver in service.resolvers or ():
            if resolver in lab.services:
                yield from (Call(name, resolver, proto, DNS) for proto in ("tcp", "udp"))
    if lab.proxy is None:
        return
    for name, service in lab.services.items():
        if service.site:
            port = service.site.port or (service.port_and_proto or (0, ""))[0]
            yield Call(PROXY, name, "tcp", port)
        if service.oidc:
            yield Call(name, PROXY, "tcp", HTTPS)
    if lab.portal:
        yield Call(PROXY, PORTAL, "tcp", PORTAL_PORT)
