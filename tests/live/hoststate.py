"""What of a host a change of firewall or sshd can touch, and the ways by which a controller comes to it."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import yaml

from ringfence.host.tables import parse_policies, parse_save
from tests.live.labs import Lab

FILES = "/etc/ufw /etc/default/ufw /etc/ssh /etc/ringfence"
LISTING = (
    f"find {FILES} -printf '%y %m %U:%G %p -> %l\\n' | sort; find {FILES} -type f -exec sha256sum {{}} + | sort;"
    " sshd -T | sort"
)
TABLES = "nft list tables | grep ' ringfence$' | sort | while read table; do nft --stateless list $table; done"
OURS = re.compile(r"RF-|ufw")


def state_of(lab: Lab) -> dict[str, Any]:
    """Return the files (their sums, owners, modes), what sshd makes of them, and our part of the live rules."""
    state: dict[str, Any] = {
        "files": lab.sh(LISTING).splitlines(),
        "nftables": lab.sh(TABLES).splitlines(),
    }
    for family in ("iptables", "ip6tables"):
        text = lab.sh(f"{family}-save")
        state[f"{family} policies"] = parse_policies(text).get("filter", {})
        for table, chains in parse_save(text).items():
            for chain, rules in chains.items():
                ours = rules if OURS.match(chain) else [rule for rule in rules if OURS.search(rule)]
                if ours or OURS.match(chain):
                    state[f"{family} {table} {chain}"] = ours
    assert "iptables filter ufw-user-input" in state, "UFW is not loaded: there is nothing to compare"
    return state


def greeted(address: str, port: int = 22, seconds: float = 2) -> bool:
    """Whether sshd answers a new connection, also behind a firewall that lets the first packets through."""
    try:
        with socket.create_connection((address, port), timeout=seconds) as wire:
            return wire.recv(4) == b"SSH-"
    except OSError:
        return False


@contextlib.contextmanager
def forwarded(address: str, port: int = 22) -> Iterator[int]:
    """Forward a port of this machine's loopback to the host, as a router does; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, (address, port)), daemon=True).start()
        yield server.getsockname()[1]
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket, target: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):  # closed by the test
        while True:
            near, _ = server.accept()
            threading.Thread(target=_pass_on, args=(near, target), daemon=True).start()


def _pass_on(near: socket.socket, target: tuple[str, int]) -> None:
    with near, contextlib.suppress(OSError), socket.create_connection(target, timeout=10) as far:
        other = {near: far, far: near}
        while True:
            for wire in select.select([near, far], [], [])[0]:
                data = wire.recv(65536)
                if not data:
                    return
                other[wire].sendall(data)


@contextlib.contextmanager
def host_variables(lab: Lab, **variables: Any) -> Iterator[None]:
    """Let variables of atlas win over what the inventory says of it."""
    path = lab.inventory / "host_vars" / "atlas.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text("---\n" + yaml.safe_dump(variables), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink()


@contextlib.contextmanager
def by_a_forwarded_port(lab: Lab) -> Iterator[None]:
    """Come to atlas by a port of this machine that is forwarded to its sshd."""
    address = lab.address()
    known = lab.state / "known_hosts_forwarded"
    with forwarded(address) as port:
        keys = [line.split(" ", 1)[1] for line in _known(lab) if address in line.split()[0].split(",")]
        assert keys
        known.write_text("".join(f"[127.0.0.1]:{port} {key}\n" for key in keys), encoding="utf-8")
        options = f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes"
        with host_variables(lab, ansible_host="127.0.0.1", ansible_port=port, ansible_ssh_common_args=options):
            yield


@contextlib.contextmanager
def by_a_jump_host(lab: Lab) -> Iterator[None]:
    """Come to atlas through `outside`, as OpenSSH's configuration says."""
    configuration = lab.state / "jump"
    configuration.write_text(
        f"Host {lab.address()}\n  ProxyJump root@{lab.address('outside')}\n"
        f"Host *\n  User root\n  IdentityFile {lab.state / 'id_ed25519'}\n"
        f"  UserKnownHostsFile {lab.state / 'known_hosts'}\n  StrictHostKeyChecking yes\n",
        encoding="utf-8",
    )
    # Ansible would go on over a connection that it has kept from a run before, which came straight.
    alone = "-o ControlMaster=no -o ControlPath=none"
    with host_variables(lab, ansible_ssh_common_args=f"-F {configuration}", ansible_ssh_args=alone):
        yield


def _known(lab: Lab) -> list[str]:
    return (lab.state / "known_hosts").read_text(encoding="utf-8").splitlines()
