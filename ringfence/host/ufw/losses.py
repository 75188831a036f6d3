"""What somebody loses when ufw denies for the first time, and what is in the way of what is declared."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ringfence.host.listening import RAW, Ground, Listener, same_port
from ringfence.host.program import Desired
from ringfence.host.ufw.rules import ANY, OWN, PORTLESS, PROTOCOLS, Lists, Rule, anywhere, overlap
from ringfence.host.ufw.state import options

KEEPING = "kept-"  # names of the rules that keep what was reachable
LINKS = {4: "169.254.0.0/16", 6: "fe80::/10"}  # addresses of one link alone, by IP version
# Whom ufw's own before.rules serve: they let in answers of DHCP servers and what is sent to mDNS's group, and nothing
# else that comes to these ports.
DHCP = ("NetworkManager", "connmand", "dhclient", "dhcp6c", "dhcpcd", "odhcp6c", "systemd-network", "udhcpc")
SERVED = {("udp", 68): DHCP, ("udp", 546): DHCP, ("udp", 5353): ("avahi-daemon", "mdnsd", "systemd-resolve")}


class Loss(NamedTuple):
    """Something that answers today, and who no longer reaches it.

    Attributes:
        listener: what answers.
        who: who loses it, in words.
        sources: networks that have to be let in so that they do not; "any" for everybody, none where no rule of ufw
            decides.
    """

    listener: Listener
    who: str
    sources: dict[str, str]

    @property
    def line(self) -> str:
        one = self.listener
        protocol = f" (protocol {PROTOCOLS.get(one.port, one.port)})" if one.proto == RAW else ""
        return f"{one.key}{protocol} on {one.on}, {one.holder}: {self.who}"


class Answers(NamedTuple):
    """What becomes of what is not declared: for all, and for each that is named by port and protocol."""

    everything: str
    each: dict[str, str]

    def of(self, key: str) -> str:
        return self.each.get(key, self.everything)


def answers(desired: Desired) -> Answers:
    """Read the two settings."""
    return Answers(desired.get("unmanaged") or "stop", dict(desired.get("unmanaged_ports") or {}))


def answer_faults(given: Answers) -> list[str]:
    """What is written in ``ufw_unmanaged_ports`` that says nothing."""
    found = []
    for key, value in given.each.items():
        port, _, proto = str(key).partition("/")
        if not port.isdecimal() or proto not in ("tcp", "udp", RAW):
            found.append(
                f"ufw_unmanaged_ports: {key!r} is no port with its protocol (write it as 8123/tcp, or as 112/ip for a "
                "protocol of IP)"
            )
        elif not (1 <= int(port) <= 65535 if proto != RAW else int(port) <= 255):
            found.append(f"ufw_unmanaged_ports: there is no {key} (write a port from 1 to 65535, a protocol up to 255)")
        if value not in ("keep", "close"):
            found.append(f"ufw_unmanaged_ports: {key}: {value!r} says nothing (write keep or close)")
    return found


def missed(given: Answers, known: Collection[str], found: Iterable[Loss], new: bool) -> tuple[list[str], list[str]]:
    """What is answered for a port that is not there: refusals, where another one was probably meant, and notices.

    Args:
        known: ports, with their protocols, where somebody listens or that a rule keeps.
        found: what would be lost.
        new: whether ringfence is new on this host.
    """
    asked = list(dict.fromkeys(loss.listener.key for loss in found if loss.listener.key not in given.each))
    refusals, notices = [], []
    for key in given.each:
        if key in known:
            continue
        said = f"ufw_unmanaged_ports: {key}: nobody listens there, and no rule keeps it"
        near = [other for other in asked if _alike(key, other)] if new else []
        if near:
            refusals.append(f"{said} (did you mean {' or '.join(near)}?)")
        elif new or given.each[key] == "keep":  # what was closed once may be gone for good
            notices.append(f"{said}: it says nothing now")
    return refusals, notices


def _alike(one: str, other: str) -> bool:
    """Whether two ports are one slip of the hand apart: a digit, two of them in the wrong order, or the protocol."""
    (a, _, first), (b, _, second) = one.partition("/"), other.partition("/")
    if first != second:
        return a == b
    apart = [place for place, (left, right) in enumerate(zip(a, b, strict=False)) if left != right]
    swapped = len(apart) == 2 and sorted(a) == sorted(b) and apart[1] == apart[0] + 1
    return len(a) == len(b) > 2 and (len(apart) == 1 or swapped)


def let_in(rules: Iterable[Rule], listener: Listener) -> bool:
    """Whether some rule lets somebody in to a listener: then whoever wrote it has decided who that is."""
    proto, port = listener.proto, str(listener.port)
    if proto == RAW:
        proto, port = PROTOCOLS.get(listener.port, port), "any"
    return any(
        rule.opens
        and rule.match.direction == "in"
        and not rule.match.forward
        and rule.match.proto in ("any", proto)
        and (rule.match.dport == "any" if port == "any" else overlap(rule.match.dport, port))
        and (not listener.address or _inside(listener.address, rule.match.dst))
        for rule in rules
    )


def _inside(address: str, network: str) -> bool:
    """Whether an address is in a network; in that of everything, whatever its family."""
    return anywhere(network) or ipaddress.ip_address(address) in ipaddress.ip_network(network)


def served(one: Listener) -> bool:
    """Whether ufw's own rules let in all that a listener is there for."""
    return one.holder.startswith(tuple(f"{name} " for name in SERVED.get((one.proto, one.port), ())))


