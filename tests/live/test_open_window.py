"""No moment of an apply leaves a denied port open: it is hammered on both families while the firewall changes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.live.conftest import fresh, in_turn
from tests.live.labs import Lab
from tests.programs import ROLES, path_of

PORT, DECLARED = 3306, 8000
ENOUGH = 50  # attempts
LISTENER = (
    "import socket; s = socket.create_server(('::', 3306), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)\n"
    "while True: s.accept()[0].close()\n"
)
BREAK = "sed -i 's/^-A ufw-user-input -p tcp --dport 8000 -j ACCEPT/-A ufw-user-input --nonsense/' /etc/ufw/user.rules"


class Hammer:
    """Connects to a port again and again, from the LAN; to the denied one unless another is named."""

    def __init__(self, addresses: list[str], port: int = PORT) -> None:
        self.addresses, self.port = addresses, port
        self.tried = self.open = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Hammer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            for address in self.addresses:
                with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
                    client.settimeout(0.02 if self.port == PORT else 2)
                    self.tried += 1
                    self.open += client.connect_ex((address, self.port)) == 0


class Host:
    """A lab host with the programs of `guard` and `ufw`, and the desired state."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        prefix, _, _ = lab.address().rpartition(".")
        slot = prefix.rpartition(".")[2]
        self.addresses = [lab.address(), f"fd52:4600:{slot}::10"]
        denied = yaml.safe_load((ROLES / "ufw/defaults/main.yml").read_text())["ufw_denied_ports"]
        rules = [
            {"name": "ssh", "action": "allow", "proto": "tcp", "port": "22", "source": f"{prefix}.0/24"},
            {"name": "web", "action": "allow", "proto": "tcp", "port": "8000", "source": "any"},
        ]
        self.desired = {"rules": rules, "denied_ports": denied, "foreign": "stop", "logging": "low", "force": False}
        self.desired["unmanaged"] = "close"  # what listens beside the declared port is meant to be shut

    def ask(self, verb: str, desired: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(desired)
        return dict(json.loads(self.lab.sh(f"ringfence-ufw {verb} <<'END'\n{text}\nEND", timeout=120)))


# By Debian's release: their ufw and iptables differ.
HOSTS = {"trixie": ("t-window", "none"), "bookworm": ("t-window-12", "20.10")}


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    for lab in fresh(*HOSTS[request.param]):
        for role in ("guard", "ufw"):
            text = path_of(role).read_text(encoding="utf-8")
            path = f"/usr/local/sbin/ringfence-{role}"
            lab.sh(f"cat > {path} && chmod 755 {path}", text=text)  # a command has room for 128 KiB
        lab.sh(
            "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update; "
            "apt-get -qq -y install --no-install-recommends ufw iptables >/dev/null 2>&1",
            timeout=300,
        )
        lab.sh(f'systemd-run --quiet --unit=listener python3 -c "{LISTENER}"')
        lab.listen(DECLARED)
        found = Host(lab)
        found.ask("apply", found.desired)
        yield found


# What somebody types, and what stops and starts ufw besides.
BY_HAND = {
    "ufw reload": "ufw reload",
    "ufw disable and enable": "ufw disable && ufw --force enable",
    "its unit restarted": "systemctl restart ufw",
    "what its unit runs": "/lib/ufw/ufw-init force-reload",
    "a rule for IPv6 that does not load": (
        "cp -p /etc/ufw/user6.rules /root; echo nonsense >> /etc/ufw/user6.rules; ufw reload;"
        " mv /root/user6.rules /etc/ufw; ufw --force enable"
    ),
}


# A reload on both; what else stops ufw goes through the same.
@pytest.mark.parametrize("typed", ["ufw reload", *in_turn(list(BY_HAND)[1:], reversed(HOSTS))])
def test_ufw_that_is_stopped_by_hand_opens_nothing_and_closes_nothing(host: Host, typed: str) -> None:
    with Hammer(host.addresses) as denied, Hammer(host.addresses, DECLARED) as declared:
        # Again, until enough attempts fall into moments that are short.
        for times in range(12):
            if times < 2 or min(denied.tried, declared.tried) <= ENOUGH:
                host.lab.sh(BY_HAND[typed])
    print(f"{typed}: {denied.open} of {denied.tried} arrived, {declared.open} of {declared.tried} were answered")
    assert denied.tried > ENOUGH
    assert denied.open == 0
    if "not load" not in typed:
        assert declared.open == declared.tried > ENOUGH
    assert host.ask("check", host.desired)["changes"] == []


def test_what_was_open_stays_open_and_nothing_else_while_ufw_is_disabled(host: Host) -> None:
    host.lab.sh("ufw disable")
    with Hammer(host.addresses) as denied, Hammer(host.addresses, DECLARED) as declared:
        host.lab.sh("sleep 2; timeout 5 python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 3306))'")
    assert (denied.open, declared.open) == (0, declared.tried)
    assert any(line.startswith("- ufw-h-") for line in host.ask("check", host.desired)["changes"])
    host.ask("apply", host.desired)
    assert "ufw-h-" not in host.lab.sh("iptables-save; ip6tables-save")


def test_the_hammer_sees_what_a_reload_without_the_hook_opens(host: Host) -> None:
    host.lab.sh("chmod -x /etc/ufw/before.init")
    with Hammer(host.addresses) as hammer:
        host.lab.sh("ufw reload")
    assert hammer.open > 0, "the measurement is blind: ufw reload does open the host"
    host.ask("apply", host.desired)


def test_a_hold_that_cannot_be_put_does_not_keep_ufw_from_working(host: Host) -> None:
    program = "/usr/local/sbin/ringfence-ufw"
    host.lab.sh(
        f"mv {program} /root/; ufw reload; ufw disable; ufw --force enable; code=$?; mv /root/ringfence-ufw {program};"
        " exit $code"
    )
    assert host.ask("check", host.desired)["changes"] == []


DAMAGES = (
    "true",
    "sed -i 's/^IPV6=.*/IPV6=no/' /etc/default/ufw",
    "sed -i 's/^DEFAULT_INPUT_POLICY=.*/DEFAULT_INPUT_POLICY=\"ACCEPT\"/' /etc/default/ufw",
    "sed -i 's/^ENABLED=.*/ENABLED=no/' /etc/ufw/ufw.conf",
    BREAK,
    "iptables -D INPUT -j ufw-after-input; ip6tables -D ufw6-user-input 1",
    "iptables -F ufw-before-forward",
    "ufw logging medium",
    ": > /etc/ufw/user6.rules",
)


@pytest.mark.parametrize("damage", in_turn(DAMAGES, HOSTS))
def test_repair_and_change_open_nothing(host: Host, damage: str) -> None:
    host.lab.sh(damage)
    extra = {"name": "extra", "action": "allow", "proto": "tcp", "port": "1234", "source": "any"}
    changed = {**host.desired, "rules": [extra, *reversed(host.desired["rules"])]}
    with Hammer(host.addresses) as hammer:
        host.ask("apply", changed)
        assert host.ask("check", changed)["changes"] == []
        host.ask("apply", host.desired)
    assert host.ask("check", host.desired) == {"changes": [], "refusals": [], "notices": []}
    assert hammer.tried > 50
    assert hammer.open == 0


def test_a_rules_file_that_broke_a_reload_is_repaired(host: Host) -> None:
    # Locks SSH out as well, which is why everything happens in one command.
    text = json.dumps(host.desired)
    host.lab.sh(f"{BREAK}; ufw reload; ringfence-ufw apply <<'END'\n{text}\nEND", timeout=120)
    assert host.ask("check", host.desired)["changes"] == []
    assert "Status: active" in host.lab.sh("ufw status")


SIGNS = ("cat /etc/ufw/user.rules", "cat /etc/ufw/ufw.conf", "iptables -S INPUT")


@pytest.mark.parametrize("sign", in_turn(SIGNS, HOSTS))
def test_an_apply_that_is_killed_is_finished_by_the_next(host: Host, sign: str) -> None:
    host.lab.sh("ufw --force reset >/dev/null; rm -f /etc/ufw/*.rules.2*")
    text = json.dumps(host.desired)
    host.lab.watch("ufw", sign)
    host.lab.sh(
        f"cat > /run/desired.json <<'END'\n{text}\nEND\n"
        "systemd-run --quiet --collect --unit=apply sh -c '/usr/local/sbin/ringfence-ufw apply < /run/desired.json'"
    )
    is_over = "systemctl is-active --quiet apply || echo over"
    host.lab.kill(host.lab.catch("ufw", lambda: "over" in host.lab.sh(is_over)))
    # A ufw that was under way ends by itself.
    host.lab.sh("timeout 20 sh -c 'while pgrep -f [/]usr/sbin/ufw >/dev/null; do sleep 0.1; done'")
    host.ask("apply", host.desired)
    assert host.ask("check", host.desired)["changes"] == []
    assert "ufw-h-" not in host.lab.sh("iptables-save; ip6tables-save")
