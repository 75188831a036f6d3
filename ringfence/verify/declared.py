"""The declaration as verify reads it: the ``verify_*`` variables with types."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ringfence.verify.own_rules import OwnRule

ANY = "any"
INTERNET = "internet"
HOST_NETWORK, NO_NETWORK = "host", "none"
ICMP = "icmp"  # asking for an echo
# What "the internet" is not, besides the lab's own places.
PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
        "224.0.0.0/3", "::/127", "fc00::/7", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Attachment:
    """A service's fixed addresses in one Docker network."""

    network: str
    address: str
    address6: str


@dataclass(frozen=True)
class Service:
    """A declared container.

    Attributes:
        ports: (protocol, container port).
        forging: capabilities to send any frame.
        ends: it is done when it has ended with 0, of which the role's own comparison knows.
        resolvers: the DNS servers outside the lab that it asks in place of lab_resolvers; None where it has none of
            its own.
        handed: what it is given of its host, in words.
        socket: whether it has Docker's socket, and is to filter it.
        network: "host", "none", or the service whose network it shares; "" for one of its own.
    """

    name: str
    host: str
    project: str
    networks: tuple[Attachment, ...]
    ports: tuple[tuple[str, int], ...]
    forging: tuple[str, ...] = ()
    ends: bool = False
    resolvers: tuple[str, ...] | None = None
    handed: tuple[str, ...] = ()
    socket: bool = False
    network: str = ""


@dataclass(frozen=True)
class Published:
    """Ports of a container, published on its host for ``sources`` (networks, or "any"); ``more`` than the first."""

    service: str
    host: str
    proto: str
    published: int
    port: int
    places: tuple[str, ...]
    sources: tuple[str, ...]
    only: str = ""  # address of the host; "" for every one
    more: int = 0

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Port on the host and in the container, one by one."""
        return [(self.published + number, self.port + number) for number in range(self.more + 1)]


@dataclass(frozen=True)
class HostService:
    """A service of the host itself. ``proto`` may be "any"; ``outside``: containers are not meant by "any"."""

    name: str
    proto: str
    port: int
    sources: tuple[str, ...]
    outside: bool = False


@dataclass(frozen=True)
class Machine:
    """A declared host with the addresses by which others reach it. ``rules``: its user's own of UFW's."""

    name: str
    addresses: tuple[str, ...]
    services: tuple[HostService, ...]
    rules: tuple[OwnRule, ...] = ()


@dataclass(frozen=True)
class Flow:
    """A call of one service to another; ``implied``: no service declares it, it follows from something else."""

    source: str
    destination: str
    proto: str
    port: int
    implied: bool = False


@dataclass(frozen=True)
class Egress:
    """What a service may reach outside: "internet" or a network. ``more`` ports than the first; 0 is ``icmp``'s."""

    source: str
    to: str
    proto: str
    port: int
    more: int = 0

    @property
    def last(self) -> int:
        """The last port."""
        return self.port + self.more

    @property
    def every(self) -> bool:
        """Whether it is any port."""
        return (self.port, self.last) == (1, 65535)

    @property
    def ports(self) -> str:
        """The ports in words."""
        return span(self.port, self.last)


@dataclass(frozen=True)
class Vantage:
    """A place to probe from: a host's own address that stands for a place."""

    name: str
    host: str
    address: str
    address6: str


@dataclass(frozen=True)
class Vpn:
    """The tunnels between hosts.

    Attributes:
        addresses: host or device → its own ones there.
        egress: what devices reach beyond the hub: (device, "internet" or a network, protocol or "any", port or "any").
    """

    interface: str = ""
    networks: tuple[str, ...] = ()
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hub: str = ""
    egress: tuple[tuple[str, str, str, str], ...] = ()


