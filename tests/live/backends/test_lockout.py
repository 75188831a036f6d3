"""Nobody is locked out: neither by a mistake nor by force, nor by what happens meanwhile, with either engine.

Every drill is refused before anything is changed, or the host is back within a minute: ssh open, the old state byte for
byte. On either of Docker's firewall back ends, as what the guard takes back stands in other places there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import yaml

from tests.live.backends.conftest import HOSTS
from tests.live.conftest import in_turn
from tests.live.hoststate import by_a_forwarded_port, by_a_jump_host, greeted, host_variables, state_of
from tests.live.labs import BIN, ROOT, Lab, Run, waited_for

BACK_SECONDS = 60
# There while a change waits for its confirmation.
PENDING = "/var/lib/ringfence/guard/pending.json"
METRICS = 9100


@pytest.fixture
def run(engine: str) -> Callable[[Lab], Run]:
    return {"pyinfra": lambda lab: lab.pyinfra(check=False), "ansible": lambda lab: lab.ansible(check=False)}[engine]


@pytest.fixture
def before(lab: Lab) -> dict[str, Any]:
    """The state that every drill leaves behind; the one before it has."""
    lab.undeclare()
    # What a drill that failed has left is over some time as well.
    assert waited_for(lambda: lab.sh(f"ls {PENDING}", check=False) == "", BACK_SECONDS)
    forgive(lab)
    return state_of(lab)


@pytest.fixture(scope="module", autouse=True)
def _forgiven(lab: Lab) -> Iterator[None]:
    yield
    forgive(lab)


def forgive(lab: Lab) -> None:
    """Have sshd forget this machine: from 9.8 on it refuses for minutes who has left many connections without a login,
    and every drill leaves some (PerSourcePenalties)."""
    # systemd allows five starts in ten seconds, unless they are forgotten.
    lab.sh("sshd -t && systemctl reset-failed ssh && systemctl restart ssh")
    assert waited_for(lambda: greeted(lab.address()), 20)


def _must_be_back(lab: Lab, before: dict[str, Any], seconds: float = BACK_SECONDS) -> None:
    """Wait for ssh; raises unless the old state is there, byte for byte, and nothing waits any longer."""
    lab.wait_for_ssh(seconds)
    assert waited_for(lambda: lab.sh(f"ls {PENDING}", check=False) == "", seconds)
    assert state_of(lab) == before


# -- what is declared


def _atlas(lab: Lab, services: dict[str, Any]) -> dict[str, Any]:
    hosts = dict(lab.variables()["lab_hosts"])
    return {"lab_hosts": {**hosts, "atlas": {**hosts["atlas"], "services": services}}}


def _services(lab: Lab) -> dict[str, Any]:
    return dict(lab.variables()["lab_hosts"]["atlas"]["services"])


def _with_metrics(lab: Lab) -> dict[str, Any]:
    """A change that does nobody any harm."""
    return _atlas(lab, {**_services(lab), "metrics": {"port": METRICS, "from": ["lan"]}})


def _without_ssh(lab: Lab) -> dict[str, Any]:
    return _atlas(lab, {})


def _from_a_desk(lab: Lab, *networks: str) -> dict[str, Any]:
    services = _services(lab)
    declared = _atlas(lab, {**services, "ssh": {**services["ssh"], "from": ["desk"]}})
    return {**declared, "lab_places": {**lab.variables()["lab_places"], "desk": list(networks)}}


def _narrowed(lab: Lab) -> dict[str, Any]:
    return _from_a_desk(lab, f"{lab.address('outside')}/32")


def _ipv6_only(lab: Lab) -> dict[str, Any]:
    return _from_a_desk(lab, "fd52:4600::/32")


def _wrong_interface(lab: Lab) -> dict[str, Any]:
    rule = {"name": "ssh", "action": "allow", "proto": "tcp", "port": "22", "source": "", "interface": "eth1"}
    return {**_without_ssh(lab), "ufw_rules": [rule]}


def _wrong_port(lab: Lab) -> dict[str, Any]:
    services = _services(lab)
    return _atlas(lab, {**services, "ssh": {**services["ssh"], "port": 2222}})


def _sshd(**settings: str) -> dict[str, Any]:
    defaults = yaml.safe_load((ROOT / "roles/base/defaults/main.yml").read_text(encoding="utf-8"))
    return {"base_sshd": {**defaults["base_sshd"], **settings}}


# -- refused before anything is changed

WAY_IN = ("lab_hosts.atlas.services", "TCP port 22")


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        pytest.param(_without_ssh, WAY_IN, id="ssh-left-out"),
        pytest.param(_narrowed, WAY_IN, id="place-narrowed", marks=pytest.mark.engines("26.1")),
        pytest.param(_ipv6_only, WAY_IN, id="ipv6-only", marks=pytest.mark.engines("29-nftables")),
        pytest.param(_wrong_interface, WAY_IN, id="wrong-interface", marks=pytest.mark.engines("26.1")),
        pytest.param(
            _wrong_port,
            ("sshd listens at 22, but lab_hosts.atlas.services.ssh.port says 2222",),
            id="wrong-port",
            marks=pytest.mark.engines("29-nftables"),
        ),
        pytest.param(
            lambda lab: _sshd(PermitRootLogins="no"),
            ("sshd would not take base_sshd", "PermitRootLogins"),
            id="sshd-broken",
        ),
    ],
)
def test_a_mistake_is_refused_before_anything_is_changed(
    lab: Lab,
    run: Callable[[Lab], Run],
    before: dict[str, Any],
    mistake: Callable[[Lab], dict[str, Any]],
    said: tuple[str, ...],
) -> None:
    lab.declare(**mistake(lab))
    refused = run(lab)
    assert refused.code != 0
    for words in said:  # the owner, the value, and the fix
        assert words in refused.text
    if said is WAY_IN:
        assert lab.controller() in refused.text
    assert refused.changed == []
    assert state_of(lab) == before


def test_a_jump_host_is_whom_the_host_has_to_let_in(
    lab: Lab, run: Callable[[Lab], Run], before: dict[str, Any]
) -> None:
    lab.declare(**_from_a_desk(lab, f"{lab.controller()}/32"))
    with by_a_jump_host(lab):
        refused = run(lab)
    assert refused.code != 0
    assert f"no declared rule lets {lab.address('outside')} in at TCP port 22" in refused.text
    assert state_of(lab) == before


@pytest.mark.parametrize(
    ("damage", "mend", "said"),
    [
        (
            "cp -p /etc/ufw/after.rules /root/ && echo 'no rule' >> /etc/ufw/after.rules",
            "cp -p /root/after.rules /etc/ufw/after.rules",
            "/etc/ufw/after.rules",
        ),
        ("mv /usr/bin/systemd-run /root/", "mv /root/systemd-run /usr/bin/", "nothing may be changed"),
    ],
    ids=["after-rules-broken", "timer-missing"],
)
def test_on_a_host_that_could_not_be_brought_back_nothing_is_changed(
    lab: Lab, run: Callable[[Lab], Run], before: dict[str, Any], damage: str, mend: str, said: str
) -> None:
    lab.declare(**_with_metrics(lab))
    lab.sh(damage)
    try:
        damaged = state_of(lab)
        refused = run(lab)
        assert state_of(lab) == damaged
    finally:
        lab.sh(mend)
    assert refused.code != 0
    assert said in refused.text
    assert state_of(lab) == before


def test_whoever_is_not_root_is_told_what_to_set(
    lab: Lab, engine: str, run: Callable[[Lab], Run], before: dict[str, Any]
) -> None:
    lab.sh("id plain || useradd -m plain; cp -r /root/.ssh ~plain/ && chown -R plain: ~plain/.ssh")
    lab.declare(**_with_metrics(lab))
    with host_variables(lab, ansible_user="plain"):
        refused = run(lab)
    assert refused.code != 0
    # The playbook itself becomes root, and Ansible says what it lacks.
    said = {"pyinfra": "set `ansible_become: true`", "ansible": "Missing sudo password"}[engine]
    assert said in refused.text
    assert "move it away" not in refused.text
    assert state_of(lab) == before


# -- forced, and taken back


@pytest.mark.parametrize(
    "change",
    [
        lambda lab: {**_without_ssh(lab), "ufw_force": True},
        lambda lab: _sshd(AllowUsers="nobody"),
    ],
    ids=["ssh-left-out", "sshd-lets-nobody-in"],
)
def test_a_change_that_locks_out_is_taken_back(
    lab: Lab, run: Callable[[Lab], Run], before: dict[str, Any], change: Callable[[Lab], dict[str, Any]]
) -> None:
    lab.declare(**change(lab), guard_seconds=30)
    forced = run(lab)
    assert forced.code != 0
    assert "the change would have locked you out" in forced.text
    _must_be_back(lab, before)


def test_a_change_after_which_a_port_that_must_stay_open_does_not_answer_is_taken_back(
    lab: Lab, run: Callable[[Lab], Run], before: dict[str, Any]
) -> None:
    lab.declare(**_with_metrics(lab), guard_ports=[4443], guard_seconds=300)
    refused = run(lab)
    assert refused.code != 0
    assert "4443" in refused.text
    assert "must stay open" in refused.text
    # At once: the guard's own timer would take five minutes.
    assert "the old state is back" in refused.text
    _must_be_back(lab, before, 0)


def test_a_controller_that_dies_right_after_applying_leaves_the_old_state(
    lab: Lab, engine: str, before: dict[str, Any]
) -> None:
    lab.declare(**_without_ssh(lab), ufw_force=True, guard_seconds=10)
    with _started(lab, engine) as controller:
        assert waited_for(lambda: not greeted(lab.address(), seconds=0.5), 120)
        assert controller.poll() is None
    _must_be_back(lab, before)


# -- ways in, and slow hosts


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(by_a_forwarded_port, marks=pytest.mark.engines("26.1")),
        pytest.param(by_a_jump_host, marks=pytest.mark.engines("29-nftables")),
    ],
)
def test_a_change_that_locks_nobody_out_is_kept_whatever_the_way_in(
    lab: Lab,
    run: Callable[[Lab], Run],
    before: dict[str, Any],
    way: Callable[[Lab], AbstractContextManager[None]],
) -> None:
    with way(lab):
        lab.declare(**_with_metrics(lab))
        kept = run(lab)
        assert kept.code == 0, kept.text
        assert str(METRICS) in lab.sh("ufw status")
        lab.undeclare()
        kept = run(lab)
        assert kept.code == 0, kept.text
    assert state_of(lab) == before


@pytest.mark.engines("29-nftables")
def test_a_lock_out_is_seen_through_a_forwarded_port_as_well(
    lab: Lab, run: Callable[[Lab], Run], before: dict[str, Any]
) -> None:
    lab.declare(**_without_ssh(lab), ufw_force=True, guard_seconds=30)
    with by_a_forwarded_port(lab):
        forced = run(lab)
    assert forced.code != 0
    assert "the change would have locked you out" in forced.text
    _must_be_back(lab, before)


@contextmanager
def _ufw_is(lab: Lab, text: str) -> Iterator[None]:
    """Let a script take ufw's place, which finds it as /usr/sbin/ufw.real."""
    lab.sh(f"mv /usr/sbin/ufw /usr/sbin/ufw.real && printf '#!/bin/sh\\n{text}\\n' > /usr/sbin/ufw")
    lab.sh("chmod 755 /usr/sbin/ufw")
    try:
        yield
    finally:
        lab.sh("mv /usr/sbin/ufw.real /usr/sbin/ufw")


