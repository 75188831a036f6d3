"""The small values that a lab is written in: names, networks, addresses, ports. Each says how it is fixed."""

from __future__ import annotations

import ipaddress
import re
import shlex
import signal
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ringfence.host.grants import capability_fault
from ringfence.host.handing import device_faults, gpu_fault, group_fault
from ringfence.host.texts import (
    file_target_fault,
    memory_fault,
    relative_fault,
    target_fault,
    text_fault,
    user_fault,
    variable_fault,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Proto = Literal["tcp", "udp"]

_NAME = re.compile(r"[a-z](?:[a-z0-9-]*[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_IMAGE = re.compile(
    r"[a-z0-9][a-z0-9._/:-]*?(?::(?P<tag>[\w][\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?", re.ASCII
)
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_CONTAINERS = re.compile(r"lo|docker0|(?:rf-|br-[0-9a-f]{12}$|veth|docker_gwbridge).*")
_SIZE = re.compile(r"[1-9][0-9]*[kmg]", re.IGNORECASE | re.ASCII)

# What "the internet" is not. Places and segments of the lab are added: a place may well be a public network.
PRIVATE = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/3",
    "::/127",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)

# Longest segment name whose bridge `rf-<name>` still is a valid interface name (15 characters).
SEGMENT_NAME_LENGTH = 12


def _name(kind: str, longest: int) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise ValueError(
                f"'{value}' is not a {kind} name (write lower-case letters, digits and '-', a letter first)"
            )
        if len(value) > longest:
            raise ValueError(
                f"'{value}' is {len(value)} characters long, a {kind} name has at most {longest} (shorten it)"
            )
        return value

    return BeforeValidator(check)


def _network_mode(value: object) -> object:
    mode, _, name = str(value).partition(":")
    if mode in ("service", "container") and name:
        raise ValueError(f"'{value}' is said without {mode}: here (write network: {name}, a service of lab_services)")
    if not isinstance(value, str) or (value and not _NAME.fullmatch(value)):
        raise ValueError(f"'{value}' is no network (write host, none, or the service whose network it shares)")
    return value


SegmentName = Annotated[str, _name("segment", SEGMENT_NAME_LENGTH)]
ServiceName = Annotated[str, _name("service", 40)]
PlaceName = Annotated[str, _name("place", 40)]
HostServiceName = Annotated[str, _name("host service", 40)]
NetworkMode = Annotated[str, BeforeValidator(_network_mode)]
StackName = Annotated[str, _name("stack", 40)]
VantageName = Annotated[str, _name("vantage", 40)]
HoursName = Annotated[str, _name("hours", 40)]
DeviceName = Annotated[str, _name("device", 40)]


def _host_name(value: object) -> object:
    """A host is called as in the inventory, where more is allowed than in the names of ringfence's own."""
    if not isinstance(value, str) or not _HOST.fullmatch(value) or len(value) > 253:
        raise ValueError(f"'{value}' is not a host name (write letters, digits, '.', '-' and '_', as in hosts.yml)")
    return value


_PERSON = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")


def _person(value: object) -> object:
    if not isinstance(value, str) or not _PERSON.fullmatch(value) or len(value) > 40:
        raise ValueError(f"'{value}' is not a person's name (write lower-case letters, digits, '.', '_' and '-')")
    return value


PersonName = Annotated[str, BeforeValidator(_person)]


def _domain(value: object) -> object:
    if not isinstance(value, str) or not _DOMAIN.fullmatch(value) or len(value) > 253:
        raise ValueError(f"'{value}' is not a domain (write it as lab.home: lower-case letters, digits, '-' and '.')")
    return value


_HOST_LABEL = re.compile(_LABEL)


def _host_label(value: object) -> object:
    if not isinstance(value, str) or not _HOST_LABEL.fullmatch(value):
        raise ValueError(
            f"'{value}' is not a name under lab_domain (write one word: lower-case letters, digits and '-')"
        )
    return value


_URL_PATH = re.compile(r"(/[A-Za-z0-9._~@:+,=-]+)*(/\*?)?")


def _url_path(value: object) -> object:
    """Only what every program reads alike: no escapes, no dots that climb, no empty parts."""
    if (
        not isinstance(value, str)
        or not value.startswith("/")
        or not _URL_PATH.fullmatch(value)
        or {".", ".."} & set(value.split("/"))
    ):
        raise ValueError(
            f"'{value}' is not a path (write /alive for that path alone, or /api/* for all below; letters, digits "
            "and ._~@:+,=- between slashes)"
        )
    if value in ("/", "/*"):
        raise ValueError(f"'{value}' is the whole site (say it in access itself)")
    return value


