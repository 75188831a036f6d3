"""A host that people live on, step by step: what a failing step leaves, what verify says of theirs, and the way in."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.conftest import fresh
from tests.live.hoststate import host_variables
from tests.live.labs import BIN, NO_DOOR, ROOT, Lab, Run
from tests.live.runs import ansible_run

IMAGE = "docker.io/library/busybox:1.37"
# Of others: a network with a server that publishes a port, a service in the host's network, and what listens there.
THEIRS = f"""
set -e
docker network create theirs >/dev/null
docker run -d --name their-web --network theirs -p 8080:80 {IMAGE} httpd -f -p 80 -h /bin
docker run -d --name their-home --network host {IMAGE} httpd -f -p 8123 -h /bin
docker run -d --name their-side --network container:their-web {IMAGE} sleep 100000
"""
STARTED = "docker inspect -f '{{.Name}} {{.State.StartedAt}}' their-web their-home their-side"
CONFIG, DROP_IN = "/etc/docker/daemon.json", "/etc/systemd/system/docker.service.d/own.conf"
PID = "systemctl show -p MainPID --value docker.service"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    service = {"image": IMAGE, "host": "atlas", "segments": ["frontend"], "command": ["sleep", "1000000"]}
    for lab in fresh("t-steps", "26.1", lab_services={"idle": service}, **NO_DOOR):
        lab.sh(THEIRS, timeout=120)
        yield lab


def one(lab: Lab, role: str, *flags: str, by: str = "pyinfra") -> Run:
    """Run one role on atlas, without a terminal."""
    if by == "ansible":
        command = ["ansible-playbook", "playbooks/site.yml", "--tags", role, "--limit", "atlas", *flags]
    else:
        command = ["pyinfra", "--limit", "atlas", *(flags or ("--yes",)), "inventory.py", f"roles/{role}/deploy.py"]
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=ROOT, env=lab.environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if by == "ansible" and not done.returncode:
        return ansible_run(done.returncode, done.stdout, done.stderr)
    return Run(done.returncode, [], done.stderr + done.stdout)


# -- a step that fails leaves what it found


@pytest.mark.parametrize("where", ["running", "next start"])
def test_a_key_that_dockerds_command_line_has_as_well_is_refused_before_anything_is_replaced(
    lab: Lab, where: str
) -> None:
    """The reload was refused after the file had been replaced, and every container was restarted to take that back."""
    before, own = lab.sh(f"{STARTED}; {PID}"), '{"debug": true}\n'
    lab.sh(f"cp -a {CONFIG} /root/daemon.json 2>/dev/null || rm -f /root/daemon.json")
    unit = lab.sh("systemctl show -p FragmentPath --value docker.service").strip()
    try:
        lab.sh(
            f"mkdir -p $(dirname {DROP_IN}) && start=$(grep ^ExecStart= {unit}) &&"
            f" printf '[Service]\\nExecStart=\\n%s --debug\\n' \"$start\" > {DROP_IN} && systemctl daemon-reload"
        )
        if where == "running":  # with live-restore by a reload, as its user would restart it
            lab.sh(f"echo '{{\"live-restore\": true}}' > {CONFIG} && systemctl reload docker && sleep 1 &&"
                   " systemctl restart docker", timeout=90)  # fmt: skip
            before = lab.sh(f"{STARTED}; {PID}")
        lab.sh(f"echo '{own.strip()}' > {CONFIG}")
        run = one(lab, "docker")
        assert run.code != 0, run.text
        assert "debug" in run.text, run.text
        assert "command line both say debug" in run.text, run.text
        assert "Traceback" not in run.text
        assert lab.sh(f"cat {CONFIG}") == own
        assert lab.sh(f"{STARTED}; {PID}") == before
    finally:
        lab.sh(
            f"rm -f {CONFIG} {DROP_IN}; mv /root/daemon.json {CONFIG} 2>/dev/null; systemctl daemon-reload", check=False
        )


def test_dockerds_own_verdict_is_in_the_plan(lab: Lab) -> None:
    before = lab.sh(f"{STARTED}; {PID}; cat {CONFIG} 2>&1", check=False)
    lab.declare(docker_daemon={"no-such-key": 1})
    try:
        run = one(lab, "docker", "--dry")
    finally:
        lab.undeclare()
    assert run.code != 0, run.text
    assert "dockerd refuses /etc/docker/daemon.json as it would become" in run.text, run.text
    assert "no-such-key" in run.text
    assert lab.sh(f"{STARTED}; {PID}; cat {CONFIG} 2>&1", check=False) == before


# -- files of others


def test_updates_that_are_off_on_purpose_are_asked_about_and_may_stay(lab: Lab) -> None:
    path, off = "/etc/apt/apt.conf.d/20auto-upgrades", 'APT::Periodic::Unattended-Upgrade "0";'
    assert one(lab, "guard").code == 0
    lab.sh(f"systemctl disable --now apt-daily-upgrade.timer 2>/dev/null; echo '{off}' > {path}")
    for by in ("pyinfra", "ansible"):
        asked = one(lab, "base", by=by)
        assert asked.code != 0, asked.text
        for word in (f"- {off}", "base_theirs", "leave", "replace"):
            assert word in asked.text.replace('\\"', '"'), asked.text
    assert lab.sh(f"cat {path}") == f"{off}\n"
    with host_variables(lab, base_theirs={path: "leave"}):
        kept = one(lab, "base")
        assert kept.code == 0, kept.text
        assert lab.sh(f"cat {path}") == f"{off}\n"
        assert lab.sh("systemctl is-enabled apt-daily-upgrade.timer", check=False) == "disabled\n"
    with host_variables(lab, base_theirs={path: "replace"}):
        assert one(lab, "base").code == 0
    assert 'Unattended-Upgrade "1"' in lab.sh(f"cat {path}")
    assert lab.sh(f"cat /var/lib/ringfence/{path.rpartition('/')[2]}.before-ringfence") == f"{off}\n"


# -- set-ups that are documented or common


def test_the_site_is_applied_and_their_containers_run_on(lab: Lab) -> None:
    before = lab.sh(STARTED)
    lab.pyinfra()
    assert lab.sh(STARTED) == before


def test_rules_of_ones_own_and_containers_that_nothing_fences_are_no_differences(lab: Lab) -> None:
    lab.listen(4450)
    lan = str(lab.variables()["lab_places"]["lan"][0])
    own = {"name": "samba", "action": "allow", "proto": "tcp", "port": "4450", "source": lan, "interface": ""}
    with host_variables(lab, ufw_rules=[own]):
        assert one(lab, "ufw").code == 0
        verified = lab.verify()
        assert verified.code == 0, verified.text
        assert ("lan", "atlas", "tcp", 4450, 4) in lab.opened()
        for line in ("container their-home (the host's network", "container their-side (another's network)"):
            assert verified.text.count(line) == 1, verified.text
        assert sum("their-home" in line for line in verified.text.splitlines()) == 1, verified.text
        # A rule that is declared and gone is a difference.
        lab.unwatch()
        lab.sh(f"ufw delete allow proto tcp from {lan} to any port 4450 >/dev/null")
        assert any("4450" in line for line in lab.verify().changed)
    assert one(lab, "ufw").code == 0


# -- where the connection really goes


@pytest.mark.parametrize("engine", ["pyinfra", "ansible"])
def test_a_change_through_a_jump_host_of_the_arguments_is_confirmed(lab: Lab, engine: str) -> None:
    """`-J` and `-i` were dropped for pyinfra, which then came by another way, or not at all."""
    lab.sh(
        "iptables -I INPUT 1 -p tcp --dport 22 ! -s " + lab.address("outside") + " -j REJECT --reject-with tcp-reset"
    )
    jump = lab.address("outside")
    key, known = lab.state / "id_ed25519", lab.state / "known_hosts"
    hop = lab.state / "hop"
    hop.write_text(f"Host {jump}\n  User root\n  IdentityFile {key}\n  UserKnownHostsFile {known}\n", encoding="utf-8")
    words = f"-F {hop} -J root@{jump} -o UserKnownHostsFile={known}"
    values: dict[str, Any] = {
        "ansible_ssh_host": lab.address(), "ansible_ssh_user": "root", "ansible_ssh_port": 22,
        "ansible_ssh_common_args": f"{words} -i {key}", "ansible_ssh_args": "-o ControlPath=none",
        "ufw_rules": [{"name": f"by-{engine}", "proto": "tcp", "port": "4451", "source": "192.0.2.0/24"}],
    }  # fmt: skip
    try:
        assert not lab.reaches(22)
        with host_variables(lab, **values):
            run = one(lab, "ufw", by=engine)
        assert run.code == 0, run.text
        assert f"rf:by-{engine}" in lab.sh("ufw status")
        assert "pending" not in lab.sh("ringfence-guard status")
    finally:
        lab.sh(f"iptables -D INPUT -p tcp --dport 22 ! -s {jump} -j REJECT --reject-with tcp-reset", check=False)


# -- without a terminal


def test_a_wrong_sudo_password_and_none_are_told_and_nobody_is_asked(lab: Lab) -> None:
    lab.sh("useradd -m -s /bin/bash -G sudo bob && echo bob:right | chpasswd && install -d -o bob ~bob/.ssh &&"
           " install -o bob -m 600 /root/.ssh/authorized_keys ~bob/.ssh/authorized_keys")  # fmt: skip
    for password in ({}, {"ansible_become_pass": "wrong"}):
        with host_variables(lab, ansible_user="bob", ansible_become=True, **password):
            for engine in ("pyinfra", "ansible"):
                run = one(lab, "people", by=engine)
                assert run.code != 0, run.text
                assert "sudo" in run.text
                assert "Traceback" not in run.text
    with host_variables(lab, ansible_ssh_user="bob", ansible_become=True, ansible_become_pass="right"):
        assert one(lab, "people").code == 0


def test_verify_without_yes_says_what_to_type(lab: Lab) -> None:
    done = subprocess.run(
        [str(BIN / "pyinfra"), "inventory.py", "deploys/verify.py"], cwd=ROOT, env=lab.environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pyinfra --yes" in done.stderr
    assert "Traceback" not in done.stderr