def let_in_beside(rules: Mapping[str, Iterable[str]], listener: Listener) -> str:
    """By which IP versions somebody's rules of iptables decide who reaches a listener.

    One for its port does by both, whomever it lets in; one for every port only by its own, and where it lets in whoever
    comes to the listener. What cannot be read decides nothing: then it is asked about.

    Args:
        rules: by IP version.
        listener: what answers.
    """
    protos = (
        {listener.proto, "all"} if listener.proto != RAW else {str(listener.port), PROTOCOLS.get(listener.port, "")}
    )
    found = ""
    for family, rule in ((family, rule) for family, own in rules.items() for rule in own):
        try:
            asked = dict(option.partition(" ")[::2] for option in options(rule))
        except ValueError:  # a quotation that does not end
            continue
        ports_ = asked.pop("--dport", "") or asked.pop("--dports", "")
        states = asked.pop("--ctstate", asked.pop("--state", "NEW"))
        if "!" in asked or asked.pop("-p", listener.proto if listener.proto != RAW else "all") not in protos:
            continue
        if "NEW" not in states.split(",") or {"--sport", "--sports"} & asked.keys():
            continue
        to = asked.pop("-d", "")
        if not _comes_to(listener, to) and (listener.address or not (ports_ or listener.proto == RAW)):
            continue
        if listener.proto == RAW or (ports_ and _among(listener.port, ports_)):
            return "46"
        # What comes by one interface is all that comes to whoever is bound to it.
        if not ports_ and asked.pop("-i", listener.device) == listener.device and asked.keys() == {"-j"}:
            found += family
    return found


def _comes_to(listener: Listener, network: str) -> bool:
    """Whether what goes to addresses of a network alone is all that comes to a listener."""
    try:
        return not network or bool(listener.address and _inside(listener.address, network))
    except (ValueError, TypeError):  # a name, or several
        return False


def _among(port: int, ports_: str) -> bool:
    try:
        return overlap(ports_, str(port))
    except ValueError:  # a name
        return False