HostLabel = Annotated[str, BeforeValidator(_host_label)]
UrlPath = Annotated[str, BeforeValidator(_url_path)]
HostName = Annotated[str, BeforeValidator(_host_name)]
DomainName = Annotated[str, BeforeValidator(_domain)]


def _network(value: object) -> Network:
    if not isinstance(value, str | ipaddress.IPv4Network | ipaddress.IPv6Network) or "/" not in str(value):
        raise ValueError(f"'{value}' is not a network (write it as 192.168.10.0/24 or fd00:1::/64)")
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"'{value}' is not a network (write it as 192.168.10.0/24 or fd00:1::/64)") from None
    raise ValueError(f"'{value}' has host bits set (did you mean '{meant}'?)")


def _network4(value: object) -> Network:
    network = _network(value)
    if network.version != 4:
        raise ValueError(
            f"'{value}' is not an IPv4 network (write it as 172.20.0.0/24; the IPv6 one follows from lab_ula)"
        )
    return network


def _network6(value: object) -> Network:
    network = _network(value)
    if network.version != 6:
        raise ValueError(f"'{value}' is not an IPv6 network (write it as fd12:3456:789a::/48)")
    return network


def _address(value: object) -> Address:
    try:
        return ipaddress.ip_address(str(value))  # not the value itself: a number would be taken for an address
    except ValueError:
        raise ValueError(f"'{value}' is not an IP address (write it as 192.168.10.5 or fd00::5)") from None


def _address4(value: object) -> Address:
    address = _address(value)
    if address.version != 4:
        raise ValueError(
            f"'{value}' is not an IPv4 address (write it as 172.20.0.5; the IPv6 one gets the same number)"
        )
    return address


def _address6(value: object) -> Address:
    address = _address(value)
    if address.version != 6:
        raise ValueError(f"'{value}' is not an IPv6 address (write it as fd00::5)")
    return address


AnyNetwork = Annotated[Network, BeforeValidator(_network)]

Network4 = Annotated[ipaddress.IPv4Network, BeforeValidator(_network4)]
Network6 = Annotated[ipaddress.IPv6Network, BeforeValidator(_network6)]
AnyAddress = Annotated[Address, BeforeValidator(_address)]
Address4 = Annotated[ipaddress.IPv4Address, BeforeValidator(_address4)]
Address6 = Annotated[ipaddress.IPv6Address, BeforeValidator(_address6)]


def split_port(value: object, proto: str | None = None) -> tuple[int, str]:
    """Read a port: ``5432``, ``"5432"``, ``"53/udp"``, or a number and a protocol given apart.

    Raises:
        ValueError: it is none of these, or the two protocols differ.
    """
    number, _, suffix = str(value).partition("/")
    if isinstance(value, bool) or not number.isdecimal() or not 1 <= int(number) <= 65535:
        raise ValueError(f"'{value}' is not a port (write one number from 1 to 65535, or \"53/udp\")")
    if suffix not in ("", "tcp", "udp"):
        raise ValueError(f"'{value}' has the protocol '{suffix}' (write /tcp or /udp)")
    if proto is not None and proto not in ("tcp", "udp"):
        raise ValueError(f"'{proto}' is not a protocol (write tcp or udp)")
    if suffix and proto and suffix != proto:
        raise ValueError(f"'{value}' contradicts proto: {proto} (say it once)")
    return int(number), suffix or proto or "tcp"


PortNumber = Annotated[int, BeforeValidator(lambda value: split_port(value)[0])]

# Ports as they are declared: one number, "8000-8010", or "any".
Span = int | str
ANY_PORT = "any"
# The engine starts a process and makes a rule for each published port.
SPAN_AT_MOST = 1000
_SPAN = re.compile(r"([0-9]+)-([0-9]+)", re.ASCII)


def split_span(value: object, proto: str | None = None, *, any_port: bool = False) -> tuple[Span, str]:
    """Read ports: what `split_port` reads, and ``"8000-8010"``, ``"8000-8010/udp"``, with ``any_port`` also ``any``.

    Raises:
        ValueError: it is none of these, or the two protocols differ.
    """
    ports, slash, suffix = str(value).partition("/")
    if any_port and ports == ANY_PORT:
        return ANY_PORT, split_port(f"1{slash}{suffix}", proto)[1] if suffix or proto else ""
    if not (found := _SPAN.fullmatch(ports)):
        return split_port(value, proto)
    first, last = (split_port(f"{number}{slash}{suffix}", proto)[0] for number in found.groups())
    if first > last:
        raise ValueError(f"'{value}' ends before it begins (write the lower port first)")
    return (first if first == last else f"{first}-{last}"), split_port(f"{first}{slash}{suffix}", proto)[1]


