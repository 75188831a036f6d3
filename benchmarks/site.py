"""What a no-change run of the whole site costs, against the least that pyinfra can do.

Run: .venv/bin/python benchmarks/site.py [INSTANCE] — the instance of the throwaway lab (default: demo) is brought up
and converged first. Everything goes over a line with 20 ms of added round trip. Each command is run five times, in turn
with the others, and the median is taken. Machines are noisy and differ: only the ratios say something.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.delay import delayed  # noqa: E402

BIN = Path(sys.executable).parent
ROUND_TRIP_SECONDS = 0.020
REPEATS = 5
PYINFRA = str(BIN / "pyinfra")
ANSIBLE = str(BIN / "ansible-playbook")
NOTHING = 'from pyinfra.operations import files\n\nfiles.directory(name="nothing", path="/etc")\n'


def commands(directory: Path, data: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is measured: name → command. ``data`` is how pyinfra reaches the host without an inventory of ours."""
    (directory / "bare.py").write_text(f"hosts = [('atlas', {dict(data)!r})]\n", encoding="utf-8")
    (directory / "nothing.py").write_text(NOTHING, encoding="utf-8")
    nothing = str(directory / "nothing.py")
    return {
        "bare no-op": [PYINFRA, "--yes", str(directory / "bare.py"), nothing],
        "no-op through inventory.py": [PYINFRA, "--yes", "--limit", "docker_hosts", "inventory.py", nothing],
        "site, pyinfra --yes": [PYINFRA, "--yes", "inventory.py", "deploys/site.py"],
        "site, pyinfra --dry": [PYINFRA, "--dry", "inventory.py", "deploys/site.py"],
        "site, ansible-playbook": [ANSIBLE, "playbooks/site.yml"],
    }


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run to the end and return what was printed; ends the benchmark when it fails."""
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    text = done.stdout + done.stderr
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{text}")
    return text


def medians(measured: dict[str, list[str]], environment: dict[str, str]) -> dict[str, float]:
    """Seconds of each command."""
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(REPEATS):
        for name, command in measured.items():
            started = time.monotonic()
            run(command, environment)
            seconds[name].append(time.monotonic() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def sent(command: list[str], environment: dict[str, str]) -> int:
    """How many commands the host is sent."""
    if command[0] == ANSIBLE:
        return len(re.findall(r"SSH: EXEC", run([*command, "-vvv"], environment)))
    return len(re.findall(r"Running command on", run([*command, "--debug"], environment)))


def slow_inventory(inventory: Path, directory: Path, port: int, address: str) -> tuple[Path, dict[str, Any]]:
    """Copy an inventory so that its host is reached by a local port; returns it, and pyinfra's data for that way."""
    # The same host key, under the proxy's address.
    known = directory / "known_hosts"
    keys = (inventory.parent / "known_hosts").read_text(encoding="utf-8").splitlines()
    known.write_text(
        "".join(
            f"[127.0.0.1]:{port} {key.partition(' ')[2]}\n"
            for key in keys
            if address in key.partition(" ")[0].split(",")
        ),
        encoding="utf-8",
    )
    slow = Path(shutil.copytree(inventory, directory / "inventory"))
    (slow / "host_vars" / "atlas").mkdir(parents=True, exist_ok=True)
    (slow / "host_vars" / "atlas" / "zz_delay.yml").write_text(
        yaml.safe_dump(
            {
                "ansible_host": "127.0.0.1",
                "ansible_port": port,
                "ringfence_known_hosts": str(known),
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes",
            }
        ),
        encoding="utf-8",
    )
    key = str(inventory.parent / "id_ed25519")
    way = {"ssh_hostname": "127.0.0.1", "ssh_port": port, "ssh_user": "root", "ssh_key": key}
    return slow, {**way, "ssh_known_hosts_file": str(known)}


def main(instance: str) -> None:
    """Measure and print."""
    run([sys.executable, "-m", "lab", "up", instance], dict(os.environ))
    inventory = ROOT / ".lab" / instance / "inventory"
    environment = {**os.environ, "RINGFENCE_LAB": str(inventory), "LC_ALL": "C.UTF-8"}
    run([PYINFRA, "--yes", "inventory.py", "deploys/site.py"], environment)
    hosts = yaml.safe_load(run([sys.executable, str(ROOT / "inventory.py"), "--list"], environment))
    address = hosts["_meta"]["hostvars"]["atlas"]["ansible_host"]
    with tempfile.TemporaryDirectory() as name, delayed(address, 22, ROUND_TRIP_SECONDS) as port:
        slow, data = slow_inventory(inventory, Path(name), port, address)
        environment["RINGFENCE_LAB"] = str(slow)
        measured = commands(Path(name), data)
        seconds = medians(measured, environment)
        count = {name: sent(command, environment) for name, command in measured.items()}
    bare, site = seconds["bare no-op"], seconds["site, pyinfra --yes"]
    print(
        f"no-change runs, 1 host, {ROUND_TRIP_SECONDS * 1000:.0f} ms of added round trip, medians of {REPEATS} in turn:"
    )
    print(f"  {'':28}{'seconds':>8}{'of bare':>9}{'of site':>9}{'commands':>10}")
    for name, value in seconds.items():
        print(f"  {name:28}{value:8.1f}{value / bare:9.1f}{value / site:9.1f}{count[name]:10d}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo")
