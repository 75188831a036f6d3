"""Instances on this machine: made, started, stopped and removed again, never anything that is not theirs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from lab import applications, cables, engine, further
from lab.cache import alone, cache_dir
from lab.engine import docker
from lab.networks import (
    check_ours,
    check_wires,
    ensure_networks,
    existing,
    forget_rules,
    get,
    resolvers,
    set_rules,
    unusable_slots,
)
from lab.plan import DEMO, LABEL, OUTSIDE, Instance, Side, allocate_slot, check_engine, check_name
from lab.preinstalled import ensure_preinstalled
from lab.rootfs import ensure_image, host_recipe
from lab.shell import LabError, output, run, say, step
from lab.state import identity, inventory, keys, ssh_command, state_of

DEFAULT = "26.1"
FEW = 6  # hosts of all instances, for which no machine has to make room


def up(
    name: str,
    wanted: str | None,
    hosts: Sequence[str] = (),
    *,
    preinstalled: bool = False,
    variables: Sequence[Path] = (),
) -> Instance:
    """Make an instance, or start what of it is stopped or missing. Raises LabError when it cannot be had.

    Args:
        wanted: its engine; None for the one that it has, or the default.
        hosts: further hosts, as `lab.further.parse` reads them; those that it has need not be named.
        preinstalled: whether a new host to provision has the roles' packages already.
        variables: files that the inventory gets besides.
    """
    check_name(name)
    for file in variables:
        if not file.is_file():
            raise LabError(f"--vars {file}: there is no such file")
    wishes = [further.parse(text) for text in hosts]
    if wanted is not None:
        check_engine(wanted)
    engine.ensure_running(cache_dir() / "dockerd.log")
    known = existing()
    wanted = wanted or (known[name].engine if name in known else DEFAULT)
    there = known.get(name)
    others = further.join(name, there.further if there else (), wishes)
    images = {one: image_of(one, preinstalled=preinstalled) for one in {wanted, *(host.engine for host in others)}}
    bare = image_of("none", preinstalled=False)
    applications.ensure()
    with alone("slots"):
        known = existing()
        there = known.get(name)
        if there and there.engine != wanted:
            raise LabError(f"instance '{name}' has engine {there.engine}, not {wanted}: first `./run lab down {name}`")
        check_ours(name)
        slots = {other.name: other.slot for other in known.values()}
        others = further.join(name, there.further if there else (), wishes)
        unusable = unusable_slots(others)
        instance = Instance(name, there.slot if there else allocate_slot(name, slots, unusable), wanted, others)
        if there and len(instance.sides) > len(there.sides) and there.slot in unusable:
            raise LabError(f"instance '{name}': {unusable[there.slot]}. Free that network, or put the hosts on the lan")
        ensure_networks(instance)
        set_rules(instance)
    have = {one["Name"] for one in engine.inspect("container", *map(instance.container, instance.names))}
    missing = [host for host in instance.names if f"/{instance.container(host)}" not in have]
    keys(instance, fresh=there is None)
    inventory(instance, fresh=there is None, changed=any(host.name in missing for host in others))
    for file in variables:
        shutil.copy(file, state_of(name) / "inventory" / "group_vars" / DEMO)
    engine.load_modules()
    everybody = sum(len(one.hosts) for one in {**known, name: instance}.values())
    if everybody > FEW:
        engine.make_room(everybody)
    for host in instance.hosts:
        if host.name in missing:
            create(instance, host.name, bare if host == OUTSIDE else images[host.engine])
        docker("start", instance.container(host.name))
    wait_ready(instance, instance.names)
    if missing:
        check_wires(instance, instance.names if OUTSIDE.name in missing else missing)
    return instance


def image_of(wanted: str, *, preinstalled: bool) -> str:
    """The image of a host with that engine, made when it is not there."""
    recipe = host_recipe(wanted)
    return ensure_preinstalled(recipe, wanted) if preinstalled else ensure_image(recipe)


def create(instance: Instance, host: str, image: str) -> None:
    """Make a host's container, wired but not yet started."""
    name, sides = instance.container(host), instance.sides_of(host)
    wires = " ".join(f"{side.name}={','.join(side.with_lengths(host))}" for side in sides)
    out = " ".join(gateway for side in sides if side.name != "wan" for gateway in side.gateways)
    labels = [f"{LABEL}={instance.name}", f"ringfence.host={host}"]
    for one in instance.further:
        if one.name == host:
            labels += [f"ringfence.engine={one.engine}", f"ringfence.numbers={further.written(one)}"]
    mounts = []
    if host != OUTSIDE.name:
        for volume, target in instance.volumes(host).items():
            docker("volume", "create", "--label", f"{LABEL}={instance.name}", volume)
            mounts.append(f"--volume={volume}:{target}")
        mounts.append(f"--volume={applications.ensure()}:/var/lib/ringfence-lab/images:ro")
    tun = ["--device", "/dev/net/tun"] if Path("/dev/net/tun").exists() else []
    options = [
        f"--name={name}", f"--hostname={host}", *(f"--label={label}" for label in labels),
        "--stop-signal=SIGRTMIN+3", "--restart=on-failure", "--userns=host", "--cap-add=ALL",
        "--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined",
        "--security-opt=systempaths=unconfined", "--cgroupns=private", "--tmpfs=/run", "--tmpfs=/run/lock",
        *mounts, *tun, "--env=container=docker", f"--env=LAB_WIRES={wires}", f"--env=LAB_GATEWAYS={out}",
        f"--env=LAB_DNS={' '.join(resolvers())}", f"--network={instance.network(sides[0])}",
        *_plug(sides[0], host),
    ]  # fmt: skip
    try:
        # Engines up to 20.10 would grant it even where the machine itself lacks it, and then fail.
        docker("create", *options, "--cap-drop=SYS_RESOURCE", image)
    except LabError as error:
        # Newer ones know what the machine lacks, and refuse to drop that.
        if "CAP_SYS_RESOURCE" not in str(error):
            raise
        docker("create", *options, image)
    for side in sides[1:]:
        docker("network", "connect", *_plug(side, host), instance.network(side), name)
    run(["docker", "cp", "-", f"{name}:/"], data=identity(instance, host))


