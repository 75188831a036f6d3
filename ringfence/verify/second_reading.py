"""A second reading of the declared lab, which shares no code with the model and the compiler.

What verify expects comes in the ``verify_*`` variables, which the compiler writes. So that a mistake of the compiler
does not hide in what is expected, the ``lab_*`` variables are read here once more, as far as they say who may reach
whom, and every difference between the two readings is named. The lab was accepted by the model before, so the shapes
are known; what cannot be read all the same is a difference, too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ringfence.verify import second_sites
from ringfence.verify.declared import ANY, HOST_NETWORK, ICMP, INTERNET, Declared, span

LAB_VARIABLES = (
    "lab_hosts", "lab_places", "lab_resolvers", "lab_segments", "lab_vantages", "lab_vpn", *second_sites.LAB_VARIABLES,
)  # fmt: skip
_Fact = tuple[str, ...]  # kind, owner, what is said


def differences(lab: Mapping[str, Any], declared: Declared) -> list[str]:
    """Return a line per statement that only one of the two readings finds.

    Args:
        lab: the `LAB_VARIABLES` as the user wrote them, and ``verify_sites``.
        declared: the same lab as the compiler understood it.
    """
    try:
        reading = _Reading(lab, declared)
        read = reading.facts() | set(second_sites.declared(lab, reading.places_of))
        misplaced = list(reading.misplaced())
        compiled = _compiled(declared) | set(second_sites.told(lab.get("verify_sites") or ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [f"the declaration could not be read a second time: {error!r}"]
    lines = [f"{_told(fact)}: is declared, but verify was not told of it" for fact in read - compiled]
    lines += [f"{_told(fact)}: verify was told of it, but it is not declared" for fact in compiled - read]
    return sorted([*lines, *misplaced])


def _told(fact: _Fact) -> str:
    kind, owner, *rest = fact
    return f"{owner}: {kind} {' '.join(rest)}"


def _of_roles(lab: Mapping[str, Any]) -> dict[str, Any]:
    """Return what lab_proxy and lab_portal declare as if it were listed under lab_services."""
    found = {}
    if proxy := lab.get("lab_proxy"):
        doors = [{"port": port, "from": proxy["from"]} for port in ("80/tcp", "443/tcp", "443/udp")]
        public = proxy.get("certificates") == "acme"
        egress = [{"to": INTERNET, "port": 443}] if public else []
        found["caddy"] = {"host": proxy["host"], "segments": proxy["segments"], "publish": doors, "egress": egress}
    if portal := lab.get("lab_portal"):
        asked = [(portal.get("database"), 5432), (portal.get("ldap"), 6360)]
        calls = [{"service": of["service"], "port": of.get("port") or usual} for of, usual in asked if of]
        found["authelia"] = {**{key: portal.get(key) or [] for key in ("host", "segments", "egress")}, "calls": calls}
    return found


class _Reading:
    """The raw variables, with what is needed to follow a name to its networks."""

    def __init__(self, lab: Mapping[str, Any], declared: Declared) -> None:
        self.services: Mapping[str, Any] = {**(lab.get("lab_services") or {}), **_of_roles(lab)}
        self.hosts: Mapping[str, Any] = lab.get("lab_hosts") or {}
        self.places = {name: _list(networks) for name, networks in (lab.get("lab_places") or {}).items()}
        said = lab.get("lab_vpn") or {}
        self.tunnel: Mapping[str, Any] = {"kind": said} if isinstance(said, str) else said
        tailnet = self.tunnel.get("kind") == "tailscale"
        self.tunnel_port = self.tunnel.get("port") or (41641 if tailnet else 51820)
        if tailnet:
            usual = {"network": "100.64.0.0/10", "network6": "fd7a:115c:a1e0::/48"}
            self.places["vpn"] = [str(self.tunnel.get(key) or network) for key, network in usual.items()]
        elif self.tunnel:
            self.places["vpn"] = list(declared.vpn.networks)
        self.devices: Mapping[str, Any] = lab.get("lab_devices") or {}
        for name, of in self.devices.items():
            inside = declared.vpn.addresses.get(name, ()) if of.get("key") else ()
            self.places[name] = [*_list(of.get("addresses") or []), *inside]
        self.resolvers = lab.get("lab_resolvers") or []
        self.vantages: Mapping[str, Any] = lab.get("lab_vantages") or {}
        # Which addresses a container was given is not declared; that they are the ones in use is seen on the host.
        self.given = {
            service.name: [a for n in service.networks for a in (n.address, n.address6)]
            for service in declared.services
        }

    def facts(self) -> set[_Fact]:
        found: set[_Fact] = set()
        for name, service in self.services.items():
            found |= set(self._service(name, service))
        for name, host in self.hosts.items():
            found |= {("address", name, _address(address)) for address in host["addresses"]}
            for of, entry in (host.get("services") or {}).items():
                port, proto = _port(entry["port"], entry.get("proto"))
                networks = self._networks(entry["from"])
                found.add(("host service", name, of, f"{proto}/{port}", "from", *networks))
            for (of, port, proto), sources in self._doors(name).items():
                found.add(("host service", name, of, f"{proto}/{port}", "from", *self._networks(sources)))
            if self.tunnel:
                found.add(("host service", name, "vpn", f"udp/{self.tunnel_port}", "from", ANY))
        found |= set(self._ways_out())
        for name, vantage in self.vantages.items():
            found.add(("vantage", name, vantage["host"], *sorted(_present(vantage))))
        return found

    def _of(self, name: str) -> str:
        """Whose network a service is in; "host" for the host's."""
        network = str(self.services[name].get("network") or "")
        return network if network in (HOST_NETWORK, *self.services) else name

    def _doors(self, host: str) -> dict[tuple[str, int, str], list[str]]:
        """What listens on a host out of containers in its network: (name, port, protocol) → who may use it."""
        found: dict[tuple[str, int, str], list[str]] = {}
        for name, service in self.services.items():
            if service["host"] != host or self._of(name) != HOST_NETWORK:
                continue
            for publish in service.get("publish") or []:
                ports, _, proto = _published(publish)
                first, _, last = ports.partition("-")
                for port in range(int(first), int(last or first) + 1) if publish.get("address") != "self" else ():
                    found.setdefault((f"{name}-{port}", port, proto), []).extend(_list(publish["from"]))
            for caller, callee, port, proto in self._calls():
                if callee == name and self._of(caller) != HOST_NETWORK:
                    found.setdefault((f"{name}-{port}", port, proto), []).append(self._of(caller))
        return found

    def _calls(self) -> Iterator[tuple[str, str, int, str]]:
        """Yield (caller, callee, port, protocol) of every call, and of the proxy to sites in the host's network."""
        for name, service in self.services.items():
            for call in service.get("calls") or []:
                call = call if isinstance(call, Mapping) else {"service": call}
                said = call.get("port") or self.services[call["service"]]["port"]
                port, proto = _port(said, None)
                yield name, call["service"], port, call.get("proto") or proto
            if service.get("site") and self._of(name) == HOST_NETWORK:
                site = service["site"] if isinstance(service["site"], Mapping) else {}
                yield "caddy", name, _port(site.get("port") or service["port"], None)[0], "tcp"

    def _service(self, name: str, service: Mapping[str, Any]) -> Iterator[_Fact]:
        yield ("host", name, service["host"])
        if service.get("network"):
            yield ("network of", name, service["network"])
        for segment in _list(service.get("segments") or []):
            yield ("network", name, f"rf-{segment}")
        for capability in {"NET_ADMIN", "NET_RAW"} & set(service.get("capabilities") or ()):
            yield ("capability", name, capability)
        of = self._of(name)
        own_network = name if of == HOST_NETWORK else of
        for caller, callee, port, proto in self._calls():
            ends = {of, self._of(callee)}
            if caller == name and self._of(callee) != HOST_NETWORK and len(ends) > 1:
                yield ("call", own_network, self._of(callee), f"{proto}/{port}")
        for publish in service.get("publish") or [] if of != HOST_NETWORK else []:
            if publish.get("address") == "self":
                continue  # for nobody but the host itself
            ports, outer, proto = _published(publish)
            yield (
                "publish",
                name,
                service["host"],
                f"{proto}/{ports} as {outer} from",
                *self._networks(publish["from"]),
            )
        for egress in service.get("egress") or []:
            for network in self.places.get(egress["to"], [egress["to"]]):
                for way in _ways(egress):
                    yield ("egress", own_network, network if network == INTERNET else _network(network), way)
        own = self.services.get(of, service).get("resolvers")
        asked = (self.resolvers if service.get("egress") else []) if own is None else _list(own)
        for resolver in (one for one in asked if str(one) not in self.services):
            yield from (("egress", own_network, _network(resolver), f"{proto}/53") for proto in ("tcp", "udp"))

    def _ways_out(self) -> Iterator[_Fact]:
        """Yield what devices reach beyond the hub: a router that they ask for names, or everything."""
        hosts = {_address(address) for host in self.hosts.values() for address in host["addresses"]}
        inside = [ipaddress.ip_network(network) for network in self.places.get("vpn", ()) if self.tunnel]
        for name, device in self.devices.items():
            for server in map(_address, self.tunnel.get("dns") or ()) if device.get("key") else ():
                if server not in hosts and not any(ipaddress.ip_address(server) in network for network in inside):
                    yield from (("way out", name, _network(server), f"{proto}/53") for proto in ("tcp", "udp"))
            if device.get("key") and device.get("tunnel") == "full":
                yield ("way out", name, INTERNET, f"{ANY}/{ANY}")

    def misplaced(self) -> Iterator[str]:
        """Yield a line per address that was chosen by the user and not given to the service."""
        for name, service in self.services.items():
            chosen = service.get("address") or {}
            for address in chosen.values() if isinstance(chosen, Mapping) else [chosen]:
                if _address(address) not in self.given.get(name, ()):
                    yield f"{name}: address {address}: is declared, but verify was not told of it"

    def places_of(self, names: list[str]) -> list[str]:
        """Return the networks of places and devices."""
        known: Mapping[str, list[str]] = {"anywhere": [ANY], **self.places}
        return _sorted(network for name in names for network in known[name])

    def _networks(self, names: Any) -> list[str]:
        known: Mapping[str, list[str]] = {"anywhere": [ANY], **self.given, **self.places}
        return _sorted(network for name in _list(names) for network in known.get(name, ()))


