"""Instances on this machine: made, started, stopped and removed again, never anything that is not theirs."""
from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import tarfile
import time
from pathlib import Path

from lab import engine
from lab.engine import docker
from lab.plan import HOSTS, LABEL, Instance, allocate_slot, check_engine, check_name, clashes
from lab.rootfs import cache_dir, ensure_image, host_recipe
from lab.shell import LabError, output, run, say, step

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"
HOST_KEYS = "host_keys"


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
        raise LabError(f"instance '{name}' does not exist, make it with `python3 -m lab up {name}`{others}")
    return known[name]


def up(name: str, wanted: str | None) -> Instance:
    check_name(name)
    engine.ensure_running(cache_dir() / "dockerd.log")
    known = existing()
    there = known.get(name)
    if there and wanted and there.engine != wanted:
        raise LabError(f"instance '{name}' has engine {there.engine}, not {wanted}: "
                       f"first `python3 -m lab down {name}`")
    instance = there or Instance(name, allocate_slot(name, {k: v.slot for k, v in known.items()}),
                                 check_engine(wanted or "26.1"))
    ensure_networks(instance)
    keys(instance)
    image = ensure_image(host_recipe(instance.engine, instance.suite))
    for host in HOSTS:
        ensure_container(instance, host, image if host == "atlas" else ensure_image(host_recipe("none", "trixie")))
    wait_ready(instance)
    return instance


def routes() -> list[tuple[str, str]]:
    """(destination, device) of everything this machine routes."""
    found = []
    for family in ("-4", "-6"):
        done = run(["ip", "-j", family, "route", "show", "table", "all"], check=False)
        for route in json.loads(done.stdout or b"[]"):
            if route.get("type", "unicast") == "unicast":
                found.append((route["dst"], route.get("dev", "?")))
    return found


def ensure_networks(instance: Instance) -> None:
    """Make the networks that are missing. Raises LabError when the machine uses their addresses already."""
    have = set(docker("network", "ls", "--filter", f"label={LABEL}={instance.name}", "--format", "{{.Name}}").split())
    missing = [side for side in instance.sides if instance.network(side) not in have]
    if not missing:
        return
    if len(missing) == len(instance.sides):
        taken = clashes(instance, routes())
        if taken:
            raise LabError(f"instance '{instance.name}': " + "; ".join(taken) + ". Free that network or take another "
                           "slot: a lab with another name gets another one")
    for side in missing:
        docker("network", "create", "--driver", "bridge", "--ipv6",
               *(["--internal"] if side.name == "wan" else []),
               "--subnet", str(side.subnet), "--gateway", side.gateway,
               "--subnet", str(side.subnet6), "--gateway", side.gateway6,
               "--label", f"{LABEL}={instance.name}", "--label", f"ringfence.slot={instance.slot}",
               "--label", f"ringfence.engine={instance.engine}", instance.network(side))


def keys(instance: Instance) -> None:
    """The user's key and the hosts' keys of an instance, made once."""
    folder = state_of(instance.name)
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


def resolvers() -> list[str]:
    """The machine's name servers as a container can reach them. Raises LabError when all listen on loopback only."""
    given = os.environ.get("RINGFENCE_LAB_DNS", "").split()
    if given:
        return given
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            words = [line.split() for line in Path(path).read_text().splitlines()]
        except OSError:
            continue
        found = [w[1] for w in words if w[:1] == ["nameserver"] and len(w) > 1
                 and not w[1].startswith("127.") and w[1] != "::1"]
        if found:
            return found
    raise LabError("this machine's resolver listens on loopback only, which its hosts cannot reach: "
                   "set RINGFENCE_LAB_DNS to the address of a name server")


def ensure_container(instance: Instance, host: str, image: str) -> None:
    name = instance.container(host)
    if engine.inspect("container", name):
        docker("start", name)
        return
    lan, wan = instance.sides
    both = {side.name: f"{side.address(host)}/{side.subnet.prefixlen} {side.address6(host)}/64" for side in (lan, wan)}
    volumes = [f"--volume={volume}:{target}" for volume, target in instance.volumes(host).items()]
    for volume in instance.volumes(host):
        docker("volume", "create", "--label", f"{LABEL}={instance.name}", volume)
    docker(
        "create", "--name", name, "--hostname", host, "--label", f"{LABEL}={instance.name}",
        "--label", f"ringfence.host={host}", "--stop-signal", "SIGRTMIN+3", "--restart", "on-failure",
        "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined",
        "--security-opt", "apparmor=unconfined", "--security-opt", "systempaths=unconfined",
        "--device", "/dev/net/tun", "--cgroupns=private", "--tmpfs", "/run", "--tmpfs", "/run/lock", *volumes,
        "--env", "container=docker", "--env", f"LAB_LAN={both['lan']}", "--env", f"LAB_WAN={both['wan']}",
        "--env", f"LAB_GATEWAY={lan.gateway} {lan.gateway6}", "--env", f"LAB_DNS={' '.join(resolvers())}",
        "--network", instance.network(lan), "--ip", lan.address(host), "--ip6", lan.address6(host), image)
    docker("network", "connect", "--ip", wan.address(host), "--ip6", wan.address6(host), instance.network(wan), name)
    run(["docker", "cp", "-", f"{name}:/"], data=identity(instance, host))
    docker("start", name)


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


def wait_ready(instance: Instance, seconds: float = 60) -> None:
    """Wait until every host is booted and lets the user in."""
    with step("waiting for " + " and ".join(HOSTS)):
        deadline = time.monotonic() + seconds
        for host in HOSTS:
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


def reboot(name: str, host: str, action: str) -> None:
    instance = get(name)
    docker({"reboot": "restart", "poweroff": "kill", "start": "start"}[action], instance.container(host))
    if action != "poweroff":
        wait_ready(instance)