def bounds(span: Span) -> tuple[int, int]:
    """Return the first and the last port."""
    if span == ANY_PORT:
        return 1, 65535
    first, _, last = str(span).partition("-")
    return int(first), int(last or first)


PortSpan = Annotated[Span, BeforeValidator(lambda value: split_span(value)[0])]
OutwardPorts = Annotated[Span, BeforeValidator(lambda value: split_span(value, any_port=True)[0])]


def _image(value: object) -> object:
    match = _IMAGE.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"'{value}' is not an image (write it as docker.io/library/caddy:2.11.7)")
    if match["digest"] is None and match["tag"] in (None, "latest"):
        raise ValueError(
            f"'{value}' is not pinned: it would change under you "
            f"(add a version, such as {str(value).removesuffix(':latest')}:1.2.3, or a digest @sha256:…)"
        )
    return value


Image = Annotated[str, BeforeValidator(_image)]


def _text(value: object) -> str:
    """Environment values are text for the container; YAML's numbers and booleans are taken as people mean them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return _whole(str(value))
    raise ValueError("the value is not text (quote it)")


def _whole(text: str) -> str:
    if fault := text_fault(text):
        raise ValueError(f"the text {fault}")
    return text


Text = Annotated[str, BeforeValidator(_text)]
Content = Annotated[str, BeforeValidator(lambda value: _whole(value) if isinstance(value, str) else value)]


def _words(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        # The line itself is not shown: it may hold a secret.
        what = "a quotation mark in it is not closed" if "quotation" in str(error) else "it ends in a backslash"
        raise ValueError(
            f"the line cannot be taken apart into words: {what} (correct it, or write a list of words: [app, --now])"
        ) from None


Words = Annotated[tuple[Text, ...], BeforeValidator(_words)]


def _check(value: object) -> object:
    """A health check in one string is a line for the container's shell, as in compose."""
    return ["CMD-SHELL", value] if isinstance(value, str) else value


Check = Annotated[tuple[Text, ...], BeforeValidator(_check)]


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]


def _resolver(value: object) -> object:
    try:
        return str(_address(value))
    except ValueError:
        if isinstance(value, str) and _NAME.fullmatch(value):
            return value
        raise ValueError(
            f"'{value}' is neither an IP address nor a service (write 192.168.10.1, or the name of the service that "
            "answers at port 53)"
        ) from None


Resolvers = Annotated[tuple[Annotated[str, BeforeValidator(_resolver)], ...], BeforeValidator(_one_or_more)]


def _interface(value: object) -> object:
    if not isinstance(value, str) or not _INTERFACE.fullmatch(value) or len(value) > 15:
        raise ValueError(
            f"'{value}' is not the name of an interface (write it as `ip link` shows it, such as eth0 or wg0: "
            "1 to 15 letters, digits, '.', '_' and '-')"
        )
    if _CONTAINERS.fullmatch(value):
        raise ValueError(f"'{value}' leads to no place: the host itself or containers are behind it (remove it)")
    return value


Interface = Annotated[str, BeforeValidator(_interface)]
Interfaces = Annotated[tuple[Interface, ...], BeforeValidator(_one_or_more)]


def _fitting(fault_of: Callable[[str], str]) -> BeforeValidator:
    def check(value: object) -> object:
        if fault := fault_of(str(value)):
            raise ValueError(f"'{value}' {fault}")
        return value

    return BeforeValidator(check)


def _user(text: str) -> str:
    if fault := user_fault(text):
        raise ValueError(f"{text!r} {fault}")
    return text


# Bytes that may stand before a path in a container where its files are kept on the host.
HOST_PREFIX = 200

_KNOWN_AS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def _known_as(name: str) -> str:
    return "" if _KNOWN_AS.fullmatch(name) else "is not a name of a host (write letters, digits, '.', '_' and '-')"