def _compiled(declared: Declared) -> set[_Fact]:
    """Return the same facts from what the compiler wrote; calls that it adds of itself are marked as such."""
    found: set[_Fact] = {
        ("call", f.source, f.destination, f"{f.proto}/{f.port}") for f in declared.flows if not f.implied
    }
    for service in declared.services:
        found.add(("host", service.name, service.host))
        found |= {("capability", service.name, capability) for capability in service.forging}
        found |= {("network of", service.name, service.network)} if service.network else set()
        for network in service.networks:
            found.add(("network", service.name, network.network))
    for p in declared.published:
        networks = _sorted(p.sources)
        ports, outer = span(p.port, p.port + p.more), span(p.published, p.published + p.more)
        found.add(("publish", p.service, p.host, f"{p.proto}/{ports} as {outer} from", *networks))
    for e in declared.egress:
        way = "icmp/any" if e.proto == ICMP else f"{e.proto}/{e.ports}"
        found.add(("egress", e.source, e.to if e.to == INTERNET else _network(e.to), way))
    for machine in declared.machines:
        found |= {("address", machine.name, _address(address)) for address in machine.addresses}
        for s in machine.services:
            found.add(("host service", machine.name, s.name, f"{s.proto}/{s.port}", "from", *_sorted(s.sources)))
    for device, to, proto, out in declared.vpn.egress:
        found.add(("way out", device, to if to == INTERNET else _network(to), f"{proto}/{out}"))
    for v in declared.vantages:
        found.add(("vantage", v.name, v.host, *sorted(_address(a) for a in (v.address, v.address6) if a)))
    return found