def _plug(side: Side, host: str) -> list[str]:
    return [f"--ip={side.address(host)}", *([f"--ip6={side.address6(host)}"] if side.subnet6 else [])]


def wait_ready(instance: Instance, names: Sequence[str], seconds: float = 120) -> None:
    """Wait until hosts are booted and let the user in. Raises LabError after the deadline.

    Args:
        seconds: for two hosts; more of them have more.
    """
    seconds *= max(1, len(names) / 2)
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


def down(name: str, *, anybodys: bool = False) -> None:
    """Remove everything of an instance, also what is left of a half made one.

    Args:
        anybodys: also that of another clone of this repository.
    """
    check_name(name)
    if not engine.answers() and not state_of(name).exists():
        return
    engine.ensure_running(cache_dir() / "dockerd.log")
    if not anybodys:
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
    forget_rules(name)
    shutil.rmtree(state_of(name), ignore_errors=True)


def switch(name: str, host: str, action: str) -> None:
    """Reboot a host, cut its power or start it again. Its network namespace, and all netfilter state, is then new."""
    instance = get(name)
    instance.host(host)
    container = instance.container(host)
    if action == "poweroff":
        cables.cut(container)
        return
    if action == "reboot":
        cables.stop(container)
    docker("start", container)
    wait_ready(instance, (host,))


def load(name: str, host: str) -> None:
    """Load the applications' images into a host's engine, unless it has them."""
    instance = get(name)
    instance.host(host)
    with step(f"loading images into {host} of '{name}'"):
        run(["docker", "exec", instance.container(host), "/usr/lib/ringfence-lab/load-images"], timeout=300)


def status(name: str = "") -> list[str]:
    """One line per instance: name, engine, addresses and states of its hosts; and one per further host of it."""
    lines = []
    for instance in sorted(existing().values(), key=lambda one: one.slot):
        if name in ("", instance.name):
            found = engine.inspect("container", *map(instance.container, instance.names))
            states = {one["Name"]: one["State"]["Status"] for one in found}
            said = {
                host: f"{host} {instance.address(host)} {states.get(f'/{instance.container(host)}', 'missing')}"
                for host in instance.names
            }
            main = "  ".join(said[host.name] for host in instance.hosts if host not in instance.further)
            lines.append(f"{instance.name}  slot {instance.slot}  engine {instance.engine}  {main}")
            lines += [f"  {said[host.name]}  engine {host.engine}  on {host.sides}" for host in instance.further]
    return lines