KnownAs = Annotated[tuple[Annotated[str, _fitting(_known_as)], ...], BeforeValidator(_one_or_more)]
VariableName = Annotated[str, _fitting(variable_fault)]
AbsolutePath = Annotated[str, _fitting(lambda path: target_fault(path, HOST_PREFIX))]
MemoryPath = Annotated[str, _fitting(lambda entry: memory_fault(entry, HOST_PREFIX))]
FilePath = Annotated[str, _fitting(lambda path: file_target_fault(path, HOST_PREFIX))]
User = Annotated[Text, AfterValidator(_user)]
RelativePath = Annotated[str, _fitting(lambda path: relative_fault(path, HOST_PREFIX))]


def _memory(value: object) -> object:
    if value != "" and not (isinstance(value, str) and _SIZE.fullmatch(value)):
        raise ValueError(f"'{value}' is not an amount of memory (write it as 512m or 2g)")
    return value


Memory = Annotated[str, BeforeValidator(_memory)]


Capability = Annotated[str, _fitting(capability_fault)]


def _host_device(value: object) -> object:
    for fault in device_faults(str(value)):
        raise ValueError(fault)
    return value


def _group(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if fault := group_fault(str(text)):
        raise ValueError(fault)
    return text


def _gpus(value: object) -> object:
    if value == "all":
        return [{"count": "all"}]
    if not isinstance(value, list | tuple) or not all(isinstance(one, Mapping) for one in value):
        raise ValueError("it is no list of GPUs (write all, or [{driver: nvidia, count: 1}])")
    for one in value:
        if fault := gpu_fault(one):
            raise ValueError(fault)
    return value


HostDevice = Annotated[str, BeforeValidator(_host_device)]
Group = Annotated[str, BeforeValidator(_group)]
Gpus = Annotated[tuple[dict[str, Any], ...], BeforeValidator(_gpus)]


def _signal(value: object) -> object:
    if not isinstance(value, str) or (value and value not in signal.Signals.__members__):
        raise ValueError(f"'{value}' is not a signal (write it as SIGHUP)")
    return value


Signal = Annotated[str, BeforeValidator(_signal)]


def _worded(pattern: str, words: str) -> BeforeValidator:
    """A text of a form that is told in words, without the value: it may stand beside a secret."""
    form = re.compile(pattern, re.ASCII)

    def check(value: object) -> object:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(text, str) or not form.fullmatch(text):
            raise ValueError(f"the value is not {words}")
        return text

    return BeforeValidator(check)


UserId = Annotated[str, _worded(r"[0-9]+", "the id of a user (write its number, such as 1000)")]
Size = Annotated[str, _worded(r"([1-9][0-9]*(KB|MB|GB))?", "a size (write a number with KB, MB or GB, such as 10GB)")]
DnsProvider = Annotated[
    str, _worded(r"[a-z0-9_]*", "the name of a DNS provider (write it in lower-case letters, digits and '_')")
]
SmtpAddress = Annotated[
    str,
    _worded(
        r"(smtp|submission|submissions)://[^/:]+:[0-9]+",
        "the address of a mail server (write submissions://, submission:// or smtp://, its name, ':' and its port, "
        "such as submissions://mail.example.org:465)",
    ),
]
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)


def _volume_source(value: object) -> object:
    if isinstance(value, str) and value.startswith("/"):
        return _whole(value)
    if isinstance(value, str) and value.startswith(("./", "../", "~")):
        raise ValueError(f"'{value}' is not a path from the host's root (write all of it, such as /srv/app/data)")
    if not isinstance(value, str) or not _VOLUME.fullmatch(value):
        raise ValueError(
            f"'{value}' is not a volume (write a name of letters, digits, '_', '-' and '.', or a path such as /srv/app)"
        )
    return value


VolumeSource = Annotated[str, BeforeValidator(_volume_source)]


def external_fault(source: str, external: bool | None) -> str:
    """Say why a volume's source does not fit to whether it is the host's, "" where it does."""
    if source.startswith("/"):
        return f"'{source}' is a directory of the host anyway (leave external out)" if external is not None else ""
    if not external and source != source.lower():
        return (
            f"'{source}' has capitals, which a volume of ringfence's own has not (write {source.lower()}, or "
            "external: true where the host has it already)"
        )
    return ""


def as_mapping(value: object, key: str) -> dict[str, Any] | object:
    """Take a short form (``nextcloud-db``) for the mapping that it stands for (``{service: nextcloud-db}``)."""
    return {key: value} if isinstance(value, str | int) and not isinstance(value, bool) else value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"'{'true' if value else 'false'}' is not a whole number (write one, such as 200)")
    return value


WholeNumber = Annotated[int, BeforeValidator(_number)]
PositiveInt = Annotated[WholeNumber, Field(ge=1, le=4194304)]