def losses(
    around: Ground,
    final: Lists,
    open_: str = "46",
    fleeting: tuple[int, int] = (0, 0),
    beside: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[Loss]:
    """Who loses what once ufw denies: what processes answer, what containers ask of the host's own address, and what
    the host answers for a container whose network has no IPv6. What else comes to containers does not pass through ufw.

    Args:
        around: who answers.
        final: ufw's rules as they will be.
        open_: IP versions by which the host is open: by another one nobody loses anything.
        fleeting: first and last of the ports that the kernel hands out to who asks for any.
        beside: rules of iptables, not ufw's, that let in and stay, by IP version.
    """
    rules = [*final["4"], *final["6"]]
    found: dict[tuple[str, ...], Loss] = {}
    for one in around.processes:
        decided = let_in_beside(beside, one)
        families = "".join(family for family in one.families if family in open_ and family not in decided)
        if one.inward or not families or served(one) or let_in(rules, one):
            continue
        whom = f"whoever reaches {one.address or 'the host'}{'' if one.address else _by(families)}"
        who = f"{whom}, containers included"
        if one.proto != RAW and fleeting[0] <= one.port <= fleeting[1]:
            who += "; unless it is pinned, it has another port at its next start, and keeping this one is lost then"
        of = (one.key, one.address, one.device, one.holder)
        found.setdefault(of, Loss(one, who, {"any" if one.address else _sources(families): ""}))
    for one in around.through:
        if one.own or one.inward or let_in(rules, one) or not around.networks:
            continue
        who = f"containers of {', '.join(sorted(set(around.networks.values())))} that ask for it by the host's address"
        found.setdefault((one.key, "", "", one.holder), Loss(one, who, around.networks))
    for one in around.proxied:
        families = "".join(family for family in one.families if family in open_)
        if not families or let_in([rule for family in families for rule in final[family]], one):
            continue
        who = f"whoever reaches {one.address or 'the host'}{_by(families)}, where docker-proxy answers for it"
        before = found.get((one.key, "", "", one.holder))
        sources = {"any" if one.address else _sources(families): ""}
        if before:
            who, sources = f"{before.who}; {who}", {**before.sources, **sources}
        found[one.key, "", "", one.holder] = Loss(one, who, sources)
    return sorted(found.values(), key=lambda loss: (loss.listener.port, loss.listener.proto, loss.listener.address))


def _by(families: str) -> str:
    return "" if families == "46" else f" by IPv{families}"


def _sources(families: str) -> str:
    """Everybody, of these IP versions."""
    return "any" if families == "46" else ANY[families]


def shielded(containers: Iterable[Listener], rules: Iterable[Rule]) -> list[Loss]:
    """Ports that ufw-docker's block keeps from public addresses: without it they answer to everybody."""
    routes = [rule for rule in rules if rule.match.forward and rule.opens and anywhere(rule.match.src)]
    found: dict[tuple[str, str], Loss] = {}
    for one in containers:
        opened = any(
            rule.match.proto in ("any", one.proto) and overlap(rule.match.dport, str(one.inner or one.port))
            for rule in routes
        )
        if not (one.own or one.inward or opened):
            who = "kept from public addresses by ufw-docker's block; whoever removes that opens it to everybody"
            found.setdefault((one.key, one.holder), Loss(one, who, {}))
    return list(found.values())


def kept_entries(found: Iterable[Loss], rules: Lists, given: Answers, first: bool) -> list[dict[str, Any]]:
    """The rules that keep what was reachable for those who reached it.

    Args:
        found: what would be lost.
        rules: ufw's, as they are: what an earlier run kept stays kept while the answer is the same.
        first: whether ufw has yet to be put into force; afterwards only what is named by its port is kept anew.
    """
    entries = {}
    for name, group in kept_rules(rules).items():
        key, match = kept_key(group[0]), group[0].match
        if given.of(key) == "keep":
            source = "any" if len(group) > 1 and anywhere(match.src) else match.src
            entries[name] = _kept(name, key, source, match.dst, match.iface_in)
    for loss in found:
        one = loss.listener
        key, address = one.key, one.address
        if given.of(key) != "keep" or not (first or key in given.each) or not _in_ufws_words(key):
            continue
        for source, label in loss.sources.items():
            if source != "any" and address and _version(source) != _version(address):
                continue
            of = address
            # An address of a link alone is another one after the next start; whoever reaches it is on the link.
            if one.device and address and ipaddress.ip_address(address).is_link_local:
                of, address = f"link{_version(address)}", LINKS[_version(address)]
            parts = filter(None, [label, of, one.device])
            name = "-".join([f"{KEEPING}{one.port}", one.proto, *parts])
            if label:
                name += f"-{_version(source)}"
            if first or name not in entries:
                entries[name] = _kept(name, key, source, address or "any", one.device)
    return sorted(entries.values(), key=lambda entry: (entry["name"].split("-")[1].zfill(5), entry["name"]))


def kept_rules(rules: Lists) -> dict[str, list[Rule]]:
    """The rules that keep what was reachable, by name: one for each family."""
    found: dict[str, list[Rule]] = {}
    for rule in [*rules["4"], *rules["6"]]:
        if rule.comment.startswith(OWN + KEEPING) and not rule.match.forward:
            found.setdefault(rule.name, []).append(rule)
    return found


def kept_key(rule: Rule) -> str:
    """What a rule keeps, as it is written in ``ufw_unmanaged_ports``."""
    number = next((number for number, word in PROTOCOLS.items() if word == rule.match.proto), None)
    return f"{rule.match.dport}/{rule.match.proto}" if number is None else f"{number}/{RAW}"


def _in_ufws_words(key: str) -> bool:
    """Whether ufw has a word for the protocol of a port."""
    number, _, proto = key.partition("/")
    return proto != RAW or PROTOCOLS.get(int(number)) in PORTLESS


def _kept(name: str, key: str, source: str, destination: str, interface: str = "") -> dict[str, Any]:
    port, _, proto = key.partition("/")
    if proto == RAW:
        port, proto = "", PROTOCOLS[int(port)]
    ends = {"source": source, "destination": "any" if anywhere(destination) else destination}
    return {"name": name, "action": "allow", "proto": proto, "port": port, "interface": interface, **ends}


def _version(address: str) -> int:
    return ipaddress.ip_network(address, strict=False).version


def unkept_refusals(found: Iterable[Loss], given: Answers, first: bool) -> list[str]:
    """What is to be kept and cannot be said to ufw; once ufw is in force only what is named."""
    return [
        f"{loss.line}: ufw has no word for this protocol, so it cannot keep it. Write `-A ufw-before-input -p "
        f"{loss.listener.port} -j ACCEPT` into /etc/ufw/before.rules (before6.rules for IPv6) yourself, above its "
        f"COMMIT, with `ufw_foreign: keep`, and say `ufw_unmanaged_ports: {{{loss.listener.key}: close}}`"
        for loss in found
        if given.of(loss.listener.key) == "keep"
        and not _in_ufws_words(loss.listener.key)
        and (first or loss.listener.key in given.each)
    ]


def stale(rules: Lists, listeners: Collection[str], given: Answers) -> list[str]:
    """What is kept open although nobody listens there any more."""
    return [
        f"kept by the rule {OWN}{name}, and nobody listens there now: `ufw_unmanaged_ports: {{{key}: close}}` shuts it"
        for name, group in kept_rules(rules).items()
        if (key := kept_key(group[0])) not in listeners and given.of(key) == "keep"
    ]


def unanswered(found: Iterable[Loss], given: Answers) -> list[str]:
    """The refusal that lists what nobody has decided; none where everything is."""
    open_ = [loss for loss in found if given.of(loss.listener.key) not in ("keep", "close")]
    if not open_:
        return []
    example = open_[0].listener.key
    return [
        "ringfence is new on this host, and incoming connections are denied by default. Who loses what:\n"
        + "".join(f"  {loss.line}\n" for loss in open_)
        + "Declare what the host is to answer in ufw_rules, or say what becomes of it: "
        "`ufw_unmanaged: keep` (it stays open for who had it) or `ufw_unmanaged: close`, for all; "
        f"`ufw_unmanaged_ports: {{{example}: keep}}` for each."
    ]


def in_the_way(desired: Desired, processes: Iterable[Listener], containers: Iterable[Listener]) -> Iterator[str]:
    """Say which declared ports somebody else holds, with the holder and the fix."""
    foreign = [one for one in containers if not one.own]
    for port in desired.get("published") or []:
        address = str(port.get("address") or "")
        taken = [one for one in [*processes, *foreign] if same_port(one, port["proto"], address, int(port["port"]))]
        for one in list({one.holder: one for one in taken}.values())[:3]:
            yield (
                f"{port['port']}/{port['proto']}, which {port['name']} publishes, is held by {one.holder} on {one.on}: "
                f"{_way_out(one)}, or give {port['name']} another port (publish: published: …)"
            )


def _way_out(one: Listener) -> str:
    if one.container:  # one that is only stopped starts again with Docker, where its restart policy says so
        return f"end it (docker update --restart=no {one.container}; docker stop {one.container})"
    if one.holder.startswith("systemd-resolve"):
        return "have it leave the port (DNSStubListener=no in /etc/systemd/resolved.conf, and restart it)"
    return "stop it or move it to another port"
