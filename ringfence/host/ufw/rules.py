"""Rules of ufw: as tuples of its files, as its commands, as they are declared."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from ringfence.host.program import Desired

ANY = {"4": "0.0.0.0/0", "6": "::/0"}
OWN = "rf:"
# Protocols of IP that listeners take as they are, as iptables and ufw call them.
PROTOCOLS = {
    2: "igmp", 4: "ipencap", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 88: "eigrp", 89: "ospf", 103: "pim",
    112: "vrrp", 115: "l2tp", 132: "sctp",
}  # fmt: skip
# Protocols without ports that ufw has words for (ufw.util of 0.36.2), and those of them that it takes on IPv4 alone.
PORTLESS = ("ah", "esp", "gre", "igmp", "ipv6", "vrrp")
ONLY4 = ("igmp", "ipv6")
Lists = dict[str, list["Rule"]]


class Match(NamedTuple):
    """What a rule matches; ufw holds at most one rule per match."""

    proto: str
    dport: str
    dst: str
    sport: str
    src: str
    dapp: str
    sapp: str
    direction: str
    iface_in: str
    iface_out: str
    forward: bool


class Rule(NamedTuple):
    """One rule of one family, as a tuple of user.rules."""

    family: str
    match: Match
    action: str
    log: str = ""
    comment: str = ""

    @property
    def own(self) -> bool:
        return self.comment.startswith(OWN)

    @property
    def name(self) -> str:
        return self.comment.removeprefix(OWN)

    @property
    def opens(self) -> bool:
        return self.action in ("allow", "limit")


def network(address: str) -> str:
    """An address or network in ufw's form: without /32 or /128, host bits cleared."""
    parsed = ipaddress.ip_network(address, strict=False)
    return str(parsed.network_address) if parsed.prefixlen == parsed.max_prefixlen else str(parsed)


def ports(text: str) -> str:
    """Ports in ufw's form: sorted."""
    return ",".join(sorted(text.split(","), key=lambda part: int(part.partition(":")[0]))) if "," in text else text


def parse_tuple(line: str, family: str) -> Rule | None:
    """Read one `### tuple ###` line; None when ufw itself could not read it."""
    body, _, comment = line.removeprefix("### tuple ###").partition(" comment=")
    words = body.split()
    if not 6 <= len(words) <= 9:
        return None
    direction, iface_in, iface_out = "in", "", ""
    if len(words) in (7, 9):
        direction = words[-1].partition("_")[0]
        for part in words[-1].split("!"):
            side, _, name = part.partition("_")
            if side == "in":
                iface_in = name
            elif side == "out":
                iface_out = name
            else:
                return None
    apps = [word.replace("%20", " ") if word != "-" else "" for word in words[6:8]] if len(words) >= 8 else ["", ""]
    action = words[0].removeprefix("route:")
    verb, _, logging = action.partition("_")
    try:
        match = Match(
            words[1], ports(words[2]), network(words[3]), ports(words[4]), network(words[5]),
            apps[0], apps[1], direction, iface_in, iface_out, words[0].startswith("route:"),
        )  # fmt: skip
        text = bytes.fromhex(comment.strip()).decode("utf-8", errors="replace")
    except ValueError:
        return None
    if verb not in ("allow", "deny", "reject", "limit"):
        return None
    return Rule(family, match, verb, logging, text)


def anywhere(address: str) -> bool:
    return address in ANY.values()


def spelled(rule: Rule, both: bool = True) -> list[str]:
    """The arguments of `ufw` that make this rule; ``both``: "any" for any address, which means both families."""
    match = rule.match
    words = [rule.action]
    if match.iface_in:
        words += ["in", "on", match.iface_in]
    if match.iface_out:
        words += ["out", "on", match.iface_out]
    if match.direction == "out" and not match.iface_out and not match.iface_in:
        words.append("out")
    if rule.log:
        words.append(rule.log)
    if match.proto != "any" and not match.dapp and not match.sapp:
        words += ["proto", match.proto]
    for word, address, port, app in (
        ("from", match.src, match.sport, match.sapp),
        ("to", match.dst, match.dport, match.dapp),
    ):
        words += [word, "any" if both and anywhere(address) else address]
        if app:
            words += ["app", app]
        elif port != "any":
            words += ["port", port]
    if rule.comment:
        words += ["comment", rule.comment]
    return ["route", *words] if match.forward else words


def replayable(rule: Rule) -> str:
    """The command that a person would type to make the rule."""
    return shlex.join(["ufw", *spelled(rule)])


def twin(rule: Rule) -> Rule | None:
    """The same rule of the other family, where ufw makes both with one command."""
    if not (anywhere(rule.match.src) and anywhere(rule.match.dst)):
        return None
    other = "6" if rule.family == "4" else "4"
    return rule._replace(family=other, match=rule.match._replace(src=ANY[other], dst=ANY[other]))


def wanted_rules(desired: Desired, ipv6: bool) -> tuple[Lists, list[str]]:
    """Expand the desired rules by family, in order; a match that comes twice counts once. Second: notices."""
    lists: Lists = {"4": [], "6": []}
    notices: list[str] = []
    denied = [{"action": "deny", "log": True, **entry} for entry in desired["denied_ports"]]
    for entry in [*desired["rules"], *(desired.get("kept") or []), *denied]:
        for rule in expand(entry):
            if rule.family == "6" and not ipv6:
                continue
            same = next((other for other in lists[rule.family] if other.match == rule.match), None)
            if same is None:
                lists[rule.family].append(rule)
            elif same.opens != rule.opens and rule.family == "4":
                notices.append(f"rule {rule.name} has no effect: {same.name} says the opposite for the same packets")
    return lists, notices


