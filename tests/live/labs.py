"""A throwaway lab as the live tests use it: both engines, edits, and what verify says."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ringfence.roles import ROLES
from tests.live import zygote
from tests.live.runs import Run, RunError, ansible_run, pyinfra_run

__all__ = ["NO_DOOR", "Lab", "Run", "RunError", "waited_for", "without_door"]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
RUN_SECONDS = 900
# For labs whose services are their own: the demo's proxy and portal, and what they need, are not among them.
NO_DOOR = {"lab_proxy": None, "lab_portal": None}
CAUGHT = "/run/caught"


def without_door() -> dict[str, Any]:
    """The demo's services alone, for tests about what is behind its door: less to start and to compare."""
    services = yaml.safe_load((ROOT / "inventories/demo/group_vars/demo/services.yml").read_text(encoding="utf-8"))[
        "lab_services"
    ]
    door = ("site", "access")
    behind = {name: {key: value for key, value in one.items() if key not in door} for name, one in services.items()}
    return {**NO_DOOR, "lab_services": behind}


class Lab:
    """One instance of the throwaway lab, with an inventory of its own that tests may edit."""

    def __init__(
        self, name: str, engine: str, *, preinstalled: bool = False, hosts: Mapping[str, str] | None = None
    ) -> None:
        """An instance that `up` makes.

        Args:
            name: of the instance.
            engine: of `atlas`.
            preinstalled: whether the roles' Debian packages are there before the first run.
            hosts: further hosts: name → ENGINE, @SIDES or ENGINE@SIDES, as in {"nas": "20.10@lan", "edge": "@wan"}.
        """
        self.name = name
        self.engine = engine
        self.preinstalled = preinstalled
        self.hosts = dict(hosts or {})
        self.state = ROOT / ".lab" / name
        self.inventory = self.state / "inventory"
        self.environment = {**os.environ, "RINGFENCE_LAB": str(self.inventory), "ANSIBLE_NOCOLOR": "1"}
        self.environment["PATH"] = f"{BIN}:{os.environ['PATH']}"
        self._addresses: dict[str, str] = {}
        self._processes: dict[str, int] = {}
        self._variables: dict[str, str] = {}

    # -- the hosts

    def lab(self, verb: str, *words: str) -> str:
        """Run a verb of the lab's own command line on this instance."""
        self._processes.clear()  # what was a host's process may be another's after this
        command = [sys.executable, "-m", "lab", verb, self.name, *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
        if done.returncode != 0:
            raise RunError(f"lab {verb} {self.name}: {done.stdout}{done.stderr}")
        return done.stdout

    def up(self) -> None:
        self.lab("down")
        further = [f"{name}{what}" if what[:1] in ("", "@") else f"{name}={what}" for name, what in self.hosts.items()]
        words = [*["--preinstalled"] * self.preinstalled, *(f"--host={host}" for host in further)]
        self.lab("up", "--engine", self.engine, *words)
        self._addresses.clear()

    def ssh(
        self, command: str, host: str = "atlas", *, check: bool = True, timeout: float = 60, text: str | None = None
    ) -> str:
        """Run a command as root on a host over a new connection; raises RunError when it fails."""
        ssh = [
            "ssh", "-i", str(self.state / "id_ed25519"), "-o", f"UserKnownHostsFile={self.state / 'known_hosts'}",
            "-o", "BatchMode=yes", "-o", "ConnectTimeout=8", "-o", "ControlPath=none",
            "-o", "KexAlgorithms=curve25519-sha256",  # others cost a tenth of a second, and there are thousands
            f"root@{self.address(host)}", command,
        ]  # fmt: skip
        done = subprocess.run(ssh, input=text, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise RunError(f"{self.name}: {command}: {done.stdout}{done.stderr}")
        return done.stdout

    def sh(
        self, command: str, host: str = "atlas", *, check: bool = True, timeout: float = 60, text: str | None = None
    ) -> str:
        """Run a command as root at a host's console: no firewall and no sshd stands in the way, and it costs little.

        Raises RunError when it fails, or the host is down.
        """
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        enter = ["nsenter", "--target", str(self._process(host)), "--all", "--", *clean, "bash", "-c", f"cd; {command}"]
        done = subprocess.run(enter, input=text, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise RunError(f"{self.name}: {command}: {done.stdout}{done.stderr}")
        return done.stdout

    def root(self, host: str = "atlas") -> Path:
        """A host's root directory, as this machine reads it. Raises RunError when the host is down."""
        return Path(f"/proc/{self._process(host)}/root")

    def network(self, host: str) -> Path:
        """A host's network namespace. Raises RunError when the host is down."""
        return Path(f"/proc/{self._process(host)}/ns/net")

    def _process(self, host: str) -> int:
        """This machine's number of a host's first process. Raises RunError when the host is down."""
        if host not in self._processes or not Path(f"/proc/{self._processes[host]}/root/etc").is_dir():
            docker = ["docker", "inspect", "-f", "{{.State.Pid}}", f"rf-{self.name}-{host}"]
            said = subprocess.run(docker, capture_output=True, text=True, check=False).stdout.strip()
            if said in ("", "0"):
                raise RunError(f"{self.name}: {host} is down")
            self._processes[host] = int(said)
        return self._processes[host]

    def address(self, host: str = "atlas") -> str:
        if host not in self._addresses:  # an instance keeps its addresses, and asking takes a second
            self._addresses[host] = str(self.variables(host)["ansible_host"])
        return self._addresses[host]

    def controller(self, host: str = "atlas") -> str:
        """This machine's address, as the host sees it."""
        return self.ssh("echo $SSH_CONNECTION", host).split()[0]

    def wait_for_ssh(self, seconds: float = 90, host: str = "atlas") -> None:
        """Wait until a new connection works; raises RunError after the deadline."""
        deadline = time.monotonic() + seconds
        while "up" not in self.ssh("echo up", host, check=False, timeout=20):
            if time.monotonic() > deadline:
                raise RunError(f"{self.name}: no ssh to {host} within {seconds} s")

    def reaches(self, port: int, seconds: float = 2, host: str = "atlas") -> bool:
        """Whether this machine can open a new connection to a TCP port of the host."""
        try:
            with socket.create_connection((self.address(host), port), timeout=seconds):
                return True
        except OSError:
            return False

    def listen(self, port: int, host: str = "atlas") -> None:
        """Have somebody listen at a TCP port of the host, on both families, also after a reboot."""
        unit = (
            "[Service]\\nExecStart=/usr/bin/python3 -m http.server --bind :: --directory /run/sshd %%i\\n"
            "[Install]\\nWantedBy=multi-user.target\\n"
        )
        self.sh(
            f"printf '{unit}' > /etc/systemd/system/listen@.service && systemctl daemon-reload &&"
            f" systemctl enable --now listen@{port}.service 2>/dev/null &&"
            f" timeout 20 sh -c 'until ss -Hltn sport = :{port} | grep -q .; do sleep 0.1; done'",
            host,
        )

    def unwatch(self, host: str = "atlas") -> None:
        """Keep the host's timer from putting back what a test breaks; the next run starts it again."""
        self.sh("systemctl stop ringfence-watch.timer ringfence-watch.service 2>/dev/null", host, check=False)

    # -- what is declared

    def variables(self, host: str = "atlas") -> dict[str, Any]:
        """The final variables of a host, as both engines see them; what was read before is not read again."""
        files = sorted(path for path in self.inventory.rglob("*") if path.is_file())
        key = hashlib.sha256(b"".join(str(path).encode() + path.read_bytes() for path in files)).hexdigest()
        if key not in self._variables:
            self._variables[key] = self._read_variables()
        return dict(json.loads(self._variables[key])["_meta"]["hostvars"][host])

    def _read_variables(self) -> str:
        done = subprocess.run(
            [sys.executable, str(ROOT / "inventory.py"), "--list"],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RunError(done.stderr)
        return done.stdout

    def declare(self, **variables: Any) -> None:
        """Let variables of this lab win over what is declared for every lab."""
        self._write("zz_edit", variables)

    def stand(self, variables: dict[str, Any]) -> None:
        """Declare what stays beneath `declare`, which wins over it."""
        self._write("zz_always", variables)

    def _write(self, name: str, variables: dict[str, Any]) -> None:
        path = self.inventory / "group_vars" / "demo" / f"{name}.yml"
        path.write_text("---\n" + yaml.safe_dump(variables), encoding="utf-8")

    def undeclare(self) -> None:
        """Take `declare` back."""
        (self.inventory / "group_vars" / "demo" / "zz_edit.yml").unlink(missing_ok=True)

    def beside(self, name: str) -> Lab:
        """The same instance as another controller knows it: a copy of the inventory, with edits of its own."""
        other = Lab(self.name, self.engine, hosts=self.hosts)
        other.inventory = self.state / name
        shutil.copytree(self.inventory, other.inventory, dirs_exist_ok=True)
        other.undeclare()
        other.environment = {**self.environment, "RINGFENCE_LAB": str(other.inventory)}
        return other

    # -- the engines

    def pyinfra(self, deploy: str = "site", *flags: str, check: bool = True) -> Run:
        """Apply a deploy without asking."""
        command = [str(BIN / "pyinfra"), "--json", "--yes", *flags, "inventory.py", f"deploys/{deploy}.py"]
        run = self._pyinfra(command)
        if check and run.code != 0:
            raise RunError(run.text)
        return run

    def plan(self, deploy: str = "site", *flags: str) -> Run:
        """Plan a deploy: what would be changed."""
        run = self._pyinfra([str(BIN / "pyinfra"), "--json", *flags, "inventory.py", f"deploys/{deploy}.py"])
        if run.code != 0:
            raise RunError(run.text)
        return run

    def _pyinfra(self, command: list[str]) -> Run:
        done = zygote.run(command, ROOT, self.environment, RUN_SECONDS)
        return pyinfra_run(done.returncode, done.stdout, done.stderr)

    def ansible(self, *flags: str, check: bool = True, playbook: str = "playbooks/site.yml") -> Run:
        """Apply a playbook."""
        command = [str(BIN / "ansible-playbook"), playbook, *flags]
        done = zygote.run(command, ROOT, self.environment, RUN_SECONDS)
        if check and done.returncode != 0:
            raise RunError(done.stdout + done.stderr)
        return ansible_run(done.returncode, done.stdout, done.stderr)

    # -- programs killed at work

    def watch(self, role: str, sign: str) -> None:
        """Have the host stop a role's program (SIGSTOP) as soon as it has changed something.

        Args:
            role: whose program is waited for.
            sign: command on the host whose output tells whether something has changed.
        """
        catch = (Path(__file__).parent / "catch.py").read_text(encoding="utf-8")
        self.sh(
            f"rm -f {CAUGHT}; systemctl stop catch 2>/dev/null; systemd-run --quiet --collect --unit=catch"
            f" python3 -c {shlex.quote(catch)} {role} {shlex.quote(sign)} {CAUGHT} &&"
            f" timeout 20 sh -c 'until test -e {CAUGHT}; do sleep 0.1; done'"
        )

    def catch(self, role: str, ended: Callable[[], bool]) -> int:
        """Wait for the watched program; returns its process. It has begun, as the sign says, and has not ended.

        Raises:
            RunError: whoever runs it ended before it could be caught at work.
        """

        def caught() -> int:
            return int(self.sh(f"cat {CAUGHT} 2>/dev/null", check=False).strip() or 0)

        waited_for(lambda: bool(caught()) or ended(), RUN_SECONDS)
        number = caught()
        if not number:
            raise RunError(f"ringfence-{role} was never caught at work")
        # A process that waits for a disk stops when it has got what it waited for.
        state = f"grep ^State /proc/{number}/status; tr '\\0' ' ' < /proc/{number}/cmdline"
        waited_for(lambda: "D (disk sleep)" not in self.sh(state), 30)
        stopped = self.sh(state)
        if "T (stopped)" not in stopped or f"ringfence-{role} apply" not in stopped:
            raise RunError(f"ringfence-{role} is not at work: {stopped}")
        return number

    def kill(self, number: int) -> None:
        """Kill a process of the host, and wait until it is gone."""
        self.sh(f"kill -KILL {number} && timeout 20 sh -c 'while test -e /proc/{number}; do sleep 0.1; done'")

    def kill_during(self, role: str, sign: str, *, poweroff: bool) -> None:
        """Start a run and kill it in the middle of a role's work: the controller together with the role's program, or
        with the whole host.

        Raises:
            RunError: the run ended before the role's program could be caught at work.
        """
        self.watch(role, sign)
        command = [str(BIN / "pyinfra"), "--yes", "inventory.py", "deploys/site.py"]
        with tempfile.TemporaryFile("w+") as said, subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=said, stderr=said, text=True, start_new_session=True
        ) as run:  # fmt: skip
            try:
                number = self.catch(role, lambda: run.poll() is not None)
                assert run.poll() is None
                if poweroff:
                    self.lab("poweroff")
            except RunError as error:
                said.seek(0)
                raise RunError(f"{error}:\n{said.read()}") from error
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)
        if poweroff:
            self.lab("start")
            self.wait_for_ssh()
        else:
            self.kill(number)

    # -- the proof

    def verify(self) -> Run:
        """Probe everything; `Run.changed` holds the lines of the differences."""
        report = self.state / "verify.json"
        report.unlink(missing_ok=True)
        environment = {**self.environment, "RINGFENCE_VERIFY_JSON": str(report)}
        command = [str(BIN / "pyinfra"), "--yes", "inventory.py", "deploys/verify.py"]
        done = zygote.run(command, ROOT, environment, RUN_SECONDS)
        text = done.stdout + done.stderr
        if not report.exists():
            raise RunError(f"verify wrote no report:\n{text}")
        said = json.loads(report.read_text())
        if not said["cells"]:
            raise RunError(f"verify tried nothing:\n{text}")
        return Run(done.returncode, list(said["differences"]), text)

    def must_verify(self) -> None:
        """Raises RunError unless exactly the declared traffic passes."""
        run = self.verify()
        if run.code != 0:
            raise RunError(run.text)
        assert "Traceback" not in run.text

    def opened(self) -> set[tuple[str, str, str, int, int]]:
        """What was open in the last `verify`: (source, destination, protocol, port, IP version)."""
        cells = json.loads((self.state / "verify.json").read_text())["cells"]
        return {
            (c["source"], c["destination"], c["proto"], c["port"], c["family"]) for c in cells if c["got"] == "open"
        }

    def must_pass_the_checks_of_the_roles(
        self, roles: str = "roles/*", least: int = len(ROLES), host: str = "atlas"
    ) -> None:
        """Run roles' own testinfra checks on a host; raises RunError if one fails.

        Args:
            roles: their folders, with wildcards.
            least: how many files of checks there must be.
            host: which host.
        """
        configuration = self.state / "ssh_config"
        # One connection for all checks; its socket is not in .lab, whose path may be too long for one.
        sockets = tempfile.mkdtemp(prefix="rf-ssh-")
        configuration.write_text(
            f"Host {host}\n  HostName {self.address(host)}\n  User root\n  IdentityFile {self.state / 'id_ed25519'}\n"
            f"  UserKnownHostsFile {self.state / 'known_hosts'}\n  ControlPath {sockets}/%C\n",
            encoding="utf-8",
        )
        checks = sorted(str(path) for path in ROOT.glob(f"{roles}/tests/test_*.py"))
        assert len(checks) >= least, checks
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "--noconftest", f"--hosts=ssh://{host}",
            f"--ssh-config={configuration}", *checks,
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
        subprocess.run(["ssh", "-F", str(configuration), "-O", "exit", host], capture_output=True, check=False)
        shutil.rmtree(sockets)
        if done.returncode != 0:
            raise RunError(done.stdout + done.stderr)

    def must_be_converged(self) -> None:
        """Raises AssertionError if a run of pyinfra changes anything."""
        run = self.pyinfra()
        assert run.changed == [], f"{run.changed}: {run.text}"


def waited_for(condition: Callable[[], bool], seconds: float, pause: float = 0.2) -> bool:
    """Whether a condition came true before the deadline; asked again after pauses, as asking costs something."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)  # between two questions, each of which costs the host something
    return True