@dataclass(frozen=True)
class Declared:
    """The whole lab. ``places`` are all networks that are not the internet although they may be public ones."""

    services: tuple[Service, ...] = ()
    published: tuple[Published, ...] = ()
    machines: tuple[Machine, ...] = ()
    flows: tuple[Flow, ...] = ()
    egress: tuple[Egress, ...] = ()
    vantages: tuple[Vantage, ...] = ()
    places: tuple[str, ...] = ()
    vpn: Vpn = field(default_factory=Vpn)

    def is_internet(self, address: str) -> bool:
        """Whether an address counts as the internet in ``egress: {to: internet}``."""
        found = ipaddress.ip_address(address)
        return not any(found in network for network in PRIVATE) and not matches(self.places, address)


def read(data: Mapping[str, Any]) -> Declared:
    """Read the ``verify_*`` variables (and ``lab_places``) of any host; they are the same on all of them.

    Raises:
        ValueError: a variable does not have the documented shape; names it.
    """
    try:
        return Declared(
            services=tuple(
                Service(
                    s["name"], s["host"], s["project"],
                    tuple(Attachment(n["network"], n["address"], n.get("address6") or "") for n in s["networks"]),
                    tuple((p["proto"], int(p["port"])) for p in s["ports"]),
                    tuple(s.get("forging") or ()),
                    bool(s.get("ends")),
                    tuple(s["resolvers"]) if s.get("resolvers") is not None else None,
                    tuple(s.get("handed") or ()),
                    bool(s.get("socket")),
                    s.get("network") or "",
                )
                for s in data.get("verify_services") or ()
            ),
            published=tuple(
                Published(p["service"], p["host"], p["proto"], _first_and_more(p["published"])[0],
                          _first_and_more(p["port"])[0],
                          tuple(p["places"]), tuple(p["sources"]), str(p.get("only") or ""),
                          _first_and_more(p["port"])[1])
                for p in data.get("verify_published") or ()
            ),
            machines=tuple(
                Machine(
                    h["name"], tuple(h["addresses"]),
                    tuple(
                        HostService(
                            s["name"], s["proto"], int(s["port"]), tuple(s["sources"]), bool(s.get("outside"))
                        )
                        for s in h["services"]
                    ),
                )
                for h in data.get("verify_hosts") or ()
            ),
            flows=tuple(
                Flow(f["source"], f["destination"], f["proto"], int(f["port"]), bool(f.get("implied")))
                for f in data.get("verify_flows") or ()
            ),
            egress=tuple(
                Egress(e["source"], e["to"], e["proto"], *_first_and_more(0 if e["proto"] == ICMP else e["port"]))
                for e in data.get("verify_egress") or ()
            ),
            vantages=tuple(
                Vantage(v["name"], v["host"], v.get("address") or "", v.get("address6") or "")
                for v in data.get("verify_vantages") or ()
            ),
            vpn=_vpn(data.get("verify_vpn") or {}),
            places=tuple(str(n) for networks in (data.get("lab_places") or {}).values() for n in networks),
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"verify_*: not the shape that docs/verify.md describes: {error!r}") from None


def _vpn(said: Mapping[str, Any]) -> Vpn:
    if not said:
        return Vpn()
    addresses = {str(name): tuple(own) for name, own in said["addresses"].items()}
    egress = tuple((e["source"], e["to"], e["proto"], str(e["port"])) for e in said["egress"])
    return Vpn(said["interface"], tuple(said["networks"]), addresses, said["hub"], egress)


def _first_and_more(ports: Any) -> tuple[int, int]:
    """Return the first of declared ports and how many follow it: of a number, "8000-8010" or "any"."""
    first, _, last = "1-65535".partition("-") if ports == ANY else str(ports).partition("-")
    return int(first), int(last or first) - int(first)


def span(first: int, last: int) -> str:
    """Return ports as they are declared."""
    return ANY if (first, last) == (1, 65535) else str(first) if first == last else f"{first}-{last}"


def matches(sources: Iterable[str], address: str) -> bool:
    """Whether an address is in one of the networks, or "any" is among them."""
    if not address:
        return False
    found = ipaddress.ip_address(address)
    for source in sources:
        if source == ANY:
            return True
        network = ipaddress.ip_network(source, strict=False)
        if network.version == found.version and found in network:
            return True
    return False


def family(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4
