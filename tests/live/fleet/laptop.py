"""An admin's laptop somewhere on the internet, whose only way in is the VPN: a network namespace of this machine."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.networks import get
from lab.plan import Instance
from tests.live.labs import BIN, ROOT, RUN_SECONDS, Lab, waited_for
from tests.live.runs import Run, pyinfra_run

NUMBER = 21  # its address on the wan, behind those of atlas (10) and outside (20), before those of further hosts
NAME = "laptop"


class Laptop:
    """A device of the lab from which pyinfra is run.

    Attributes:
        namespace: of this machine, which it is.
        address: its own on the wan.
        devices: `lab_devices` with it, once it is enrolled.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.namespace = f"rf-{lab.name}-laptop"[:40]
        instance = get(lab.name)
        self.address = str(instance.wan.subnet[NUMBER])
        self.devices: dict[str, Any] = {}
        self._length = instance.wan.subnet.prefixlen
        self._bridge = bridge_of(instance)
        self._cable = f"rfl{instance.slot}"
        self._file = Path(f"/run/{self.namespace}")

    def plug(self) -> None:
        """Be on the wan, and nowhere else."""
        self.unplug()
        for words in (
            ["ip", "netns", "add", self.namespace],
            ["ip", "link", "add", self._cable, "type", "veth", "peer", "name", "wan", "netns", self.namespace],
            ["ip", "link", "set", self._cable, "master", self._bridge, "up"],
            [*self._inside, "ip", "address", "add", f"{self.address}/{self._length}", "dev", "wan"],
            [*self._inside, "ip", "link", "set", "wan", "up"],
            [*self._inside, "ip", "link", "set", "lo", "up"],
        ):
            subprocess.run(words, check=True)

    def unplug(self) -> None:
        """Be gone, with all that runs there."""
        found = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=False)
        for process in found.stdout.split():
            subprocess.run(["kill", process], check=False)
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._cable], capture_output=True, check=False)
        for file in self._file.glob("*"):
            file.unlink()

    @property
    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]

    def enrol(self) -> str:
        """Have a key made and shown, as everybody does; returns the public one."""
        command = [str(BIN / "pyinfra"), "--yes", "--data", f"device={NAME}", "inventory.py", "deploys/device.py"]
        done = subprocess.run(
            command, cwd=ROOT, env=self.lab.environment, capture_output=True, text=True, check=True
        ).stdout
        text = done[done.index("[Interface]") : done.index("PersistentKeepalive")] + "PersistentKeepalive = 5\n"
        self._file.mkdir(mode=0o700, exist_ok=True)
        conf = self._file / "wg-laptop.conf"
        conf.touch(0o600)
        # No names are asked for in there.
        conf.write_text(re.sub(r"^DNS = .*\n", "", text, flags=re.M))
        key = re.search(rf'{NAME}: {{key: "(\S+)"}}', done)
        assert key, done
        return key[1]

    def connect(self) -> None:
        """Bring the tunnel up."""
        done = subprocess.run(
            [*self._inside, "wg-quick", "up", str(self._file / "wg-laptop.conf")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def reaches(self, address: str, port: int = 22, seconds: int = 4) -> bool:
        """Whether a port answers, whichever way leads there."""
        probe = ["timeout", str(seconds), "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]
        return not subprocess.run([*self._inside, *probe], capture_output=True, check=False).returncode

    @contextmanager
    def controller(self) -> Iterator[Lab]:
        """The lab as it is run from here: every host at its address in the VPN."""
        lab = self.lab.beside("laptop")
        inside = {host: inside_of(self.lab, host) for host in self.lab.variables()["lab_hosts"]}
        hosts = lab.inventory / "hosts.yml"
        known = self.lab.state / "known_hosts"
        before = known.read_text()
        text, names = hosts.read_text(), before
        for host, address in inside.items():
            own = self.lab.address(host)
            text = text.replace(f'"{own}"', f'"{address}"')
            names += "".join(
                f"{address} {line.partition(' ')[2]}\n"
                for line in before.splitlines()
                if own in line.split()[0].split(",")
            )
        hosts.write_text(text)
        known.write_text(names)
        try:
            yield lab
        finally:
            known.write_text(before)

    def pyinfra(self, lab: Lab, *flags: str) -> Run:
        """Apply the site from here, without asking; a failure is an answer."""
        command = [
            *self._inside, str(BIN / "pyinfra"), "--json", "--yes", "--limit", "docker_hosts", *flags,
            "inventory.py", "deploys/site.py",
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=ROOT, env=lab.environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
        return pyinfra_run(done.returncode, done.stdout, done.stderr)


def bridge_of(instance: Instance) -> str:
    """The bridge of this machine that is an instance's wan."""
    command = ["docker", "network", "inspect", "-f", "{{.Id}}", instance.network(instance.wan)]
    return f"br-{subprocess.run(command, capture_output=True, text=True, check=True).stdout[:12]}"


def inside_of(lab: Lab, host: str) -> str:
    """A host's IPv4 address in the VPN."""
    return str(lab.variables()["verify_vpn"]["addresses"][host][0])


@contextmanager
def laptop(lab: Lab) -> Iterator[Laptop]:
    """A laptop that has been enrolled, and is in the VPN."""
    found = Laptop(lab)
    found.plug()
    try:
        found.devices = {NAME: {"owner": "owner", "key": found.enrol()}}
        lab.declare(lab_devices=found.devices)
        lab.pyinfra()
        found.connect()
        assert waited_for(lambda: found.reaches(inside_of(lab, "nas")), 60), "the laptop does not come in"
        yield found
    finally:
        found.unplug()