@pytest.mark.engines("26.1")
def test_on_a_slow_host_the_window_begins_when_the_change_is_applied(
    lab: Lab, run: Callable[[Lab], Run], before: dict[str, Any]
) -> None:
    with _ufw_is(lab, 'sleep 9; exec /usr/sbin/ufw.real "$@"'):
        lab.declare(**_with_metrics(lab), guard_seconds=8)
        kept = run(lab)
    assert kept.code == 0, kept.text
    assert str(METRICS) in lab.sh("ufw status")
    lab.undeclare()
    assert run(lab).code == 0
    assert state_of(lab) == before


@pytest.mark.engines("29-nftables")
def test_a_change_that_hangs_is_taken_back_and_not_called_a_lock_out(
    lab: Lab, run: Callable[[Lab], Run], before: dict[str, Any]
) -> None:
    with _ufw_is(lab, "exec sleep 1000"):
        lab.declare(**_with_metrics(lab), guard_seconds=5, guard_apply_seconds=10)
        hung = run(lab)
    assert hung.code != 0
    assert "applying it was not done after 1" in hung.text
    assert "guard_apply_seconds is 10" in hung.text
    assert "locked you out" not in hung.text
    _must_be_back(lab, before)


# -- two controllers


@contextmanager
def _started(lab: Lab, engine: str) -> Iterator[subprocess.Popen[str]]:
    """A controller at work; it is killed at the end."""
    words = {
        "pyinfra": [str(BIN / "pyinfra"), "--yes", "inventory.py", "deploys/site.py"],
        "ansible": [str(BIN / "ansible-playbook"), "playbooks/site.yml"],
    }[engine]
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(
        words, cwd=ROOT, env=lab.environment, stdout=said, stderr=said, text=True, start_new_session=True
    ) as controller:  # fmt: skip
        try:
            yield controller
        finally:
            os.killpg(controller.pid, signal.SIGKILL)


