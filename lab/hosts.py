"""Instances on this machine: made, started, stopped and removed again, never anything that is not theirs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from lab import applications, engine
from lab.cache import alone, cache_dir
from lab.engine import docker
from lab.networks import (
    check_ours,
    check_wires,
    ensure_networks,
    existing,
    forget_sources,
    get,
    keep_sources,
    resolvers,
    unusable_slots,
)
from lab.plan import HOSTS, LABEL, Instance, allocate_slot, check_engine, check_name
from lab.preinstalled import ensure_preinstalled
from lab.rootfs import ensure_image, host_recipe
from lab.shell import LabError, output, run, say, step
from lab.state import identity, inventory, keys, ssh_command, state_of

DEFAULT = "26.1"


def up(name: str, wanted: str | None, *, preinstalled: bool = False) -> Instance:
    """Make an instance, or start what of it is stopped or missing. Raises LabError when it cannot be had.

    Args:
        wanted: its engine; None for the one that it has, or the default.
        preinstalled: whether a new host to provision has the roles' packages already.
    """
    check_name(name)
    if wanted is not None:
        check_engine(wanted)
    engine.ensure_running(cache_dir() / "dockerd.log")
    known = existing()
    wanted = wanted or (known[name].engine if name in known else DEFAULT)
    recipe = host_recipe(wanted)
    images = {
        "atlas": ensure_preinstalled(recipe, wanted) if preinstalled else ensure_image(recipe),
        "outside": ensure_image(host_recipe("none")),
    }
    applications.ensure()
    with alone("slots"):
        known = existing()
        there = known.get(name)
        if there and there.engine != wanted:
            raise LabError(f"instance '{name}' has engine {there.engine}, not {wanted}: first `./run lab down {name}`")
        check_ours(name)
        slots = {other.name: other.slot for other in known.values()}
        instance = there or Instance(name, allocate_slot(name, slots, unusable_slots()), wanted)
        ensure_networks(instance)
        keep_sources(instance)
    keys(instance, fresh=there is None)
    inventory(instance, fresh=there is None)
    engine.load_modules()
    missing = [host for host in HOSTS if not engine.inspect("container", instance.container(host))]
    for host in HOSTS:
        if host in missing:
            create(instance, host, images[host])
        docker("start", instance.container(host))
    wait_ready(instance)
    if missing:
        check_wires(instance)
    return instance


def create(instance: Instance, host: str, image: str) -> None:
    """Make a host's container, wired but not yet started."""
    name = instance.container(host)
    lan, wan = instance.sides
    both = {side.name: f"{side.address(host)}/{side.subnet.prefixlen} {side.address6(host)}/64" for side in (lan, wan)}
    mounts = []
    if host == "atlas":
        for volume, target in instance.volumes(host).items():
            docker("volume", "create", "--label", f"{LABEL}={instance.name}", volume)
            mounts.append(f"--volume={volume}:{target}")
        mounts.append(f"--volume={applications.ensure()}:/var/lib/ringfence-lab/images:ro")
    tun = ["--device", "/dev/net/tun"] if Path("/dev/net/tun").exists() else []
    options = [
        f"--name={name}", f"--hostname={host}", f"--label={LABEL}={instance.name}", f"--label=ringfence.host={host}",
        "--stop-signal=SIGRTMIN+3", "--restart=on-failure", "--userns=host", "--cap-add=ALL",
        "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
        "--security-opt=systempaths=unconfined", "--cgroupns=private", "--tmpfs=/run", "--tmpfs=/run/lock",
        *mounts, *tun, "--env=container=docker", f"--env=LAB_LAN={both['lan']}", f"--env=LAB_WAN={both['wan']}",
        f"--env=LAB_GATEWAY={lan.gateway} {lan.gateway6}", f"--env=LAB_DNS={' '.join(resolvers())}",
        f"--network={instance.network(lan)}", f"--ip={lan.address(host)}", f"--ip6={lan.address6(host)}",
    ]  # fmt: skip
    try:
        # Engines up to 20.10 would grant it even where the machine itself lacks it, and then fail.
        docker("create", *options, "--cap-drop=SYS_RESOURCE", image)
    except LabError as error:
        # Newer ones know what the machine lacks, and refuse to drop that.
        if "CAP_SYS_RESOURCE" not in str(error):
            raise
        docker("create", *options, image)
    docker("network", "connect", "--ip", wan.address(host), "--ip6", wan.address6(host), instance.network(wan), name)
    run(["docker", "cp", "-", f"{name}:/"], data=identity(instance, host))


def wait_ready(instance: Instance, names: Sequence[str] = HOSTS, seconds: float = 120) -> None:
    """Wait until hosts are booted and let the user in. Raises LabError after the deadline."""
    with step("waiting for " + " and ".join(names)):
        deadline = time.monotonic() + seconds
        for host in names:
            inside = ["docker", "exec", instance.container(host)]
            while True:
                # systemd itself waits: asking again and again takes from the boot what it is waited for.
                left = str(max(1, round(deadline - time.monotonic())))
                done = run(
                    [*inside, "timeout", left, "systemctl", "is-system-running", "--wait"],
                    check=False,
                    timeout=seconds + 30,
                )
                state = done.stdout.decode().strip()
                if (
                    state in ("running", "degraded")
                    and run([*ssh_command(instance, host), "true"], check=False, timeout=20).returncode == 0
                ):
                    break
                restarts = docker("inspect", "--format", "{{.RestartCount}}", instance.container(host))
                if int(restarts) > 2:
                    words = run(["docker", "logs", "--tail", "5", instance.container(host)], check=False)
                    raise LabError(f"{host} does not boot: {(words.stdout + words.stderr).decode(errors='replace')}")
                if time.monotonic() > deadline:
                    raise LabError(
                        f"{host} is not ready after {seconds:.0f} s (systemd says '{state}'): "
                        f"see `docker logs {instance.container(host)}`"
                    )
                time.sleep(0.2)  # systemd does not answer yet, or sshd does not
            if state == "degraded":
                failed = output([*inside, "systemctl", "--failed", "--plain", "--no-legend"], check=False)
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
    forget_sources(name)
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
