"""What is kept of an instance in this clone: keys, known hosts and its inventory, in `.lab/NAME/`."""

from __future__ import annotations

import json
import secrets
import shutil
from pathlib import Path

from lab import declaration
from lab.archive import Entry, layer
from lab.plan import DEMO, Instance
from lab.shell import LabError, run

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".lab"
FILES = Path(__file__).parent / "files"

# What turns a container of a plain Debian into a host; put in when the container is made, so that a change here
# needs no new image.
PROGRAMS = {
    "usr/lib/ringfence-lab/init": ("init", 0o755),
    "usr/lib/ringfence-lab/load-images": ("load-images", 0o755),
    "usr/lib/systemd/system/docker.service.d/ringfence-lab.conf": ("docker-images.conf", 0o644),
}

# Units that make no sense in a container or only slow its start down; nothing that a role manages.
MASKED = (
    "console-getty.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty.target",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-networkd-wait-online.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
)

# What systemd runs at each daemon-reload and finds nothing to do for in a container; fstab's and sysv's stay.
GENERATORS = tuple(
    f"systemd-{name}-generator"
    for name in (
        "bless-boot",
        "cryptsetup",
        "debug",
        "getty",
        "gpt-auto",
        "hibernate-resume",
        "integritysetup",
        "rc-local",
        "run",
        "ssh",
        "system-update",
        "tpm2",
        "veritysetup",
    )
)


def state_of(name: str) -> Path:
    return STATE / name


def keys(instance: Instance, *, fresh: bool) -> None:
    """The user's key and the hosts' keys, made with the instance. Raises LabError when they are lost."""
    folder = state_of(instance.name)
    if not fresh and not (folder / "id_ed25519").exists():
        raise LabError(
            f"the keys of instance '{instance.name}' are gone from {folder}: "
            f"`./run lab down {instance.name}`, then make it again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    wanted = {"id_ed25519": f"ringfence-lab-{instance.name}", **{f"host_{host}": host for host in instance.names}}
    for file, comment in wanted.items():
        if not (folder / file).exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(folder / file)])
    lines = []
    for host in instance.names:
        kind, key = (folder / f"host_{host}.pub").read_text().split()[:2]
        names = [address for side in instance.sides_of(host) for address in side.addresses(host)]
        lines.append(f"{','.join(names)} {kind} {key}\n")
    (folder / "known_hosts").write_text("".join(lines))


def inventory(instance: Instance, *, fresh: bool, changed: bool) -> None:
    """A copy of the demo's inventory with this instance's addresses and hosts: `<state>/inventory`.

    Args:
        fresh: whether it is made anew, whatever is there.
        changed: whether further hosts have come.
    """
    source, target = ROOT / "inventories" / DEMO, state_of(instance.name) / "inventory"
    folder = target / "group_vars" / DEMO
    if not source.is_dir():
        return
    if made := fresh or not target.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        folder.mkdir(parents=True, exist_ok=True)
        write_facts(instance, folder)
    if instance.further and (made or changed):
        for path, content in (
            (target / "hosts.yml", declaration.hosts(instance)),
            # After site.yml, whose values it replaces, and before what a test or a user adds.
            (folder / "site_hosts.yml", declaration.variables(instance)),
        ):
            # JSON is YAML, and Python's own library has no other writer of it.
            path.write_text(f"---\n# Written by `./run lab up`.\n{json.dumps(content, indent=2)}\n")


def write_facts(instance: Instance, folder: Path) -> None:
    (folder / "instance.yml").write_text(
        "---\n# Written by `./run lab up`.\n"
        f"demo_name: {instance.name}\ndemo_slot: {instance.slot}\n"
        f"demo_state: {json.dumps(str(state_of(instance.name)))}\n"
    )


def identity(instance: Instance, host: str) -> bytes:
    """A tar archive of what makes a host itself: its keys, who may log in, its machine id."""
    folder = state_of(instance.name)
    entries = [
        Entry("root/.ssh", mode=0o700),
        Entry("root/.ssh/authorized_keys", (folder / "id_ed25519.pub").read_bytes(), mode=0o600),
        Entry("etc/ssh/ssh_host_ed25519_key", (folder / f"host_{host}").read_bytes(), mode=0o600),
        Entry("etc/ssh/ssh_host_ed25519_key.pub", (folder / f"host_{host}.pub").read_bytes(), mode=0o644),
        Entry("etc/machine-id", f"{secrets.token_hex(16)}\n".encode(), mode=0o444),
        Entry("usr/lib/ringfence-lab"),
        Entry("usr/lib/systemd/system/docker.service.d"),
        *(Entry(path, (FILES / name).read_bytes(), mode=mode) for path, (name, mode) in PROGRAMS.items()),
        *(Entry(f"etc/systemd/system/{unit}", link="/dev/null") for unit in MASKED),
        Entry("etc/systemd/system-generators"),
        *(Entry(f"etc/systemd/system-generators/{name}", link="/dev/null") for name in GENERATORS),
    ]
    return layer(entries)


def ssh_command(instance: Instance, host: str) -> list[str]:
    folder = state_of(instance.name)
    return [
        "ssh",
        "-i",
        str(folder / "id_ed25519"),
        "-o",
        f"UserKnownHostsFile={folder / 'known_hosts'}",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "ConnectTimeout=5",
        "-o",
        "BatchMode=yes",
        "-o",
        "LogLevel=ERROR",
        f"root@{instance.address(host)}",
    ]
