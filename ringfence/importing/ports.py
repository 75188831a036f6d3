"""Published ports, and the port under which a service is called."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.importing.interpolate import Filled
from ringfence.importing.said import Said, question
from ringfence.model.values import SPAN_AT_MOST

# By the last part of an image's name: what it listens on when nobody says otherwise.
KNOWN = {
    "clickhouse-server": 8123,
    "dragonfly": 6379,
    "eclipse-mosquitto": 1883,
    "elasticsearch": 9200,
    "gotenberg": 3000,
    "influxdb": 8086,
    "keydb": 6379,
    "mariadb": 3306,
    "meilisearch": 7700,
    "memcached": 11211,
    "mongo": 27017,
    "mysql": 3306,
    "opensearch": 9200,
    "pgvecto-rs": 5432,
    "pgvector": 5432,
    "postgis": 5432,
    "postgres": 5432,
    "postgresql": 5432,
    "rabbitmq": 5672,
    "redis": 6379,
    "redis-stack": 6379,
    "tika": 9998,
    "timescaledb": 5432,
    "typesense": 8108,
    "valkey": 6379,
}
DATABASES = frozenset({1433, 1521, 3306, 5432, 5984, 6379, 8086, 9042, 9200, 11211, 27017})

# What is known to be asked by UDP: ports, and words in the name of a variable with the port that is meant.
UDP_PORTS = frozenset({
    67, 69, 123, 161, 162, 500, 514, 1645, 1646, 1812, 1813, 1900, 4500, 5353, 6831, 6832, 8125, 12201, 25826, 51820
})  # fmt: skip
UDP_WORDS = {
    "COLLECTD": 25826,
    "GELF": 12201,
    "NTP": 123,
    "RADIUS": 1812,
    "SNMP": 161,
    "STATSD": 8125,
    "SYSLOG": 514,
    "TFTP": 69,
}
UDP_SCHEMES = frozenset({"collectd", "gelf", "ntp", "radius", "snmp", "statsd", "tftp", "udp"})
# Names are asked for by UDP, and by TCP where an answer is long.
DNS_PORT = 53
_DNS = re.compile(r"(?:^|[_.-])(?:DNS(?:[_.-]|$|UPSTREAM|SERVER|[0-9])|NAMESERVER|RESOLVERS?$)", re.IGNORECASE)


def image_name(image: str) -> str:
    """Return the last part of an image's name, by which tables here know it."""
    return image.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0]


def image_port(image: str) -> int | None:
    """Return the port that an image is known to listen on."""
    return KNOWN.get(image_name(image))


def is_store(service: Mapping[str, Any]) -> bool:
    """Whether a service is a database or a cache, which opens no connections of its own."""
    return image_port(str(service.get("image") or "")) is not None


def order(port: int | str) -> tuple[int, str]:
    """Return by what ports are sorted: ``53`` before ``"53/udp"``."""
    number, _, proto = str(port).partition("/")
    return int(number), proto


def asked_by(
    port: int | None, key: str, scheme: str, callee: Mapping[str, Any], *, said: str = "", dns: bool = False
) -> list[int | str]:
    """Return the ports at which a mention of a service asks it, each with the protocol.

    Args:
        port: that is named, None where none is.
        key: variable or option that names it.
        scheme: of the URL that it is in; it says more than everything else.
        callee: settings of what is asked.
        said: protocol in a setting beside it, such as ``GELF_PROTOCOL``.
        dns: whether it is written as DNS servers are.
    """
    spoken = re.split(r"[^a-z]+", scheme.lower())
    words = set(re.split(r"[^A-Z]+", key.upper()))
    known = next((UDP_WORDS[word] for word in UDP_WORDS if word in words), None)
    if not scheme and port is None and known is not None:
        port = known
    if scheme == "dns" or (not scheme and not said and (dns or _DNS.search(key) or port == DNS_PORT)):
        port = port or DNS_PORT
        return [port, f"{port}/udp"]
    if port is None:
        return []
    if scheme:
        udp = bool(UDP_SCHEMES & set(spoken)) and "tcp" not in spoken
    elif said.lower() in ("tcp", "udp"):
        udp = said.lower() == "udp"
    elif len(declared := _protocols(callee, port)) == 1:
        udp = "udp" in declared
    else:
        udp = known is not None or port in UDP_PORTS
    return [f"{port}/udp" if udp else port]


def _protocols(service: Mapping[str, Any], port: int) -> set[str]:
    """Return the protocols of a port that a service publishes or exposes."""
    told = [f"{one.get('target')}/{one.get('protocol') or 'tcp'}" for one in service.get("ports") or []]
    told += [str(one) if "/" in str(one) else f"{one}/tcp" for one in service.get("expose") or []]
    return {one.partition("/")[2] for one in told if one.partition("/")[0] == str(port)}


