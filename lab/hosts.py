"""Instances on this machine: made, started, stopped and removed again, never anything that is not theirs."""
from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import socket
import tarfile
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from lab import applications, engine
from lab.cache import alone, cache_dir
from lab.engine import docker
from lab.plan import DEMO, HOSTS, LABEL, SLOTS, Instance, allocate_slot, check_engine, check_name, clashes
from lab.rootfs import ensure_image, host_recipe
from lab.shell import LabError, output, run, say, step

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"
DEFAULT = "26.1"


def state_of(name: str) -> Path:
    return STATE / name


def existing() -> dict[str, Instance]:
    """The instances that this engine has networks of, by name."""
    lines = docker("network", "ls", "--filter", f"label={LABEL}", "--format",
                   '{{.Label "ringfence.lab"}} {{.Label "ringfence.slot"}} {{.Label "ringfence.engine"}}')
    found = {}
    for line in lines.splitlines():
        name, slot, wanted = line.split()
        found[name] = Instance(name, int(slot), wanted)
    return found


def get(name: str) -> Instance:
    """The instance of that name. Raises LabError when it is not up."""
    check_name(name)
    known = existing()
    if name not in known:
        others = f"; there are: {', '.join(sorted(known))}" if known else ""
        raise LabError(f"instance '{name}' does not exist, make it with `./run lab up {name}`{others}")
    return known[name]


def up(name: str, wanted: str | None) -> Instance:
    """Make an instance, or start what of it is stopped or missing. Raises LabError when it cannot be had."""
    check_name(name)
    if wanted is not None:
        check_engine(wanted)
    engine.ensure_running(cache_dir() / "dockerd.log")
    with alone("slots"):
        known = existing()
        there = known.get(name)
        if there and wanted and there.engine != wanted:
            raise LabError(f"instance '{name}' has engine {there.engine}, not {wanted}: "
                           f"first `./run lab down {name}`")
        check_ours(name)
        instance = there or Instance(
            name, allocate_slot(name, {k: v.slot for k, v in known.items()}, unusable_slots()), wanted or DEFAULT)
        ensure_networks(instance)
    keys(instance, fresh=there is None)
    inventory(instance, fresh=there is None)
    missing = [host for host in HOSTS if not engine.inspect("container", instance.container(host))]
    for host in HOSTS:
        if host in missing:
            create(instance, host)
        docker("start", instance.container(host))
    wait_ready(instance)
    if missing:
        check_wires(instance)
    return instance


def check_ours(name: str) -> None:
    """Raises LabError when the instance belongs to another clone of this repository that still exists."""
    for root in set(docker("network", "ls", "--filter", f"label={LABEL}={name}", "--format",
                           '{{.Label "ringfence.root"}}').splitlines()):
        if root and Path(root) != ROOT and Path(root).is_dir():
            raise LabError(f"instance '{name}' belongs to the clone in {root}: use it there, or another name here")


def needed() -> list[tuple[str, str]]:
    """(network, what it is) of everything that this machine reaches and that no lab may hide."""
    own = {f"br-{network[:12]}" for network in docker(
        "network", "ls", "-q", "--no-trunc", "--filter", f"label={LABEL}").split()}
    found = []
    for family in ("-4", "-6"):
        done = run(["ip", "-j", family, "route", "show", "table", "all"], check=False)
        for route in json.loads(done.stdout or b"[]"):
            if route.get("type", "unicast") == "unicast" and route.get("dev") not in own:
                found.append((route["dst"], f"reached by {route.get('dev', 'a route')}"))
    found += [(server, "a name server of this machine") for server in nameservers()]
    sites = run(["apt-get", "indextargets", "--format", "$(SITE)"], check=False).stdout.decode().split()
    for host in {urllib.parse.urlsplit(site).hostname for site in sites}:
        with contextlib.suppress(OSError):
            found += [(str(answer[4][0]), f"{host}, where this machine gets packages from")
                      for answer in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)]
    return found


def unusable_slots() -> dict[int, str]:
    everything = needed()
    return {slot: "; ".join(found) for slot in SLOTS if (found := clashes(slot, everything))}


def ensure_networks(instance: Instance) -> None:
    """Make the networks of an instance that are missing."""
    have = set(docker("network", "ls", "--filter", f"label={LABEL}={instance.name}", "--format", "{{.Name}}").split())
    for side in instance.sides:
        if instance.network(side) not in have:
            docker("network", "create", "--driver", "bridge", "--ipv6",
                   *(["--internal"] if side.name == "wan" else []),
                   "--subnet", str(side.subnet), "--gateway", side.gateway,
                   "--subnet", str(side.subnet6), "--gateway", side.gateway6,
                   "--label", f"{LABEL}={instance.name}", "--label", f"ringfence.slot={instance.slot}",
                   "--label", f"ringfence.engine={instance.engine}", "--label", f"ringfence.root={ROOT}",
                   instance.network(side))


