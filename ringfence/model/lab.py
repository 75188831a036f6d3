"""The declared lab. These models are its specification: what they do not name is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ringfence.model.base import Declared, Egress, Reload, WithPort, reload_of
from ringfence.model.identity import (
    PORTAL,
    PROXY,
    Access,
    Ca,
    Device,
    Hours,
    Oidc,
    Person,
    Portal,
    Proxy,
    Site,
    Tls,
    site_of,
    tls_of,
)
from ringfence.model.passed import Passed
from ringfence.model.tailnet import Tailnet
from ringfence.model.values import (
    SPAN_AT_MOST,
    AbsolutePath,
    Address4,
    Address6,
    AnyAddress,
    AnyNetwork,
    Capability,
    Check,
    Content,
    FilePath,
    Gpus,
    Group,
    HostDevice,
    Image,
    Interfaces,
    KnownAs,
    Memory,
    MemoryPath,
    Names,
    Network4,
    Network6,
    NetworkMode,
    PortNumber,
    PortSpan,
    PositiveInt,
    Proto,
    RelativePath,
    Resolvers,
    SegmentName,
    ServiceName,
    Span,
    StackName,
    Text,
    User,
    UserId,
    VariableName,
    VolumeSource,
    Words,
    as_mapping,
    bounds,
    external_fault,
    split_port,
    split_span,
)
from ringfence.model.vpn import HostVpn, Vpn

# `from: [anywhere]`: any address outside the lab's own segments. `to: internet`: any address that is not private.
ANYWHERE = "anywhere"
INTERNET = "internet"
SELF = "self"
# `network:` of a service.
HOST_NETWORK, NO_NETWORK = "host", "none"


def _subnets(value: Any) -> Any:
    return {} if value is None else value if isinstance(value, Mapping) else {"": value}


class Segment(Declared):
    """A network of containers with its own bridge ``rf-<name>``, on every host that it is used on."""

    subnet: Annotated[dict[str, Network4], BeforeValidator(_subnets)] = Field(
        {}, description="IPv4 network, or {host: network}; by default a /24 of lab_pool for each host, recorded"
    )
    internet: bool = Field(True, description="whether services in it may be given egress to the internet")
    description: str = Field("", description="what it is for")


class HostService(WithPort):
    """A service of the host itself, such as sshd, that UFW lets in."""

    port: PortNumber = Field(description='port number, or "53/udp"')
    proto: Proto = Field("tcp", description="tcp or udp")
    sources: Names = Field(alias="from", min_length=1, description="places, or services of the same host")


class Host(Declared):
    """A machine that ringfence provisions; its name is the inventory's."""

    addresses: tuple[AnyAddress, ...] = Field(min_length=1, description="its IPv4 and IPv6 addresses")
    services: dict[str, HostService] = Field({}, description="what the host itself answers, by name")
    interfaces: dict[str, Annotated[Interfaces, Field(min_length=1)]] = Field(
        {}, description="{place: [interface]}: by which a place comes in, besides the one that the routes name"
    )
    vpn: HostVpn = Field(HostVpn.model_construct(), description="how it takes part in lab_vpn")
    docker: bool = Field(True, description="whether it runs containers; without it there is nothing of Docker on it")


def _bound(value: Any) -> str:
    if value in (None, "", SELF):
        return str(value or "")
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        fix = "write one of the host's, as 192.168.10.5, or self for loopback only"
        raise ValueError(f"'{value}' is not an IP address ({fix})") from None


