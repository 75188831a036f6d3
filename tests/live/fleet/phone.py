"""A phone in a café: a network namespace of `outside`, behind NAT."""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple

from tests.live.labs import BIN, ROOT, Lab

# The café's network, and its NAT to the internet.
CAFE = """\
set -e
apt-get -q -y install --no-install-recommends wireguard-tools wireguard-go nftables 2>&1 >/dev/null
ip netns add phone
ip link add cafe type veth peer name wlan netns phone
ip address add 10.77.0.1/24 dev cafe; ip link set cafe up
ip -n phone address add 10.77.0.2/24 dev wlan; ip -n phone link set wlan up; ip -n phone link set lo up
ip -n phone route add default via 10.77.0.1
sysctl -q -w net.ipv4.ip_forward=1
nft add table ip cafe
nft 'add chain ip cafe nat { type nat hook postrouting priority 100; }'
nft 'add rule ip cafe nat ip saddr 10.77.0.0/24 oifname "eth1" masquerade'
"""
LEAVE = "ip netns pids phone | xargs -r kill; ip netns del phone; nft delete table ip cafe; ip link del cafe"
CONF = "/run/phone.conf"
# Connects, prints what it is told first, and then sends each fifth of a second, whatever becomes of it.
TICK = (
    "import socket, sys, time; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5);"
    " print(s.recv(99).decode().strip(), flush=True);"
    " s.settimeout(0.1)\nfor _ in range(int(sys.argv[3]) * 5):\n try: s.send(b'.')\n except TimeoutError: pass\n"
    " time.sleep(0.2)"
)
# A question for a name by UDP and by TCP; prints the address in the answer, or nothing.
ASK = (
    "import socket, struct, sys\n"
    "q = b'\\x12\\x34\\x01\\x00\\x00\\x01' + bytes(6) + b'\\x04name\\x04home\\x00\\x00\\x01\\x00\\x01'\n"
    "for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):\n s = socket.socket(socket.AF_INET, kind); s.settimeout(4)\n"
    " try:\n  s.connect((sys.argv[1], 53)); s.send(q if kind == socket.SOCK_DGRAM else struct.pack('!H', len(q)) + q)\n"
    "  print(socket.inet_ntoa(s.recv(999)[-4:]))\n except OSError: pass"
)

# A page of a site, by an address; prints the status of the answer.
PAGE = (
    "import socket, ssl, sys\n"
    "plain = socket.create_connection((sys.argv[2], 443), 5)\n"
    "s = ssl._create_unverified_context().wrap_socket(plain, server_hostname=sys.argv[1])\n"
    "lines = ['GET / HTTP/1.1', f'Host: {sys.argv[1]}', 'Accept: text/html', 'Connection: close', '', '']\n"
    "s.send('\\r\\n'.join(lines).encode())\n"
    "print(s.recv(99).split()[1].decode())"
)


class Way(NamedTuple):
    """What deploys/device.py says: the configuration, and the line for lab_devices with the key in it."""

    text: str
    line: str
    key: str


def way_in(lab: Lab, *data: str) -> Way:
    """Let deploys/device.py make the phone's way into the VPN."""
    words = [word for one in ("device=phone", *data) for word in ("--data", one)]
    command = [str(BIN / "pyinfra"), "--yes", *words, "inventory.py", "deploys/device.py"]
    said = subprocess.run(command, cwd=ROOT, env=lab.environment, capture_output=True, text=True, check=True).stdout
    text = said[said.index("[Interface]") : said.index("PersistentKeepalive")] + "PersistentKeepalive = 5\n"
    line = re.search(r'phone: (\{key: "(\S+)".*\})', said)
    assert line, said
    return Way(text, line[1], line[2])


class Phone:
    """A phone in a café, behind NAT."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def sh(self, command: str, text: str | None = None) -> str:
        """Run a command on it; "" where it fails."""
        return self.lab.sh(f"ip netns exec phone {command}", "outside", check=False, text=text)

    def up(self, text: str) -> None:
        """Bring the tunnel up."""
        # The namespace has no resolver of its own to be told.
        own = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("DNS"))
        self.lab.sh(
            f"install -m 600 /dev/stdin {CONF} && ip netns exec phone wg-quick up {CONF} 2>&1", "outside", text=own
        )

    def down(self) -> None:
        self.lab.sh(f"ip netns exec phone wg-quick down {CONF} 2>&1; rm -f {CONF}", "outside", check=False)

    def reaches(self, to: str, port: int) -> bool:
        """Whether it reaches a TCP port."""
        return "yes" in self.sh(f"timeout 4 bash -c 'exec 3<>/dev/tcp/{to}/{port} && echo yes' 2>/dev/null")

    def seen_by(self, to: str, port: int) -> str:
        """As whom somebody sees it that says so; "" where it does not get there."""
        return self.sh(f"timeout 4 bash -c 'exec 3<>/dev/tcp/{to}/{port} && head -n 1 <&3' 2>/dev/null").strip()

    def asks(self, server: str) -> list[str]:
        """The answers to a question for a name, by UDP and by TCP."""
        return self.sh(f"python3 - {server}", text=ASK).split()

    def visits(self, site: str, at: str) -> str:
        """The status of a site's answer."""
        return self.sh(f"python3 - {site} {at}", text=PAGE).strip()

    def ticks(self, to: str, port: int, seconds: int) -> None:
        """Open a connection and use it five times a second, in the background."""
        self.lab.sh(
            f"systemd-run --quiet --collect --unit=tick-{port}"
            f" ip netns exec phone python3 /run/tick.py {to} {port} {seconds}",
            "outside",
        )
