"""What somebody loses when ufw denies for the first time, and what is in the way of what is declared."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ringfence.host.listening import Listener, same_port
from ringfence.host.program import Desired
from ringfence.host.ufw.rules import OWN, Lists, Rule, anywhere, overlap

KEEPING = "kept-"  # names of the rules that keep what was reachable
# What ufw's own before.rules let in: answers of DHCP servers, mDNS.
LET_IN = {("udp", 68), ("udp", 546), ("udp", 5353)}


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
        return f"{self.listener.key} on {self.listener.on}, {self.listener.holder}: {self.who}"


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
        if not port.isdecimal() or proto not in ("tcp", "udp"):
            found.append(f"ufw_unmanaged_ports: {key!r} is no port with its protocol (write it as 8123/tcp)")
        if value not in ("keep", "close"):
            found.append(f"ufw_unmanaged_ports: {key}: {value!r} says nothing (write keep or close)")
    return found


def let_in(rules: Iterable[Rule], listener: Listener) -> bool:
    """Whether some rule lets somebody in to a listener: then whoever wrote it has decided who that is."""
    return any(
        rule.opens
        and rule.match.direction == "in"
        and not rule.match.forward
        and rule.match.proto in ("any", listener.proto)
        and overlap(rule.match.dport, str(listener.port))
        and (anywhere(rule.match.dst) or not listener.address or rule.match.dst == listener.address)
        for rule in rules
    )


def losses(
    listeners: Iterable[Listener], containers: Iterable[Listener], networks: dict[str, str], final: Lists
) -> list[Loss]:
    """Who loses what once ufw denies: what processes answer, and what containers ask of the host's own address.

    Args:
        listeners: ports that processes hold.
        containers: ports that containers publish and that the host answers for them where another container asks:
            what comes from outside does not pass through ufw.
        networks: networks of containers that ringfence did not make: {subnet: name}.
        final: ufw's rules as they will be.
    """
    rules = [*final["4"], *final["6"]]
    found: dict[tuple[str, str, str], Loss] = {}
    for one in listeners:
        if one.inward or (one.proto, one.port) in LET_IN or let_in(rules, one):
            continue
        whom = "whoever reaches the host" if not one.address else f"whoever reaches {one.address}"
        found.setdefault((one.key, one.address, one.holder), Loss(one, f"{whom}, containers included", {"any": ""}))
    for one in containers:
        if one.own or one.inward or let_in(rules, one) or not networks:
            continue
        who = f"containers of {', '.join(sorted(set(networks.values())))} that ask for it by the host's address"
        found.setdefault((one.key, "", one.holder), Loss(one, who, networks))
    return sorted(found.values(), key=lambda loss: (loss.listener.port, loss.listener.proto, loss.listener.address))


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
    entries: dict[str, dict[str, Any]] = {}
    for family in ("4", "6"):
        for rule in rules[family]:
            key = f"{rule.match.dport}/{rule.match.proto}"
            if rule.comment.startswith(OWN + KEEPING) and given.of(key) == "keep":
                entries.setdefault(rule.name, _kept(rule.name, key, rule.match.src, rule.match.dst))
    for loss in found:
        key, address = loss.listener.key, loss.listener.address
        if given.of(key) != "keep" or not (first or key in given.each):
            continue
        for source, label in loss.sources.items():
            if source != "any" and address and _version(source) != _version(address):
                continue
            name = "-".join([f"{KEEPING}{loss.listener.port}", loss.listener.proto, *filter(None, [label, address])])
            if label:
                name += f"-{_version(source)}"
            entries.setdefault(name, _kept(name, key, source, address or "any"))
    return list(entries.values())


def _kept(name: str, key: str, source: str, destination: str) -> dict[str, Any]:
    port, _, proto = key.partition("/")
    ends = {"source": source, "destination": destination}
    ends = {end: "any" if anywhere(address) else address for end, address in ends.items()}
    return {"name": name, "action": "allow", "proto": proto, "port": port, **ends}


def _version(address: str) -> int:
    return ipaddress.ip_network(address, strict=False).version


def unanswered(found: Iterable[Loss], given: Answers, host: str) -> list[str]:
    """The refusal that lists what nobody has decided; none where everything is."""
    open_ = [loss for loss in found if given.of(loss.listener.key) not in ("keep", "close")]
    if not open_:
        return []
    example = open_[0].listener.key
    return [
        "ringfence is new on this host, and incoming connections are denied by default. Who loses what:\n"
        + "".join(f"  {loss.line}\n" for loss in open_)
        + f"Declare what the host is to answer in lab_hosts.{host}.services, or say what becomes of it: "
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