class Publish(Declared):
    """A container port that is opened on the host's addresses."""

    port: PortSpan = Field(description='port in the container, "53/udp", or a range as "50000-50100/udp"')
    published: PortSpan | None = Field(None, description="port on the host, or a range of as many; by default the same")
    proto: Proto = Field("tcp", description="tcp or udp")
    sources: Names = Field(alias="from", min_length=1, description="places that may use it, or anywhere")
    allow_database: bool = Field(False, description="confirms that a database port is meant to be published")
    address: Annotated[str, BeforeValidator(_bound)] = Field(
        "", description="address of the host (the LAN's), or self for loopback only, without from; by default all"
    )

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        found = dict(given)
        said = given.get("proto")
        for key in ("port", "published"):  # either may say the protocol as well
            value = given.get(key)
            if isinstance(value, str) and "/" in value:
                found[key], said = split_span(value, said)
        if isinstance(found.get("port"), str | int):
            found["port"], found["proto"] = split_span(found["port"], said)
        if given.get("address") == SELF and "from" not in given:
            found["from"] = [SELF]
        return found

    @model_validator(mode="after")
    def _as_many(self) -> Publish:
        (first, last), (outer, outermost) = bounds(self.port), bounds(self.host_port)
        if last - first != outermost - outer:
            fits = f"{outer}-{outer + last - first}"
            raise ValueError(f"{self.port} and {self.host_port} are not as many ports (write published: {fits})")
        if last - first >= SPAN_AT_MOST:
            raise ValueError(
                f"{self.port} are {last - first + 1} ports, and at most {SPAN_AT_MOST} are published in one range: the "
                "engine starts a process for each (narrow the range in the application as well)"
            )
        return self

    @property
    def inward(self) -> bool:
        """Whether only the host itself reaches it."""
        return self.address == SELF

    @property
    def on(self) -> str:
        """The address that the engine binds it to; "" for every one."""
        return "127.0.0.1" if self.inward else self.address

    @property
    def host_port(self) -> Span:
        """The port on the host, or the range."""
        return self.port if self.published is None else self.published

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Port on the host and in the container, one by one."""
        (first, last), (outer, _) = bounds(self.port), bounds(self.host_port)
        return [(outer + number, first + number) for number in range(last - first + 1)]


class Call(Declared):
    """A flow that the service may open to another service."""

    service: str = Field(description="name of the called service")
    port: PortNumber | None = Field(None, description='port, or "53/udp"; by default the called service\'s own')
    proto: Proto | None = Field(None, description="tcp or udp; by default the called service's own")
    known_as: KnownAs = Field(
        (), alias="as", description="other names by which the caller finds it, such as one built into its image"
    )

    @model_validator(mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        given = as_mapping(given, "service")
        if isinstance(given, Mapping) and given.get("port") is not None:
            number, proto = split_port(given["port"], given.get("proto"))
            return {**given, "port": number, "proto": proto}
        return given


class Secret(Declared):
    """A file /run/secrets/<name> in the container, mode 0400."""

    value: Text = Field(repr=False, description="the secret, usually a reference into ansible-vault")
    owner: UserId = Field("0", description="user id in the container that may read it")

    @field_validator("value")
    @classmethod
    def _something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the secret is empty (write one, or a reference into the vault)")
        return value


def _volume(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) not in (2, 3) or not all(parts) or parts[2:] not in ([], ["ro"], ["rw"]):
        raise ValueError(f"'{value}' is not a volume (write it as data:/var/lib/app or /srv/photos:/photos:ro)")
    return {"source": parts[0], "target": parts[1], "read_only": parts[2:] == ["ro"]}


class Volume(Declared):
    """A named volume (``data:/var/lib/app``) or a directory of the host (``/srv/photos:/photos:ro``)."""

    source: VolumeSource = Field(description="volume name, or absolute path on the host")
    target: AbsolutePath = Field(description="absolute path in the container")
    read_only: bool = Field(False, description="whether the container may only read it")
    external: bool | None = Field(
        None,
        description="true: the volume is on the host already, by this Docker name, and is mounted as it is; false: "
        "a new one, also where the host has one of this name",
    )
    shared: bool = Field(
        False,
        description="whether a container that ringfence did not make may write there as well, such as to a media "
        "library; for a directory of the host, or with external: true",
    )

    @model_validator(mode="after")
    def _own_or_external(self) -> Volume:
        if fault := external_fault(self.source, self.external):
            raise ValueError(fault)
        if self.shared and not (self.external or self.source.startswith("/")):
            raise ValueError(f"'{self.source}' is a new volume, which nobody else writes to (leave shared out)")
        return self


def _port_and_proto(value: Any) -> Any:
    return None if value is None else "{}/{}".format(*split_port(value))


def _addresses(value: Any) -> Any:
    return {"": value} if isinstance(value, str) else value


class Service(Declared):
    """A container with fixed addresses; nothing reaches it and it reaches nothing unless declared."""

    host: str = Field(description="the machine that runs it, one of lab_hosts")
    image: Image = Field(description="container image with a version or a digest")
    segments: tuple[str, ...] = Field((), description="segments that it is connected to; at least one without network")
    network: NetworkMode = Field(
        "", description="in place of segments: host, none, or the service whose network it shares (a VPN's container)"
    )
    port: Annotated[str | None, BeforeValidator(_port_and_proto)] = Field(
        None, description='port that callers use, such as 5432 or "53/udp"'
    )
    publish: tuple[Publish, ...] = Field((), description="ports opened on the host, each for declared places")
    calls: tuple[Call, ...] = Field((), description="services that it may call: names, or {service, port, proto, as}")
    egress: tuple[Egress, ...] = Field((), description="what it may reach outside the lab")
    resolvers: Resolvers | None = Field(
        None,
        description="DNS servers that it asks in place of lab_resolvers: addresses, or services that answer at port 53",
    )
    volumes: tuple[Annotated[Volume, BeforeValidator(_volume)], ...] = Field((), description="its storage")
    environment: dict[VariableName, Text] = Field({}, description="environment variables; secrets belong into secrets")
    secrets: dict[str, Annotated[Secret, BeforeValidator(lambda value: as_mapping(value, "value"))]] = Field(
        {}, description="files under /run/secrets: name: value, or name: {value, owner}"
    )
    files: dict[FilePath, Content] = Field({}, description="single files: absolute path in the container: content")
    config: dict[FilePath, dict[RelativePath, Content]] = Field(
        {}, description="directories of configuration: absolute path in the container: {path below it: content}"
    )
    validation: Words = Field(
        (), alias="validate", description="command that must accept new files before they replace the old ones"
    )
    reload: Annotated[Reload | None, BeforeValidator(reload_of)] = Field(
        None, description="command, or {signal: SIGHUP}, after which it has read changed config and secrets again"
    )
    capabilities: tuple[Capability, ...] = Field((), description="Linux capabilities; everything else is dropped")
    allow_forging: bool = Field(
        False, description="confirms NET_RAW or NET_ADMIN beside others: it may pose as its neighbours"
    )
    read_only: bool = Field(True, description="whether the root file system is read-only")
    tmpfs: tuple[MemoryPath, ...] = Field((), description="directories in memory")
    user: User = Field("", description="user (and group) that it runs as, such as 1000:1000")
    command: Words = Field((), description="command line instead of the image's own")
    health: Check = Field(
        (),
        description="command that succeeds when it works: words, or a line for its shell; made every 30 s "
        "(`stack_health_seconds`), and every "
        "2 s until it first succeeds (before Docker 25 every 10 s)",
    )
    init: bool = Field(False, description="whether Docker's small init reaps processes as PID 1")
    pids: PositiveInt = Field(200, description="most processes and threads that it may have")
    memory: Memory = Field("", description="most memory that it may use, such as 512m")
    devices: tuple[HostDevice, ...] = Field((), description="devices of the host: /dev/dri, or /dev/a:/dev/b:rw")
    group_add: tuple[Group, ...] = Field(
        (), description="further groups of its processes, such as the number of the host's group video"
    )
    gpus: Gpus = Field((), description="all, or as compose has them: [{driver: nvidia, count: 1}]")
    privileged: bool = Field(False, description="hands the host to it, with allow_host")
    pid: Literal["", "host"] = Field("", description="host: it sees the host's processes, with allow_host")
    allow_host: bool = Field(
        False,
        description="confirms what hands over the host: privileged, pid, volumes, devices, capabilities",
    )
    docker_socket: bool = Field(
        False, description="it is a proxy that filters Docker's socket for its callers, and gets it"
    )
    compose: Passed = Field({}, description="the rest of a compose service, passed on as it is: hostname, labels, …")
    stack: StackName | None = Field(
        None, description="compose project, of each host on which it has services; by default its own name"
    )
    address: Annotated[dict[str, Address4], BeforeValidator(_addresses)] = Field(
        {}, description="fixed IPv4 address, or {segment: address}; by default one is chosen and recorded"
    )
    depends: Names = Field(
        (), description="services of the same stack that must be healthy first, where they are on the same host"
    )
    site: Annotated[Site | None, BeforeValidator(site_of)] = Field(
        None, description="its name under lab_domain, by which the proxy serves it"
    )
    access: Access | None = Field(None, description="who may use the site, from where and when; without it nobody may")
    oidc: Oidc | None = Field(None, description="how it signs people in itself, by asking the portal")
    tls: Annotated[Tls | None, BeforeValidator(tls_of)] = Field(
        None, description="true, or {owner, usage, reload}: a certificate of the lab's CA in /run/tls"
    )

    @property
    def port_and_proto(self) -> tuple[int, Proto] | None:
        """The port that callers use, if the service has one."""
        if self.port is None:
            return None
        number, _, proto = self.port.partition("/")
        return int(number), "udp" if proto == "udp" else "tcp"


class Vantage(Declared):
    """A point outside the provisioned hosts from which verify probes."""

    host: str = Field(description="inventory host that probes")
    address: Address4 = Field(description="IPv4 address that it probes from")
    address6: Address6 | None = Field(None, description="IPv6 address that it probes from")


class Lab(Declared):
    """Everything that is declared, checked.

    ``resolvers`` is None where nothing is said, which is not the same as that there are none. ``services`` has those
    that roles bring as well (`ringfence.model.expand`).
    """

    domain: str
    pool: Network4
    ula: Network6
    places: Mapping[str, tuple[AnyNetwork, ...]] = MappingProxyType({})
    segments: Mapping[SegmentName, Segment] = MappingProxyType({})
    hosts: Mapping[str, Host] = MappingProxyType({})
    services: Mapping[ServiceName, Service] = MappingProxyType({})
    resolvers: tuple[AnyAddress, ...] | None = None
    vantages: Mapping[str, Vantage] = MappingProxyType({})
    hours: Mapping[str, Hours] = MappingProxyType({})
    people: Mapping[str, Person] = MappingProxyType({})
    devices: Mapping[str, Device] = MappingProxyType({})
    proxy: Proxy | None = None
    portal: Portal | None = None
    ca: Ca | None = None
    vpn: Vpn | None = None  # own WireGuard
    tailnet: Tailnet | None = None  # what lab_vpn says instead

    def hosts_of(self, segment: str) -> list[str]:
        """Return the hosts with services in a segment, sorted."""
        return sorted({service.host for service in self.services.values() if segment in service.segments})

    @property
    def role_services(self) -> frozenset[str]:
        """Services that a role of the same name runs."""
        declared = {PROXY: self.proxy, PORTAL: self.portal}
        return frozenset(name for name, value in declared.items() if value is not None)

    def network_of(self, service: str) -> str:
        """Return the service in whose network one is: its own name where it shares nobody's."""
        shared = self.services[service].network
        return shared if shared in self.services else service

    def in_hosts_network(self, service: str) -> bool:
        """Return whether a service is in the network of its host."""
        return self.services[self.network_of(service)].network == HOST_NETWORK

    def project(self, service: str) -> str:
        """Return the compose project that a service belongs to."""
        return self.services[service].stack or service