def expand(entry: dict[str, Any]) -> Iterator[Rule]:
    """The rules of one entry: both families where its ends are any; tcp and udp apart where ufw needs it."""
    port = ports(str(entry.get("port") or "any").replace("-", ":"))
    proto = str(entry.get("proto") or "any")
    source, destination = str(entry.get("source") or "any"), str(entry.get("destination") or "any")
    told = {str(ipaddress.ip_network(end, strict=False).version) for end in (source, destination) if end != "any"}
    forward, way_in, way_out = way(entry)
    direction = "out" if (way_out and not way_in) or entry.get("direction") == "out" else "in"
    for each in ["tcp", "udp"] if proto == "any" and ("," in port or ":" in port) else [proto]:
        for family in sorted(told) or (["4"] if proto in ONLY4 else ["4", "6"]):
            src, dst = (ANY[family] if end == "any" else network(end) for end in (source, destination))
            match = Match(each, port, dst, "any", src, "", "", direction, way_in, way_out, forward)
            logging = "log" if entry.get("log") else ""
            yield Rule(family, match, str(entry.get("action") or "allow"), logging, f"{OWN}{entry['name']}")


def way(entry: dict[str, Any]) -> tuple[bool, str, str]:
    """Whether an entry is about what is forwarded, and the interfaces by which it comes and goes."""
    interface, out = str(entry.get("interface") or ""), str(entry.get("interface_out") or "")
    forward = entry.get("direction") == "route"
    return (forward, interface, out) if forward or entry.get("direction") != "out" else (False, "", out or interface)


def entry_faults(entries: list[dict[str, Any]]) -> Iterator[str]:
    """Say what of declared rules cannot be said to ufw, each with what to write."""
    for entry in entries:
        ends = [str(entry.get(end) or "any") for end in ("source", "destination")]
        versions = {ipaddress.ip_network(end, strict=False).version for end in ends if end != "any"}
        where = f"ufw_rules.{entry['name']}"
        if len(versions) > 1:
            yield f"{where}: source and destination are not of one family (write one rule for IPv4, one for IPv6)"
        if entry.get("direction", "in") == "in" and entry.get("interface_out"):
            yield f"{where}: what comes in goes out by no interface (write direction: route for what is forwarded)"
        if entry.get("proto") in PORTLESS and entry.get("port"):
            yield f"{where}: {entry['proto']} has no ports (leave port out)"
        if entry.get("proto") in ONLY4 and 6 in versions:
            yield f"{where}: ufw takes {entry['proto']} on IPv4 only (write an address of IPv4)"
        if entry.get("application") and entry.get("port"):
            yield f"{where}: has a port and an application profile (remove one of the two)"


def overlap(one: str, other: str) -> bool:
    """Whether two port specifications share a port."""
    if "any" in (one, other):
        return True
    return any(a <= d and c <= b for a, b in spans(one) for c, d in spans(other))


def spans(text: str) -> list[tuple[int, int]]:
    """Read ports such as 80, 80:90, :1024 and 1024:, with commas between them. Raises ValueError: one has a name."""
    found = []
    for part in text.split(","):
        low, colon, high = part.partition(":")
        found.append((int(low or 0), int(high or (65535 if colon else low))))
    return found


def covers(outer: Match, inner: Match) -> bool:
    """Whether everything that ``inner`` matches is matched by ``outer`` (incoming rules of one family)."""
    if outer.direction != "in" or outer.forward or not anywhere(outer.dst):
        return False
    if outer.iface_in and outer.iface_in != inner.iface_in:
        return False
    if outer.proto not in ("any", inner.proto):
        return False
    if outer.dport != "any" and (
        inner.dport == "any"
        or not all(any(a <= c and d <= b for a, b in spans(outer.dport)) for c, d in spans(inner.dport))
    ):
        return False
    return ipaddress.ip_network(inner.src).subnet_of(ipaddress.ip_network(outer.src))  # type: ignore[arg-type]


def declared_as(rule: Rule, wanted: list[Rule]) -> list[str]:
    """Names of the declared rules that open everything that a foreign rule opens; [] if there are none."""
    if rule.action != "allow" or rule.match.direction != "in" or rule.match.forward or not anywhere(rule.match.dst):
        return []
    if rule.match.sport != "any" or rule.match.sapp:
        return []
    protos = [rule.match.proto] if rule.match.proto != "any" or rule.match.dport == "any" else ["tcp", "udp"]
    names = []
    for proto in protos:
        part = rule.match._replace(proto=proto)
        # A deny in front of it would make the declared rule narrower than it looks.
        found = next((other for other in wanted if other.opens and covers(other.match, part)), None)
        if found is None:
            return []
        names.append(found.name)
    return names


def admitted(rules: list[Rule], client: str, port: int, interface: str) -> bool:
    """Whether a new TCP connection from the client to the port passes; what is unknown counts as passing."""
    address = ipaddress.ip_address(client)
    if address.is_loopback:
        return True
    for rule in rules:
        match = rule.match
        if match.direction != "in" or match.forward or match.proto not in ("any", "tcp") or match.sport != "any":
            continue
        if address not in ipaddress.ip_network(match.src):
            continue
        if not match.dapp and not overlap(match.dport, str(port)):
            continue
        if match.iface_in and interface and match.iface_in != interface:
            continue
        certain = not match.dapp and anywhere(match.dst) and not (match.iface_in and not interface)
        if rule.opens or certain:
            return rule.opens
    return False
