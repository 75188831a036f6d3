"""Which requests are sent to the sites, from where, and what they pretend. Pure; what is expected is `visited`'s."""

from __future__ import annotations

import ipaddress
import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from ringfence.verify.declared import ANY, Machine, Vantage, family
from ringfence.verify.expected import Rules, Source, Verdict
from ringfence.verify.sites import Rule, Site, Sites

CONNECT = 3.0  # seconds for a connection, and then for an answer: applications that were asleep take long
SECONDS = 15.0
LEAF = "ringfence-verify"  # no application should have anything by this name: what is asked for is read, if at all
NOBODY = "ringfence-verify"  # a person, and the first label of a host name, that nobody declares


@dataclass(frozen=True)
class Visit:
    """One request.

    Attributes:
        number: identity within the run.
        kind: ``rule`` (a site's path as it is), ``forged`` (pretends to be somebody or somewhere else), ``path``
            (another spelling of a path), ``plain`` (without TLS), ``stranger`` (a name that is not served, or not by
            that door).
        site: name of the site that it is about, "" for none.
        proxy: host that the proxy is on.
        rule: what the request comes under; None where no rule does.
        vantage, host, own: from where: place, host that the probe runs on, and its address.
        address, port, tls: where the proxy is asked.
        sni, named, path: name in the TLS handshake ("" for none), name in the request, its raw path.
        headers: what is sent besides.
        what: how it differs from an ordinary request, in words; "" if it does not.
        reach: whether the published port is open for the vantage: ``open``, ``closed`` or ``either``.
        reason: the declaration that says so.
    """

    number: int
    kind: str
    site: str
    proxy: str
    rule: Rule | None
    vantage: str
    host: str
    own: str
    address: str
    port: int
    tls: bool
    sni: str
    named: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    what: str = ""
    reach: str = "open"
    reason: str = ""

    @property
    def shown(self) -> str:
        """The name and path that are asked for, and how."""
        asked = f"{'' if self.tls else 'http://'}{self.named}{self.path}"
        return f"{asked} ({self.what})" if self.what else asked

    def request(self) -> str:
        """Return the head of the request, to the byte: nothing may tidy a path on its way."""
        named = f"[{self.named}]" if ":" in self.named else self.named
        lines = [
            f"GET {self.path} HTTP/1.1", f"Host: {named}", "User-Agent: ringfence-verify",
            # Without it the portal says 401, as it does to a program.
            "Accept: text/html", *(f"{name}: {value}" for name, value in self.headers), "Connection: close",
        ]  # fmt: skip
        return "\r\n".join([*lines, "", ""])


@dataclass(frozen=True)
class Plan:
    """All visits; ``problems``: differences known before anybody went; ``unvisited``: sites that nobody goes to."""

    visits: tuple[Visit, ...] = ()
    problems: tuple[str, ...] = ()
    unvisited: tuple[str, ...] = ()


def plan(sites: Sites, rules: Rules) -> Plan:
    """Lay out every visit: from each vantage by each family to each site, by the addresses that lead to its proxy."""
    found: list[Visit] = []
    problems = list(_problems(sites, rules))
    for proxy in dict.fromkeys((site.host, site.addresses) for site in sites.sites):
        machine = next((m for m in rules.declared.machines if m.name == proxy[0]), None)
        if machine is None or proxy[0] not in rules.seen:
            continue
        mine = [site for site in sites.sites if (site.host, site.addresses) == proxy]
        for vantage in rules.declared.vantages:
            # From the proxy's own host a request would not come by the published port.
            if vantage.host in rules.seen and vantage.host != proxy[0]:
                for address in proxy[1]:
                    found += _from(sites, mine, rules, machine, vantage, address)
    visited = {visit.site for visit in found}
    unvisited = tuple(site.name for site in sites.sites if site.name not in visited)
    return Plan(tuple(replace(visit, number=n) for n, visit in enumerate(found)), tuple(problems), unvisited)


def _problems(sites: Sites, rules: Rules) -> Iterator[str]:
    hosts = {machine.name for machine in rules.declared.machines}
    for site in sites.sites:
        if site.host not in hosts:
            yield f"{site.name}: its proxy's host {site.host} is not among verify_hosts, so nobody visited it"
        elif site.host not in rules.seen:
            yield f"{site.name}: its proxy's host {site.host} did not take part, so nobody visited it"
        for rule in site.rules:
            if path_of(site, rule) is None:
                yield (
                    f"{site.name}{rule.path}: the rules before it cover all of it, so it is never used "
                    "(put the more exact path first, or remove one)"
                )


def _from(
    sites: Sites, mine: list[Site], rules: Rules, machine: Machine, vantage: Vantage, address: str
) -> Iterator[Visit]:
    own = vantage.address6 if family(address) == 6 else vantage.address
    source = Source(vantage.name, vantage.host, vantage=vantage)
    if not own or not rules.leads(source, machine.name, address):
        return
    names = [site.name for site in mine]
    for number, site in enumerate(mine):
        base = Visit(-1, "rule", site.name, site.host, None, vantage.name, vantage.host, own, address,
                     site.port, True, site.name, site.name, "/")  # fmt: skip
        door = rules.to_host(source, machine, address, "tcp", site.port)
        base = replace(base, reach=door.expected, reason=door.reason)
        if door.expected == "closed":
            # Once is enough: that it is closed is the cells' to prove.
            yield replace(base, rule=site.rule_of("/"))
        else:
            yield from _https(site, base, names[(number + 1) % len(names)])
        yield from _plain(site, base, rules.to_host(source, machine, address, "tcp", site.plain_port))
    name = f"{NOBODY}.{_domain(sites)}"
    for port, tls in dict.fromkeys(one for site in mine for one in ((site.port, True), (site.plain_port, False))):
        door = rules.to_host(source, machine, address, "tcp", port)
        if door.expected != "closed":
            stranger = Visit(-1, "stranger", "", machine.name, None, vantage.name, vantage.host, own, address, port,
                             tls, "", address, "/", (), "the bare address", door.expected, door.reason)  # fmt: skip
            yield stranger
            yield replace(stranger, sni=name if tls else "", named=name, what="a name that is not served")


