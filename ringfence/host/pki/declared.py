"""What is declared: leaves, and why a declaration cannot be brought about."""

from __future__ import annotations

import ipaddress
import re
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ringfence.host.pki.certificates import USAGES, Address, Certificate, blocks, day, has_openssl, read_certificate
from ringfence.host.running import Fault

NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
LEAF = re.compile(r"[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?")
HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}")
RESERVED = ("root", "intermediate")  # as the metrics call them
MAKE_ONE = "make one with `python -m ringfence.pki DOMAIN`"
MISTRUST = "set the clock (timedatectl set-ntp true), then run again"


class Leaf(NamedTuple):
    """A certificate with its key, for one container.

    Attributes:
        owner: the user id that reads the key.
        reload: ``container``, and ``command`` or ``signal``; without either it is started anew.
    """

    name: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    owner: str
    usage: tuple[str, ...]
    reload: dict[str, Any]


def leaves(desired: dict[str, Any]) -> list[Leaf]:
    """Return the declared leaves, with what is not said."""
    return [
        Leaf(
            str(one["name"]),
            tuple(dict.fromkeys(one.get("names") or [])),
            tuple(dict.fromkeys(one.get("addresses") or [])),
            str(one.get("owner") or "0"),
            tuple(use for use in USAGES if use in (one.get("usage") or ["server"])),
            dict(one.get("reload") or {}),
        )
        for one in desired["leaves"]
    ]


def all_names(wanted: Sequence[Leaf]) -> list[str]:
    """Return every name of a host's leaves: what its intermediate may sign for."""
    return sorted({name for leaf in wanted for name in leaf.names})


def all_addresses(wanted: Sequence[Leaf]) -> list[str]:
    """Return every address of them."""
    return sorted({str(ipaddress.ip_address(address)) for leaf in wanted for address in leaf.addresses})


def refused(desired: dict[str, Any]) -> list[str]:
    """Say why the declaration cannot be brought about, each with the fix."""
    if not desired["leaves"]:
        return []
    found = list(_refused_leaves(desired))
    if not HOST.fullmatch(desired["host"]):
        found.append(f"pki_host: '{desired['host']}' is no name: letters, digits, dots and dashes, at most 40 of them")
    if not float(desired["leaf_hours"]) > 0 or not float(desired["intermediate_days"]) > 0:
        found.append("pki_leaf_hours, pki_intermediate_days: must be more than 0")
    return found + _refused_root(desired)


def _refused_leaves(desired: dict[str, Any]) -> Iterator[str]:
    domain, seen = desired["domain"], set[str]()
    for one in desired["leaves"]:
        where = f"pki_leaves.{one['name']}"
        if not LEAF.fullmatch(str(one["name"])) or one["name"] in RESERVED:
            yield f"{where}: letters, digits, - and _ make a name, at most 64; {' and '.join(RESERVED)} are taken"
        if one["name"] in seen:
            yield f"{where}: there are two of this name (rename one)"
        seen.add(one["name"])
        if not one.get("names"):
            yield f"{where}.names: empty; a certificate stands for at least one name below {domain}"
        for name in one.get("names") or []:
            if not NAME.fullmatch(name):
                yield f"{where}.names: '{name}' is no name in lower case; patterns (*) are not signed: name each one"
            elif not below(name, domain):
                yield (
                    f"{where}.names: '{name}' is outside of {domain}, for which alone the root signs "
                    f"(call it {name.split('.')[0]}.{domain}, or make a root for another domain and set pki_domain)"
                )
        for address in one.get("addresses") or []:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                yield f"{where}.addresses: '{address}' is no address (write it without a prefix length)"
        if not re.fullmatch(r"\d{1,9}", str(one.get("owner") or "0")):
            yield f"{where}.owner: '{one['owner']}' is no user id; write the number of the container's user"
        yield from _refused_reload(where, dict(one.get("reload") or {}))


def _refused_reload(where: str, reload: dict[str, Any]) -> Iterator[str]:
    if reload.get("command") and reload.get("signal"):
        yield f"{where}.reload: has a command and a signal (remove one of the two)"
    if (reload.get("command") or reload.get("signal")) and not reload.get("container"):
        yield f"{where}.reload: which container? (add container)"
    if reload.get("signal") and reload["signal"] not in signal.Signals.__members__:
        yield f"{where}.reload: {reload['signal']!r} is not a signal (write it as SIGHUP)"


def below(name: str, domain: str) -> bool:
    """Whether a name is a domain or in it."""
    return name == domain or name.endswith(f".{domain}")


def _refused_root(desired: dict[str, Any]) -> list[str]:
    if not blocks(desired["root"]):
        why = (
            "holds no certificate in PEM" if desired["root"].strip() else "is empty, and pki_leaves wants certificates"
        )
        return [f"pki_root: {why}: {MAKE_ONE}"]
    if not has_openssl():
        return []  # then everything is pending, and this is asked again
    try:
        root = read_certificate(blocks(desired["root"])[0])
    except Fault:
        return [f"pki_root: its first certificate cannot be read: {MAKE_ONE}"]
    if not root.authority:
        return [f"pki_root: its first certificate ({root.subject}) may not sign others: {MAKE_ONE}"]
    if root.until <= time.time():
        return [f"pki_root: it ended on {day(root.until)}, or this host's clock is wrong ({MISTRUST}): {MAKE_ONE}"]
    return list(_outside(desired, root))


def _outside(desired: dict[str, Any], root: Certificate) -> Iterator[str]:
    """What the root itself does not allow: its own word counts, whatever pki_domain says."""
    for leaf in desired["leaves"]:
        for name in leaf.get("names") or []:
            if root.permitted and not any(below(name, domain) for domain in root.permitted):
                yield (
                    f"pki_leaves.{leaf['name']}.names: '{name}' is outside of {', '.join(sorted(root.permitted))}, for "
                    f"which alone pki_root signs (rename it, or {MAKE_ONE})"
                )
        for address in leaf.get("addresses") or []:
            if root.networks and not _within(address, root.networks):
                yield (
                    f"pki_leaves.{leaf['name']}.addresses: '{address}' is outside of the networks for which pki_root "
                    f"signs: {', '.join(map(str, root.networks))} (use a name)"
                )


def _within(address: str, networks: Sequence[Address]) -> bool:
    try:
        return any(ipaddress.ip_address(address) in network for network in networks)
    except ValueError:
        return True  # named above
