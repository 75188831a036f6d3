"""A real tailnet for a throwaway lab: headscale, a host's tailscaled, and a laptop's behind NAT."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.live.labs import Lab, waited_for

PROGRAMS = ("headscale", "tailscaled")
NETNS = "ip netns exec laptop"
# The machine in a café, and the control server: both are played by `outside`. The café's router gives each connection a
# port that nobody can tell beforehand: the host does not find the laptop, so the laptop has to find the host.
CAFE = """\
set -e
ip netns add laptop
ip link add cafe type veth peer name wlan netns laptop
ip address add 10.77.0.1/24 dev cafe; ip link set cafe up
ip -n laptop address add 10.77.0.2/24 dev wlan; ip -n laptop link set wlan up; ip -n laptop link set lo up
ip -n laptop route add default via 10.77.0.1
sysctl -q -w net.ipv4.ip_forward=1
nft add table ip cafe
nft 'add chain ip cafe nat { type nat hook postrouting priority 100; }'
nft 'add rule ip cafe nat ip saddr 10.77.0.0/24 oifname "eth0" masquerade fully-random'
"""


class Tailnet:
    """What is done by hand on the machines of a tailnet."""

    def __init__(self, lab: Lab, programs: Path) -> None:
        self.lab = lab
        self.server = f"http://{lab.address('outside')}:8080"
        for host in ("atlas", "outside"):
            folder = lab.root(host) / "usr/local/bin"
            for name in PROGRAMS:
                shutil.copy(programs / name, folder / name)
            (folder / "tailscale").symlink_to("tailscaled")

    def found(self) -> None:
        """Start the control server on `outside`."""
        lab, home = self.lab, "/var/lib/headscale"
        lab.sh("apt-get -q -y install --no-install-recommends nftables 2>&1 >/dev/null", "outside", timeout=300)
        lab.sh(CAFE, "outside")
        settings = {
            "server_url": self.server,
            "listen_addr": "0.0.0.0:8080",
            "metrics_listen_addr": "127.0.0.1:9090",
            "grpc_listen_addr": "127.0.0.1:50443",
            "unix_socket": "/run/headscale.sock",
            "noise": {"private_key_path": f"{home}/noise.key"},
            "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48"},
            "database": {"type": "sqlite", "sqlite": {"path": f"{home}/db.sqlite"}},
            "derp": {
                "urls": [],
                "auto_update_enabled": False,
                "server": {
                    "enabled": True,
                    "region_id": 999,
                    "region_code": "lab",
                    "region_name": "lab",
                    "stun_listen_addr": "0.0.0.0:3478",
                    "private_key_path": f"{home}/derp.key",
                    "automatically_add_embedded_derp_region": True,
                    "ipv4": lab.address("outside"),
                },
            },
            "dns": {"magic_dns": False, "override_local_dns": False, "base_domain": "tailnet.home"},
            "disable_check_updates": True,
        }
        written = f"mkdir -p {home} /etc/headscale && cat > /etc/headscale/config.yaml"
        lab.sh(written, "outside", text=yaml.safe_dump(settings))
        self._unit("headscale", "headscale serve", "outside")
        assert waited_for(lambda: "lab" in self.control("users list"), 60, 1), lab.sh(
            "journalctl -u headscale", "outside"
        )

    def control(self, words: str) -> str:
        """Run a command of headscale; it makes the first user along with the first question."""
        self.lab.sh("headscale users create lab >/dev/null 2>&1", "outside", check=False)
        return self.lab.sh(f"headscale {words} 2>&1", "outside", check=False)

    def start(self, host: str, inside: str = "", *, firewall: str = "", flags: str = "") -> None:
        """Start tailscaled on a host, or in the network namespace of the laptop.

        Args:
            firewall: what it is to write its rules with, where that is not its own choice.
            flags: further ones.
        """
        name = "laptop" if inside else host
        mode = f"TS_DEBUG_FIREWALL_MODE={firewall} " if firewall else ""
        self.lab.sh(f"systemctl stop tailscaled-{name} 2>/dev/null", host, check=False)
        state = f"--statedir=/var/lib/tailscale-{name} --socket={self._socket(name)}"
        self._unit(f"tailscaled-{name}", f"env {mode}{inside} tailscaled {state} --port=41641 {flags}", host)
        assert waited_for(lambda: self.lab.sh(f"test -S {self._socket(name)} && echo yes", host, check=False), 60, 1)

    def join(self, name: str, *flags: str) -> list[str]:
        """Have a machine log in with a key made for it; returns its addresses in the tailnet."""
        key = json.loads(self.control("preauthkeys create --user 1 --expiration 1h --output json"))["key"]
        words = f"--login-server={self.server} --auth-key=file:/dev/stdin --accept-dns=false --hostname={name}"
        self.tailscale(name, f"up {words} --timeout=90s {' '.join(flags)}", text=key)
        return self.tailscale(name, "ip").split()

    def tailscale(self, name: str, words: str, **more: Any) -> str:
        """Run the command `tailscale` of a machine."""
        host = "outside" if name == "laptop" else name
        return self.lab.sh(f"tailscale --socket={self._socket(name)} {words} 2>&1", host, timeout=120, **more)

    def reaches(self, to: str, port: int, source: str = "") -> bool:
        """Whether the laptop opens a connection; ``source``: from outside, in the name of that address."""
        bind = f"s.bind(('{source}', 0)); " if source else ""
        family = "AF_INET6" if ":" in to else "AF_INET"
        ask = f"import socket; s = socket.socket(socket.{family}); s.settimeout(4); {bind}s.connect(('{to}', {port}))"
        where = "" if source else NETNS
        said = self.lab.sh(f'{where} python3 -c "{ask}" 2>&1 && echo connected', "outside", check=False)
        assert "connected" in said or "timed out" in said or "refused" in said or "unreachable" in said, said
        return "connected" in said

    def _socket(self, name: str) -> str:
        return f"/run/tailscaled-{name}.sock"

    def _unit(self, name: str, command: str, host: str) -> None:
        env = "--setenv=TS_NO_LOGS_NO_SUPPORT=true --setenv=PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self.lab.sh(f"systemd-run --quiet --unit={name} {env} sh -c 'exec {command}'", host)