@pytest.mark.engines("26.1")
def test_a_second_controller_waits_and_its_lock_out_is_taken_back_alone(
    lab: Lab, engine: str, before: dict[str, Any]
) -> None:
    """The first is stopped in the middle of its change; the second would end both windows, or lock itself out in the
    shadow of the first one's confirmation."""
    other = "ansible" if engine == "pyinfra" else "pyinfra"
    bad = lab.beside("second")
    bad.declare(**_without_ssh(lab), ufw_force=True, guard_seconds=30)
    lab.declare(**_with_metrics(lab))
    runs = {"pyinfra": lambda lab: lab.pyinfra(check=False), "ansible": lambda lab: lab.ansible(check=False)}
    lab.watch("ufw", "cat /etc/ufw/user.rules")
    asking = set[str]()

    def asks_again() -> bool:
        """Beside the first one's step somebody has asked, has been told who is at work, and asks once more."""
        asking.update(lab.sh("pgrep -f '^python3 -I -c import gc'", check=False).split())
        return len(asking) > 2

    with ThreadPoolExecutor() as pool:
        first = pool.submit(runs[engine], lab)
        number = lab.catch("ufw", first.done)
        second = pool.submit(runs[other], bad)
        try:
            assert waited_for(lambda: asks_again() or second.done(), 120)
            assert not second.done(), second.result().text
        finally:
            lab.sh(f"kill -CONT {number}")
        assert first.result().code == 0, first.result().text
        assert second.result().code != 0
    assert "another run (" in second.result().text
    assert "the change would have locked you out" in second.result().text
    lab.wait_for_ssh(BACK_SECONDS)
    assert str(METRICS) in lab.sh("ufw status")
    assert lab.sh(f"ls {PENDING}", check=False) == ""
    lab.undeclare()
    assert runs[engine](lab).code == 0
    assert state_of(lab) == before