def _domain(sites: Sites) -> str:
    return (sites.portal or sites.sites[0].name).partition(".")[2]


def _plain(site: Site, base: Visit, door: Verdict) -> Iterator[Visit]:
    if door.expected != "closed":
        yield replace(
            base, kind="plain", port=site.plain_port, tls=False, sni="", reach=door.expected, reason=door.reason
        )


def _https(site: Site, base: Visit, other: str) -> Iterator[Visit]:
    """Yield a site's visits: every rule as it is, then what tries to slip past those that need a login."""
    if not site.rules:
        yield base
    for rule in site.rules:
        path = path_of(site, rule)
        if path is None:
            continue
        visit = replace(base, rule=rule, path=path)
        yield visit
        if ANY not in rule.networks and rule.factor != "closed":
            yield _elsewhere(rule, visit)
        if rule.login:
            yield from _forged(rule, visit)
        elif rule.bypass and rule.path:
            yield from _near(site, rule, path, base)
    other = other if other != site.name else f"{NOBODY}.{site.name.partition('.')[2]}"
    yield replace(base, kind="stranger", named=other, what=f"by the door of {site.name}")


def _elsewhere(rule: Rule, visit: Visit) -> Visit:
    """Say that it comes from where the rule allows it."""
    inside = _inside(rule, visit.own)
    names = ("X-Forwarded-For", "X-Real-IP", "X_Forwarded_For", "X.Forwarded.For")
    headers = tuple((name, inside) for name in names)
    return replace(visit, kind="forged", headers=headers, what=f"X-Forwarded-For: {inside}")


def _forged(rule: Rule, visit: Visit) -> Iterator[Visit]:
    """Yield requests that say they come from somebody who has signed in; then other spellings of the path."""
    groups = ",".join(rule.groups) or "admins"
    for what, headers in (
        (f"Remote-User: {NOBODY}", (("Remote-User", NOBODY), ("Remote-Groups", groups))),
        (f"remote_user, Remote.User: {NOBODY}", (("remote_user", NOBODY), ("Remote.User", NOBODY))),
    ):
        yield replace(visit, kind="forged", headers=headers, what=what)
    for path in dict.fromkeys((f"/{visit.path}", f"/{LEAF}/..{visit.path}", visit.path.upper())):
        if path != visit.path:
            yield replace(visit, kind="path", path=path, what="another spelling")


def _inside(rule: Rule, own: str) -> str:
    """An address that the rule allows, of the caller's family if there is one; not the caller's own if possible."""
    networks = [ipaddress.ip_network(network, strict=False) for network in rule.networks]
    networks.sort(key=lambda network: network.version != family(own))
    found = [str(one) for network in networks for one in (network[min(1, network.num_addresses - 1)], network[-1])]
    return next((address for address in found if address != own), next(iter(found), "127.0.0.1"))


def _near(site: Site, rule: Rule, path: str, base: Visit) -> Iterator[Visit]:
    """Yield paths that only look like one that needs no login, unless they need none themselves."""
    stem = rule.path.removesuffix("/*")
    tails: tuple[str, ...] = (f"/../{LEAF}", f"/%2e%2e/{LEAF}", f"-{LEAF}", f";/{LEAF}", f"%2f..%2f{LEAF}")
    if path == stem:  # of a prefix, what follows the slash is its own
        tails = (*tails, f"/{LEAF}")
    spelled = [path.upper()] if path.upper() != path else []
    for near in (*(f"{stem}{tail}" for tail in tails), *spelled):
        under = [site.rule_of(near), site.rule_of(posixpath.normpath(unquote(near).replace(";", "")))]
        strict = next((one for one in under if one is None or not one.bypass), rule)
        if strict is not rule:
            yield replace(base, kind="path", rule=strict, path=near, what=f"looks like {rule.path}")


def path_of(site: Site, rule: Rule) -> str | None:
    """Return a path that comes under a rule and no other, None where there is none."""
    stem = rule.path.removesuffix("/*")
    wanted = [rule.path] if stem == rule.path else [f"{stem}/{LEAF}", f"{stem}/"]
    wanted = wanted if rule.path else ["/", f"/{LEAF}"]
    return next((path for path in wanted if site.rule_of(path) is rule), None)


def request(plan: Plan, root: str, host: str) -> dict[str, Any]:
    """Return what `remote.visiting.visit` reads on a host that vantages are on."""
    return {
        "root": root,
        "connect": CONNECT,
        "seconds": SECONDS,
        "visits": [
            {
                "number": v.number, "own": v.own, "address": v.address, "port": v.port, "tls": v.tls, "sni": v.sni,
                # A stranger's certificate is not looked at: whether anything answers is what is asked.
                "trust": v.kind != "stranger", "must": v.reach == "open", "request": v.request(),
            }
            for v in _at(plan.visits, host)
        ],
    }  # fmt: skip


def _at(visits: Iterable[Visit], host: str) -> list[Visit]:
    return [visit for visit in visits if visit.host == host]