def keys(instance: Instance, *, fresh: bool) -> None:
    """The user's key and the hosts' keys, made with the instance. Raises LabError when they are lost."""
    folder = state_of(instance.name)
    if not fresh and not (folder / "id_ed25519").exists():
        raise LabError(f"the keys of instance '{instance.name}' are gone from {folder}: "
                       f"`./run lab down {instance.name}`, then make it again")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    wanted = {"id_ed25519": f"ringfence-lab-{instance.name}", **{f"host_{host}": host for host in HOSTS}}
    for file, comment in wanted.items():
        if not (folder / file).exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(folder / file)])
    lines = []
    for host in HOSTS:
        kind, key = (folder / f"host_{host}.pub").read_text().split()[:2]
        names = [side.address(host) for side in instance.sides] + [side.address6(host) for side in instance.sides]
        lines.append(f"{','.join(names)} {kind} {key}\n")
    (folder / "known_hosts").write_text("".join(lines))


def inventory(instance: Instance, *, fresh: bool) -> None:
    """A copy of the demo's inventory with this instance's addresses: `<state>/inventory`."""
    source, target = ROOT / "inventories" / DEMO, state_of(instance.name) / "inventory"
    if not source.is_dir() or (target.is_dir() and not fresh):
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    folder = target / "group_vars" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "instance.yml").write_text(
        "---\n# Written by `./run lab up`.\n"
        f"demo_name: {instance.name}\ndemo_slot: {instance.slot}\n"
        f"demo_state: {json.dumps(str(state_of(instance.name)))}\n")


def nameservers() -> list[str]:
    """The machine's name servers that something else than the machine itself can ask."""
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            words = [line.split() for line in Path(path).read_text().splitlines()]
        except OSError:
            continue
        found = [w[1] for w in words if w[:1] == ["nameserver"] and len(w) > 1
                 and not w[1].startswith("127.") and w[1] != "::1"]
        if found:
            return found
    return []


def resolvers() -> list[str]:
    """The hosts' name servers. Raises LabError when the machine's own listen on loopback only."""
    found = os.environ.get("RINGFENCE_LAB_DNS", "").split() or nameservers()
    if not found:
        raise LabError("this machine's resolver listens on loopback only, where the hosts cannot reach it: "
                       "set RINGFENCE_LAB_DNS to the address of a name server")
    return found


def create(instance: Instance, host: str) -> None:
    """Make a host's container, wired but not yet started."""
    name = instance.container(host)
    image = ensure_image(host_recipe(instance.engine if host == "atlas" else "none"))
    lan, wan = instance.sides
    both = {side.name: f"{side.address(host)}/{side.subnet.prefixlen} {side.address6(host)}/64" for side in (lan, wan)}
    mounts = []
    if host == "atlas":
        for volume, target in instance.volumes(host).items():
            docker("volume", "create", "--label", f"{LABEL}={instance.name}", volume)
            mounts.append(f"--volume={volume}:{target}")
        mounts.append(f"--volume={applications.ensure()}:/var/lib/ringfence-lab/images:ro")
    tun = ["--device", "/dev/net/tun"] if Path("/dev/net/tun").exists() else []
    docker(
        "create", "--name", name, "--hostname", host, "--label", f"{LABEL}={instance.name}",
        "--label", f"ringfence.host={host}", "--stop-signal", "SIGRTMIN+3", "--restart", "on-failure",
        "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined",
        "--security-opt", "apparmor=unconfined", "--security-opt", "systempaths=unconfined", *tun,
        "--cgroupns=private", "--tmpfs", "/run", "--tmpfs", "/run/lock", *mounts,
        "--env", "container=docker", "--env", f"LAB_LAN={both['lan']}", "--env", f"LAB_WAN={both['wan']}",
        "--env", f"LAB_GATEWAY={lan.gateway} {lan.gateway6}", "--env", f"LAB_DNS={' '.join(resolvers())}",
        "--network", instance.network(lan), "--ip", lan.address(host), "--ip6", lan.address6(host), image)
    docker("network", "connect", "--ip", wan.address(host), "--ip6", wan.address6(host), instance.network(wan), name)
    run(["docker", "cp", "-", f"{name}:/"], data=identity(instance, host))