# -- by hand, in a window that nobody confirms

DROPS_ESTABLISHED = """
nft -f - <<'END'
table inet ringfence {
  chain drill {
    type filter hook input priority -160; policy accept;
    ct state established drop
  }
}
END
iptables -t mangle -N RF-drill
iptables -t mangle -A RF-drill -m conntrack --ctstate ESTABLISHED -j DROP
iptables -t mangle -I INPUT -j RF-drill
"""
DROPS_EVERYTHING = """
iptables -F ufw-user-input
iptables -t mangle -N RF-drill
iptables -t mangle -A RF-drill -j DROP
iptables -t mangle -I INPUT -j RF-drill
"""
RESTART = "systemctl restart ssh"
SABOTAGE = {
    "default-reject": "ufw default reject incoming && ufw --force delete 1 && ufw --force delete 1",
    "after-rules-broken": "echo 'no rule' >> /etc/ufw/after.rules; ufw reload; iptables -P INPUT DROP",
    "drops-established": DROPS_ESTABLISHED,
    "wrong-interface": "ufw prepend deny in on eth0 to any port 22 proto tcp",
    "ipv6-only": "ufw prepend deny proto tcp from 0.0.0.0/0 to any port 22",
    "drops-everything": DROPS_EVERYTHING,
    "sshd-broken": f"echo Nonsense >> /etc/ssh/sshd_config; systemctl reset-failed ssh; {RESTART}; systemctl stop ssh",
    "sshd-on-a-wrong-port": f"echo Port 2222 > /etc/ssh/sshd_config.d/00-a.conf; {RESTART}",
}


# Which controller there was makes no difference, and each back end has its share.
@pytest.mark.parametrize(
    "sabotage",
    in_turn(SABOTAGE, HOSTS),
)
def test_what_nobody_confirms_is_taken_back(lab: Lab, before: dict[str, Any], sabotage: str) -> None:
    armed = f"ringfence-guard arm --seconds 15 --reason drill && test -e {PENDING}"
    lab.sh(f"{armed} || exit 1\n{SABOTAGE[sabotage]}\ntrue")
    assert lab.sh(f"ls {PENDING}")
    if sabotage == "after-rules-broken":  # what was loaded before may still be there, but not as it was
        assert state_of(lab) != before
    else:
        assert not greeted(lab.address(), seconds=1), "ssh still answers: the drill would show nothing"
    _must_be_back(lab, before)


@pytest.mark.engines("29-nftables")  # at boot it is the host's own unit that restores: nobody applies
def test_a_reboot_inside_the_window_leaves_the_old_state(lab: Lab, before: dict[str, Any]) -> None:
    lab.sh(
        f"ringfence-guard arm --seconds 300 --reason test && test -e {PENDING} &&"
        " ufw prepend deny from any to any port 22 proto tcp"
    )
    assert not greeted(lab.address(), seconds=1), "ssh still answers: the drill would show nothing"
    started = time.monotonic()
    lab.lab("poweroff")
    lab.lab("start")
    _must_be_back(lab, before)
    assert time.monotonic() - started < BACK_SECONDS
    lab.must_verify()
