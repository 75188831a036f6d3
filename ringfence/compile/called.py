"""What the user calls the role variables that follow from the lab: programs on the hosts know only these."""

from __future__ import annotations

from ringfence.compile.plan import Plan
from ringfence.model.identity import PORTAL, PROXY

# Host variable, no role's: whoever shows a program's messages replaces the names in them.
VARIABLE = "ringfence_called"


def names(plan: Plan, host: str) -> dict[str, str]:
    """Return role variable, or an entry of one, → what declares it in the lab."""
    found = {
        "base_ssh_port": f"lab_hosts.{host}.services.ssh.port",
        "guard_ports": f"lab_hosts.{host}.services.ssh.port",
        "pki_domain": "lab_domain",
        "pki_leaves": "lab_services",
        f"pki_leaves.{PORTAL}": "lab_portal",
        f"pki_leaves.{PROXY}": "lab_proxy",
        "pki_root": "lab_ca.certificate",
        "policy_places": "lab_places",
        "policy_segments": "lab_segments",
        "segments_networks": "lab_segments",
        "ufw_rules": f"lab_hosts.{host}.services",
        "wireguard_addresses": "lab_vpn.network",
        "wireguard_peers": "lab_hosts",
        "wireguard_port": "lab_vpn.port",
    }
    return found | {f"wireguard_peers.{name}": f"lab_devices.{name}" for name in plan.lab.devices}