def _present(vantage: Mapping[str, Any]) -> list[str]:
    return [_address(vantage[key]) for key in ("address", "address6") if vantage.get(key)]


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _port(value: Any, proto: str | None) -> tuple[int, str]:
    """``5432``, ``"5432"`` and ``"53/udp"``; TCP where nothing else is said."""
    number, _, said = str(value).partition("/")
    return int(number), said or proto or "tcp"


def _ports(value: Any, proto: str | None) -> tuple[str, str]:
    """As `_port`, and ``"8000-8010"``, ``any``."""
    ports, _, said = str(value).partition("/")
    first, _, last = ports.partition("-")
    return (ANY if ports == ANY else span(int(first), int(last or first))), said or proto or "tcp"


def _published(publish: Mapping[str, Any]) -> tuple[str, str, str]:
    """(ports in the container, ports on the host, protocol): each of the two may say the protocol."""
    ports, _ = _ports(publish["port"], None)
    outer, _ = _ports(publish.get("published") or ports, None)
    said = [publish.get("proto"), *(str(publish.get(key) or "").partition("/")[2] for key in ("port", "published"))]
    return ports, outer, next((proto for proto in said if proto), "tcp")


def _ways(egress: Mapping[str, Any]) -> list[str]:
    if egress.get("proto") == ICMP:
        return ["icmp/any"]
    ports, proto = _ports(egress["port"], egress.get("proto"))
    said = egress.get("proto") or "/" in str(egress["port"])
    return [f"{way}/{ports}" for way in (("tcp", "udp") if ports == ANY and not said else (proto,))]


def _address(text: Any) -> str:
    return str(ipaddress.ip_address(str(text)))


def _network(text: Any) -> str:
    return str(ipaddress.ip_network(str(text), strict=False))


def _sorted(networks: Iterable[str]) -> list[str]:
    """Return networks in one spelling; whoever is open for all is open for nobody besides."""
    given = set(networks)
    return [ANY] if ANY in given else sorted(map(_network, given))
