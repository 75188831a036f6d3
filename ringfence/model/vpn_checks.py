"""Checks of the VPN: who is in it, how they reach each other, and what its networks must leave alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from ringfence.model.identity import Device
from ringfence.model.lab import Lab
from ringfence.model.problems import Problem, did_you_mean, listed
from ringfence.model.read import Draft
from ringfence.model.tailnet import Tailnet
from ringfence.model.values import Network
from ringfence.model.vpn import VPN, Vpn

LARGEST, SMALLEST = 16, 28
WIREGUARDS = "wg-ringfence"  # own WireGuard's interface


def _hub(draft: Draft) -> Iterator[Problem]:
    lab, vpn = draft.lab, draft.lab.vpn
    if vpn is None:
        return
    hosts = draft.names["hosts"]
    if vpn.hub not in hosts:
        fix = did_you_mean(vpn.hub, hosts, f"declared in lab_hosts: {listed(hosts)}")
        yield Problem("lab_vpn.hub", f"'{vpn.hub}' is not a host ({fix})")
    elif vpn.hub in lab.hosts and lab.hosts[vpn.hub].vpn.nat:
        yield Problem(
            f"lab_hosts.{vpn.hub}.vpn.nat",
            f"'{vpn.hub}' is the hub, which all others call (forward UDP port {vpn.port} to it and write its endpoint "
            "instead, or take another hub)",
        )


def _place(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    if (lab.vpn or lab.tailnet) and VPN in lab.places:
        yield Problem(f"lab_places.{VPN}", f"'{VPN}' is the place that lab_vpn makes (remove it here)")
    for owner, network in _given(lab.vpn or lab.tailnet):
        for name, other in _taken(lab):
            if other.version == network.version and other.overlaps(network):
                yield Problem(owner, f"'{network}' overlaps {name}, {other} (choose another)")


def _networks(draft: Draft) -> Iterator[Problem]:
    lab, vpn = draft.lab, draft.lab.vpn
    if vpn is None:
        return
    if not vpn.network.is_private:
        yield Problem("lab_vpn.network", f"'{vpn.network}' is public (take a part of 10.0.0.0/8, such as 10.99.0.0/24)")
    if not LARGEST <= vpn.network.prefixlen <= SMALLEST:
        yield Problem("lab_vpn.network", f"'{vpn.network}' has the wrong size (write one from /16 to /28, usually /24)")
    elif vpn.network.num_addresses - 2 < len(lab.hosts) + len(_peers(lab)):
        yield Problem("lab_vpn.network", f"'{vpn.network}' has too few addresses (take a larger one, such as a /24)")
    if vpn.network6 and (vpn.network6.prefixlen != 64 or not vpn.network6.is_private):
        yield Problem("lab_vpn.network6", f"'{vpn.network6}' is no local /64 (leave it out to get one of lab_ula)")


def _tailnet(draft: Draft) -> Iterator[Problem]:
    lab, tailnet = draft.lab, draft.lab.tailnet
    if tailnet is None:
        return
    for owner, network in _given(tailnet):
        if network.is_global:
            yield Problem(owner, f"'{network}' is public (write the tailnet's own, as `tailscale status` shows it)")
    if tailnet.interface == WIREGUARDS or tailnet.interface.startswith("rf-"):
        yield Problem(
            "lab_vpn.interface",
            f"'{tailnet.interface}' is an interface of ringfence's own (write tailscaled's, usually tailscale0)",
        )
    for name, host in lab.hosts.items():
        if host.vpn.model_fields_set:
            yield Problem(
                f"lab_hosts.{name}.vpn",
                f"'{name}' is in a tailnet, which finds its machines by itself (remove it, or write kind: wireguard)",
            )


def _given(vpn: Vpn | Tailnet | None) -> Iterator[tuple[str, Network]]:
    if vpn:
        yield "lab_vpn.network", vpn.network
    if vpn and vpn.network6:
        yield "lab_vpn.network6", vpn.network6


def _taken(lab: Lab) -> Iterator[tuple[str, Network]]:
    for name, networks in lab.places.items():
        if name != VPN:
            yield from ((f"the place '{name}'", network) for network in networks if network.prefixlen)
    for name, segment in lab.segments.items():
        yield from ((f"the segment '{name}'", network) for network in segment.subnet.values())


def _peers(lab: Lab) -> list[str]:
    return [name for name, device in lab.devices.items() if device.key]


def _devices(draft: Draft) -> Iterator[Problem]:
    lab = draft.lab
    keys: dict[str, str] = {}
    for name, device in lab.devices.items():
        owner = f"lab_devices.{name}"
        if not device.addresses and not device.key:
            yield Problem(
                owner, f"'{name}' has neither addresses nor a key (give it one of them; deploys/device.py makes a key)"
            )
        if device.key and lab.tailnet:
            yield Problem(
                f"{owner}.key",
                f"'{name}' is in a tailnet, which has keys of its own (remove it, and write its addresses as "
                "`tailscale status` shows them: addresses: [100.64.0.7])",
            )
        elif device.key and not draft.connected:
            yield Problem(f"{owner}.key", f"'{name}' has no VPN to be in (declare lab_vpn, or remove the key)")
        if device.key:
            other = keys.setdefault(device.key, name)
            if other != name:
                yield Problem(f"{owner}.key", f"'{name}' has the key of '{other}' (each device makes its own)")
        yield from _tunnel(draft, name, device)
        if lab.vpn and name in draft.names["hosts"]:
            yield Problem(owner, f"'{name}' is a host as well (rename one: both are in the VPN)")


def _tunnel(draft: Draft, name: str, device: Device) -> Iterator[Problem]:
    owner = f"lab_devices.{name}.tunnel"
    if "tunnel" in device.model_fields_set and not draft.connected:
        yield Problem(owner, f"'{name}' has no VPN to have a tunnel in (declare lab_vpn, or remove tunnel)")
    elif "tunnel" in device.model_fields_set and not device.key:
        yield Problem(
            owner, f"'{name}' has no key, and so no place in the VPN (deploys/device.py makes one, or remove tunnel)"
        )
    if device.tunnel == "full" and draft.lab.vpn and not draft.lab.vpn.dns:
        yield Problem(
            owner,
            f"'{name}' sends everything through the VPN, and has nobody to ask for names there (declare "
            "lab_vpn.dns, such as your router)",
        )


VPN_CHECKS: tuple[Callable[[Draft], Iterable[Problem]], ...] = (_hub, _place, _networks, _tailnet, _devices)