def check_wires(instance: Instance) -> None:
    """Raises LabError when the hosts do not see each other: the machine's own firewall is in between."""
    targets = [address for side in instance.sides for address in (side.address("atlas"), side.address6("atlas"))]
    for target in targets:
        if run(["docker", "exec", instance.container("outside"), "ping", "-c", "1", "-W", "3", target],
               check=False).returncode:
            raise LabError(f"outside does not reach atlas at {target}: a firewall of this machine drops traffic "
                           "between containers of one network (see `iptables -S FORWARD`, `ip6tables -S FORWARD`)")


def identity(instance: Instance, host: str) -> bytes:
    """A tar archive of what makes a host itself: its keys, who may log in, its machine id."""
    folder = state_of(instance.name)
    files = {
        "root/.ssh/authorized_keys": ((folder / "id_ed25519.pub").read_bytes(), 0o600),
        "etc/ssh/ssh_host_ed25519_key": ((folder / f"host_{host}").read_bytes(), 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": ((folder / f"host_{host}.pub").read_bytes(), 0o644),
        "etc/machine-id": (f"{secrets.token_hex(16)}\n".encode(), 0o444),
    }
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        folder_info = tarfile.TarInfo("root/.ssh")
        folder_info.type, folder_info.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder_info)
        for path, (content, mode) in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.mtime = len(content), mode, int(time.time())
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def ssh_command(instance: Instance, host: str) -> list[str]:
    folder = state_of(instance.name)
    return ["ssh", "-i", str(folder / "id_ed25519"), "-o", f"UserKnownHostsFile={folder / 'known_hosts'}",
            "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=5",
            "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", f"root@{instance.lan.address(host)}"]


def wait_ready(instance: Instance, names: Sequence[str] = HOSTS, seconds: float = 120) -> None:
    """Wait until hosts are booted and let the user in. Raises LabError after the deadline."""
    with step("waiting for " + " and ".join(names)):
        deadline = time.monotonic() + seconds
        for host in names:
            while True:
                done = run(["docker", "exec", instance.container(host), "systemctl", "is-system-running"], check=False)
                state = done.stdout.decode().strip()
                if state in ("running", "degraded") and run(
                        [*ssh_command(instance, host), "true"], check=False, timeout=20).returncode == 0:
                    break
                if time.monotonic() > deadline:
                    raise LabError(f"{host} is not ready after {seconds:.0f} s (systemd says '{state}'): "
                                   f"see `docker logs {instance.container(host)}`")
                time.sleep(0.1)
            if state == "degraded":
                failed = output(["docker", "exec", instance.container(host), "systemctl", "--failed", "--plain",
                                 "--no-legend"], check=False)
                say(f"{host} is up, but not everything started: {failed}")


def down(name: str) -> None:
    """Remove everything of an instance, also what is left of a half made one."""
    check_name(name)
    if not engine.answers() and not state_of(name).exists():
        return
    engine.ensure_running(cache_dir() / "dockerd.log")
    check_ours(name)
    for kind, listing, removal in (
        ("containers", ["ps", "-aq"], ["rm", "-f", "-v"]),
        ("volumes", ["volume", "ls", "-q"], ["volume", "rm"]),
        ("networks", ["network", "ls", "-q"], ["network", "rm"]),
    ):
        found = docker(*listing, "--filter", f"label={LABEL}={name}").split()
        if found:
            say(f"removing {len(found)} {kind} of '{name}'")
            docker(*removal, *found)
    shutil.rmtree(state_of(name), ignore_errors=True)


def switch(name: str, host: str, action: str) -> None:
    """Reboot a host, cut its power or start it again. Its network namespace, and all netfilter state, is then new."""
    instance = get(name)
    docker({"reboot": "restart", "poweroff": "kill", "start": "start"}[action], instance.container(host))
    if action != "poweroff":
        wait_ready(instance, (host,))


def load(name: str) -> None:
    """Load the applications' images into atlas' engine, unless it has them."""
    with step(f"loading images into atlas of '{name}'"):
        run(["docker", "exec", get(name).container("atlas"), "/usr/lib/ringfence-lab/load-images"], timeout=300)


def status(name: str = "") -> list[str]:
    """One line per instance: name, engine, addresses and states of its hosts."""
    lines = []
    for instance in sorted(existing().values(), key=lambda one: one.slot):
        if name in ("", instance.name):
            states = []
            for host in HOSTS:
                found = engine.inspect("container", instance.container(host))
                state = found[0]["State"]["Status"] if found else "missing"
                states.append(f"{host} {instance.lan.address(host)} {state}")
            lines.append(f"{instance.name}  slot {instance.slot}  engine {instance.engine}  " + "  ".join(states))
    return lines
