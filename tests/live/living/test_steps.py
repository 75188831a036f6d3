"""A host that people live on, step by step: what a failing step leaves, what verify says of theirs, and the way in."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

from tests.live import zygote
from tests.live.hoststate import host_variables
from tests.live.labs import BIN, ROOT, Lab, Run
from tests.live.living.conftest import IDLE
from tests.live.living.crowd import STARTED, UPDATES
from tests.live.living.test_adopted import ANSWERS, answered
from tests.live.runs import ansible_run

pytestmark = pytest.mark.engines("26.1")
CONFIG, DROP_IN = "/etc/docker/daemon.json", "/etc/systemd/system/docker.service.d/own.conf"
PID = "systemctl show -p MainPID --value docker.service"

# The tests of this file go on with the host that was adopted.


def one(lab: Lab, role: str, *flags: str, by: str = "pyinfra") -> Run:
    """Run one role on atlas, without a terminal."""
    if by == "ansible":
        command = ["ansible-playbook", "playbooks/site.yml", "--tags", role, "--limit", "atlas", *flags]
    else:
        command = ["pyinfra", "--limit", "atlas", *(flags or ("--yes",)), "inventory.py", f"roles/{role}/deploy.py"]
    done = zygote.run([str(BIN / command[0]), *command[1:]], ROOT, lab.environment, 300)
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
    answered(lab, docker_daemon={"no-such-key": 1})
    try:
        run = one(lab, "docker", "--dry")
    finally:
        answered(lab)
    assert run.code != 0, run.text
    assert "dockerd refuses /etc/docker/daemon.json as it would become" in run.text, run.text
    assert "no-such-key" in run.text
    assert lab.sh(f"{STARTED}; {PID}; cat {CONFIG} 2>&1", check=False) == before


# -- files of others


def test_updates_that_are_off_on_purpose_are_asked_about_and_replaced_where_that_is_said(lab: Lab) -> None:
    path, off = "/etc/apt/apt.conf.d/20auto-upgrades", UPDATES.strip()
    lab.declare(**{key: value for key, value in ANSWERS.items() if key != "base_theirs"})
    try:
        for by in ("pyinfra", "ansible"):
            asked = one(lab, "base", by=by)
            assert asked.code != 0, asked.text
            for word in (f"- {off}", "base_theirs", "leave", "replace"):
                assert word in asked.text.replace('\\"', '"'), asked.text
        assert lab.sh(f"cat {path}") == UPDATES
        with host_variables(lab, base_theirs={path: "replace"}):
            assert one(lab, "base").code == 0
        assert 'Unattended-Upgrade "1"' in lab.sh(f"cat {path}")
        assert lab.sh(f"cat /var/lib/ringfence/{path.rpartition('/')[2]}.before-ringfence") == UPDATES
    finally:
        answered(lab)
    assert one(lab, "base").code == 0


# -- set-ups that are documented or common


def test_a_rule_of_ones_own_is_no_difference_and_one_that_is_gone_is(lab: Lab) -> None:
    lab.listen(4450)
    lan = str(lab.variables()["lab_places"]["lan"][0])
    own = {"name": "samba", "action": "allow", "proto": "tcp", "port": "4450", "source": lan, "interface": ""}
    with host_variables(lab, ufw_rules=[own]):
        assert one(lab, "ufw").code == 0
        verified = lab.verify()
        assert verified.code == 0, verified.text
        assert ("lan", "atlas", "tcp", 4450, 4) in lab.opened()
        # A rule that is declared and gone is a difference.
        lab.unwatch()
        lab.sh(f"ufw delete allow proto tcp from {lan} to any port 4450 >/dev/null")
        assert any("4450" in line for line in lab.verify().changed)
    assert one(lab, "ufw").code == 0


BEFORE = "/etc/ufw/before.rules"
WRITTEN = (  # several addresses, a chain of one's own, names, and the long form
    "-A ufw-before-input -s 192.0.2.10,192.0.2.11 -p tcp --dport 4451 -j ACCEPT",
    "-A ufw-before-input -i eth0 -j mine",
    "-A mine -p tcp --dport ssh --jump ACCEPT",
)


def test_what_somebody_has_written_into_ufws_own_files_is_read_as_the_kernel_reads_it(lab: Lab) -> None:
    text = lab.sh(f"cat {BEFORE}").replace("*filter\n", "*filter\n:mine - [0:0]\n", 1)
    head, _, tail = text.rpartition("COMMIT\n")
    lab.sh(
        f"cp -p {BEFORE} /root/before.rules && cat > {BEFORE}",
        text="\n".join([*head.splitlines(), *WRITTEN, f"COMMIT\n{tail}"]),
    )
    try:
        lab.sh("ufw reload")
        run = one(lab, "ufw", "--dry")
        assert run.code == 0, run.text
        named = re.findall(rf"kept, although it is not declared: {BEFORE}: -A (\S+) (.*)", run.text)
        rules = {(chain, *sorted(rule.split(" -"))) for chain, rule in named}
        assert {chain for chain, *_ in rules} == {"ufw-before-input", "mine"}, run.text
        for words in ("192.0.2.10", "192.0.2.11", "4451", "22"):
            assert any(words in " ".join(rule) for rule in rules), run.text
        # Nothing that is let in is a difference; the reload has emptied Docker's chain, as ufw-docker's block does.
        assert [line for line in lab.verify().changed if not re.match(r"atlas: (policy|watch): ", line)] == []
    finally:
        lab.sh(f"cp -p /root/before.rules {BEFORE} && ufw reload && iptables -F mine && iptables -X mine")
    assert [one(lab, role).code for role in ("ufw", "policy", "watch")] == [0, 0, 0]


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


def test_verify_asks_nothing_as_it_changes_nothing(lab: Lab) -> None:
    done = subprocess.run(
        [str(BIN / "pyinfra"), "inventory.py", "deploys/verify.py"], cwd=ROOT, env=lab.environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "None will be made" in done.stderr, done.stdout + done.stderr
    # What the tests before have left is a difference, or none is: it was looked for, without a question.
    assert re.search(r"\d+ cells: .* differences?$", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert "Press enter" not in done.stderr


def test_a_run_that_does_nothing_is_an_error(lab: Lab) -> None:
    """An inventory without the group ended with exit code 0 and no word."""
    other = lab.beside("nobody")
    hosts = other.inventory / "hosts.yml"
    hosts.write_text(hosts.read_text(encoding="utf-8").replace("docker_hosts", "machines"), encoding="utf-8")
    for run in (other.pyinfra(check=False), other.ansible(check=False)):
        assert run.code != 0, run.text
        assert "docker_hosts" in run.text, run.text


@pytest.mark.parametrize("by", ["pyinfra", "ansible"])
def test_what_means_nothing_is_refused_with_what_to_write(lab: Lab, by: str) -> None:
    egress = [{"to": f"{lab.address()}/32", "port": 8123}, {"to": "127.0.0.0/8", "port": 53}]
    services = {"idle": {**IDLE, "egress": egress}, "other": {**IDLE, "ports": ["80:80"], "depends_on": ["db"]}}
    answered(lab, lab_services=services)
    try:
        told = lab.pyinfra(check=False) if by == "pyinfra" else lab.ansible(check=False)
    finally:
        answered(lab)
    assert told.code != 0, told.text
    for words in (
        "is an address of 'atlas', on which 'idle' runs", "is loopback, which in a container is the container itself",
        "'ports' is not a setting here (write publish:", "write depends: [db]",
    ):  # fmt: skip
        assert words in " ".join(told.text.split()), told.text
