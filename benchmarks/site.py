"""What a no-change run of the whole site costs with either engine, over a line with 20 ms of added delay.

Run: .venv/bin/python benchmarks/site.py [INSTANCE] — the instance of the throwaway lab (default: demo) is brought up
and converged first. Prints times, their ratio (these machines are noisy: only the ratio says something) and the
number of commands sent.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.delay import delayed  # noqa: E402

BIN = Path(sys.executable).parent
ROUND_TRIP_SECONDS = 0.020
REPEATS = 2
PYINFRA = [str(BIN / "pyinfra"), "--yes", "inventory.py", "deploys/site.py"]
PYINFRA_PLAN = [str(BIN / "pyinfra"), "--dry", "inventory.py", "deploys/site.py"]
ANSIBLE = [str(BIN / "ansible-playbook"), "playbooks/site.yml"]


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    text = done.stdout + done.stderr
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{text}")
    return text


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    """The best of a few runs."""
    best = float("inf")
    for _ in range(REPEATS):
        started = time.monotonic()
        _run(command, environment)
        best = min(best, time.monotonic() - started)
    return best


def main(instance: str) -> None:
    """Measure and print."""
    _run([sys.executable, "-m", "lab", "up", instance], dict(os.environ))
    inventory = ROOT / ".lab" / instance / "inventory"
    _run(PYINFRA, {**os.environ, "RINGFENCE_LAB": str(inventory)})
    hosts = _run(
        [sys.executable, str(ROOT / "inventory.py"), "--list"], {**os.environ, "RINGFENCE_LAB": str(inventory)}
    )
    address = yaml.safe_load(hosts)["_meta"]["hostvars"]["atlas"]["ansible_host"]
    with tempfile.TemporaryDirectory() as directory, delayed(address, 22, ROUND_TRIP_SECONDS) as port:
        # The same host key, under the proxy's address.
        known = Path(directory) / "known_hosts"
        keys = (inventory.parent / "known_hosts").read_text(encoding="utf-8").splitlines()
        known.write_text(
            "".join(
                f"[127.0.0.1]:{port} {key.partition(' ')[2]}\n"
                for key in keys
                if address in key.partition(" ")[0].split(",")
            ),
            encoding="utf-8",
        )
        slow = Path(directory) / "inventory"
        shutil.copytree(inventory, slow)
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
        environment = {**os.environ, "RINGFENCE_LAB": str(slow)}
        pyinfra = _seconds(PYINFRA, environment)
        plan = _seconds(PYINFRA_PLAN, environment)
        ansible = _seconds(ANSIBLE, environment)
        sent = len(re.findall(r"Running command on", _run([*PYINFRA, "--debug"], environment)))
        sent_plan = len(re.findall(r"Running command on", _run([*PYINFRA_PLAN, "--debug"], environment)))
        sent_ansible = len(re.findall(r"SSH: EXEC", _run([*ANSIBLE, "-vvv"], environment)))
    print(f"no-change run of the site, 1 host, {ROUND_TRIP_SECONDS * 1000:.0f} ms of added round trip:")
    print(f"  pyinfra --yes      {pyinfra:6.1f} s  {sent:4d} commands")
    print(f"  pyinfra --dry      {plan:6.1f} s  {sent_plan:4d} commands")
    print(f"  ansible-playbook   {ansible:6.1f} s  {sent_ansible:4d} commands")
    print(f"  ratio              {ansible / pyinfra:6.1f}    (ansible-playbook / pyinfra --yes)")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo")
