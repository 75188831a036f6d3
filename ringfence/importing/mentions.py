"""Whom a text names as a host: a variable, a command line, a health check."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Mention:
    """A host name of the project in a text.

    Attributes:
        start, end: where it stands.
        service: compose's name of whose it is.
        port: behind it, if one is there.
        key: what it is the value of: a variable, an option, or a key within the text.
        scheme: of the URL that it is in: ``udp``, ``http``, …; "" if it is in none.
        dns: whether the port is written as DNS servers' are: ``unbound#5335``.
    """

    start: int
    end: int
    service: str
    port: int | None
    key: str = ""
    scheme: str = ""
    dns: bool = False


# Variables whose value is a host, an address or a list of them.
_HOST_VARIABLE = re.compile(
    r"HOST|URL|URI|ADDR|SERVER|ENDPOINT|DSN|BROKER|UPSTREAM|PROXY|CONNECTION|LINK|TARGET|BACKEND|LISTEN|SMTP|REDIS|"
    r"DATABASE|_DB|CACHE|QUEUE|TIKA|GOTENBERG|AMQP|MQTT|SERVICE|API|ORIGIN|NODES?$|PEER|IMGPROXY|KUMA|(?:^|_)DNS|RESOLVER",
    re.IGNORECASE,
)
# Keys within a text and options of a command: fewer words, as more of them mean something else.
_HOST_KEY = re.compile(
    r"HOST|URL|URI|ADDR|SERVERS?$|DATA SOURCE|ENDPOINT|BROKER|UPSTREAM|PROXY$|TARGET|BACKEND|PEERS?$|NODES?$|REDIS|"
    r"MQTT|CACHE$|RESOLVER|(?:^|[._-])DNS|^h$",
    re.IGNORECASE,
)
_NO_HOST = re.compile(
    r"(?:USER|USERNAME|(?<!HOST)(?<!HOST_)NAME|PASS|PASSWORD|PASSWD|PWD|PW|SECRET|TOKEN|KEY|DBNAME|DATABASE|_DB|TYPE|"
    r"ENGINE|DRIVER|PREFIX|BUCKET|VERSION|TITLE|REALM|SCHEMA|MODE|KIND|IMAGE|TAG|GROUP|ROLE|LOGIN|(?:^|_)UID)$",
    re.IGNORECASE,
)
# Programs whose argument is a host.
_PROGRAM = re.compile(
    r"(?:^|[\s\0;|&(/\"'!])(?:nc|ncat|netcat|telnet|ping|curl|wget|wait-for|wait-for-it|wait-for-it\.sh|wait-for\.sh)"
    r"(?:[\s\0]+-[\w-]+(?:[\s\0]+[0-9]+)?)*[\s\0]+[\"']?$"
)
# Where a host name may stand: not inside a word, a longer name or a path.
_BEFORE = r"(?:(?<=://)|(?<=@)|(?<=/dev/tcp/)|(?<=/dev/udp/)|(?<==tcp:)|(?<![\w.$/:@-]))"
_AFTER = r"(?![\w-]|\.[\w])"
_PORT = r"(?:\]?(?P<sign>[:#])(?P<port>[0-9]{2,5})(?![0-9:]))?"
_OPENING, _CLOSING = " \t\n\0,;=|([{<>\"'&:", " \t\n\0,;|)]}<>\"'&/?"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/\s\0@]*@)?$")
_KEY = re.compile(r"((?:data )?[\w.-]+)[\"']?\s*[=:]\s*\[?(?:tcp:)?[\"']?$", re.IGNORECASE)
_OPTION = re.compile(r"(?:^|[\s\0(\"'])--?([A-Za-z][\w.-]*)[\s\0]+\[?[\"']?$")


def mentions(text: str, hosts: Mapping[str, str], variable: str = "", *, command: bool = False) -> list[Mention]:
    """Return whom a text names as a host, in order.

    A name counts where it stands as one: behind ``://`` or ``@``, before a port, or alone in a variable, under a key or
    behind an option of hosts. An address counts wherever it stands as a whole.

    Args:
        text: the text; for a command `line`'s.
        hosts: name or address → service.
        variable: whose value the text is.
        command: whether it is a command line, in which programs and options tell what is a host.
    """
    if not hosts:
        return []
    names = "|".join(re.escape(host) for host in sorted(hosts, key=len, reverse=True))
    found = (
        _mention(text, one, hosts[one["host"]], variable, command)
        for one in re.finditer(rf"{_BEFORE}(?P<host>{names}){_AFTER}{_PORT}", text)
    )
    return [one for one in found if one]


def _mention(text: str, found: re.Match[str], service: str, variable: str, command: bool) -> Mention | None:
    before, after = text[: found.start()], text[found.end() :]
    port = int(found["port"]) if found["port"] else None
    scheme = _SCHEME.search(before)
    if before.endswith("://") and re.match(r"[^/?#@\s\0]*@", after):
        return None  # who signs in there
    inner = _KEY.search(before)
    option = _OPTION.search(before) if command else None
    key = inner[1].lstrip("-") if inner else option[1] if option else ""
    start, end = found.span("host")
    made = Mention(
        start, end, service, port, key or variable, scheme[1].lower() if scheme else "", found["sign"] == "#"
    )
    if scheme or (before.endswith("@") and (port is not None or "://" in before)):
        return made
    if before.endswith(("/dev/tcp/", "/dev/udp/")):
        number = re.match(r"/([0-9]{2,5})\b", after)
        return Mention(start, end, service, int(number[1]), key, before[-4:-1]) if number else None
    opened = not before or before[-1] in _OPENING
    if not opened or (after and after[0] not in _CLOSING):
        return None
    if is_address(found["host"]):
        return None if re.match(r"/[0-9]", after) else made
    if port is not None:
        return None if _NO_HOST.search(key or variable) else made
    if command and _PROGRAM.search(before):
        number = re.match(r"[\"']?[\s\0]+([0-9]{2,5})(?![\w.])", after)
        return Mention(start, end, service, int(number[1]) if number else None, key)
    pattern = _HOST_KEY if key else _HOST_VARIABLE
    return made if pattern.search(key or variable) and not _NO_HOST.search(key or variable) else None


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def line(words: Sequence[str]) -> str:
    """Return a command's words as one text in which `mentions` can see what stands before what."""
    return "\0".join(words)
