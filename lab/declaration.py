"""What the inventory of an instance with further hosts says about hosts: the demo's own files say it for one."""

from __future__ import annotations

from typing import Any

from lab.plan import DEMO, OUTSIDE, Instance

SSH_PORT = 22
# The house, as hosts see it that are on the wan alone: there this machine is its router.
HOME = "home"


def hosts(instance: Instance) -> dict[str, Any]:
    """The inventory's hosts and groups, for `hosts.yml`."""
    reached = {name: {"ansible_host": instance.address(name)} for name in instance.names}
    vantages = {OUTSIDE.name: reached.pop(OUTSIDE.name)}
    groups = {"docker_hosts": {"hosts": reached}, "vantages": {"hosts": vantages}}
    return {"all": {"children": {DEMO: {"children": groups}}}}


def variables(instance: Instance) -> dict[str, Any]:
    """`lab_hosts` with all hosts; and, where some are on the wan alone, what connects them.

    The first of those is the hub of a VPN; the others are a house behind NAT, in `lab_places` as the hub sees it.
    """
    declared: dict[str, Any] = {}
    for host in instance.hosts:
        if host != OUTSIDE:
            sides = [side for side in (instance.lan, instance.wan) if host.name in side.numbers]
            ways = ["lan", "vpn"] if "lan" in host.numbers else [HOME, "vpn"]
            declared[host.name] = {
                "addresses": [address for side in sides for address in side.addresses(host.name)],
                "services": {"ssh": {"port": SSH_PORT, "from": ways}},
            }
    if not instance.supply.numbers:
        return {"lab_hosts": declared}
    rented = [host.name for host in instance.further if "lan" not in host.numbers]
    for name, host in declared.items():
        if name not in rented:
            host["vpn"] = {"nat": True}
    lengths = {4: 32, 6: 128}
    home = [
        f"{address}/{lengths[subnet.version]}"
        for address, subnet in zip(instance.wan.gateways, instance.wan.subnets, strict=True)
    ]
    lan = [str(subnet) for subnet in instance.lan.subnets]
    return {
        "lab_hosts": declared,
        "lab_places": {"lan": lan, HOME: home},
        "lab_vpn": {"hub": rented[0], "mesh": True, "secret": "{{ vault_lab_vpn }}"},
    }