def own_port(service: Mapping[str, Any], mentioned: Sequence[int | str]) -> int | str | None:
    """Return the port that callers of a service use, as far as it can be known."""
    if mentioned:
        return max(sorted(set(mentioned), key=order), key=list(mentioned).count)
    known = image_port(str(service.get("image") or ""))
    if known is not None:
        return known
    exposed = [str(one) for one in service.get("expose") or []]
    if exposed and exposed[0].partition("/")[0].isdecimal():
        return _port(exposed[0])
    targets = [f"{one.get('target')}/{one.get('protocol') or 'tcp'}" for one in service.get("ports") or []]
    single = list(dict.fromkeys(target for target in targets if target.endswith("/tcp"))) or targets[:1]
    if len(single) == 1 and single[0].partition("/")[0].isdecimal():
        return _port(single[0])
    return None


def _port(text: str) -> int | str:
    number, _, proto = text.partition("/")
    return f"{number}/udp" if proto == "udp" else int(number)


def publish(name: str, ports: Sequence[Mapping[str, Any]], places: Sequence[str], said: Said) -> None:
    """Say which ports are opened on the host, and for whom."""
    found: list[dict[str, Any]] = []
    for one in ports:
        if "unset" in one:
            raw, unset = (one["unset"].raw, one["unset"].unset) if isinstance(one["unset"], Filled) else ("", ())
            said.questions[f"ports {raw}"] = (
                f"the port '{raw}' needs {', '.join(unset)}, which is not set: add it to publish"
            )
            continue
        fitting = fit(one)
        if fitting is None:
            said.questions[f"ports {one.get('published')}:{one['target']}"] = (
                f"{one.get('published') or one['target']} does not fit to {one['target']}, or is too much for one "
                "range: add those ports that are used to publish"
            )
            continue
        entry = _publish(name, fitting, places, said)
        if entry not in found:  # 0.0.0.0 and [::] are one here
            found.append(entry)
    if found:
        said.entry["publish"] = found


def fit(one: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a port or a range of them as it is published; None where two ranges do not fit together."""
    targets, published = _ends(str(one["target"])), _ends(str(one.get("published") or ""))
    if targets is None or (one.get("published") and published is None):
        return None
    many = targets[1] - targets[0]
    if published is None:
        return dict(one) if many < SPAN_AT_MOST else None
    if not many and published[1] > published[0]:
        return {**one, "one of": str(one["published"])}
    return dict(one) if published[1] - published[0] == many < SPAN_AT_MOST else None


def _ends(text: str) -> tuple[int, int] | None:
    first, _, last = text.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        return None
    return int(first), int(last or first)


def _publish(name: str, one: Mapping[str, Any], places: Sequence[str], said: Said) -> dict[str, Any]:
    target, proto = _span(str(one["target"])), str(one.get("protocol") or "tcp")
    published = str(one.get("published") or "")
    entry: dict[str, Any] = {"port": target if proto == "tcp" else f"{target}/{proto}"}
    shown = f"{published or target}/{proto}"
    if not published:
        entry["published"] = question(
            f"compose gave port {target} of {name} a random port of the host: write the one to use, such as {target}"
        )
    elif "one of" in one:
        entry["published"] = question(f"compose chose one of {published} for port {target} of {name}: write one")
    elif _span(published) != target:
        entry["published"] = _span(published)
    address = str(one.get("host_ip") or "")
    if _loopback(address):
        entry["address"] = "self"
        said.remarks.append(f"port {shown}: for programs of the host itself, as it was (see site, if that was a proxy)")
    else:
        if _alone(address):
            entry["address"] = address
        entry["from"] = _sources(name, address, shown, places)
    first, _, last = str(target).partition("-")
    if DATABASES & set(range(int(first), int(last or first) + 1)):
        entry["allow_database"] = question(
            f"port {shown} of {name} is a database's: write true to publish it all the same, or remove this entry of "
            "publish (its application reaches it by calls)"
        )
    if one.get("name") or one.get("app_protocol") or one.get("mode") not in (None, "ingress", "host"):
        said.remarks.append(f"port {shown}: name, app_protocol and mode change nothing outside of swarm")
    return entry


def _span(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _sources(name: str, address: str, shown: str, places: Sequence[str]) -> Any:
    """Who may use a port: what was for one address alone is never opened by what is said for all."""
    if _alone(address):
        return question(
            f"port {shown} of {name} was open on {address} alone: write the places that come in there, of lab_places"
        )
    return list(places) or question(
        f"port {shown} of {name} was open to everybody: write who may use it, places of lab_places such as [lan], or "
        "[anywhere]"
    )


def _alone(address: str) -> bool:
    """Whether a port was open on one address alone."""
    return address not in ("", "0.0.0.0", "::", "*")


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
