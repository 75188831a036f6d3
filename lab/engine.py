"""The Docker engine of this machine: found, started if it is not running, asked, never changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from lab.cache import alone
from lab.shell import LabError, output, run, say, step, tail

SOCKET = Path("/var/run/docker.sock")
SYSCTLS = Path("/proc/sys")
INSTANCES, INSTANCES_OF_OTHERS = 16, 128  # of inotify: a host with Docker has a dozen
NEIGHBOURS, NEIGHBOURS_OF_OTHERS = 512, 1024  # a host of a hundred services has that many of each family


def docker(*arguments: str, **options: Any) -> str:
    """Run the docker client and return what it printed."""
    return output(["docker", *arguments], **options)


def inspect(kind: str, *names: str) -> list[dict[str, Any]]:
    """`docker <kind> inspect`, with what does not exist left out."""
    done = run(["docker", kind, "inspect", *names], check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    return found


def answers() -> bool:
    return (
        shutil.which("docker") is not None
        and run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, timeout=20).returncode == 0
    )


def ensure_running(log: Path) -> None:
    """Make sure that an engine answers. Raises LabError with the engine's own last words when it does not start."""
    if answers():
        return
    if not shutil.which("dockerd"):
        apt_install("docker.io", *(["docker-cli"] if candidate("docker-cli") else []))
    load_modules()
    if Path("/run/systemd/system").is_dir():
        with step("starting docker.service"):
            run(["systemctl", "start", "docker.service"])
    else:
        forget_dead(Path("/var/run/docker.pid"), "dockerd")
        forget_dead(Path("/var/run/docker/containerd/containerd.pid"), "containerd")
        say(f"starting dockerd in the background, its log is {log}")
        with log.open("ab") as words:
            subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True)
    deadline = time.monotonic() + 60
    while not answers():
        if time.monotonic() > deadline:
            last = tail(log.read_text(errors="replace")) if log.exists() else "see journalctl -u docker"
            raise LabError(f"the Docker engine of this machine does not start: {last}")
        time.sleep(0.3)


def forget_dead(pidfile: Path, program: str) -> None:
    """Remove what a killed engine left behind: it refuses to start while another process has its old number."""
    try:
        status = Path(f"/proc/{int(pidfile.read_text())}/status").read_text()
        alive = f"Name:\t{program}\n" in status and "\nState:\tZ" not in status
    except (OSError, ValueError):
        alive = False
    if not alive:
        pidfile.unlink(missing_ok=True)


def load_modules() -> None:
    """Load what the hosts' engines want to load and cannot, where it is a module at all."""
    if shutil.which("modprobe"):
        run(["modprobe", "-a", "-q", "br_netfilter", "overlay", "tun", "ip_tables", "ip6_tables"], check=False)


def room_for(hosts: int) -> dict[str, int]:
    """What the kernel has to allow all hosts of all instances together: sysctl → its least value: pure.

    Every host's systemd, and its engine, watch files by inotify as root: with Debian's 128 the twelfth host or so does
    not boot, and does not say why. Neighbours are in one table for all network namespaces, containers' as well: when it
    is full, packets are lost.
    """
    neighbours = NEIGHBOURS_OF_OTHERS + NEIGHBOURS * hosts
    tables = {f"net.{ip}.neigh.default": neighbours for ip in ("ipv4", "ipv6")}
    return {
        "fs.inotify.max_user_instances": INSTANCES_OF_OTHERS + INSTANCES * hosts,
        **{f"{table}.gc_thresh3": most for table, most in tables.items()},
        **{f"{table}.gc_thresh2": most // 2 for table, most in tables.items()},  # above it the table is cleared
    }


def make_room(hosts: int) -> None:
    """Raise what the kernel allows, where that is not enough for so many hosts; nothing is ever lowered.

    Raises:
        LabError: this machine does not let it be raised.
    """
    for name, wanted in room_for(hosts).items():
        limit = SYSCTLS / name.replace(".", "/")
        try:
            if int(limit.read_text(encoding="ascii")) < wanted:
                limit.write_text(f"{wanted}\n", encoding="ascii")
                say(f"{name} is {wanted} until this machine restarts: {hosts} hosts need that")
        except OSError as error:
            raise LabError(f"{hosts} hosts need `sysctl {name}={wanted}` on this machine: {error.strerror}") from None


def candidate(package: str) -> str:
    """The version of a Debian package that apt would install, or nothing."""
    done = run(["apt-cache", "policy", package], check=False)
    found = re.search(rb"Candidate: (\S+)", done.stdout)
    return "" if found is None or found[1] == b"(none)" else found[1].decode()


def apt_install(*packages: str) -> None:
    """Install Debian packages that are missing; nothing that is there is upgraded."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # apt waits for another apt's lock on the packages, not for the one on its lists.
    with alone("apt"), step(f"installing {', '.join(packages)}"):
        run(["apt-get", "update", "-q", "-o", "DPkg::Lock::Timeout=300"], timeout=300, env=env)
        run(
            [
                "apt-get",
                "install",
                "-q",
                "-y",
                "-o",
                "DPkg::Lock::Timeout=300",
                "--no-upgrade",
                "--no-install-recommends",
                *packages,
            ],
            timeout=900,
            env=env,
        )
