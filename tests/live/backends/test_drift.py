"""What somebody changes of the fence is put back within a minute by the host's own timer, and named in its journal."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live.labs import Lab, RunError, waited_for

PROMISED = 60.0  # seconds until what was changed is as it was
STORM_SECONDS = 20
SELDOM = 2.5  # seconds between two questions, each of which costs the host as much as a look of the timer
UNDECLARED = 9999  # a TCP port of the host at which somebody listens
BOTH = "for t in iptables ip6tables; do {} ; done"
# The chain of ringfence's own table that judges what is forwarded.
FORWARD = "c=$(nft list table inet ringfence | awk '/chain/{n=$2} /hook forward/{print n; exit}')"


QUICK = pytest.mark.engines("29-nftables")


@pytest.fixture(scope="module", autouse=True)
def listening(lab: Lab) -> Iterator[None]:
    if lab.engine == "29":  # one host as everybody's, the other in less time
        lab.declare(watch_seconds=10)
        lab.pyinfra()
    lab.listen(UNDECLARED)
    yield
    lab.undeclare()
    lab.pyinfra()


def _status(lab: Lab) -> str:
    return lab.sh("ringfence-watch status", check=False)


def _as_intended(lab: Lab) -> bool:
    """Whether all is as intended; False as well while the host cannot be reached."""
    try:
        return _status(lab).rstrip().endswith("\nas intended")
    except RunError:
        return False


def _told(lab: Lab, since: float) -> list[dict[str, Any]]:
    """The lines that the timer has left in the journal."""
    out = lab.sh(f"journalctl -q -o json -t ringfence-watch --since @{since:.0f}")
    return [json.loads(line) for line in out.splitlines()]


def _results(lab: Lab, since: float) -> list[str]:
    return [line["RINGFENCE_RESULT"] for line in _told(lab, since)]


def _damage(lab: Lab, command: str) -> float:
    """Change something, apart from the connection by which this is asked for; returns when, by the host's clock."""
    lab.sh("command -v systemd-run >/dev/null")
    began = float(lab.sh("date +%s"))
    lab.sh(f"cat > /run/damage <<'END'\n{command}\nEND")
    lab.sh("systemd-run --quiet --collect --on-active=200ms --timer-property=AccuracySec=10ms sh /run/damage")
    return began


DAMAGES: dict[str, tuple[str, str, str]] = {
    # What is done, the layer that it is done to, and what the journal has to name.
    "iptables -F": (BOTH.format("$t -F"), "ufw", "kernel"),
    "nft flush ruleset": ("nft flush ruleset", "ufw", "not loaded"),
    "the policy's rules flushed": (
        f"{FORWARD}; nft flush chain inet ringfence $c", "policy", "+ ",
    ),
    "a rule before the policy's": (
        f"{FORWARD}; nft insert rule inet ringfence $c accept", "policy", "- ",
    ),
    "a jump moved behind another rule": (
        "iptables -D INPUT -j ufw-before-input; iptables -A INPUT -j ufw-before-input", "ufw", "INPUT (v4)",
    ),
    "a chain emptied": ("ip6tables -F ufw6-user-input", "ufw", "ufw6-user-input"),
    "a rule inserted before ours": (BOTH.format("$t -I INPUT -j ACCEPT"), "ufw", "INPUT (v6): `-j ACCEPT`"),
    "ufw disabled": ("ufw disable", "ufw", "inactive → active"),
    "bridges pass by the filter": (
        "sysctl -w net.bridge.bridge-nf-call-iptables=0", "policy", "bridge-nf-call-iptables",
    ),
    "a kernel setting changed": (
        "sysctl -w net.ipv4.conf.all.accept_redirects=1", "base", "net.ipv4.conf.all.accept_redirects",
    ),
}  # fmt: skip


# What stands in other tables with each back end is done to both; the rest where it takes less time.
ON_BOTH = tuple(DAMAGES)[:2]


@pytest.mark.parametrize("damage", [pytest.param(name, marks=() if name in ON_BOTH else QUICK) for name in DAMAGES])
def test_what_was_changed_is_put_back_and_named(lab: Lab, damage: str) -> None:
    command, role, named = DAMAGES[damage]
    settled = re.compile(r"\nas intended|docker  ~ restart")
    assert waited_for(lambda: bool(settled.search(_status(lab))), PROMISED, SELDOM), _status(lab)
    started = time.monotonic()
    since = _damage(lab, command)

    def told() -> list[dict[str, Any]]:
        try:
            return [line for line in _told(lab, since) if line["RINGFENCE_ROLE"] == role]
        except RunError:  # locked out for the moment
            return []

    assert waited_for(lambda: bool(told()), PROMISED, SELDOM), _status(lab)
    assert time.monotonic() - started < PROMISED
    line = told()[0]
    assert line["RINGFENCE_RESULT"] == "mended"
    assert named in "\n".join(line.get(f"RINGFENCE_{kind}", "") for kind in ("MISSING", "ADDED", "CHANGED")), line
    assert not lab.reaches(UNDECLARED)
    lab.wait_for_ssh(5)
    for layer in ("base", "ufw", "policy"):
        assert f"{layer:8}as intended" in _status(lab)
    assert len(told()) == 1, told()


def test_docker_s_own_rules_are_reported_and_a_run_brings_them_back(lab: Lab) -> None:
    lab.pyinfra()  # the damages before have taken them as well
    assert lab.reaches(8883)
    assert waited_for(lambda: _as_intended(lab), PROMISED, SELDOM), _status(lab)
    since = float(lab.sh("date +%s"))
    lab.sh(
        "if nft list table ip docker-bridges >/dev/null 2>&1;"
        " then nft flush chain ip docker-bridges nat-prerouting-and-output; else iptables -t nat -F; fi"
    )
    assert not lab.reaches(8883)
    assert waited_for(lambda: any(line["RINGFENCE_ROLE"] == "docker" for line in _told(lab, since)), PROMISED, SELDOM)
    assert "restart of docker needed" in _status(lab)
    planned = lab.plan()
    assert planned.changed == ["docker | state"]
    assert "docker must be restarted: its own rules are not in order" in planned.text
    begun = lab.sh("docker ps -q | xargs docker inspect -f '{{.State.StartedAt}}'")
    assert lab.pyinfra().changed == planned.changed
    assert lab.sh("docker ps -q | xargs docker inspect -f '{{.State.StartedAt}}'") == begun, "containers were restarted"
    assert lab.reaches(8883)
    lab.must_be_converged()
    assert _as_intended(lab)
    lab.must_verify()


STORM = f"""
until=$(( $(date +%s) + {STORM_SECONDS} ))
mending() {{
    while [ $(date +%s) -lt $until ]; do
        ip6tables -F ufw6-user-input 2>/dev/null
        ringfence-ufw mend < /etc/ringfence/ufw/desired.json >/dev/null 2>&1
    done
}}
mending &
while [ $(date +%s) -lt $until ]; do ufw reload >/dev/null; done
wait
"""


# A command of ufw's that takes its time: it has the lock until it is told to let go of it.
SLOW = """
import fcntl, os, time
lock = open("/run/ufw.lock", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
open("/run/slow", "w").close()
while os.path.exists("/run/slow"):
    time.sleep(0.05)
"""
WAITING = "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c '/run/ufw.lock$' || true"


@QUICK
def test_what_a_person_deletes_while_the_timer_mends_does_not_come_back(lab: Lab) -> None:
    """ufw reads its rules before it takes its lock: the one that mended wrote back what was deleted meanwhile."""
    lab.unwatch()
    lab.sh("ufw allow 7777/tcp && ufw --force delete 2")  # a declared one is to come back
    files = "/etc/ufw/user.rules /etc/ufw/user6.rules"
    before = lab.sh(f"cat {files}")
    assert " 7777 " in before
    lab.sh("cat > /run/slow.py", text=SLOW)
    lab.sh("systemd-run --quiet --collect --unit=slow python3 /run/slow.py")
    lab.sh("timeout 20 sh -c 'until test -e /run/slow; do sleep 0.05; done'")
    kept = "/etc/ringfence/ufw/desired.json"
    lab.sh(f"systemd-run --quiet --collect --unit=mends sh -c 'ringfence-ufw mend < {kept} > /run/mends 2>&1'")
    assert waited_for(lambda: int(lab.sh(WAITING)) > 1, 30)
    lab.sh(f"sed -i '/ 7777 /d; /--dport 7777 /d' {files}; rm /run/slow")  # what the slow one was about to do
    lab.sh("timeout 60 sh -c 'while systemctl -q is-active mends; do sleep 0.1; done'", timeout=90)
    said = lab.sh("cat /run/mends")
    assert '"changes": [' in said, said
    assert "7777" not in lab.sh(f"cat {files}"), said
    lab.pyinfra()
    assert _as_intended(lab), _status(lab)


@pytest.mark.engines("26.1")
def test_a_reload_by_hand_while_the_timer_mends_opens_nothing(lab: Lab) -> None:
    """What the one stops is not what is left of an earlier stop, which the other would take away."""
    assert waited_for(lambda: _as_intended(lab), PROMISED, SELDOM), _status(lab)
    with ThreadPoolExecutor() as pool:
        storm = pool.submit(lab.sh, STORM, timeout=180)
        tried = [lab.reaches(UNDECLARED, 0.05) for _ in iter(storm.done, True)]
        storm.result()
    assert len(tried) > 50
    assert sum(tried) == 0
    # ufw reads its rules before it takes its lock, and writes them in place: one that begins while another one writes
    # may lose them all, and with them who is let in. The timer puts them back.
    assert waited_for(lambda: _as_intended(lab), PROMISED, SELDOM), _status(lab)
    lab.pyinfra()
    assert _as_intended(lab), _status(lab)


def _looked_twice(lab: Lab) -> bool:
    """Wait until the timer's unit has run from its beginning to its end."""
    ended = "systemctl show -P InactiveEnterTimestampMonotonic ringfence-watch.service"
    for _ in range(2):
        last = lab.sh(ended)
        if not waited_for(lambda last=last: lab.sh(ended) != last, PROMISED, SELDOM):  # type: ignore[misc]
            return False
    return True


BUSY = {
    "the guard's window is open": ("ringfence-guard arm --seconds 600 --reason test", "ringfence-guard confirm"),
    "a program is at work": (
        "systemd-run --quiet --collect --unit=busy flock /run/ringfence/ufw.lock sleep 600", "systemctl stop busy",
    ),
    "dpkg is at work": (
        "systemd-run --quiet --collect --unit=busy python3 -c 'import fcntl, time;"
        ' f = open("/var/lib/dpkg/lock-frontend", "w"); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(600)\'',
        "systemctl stop busy",
    ),
}  # fmt: skip


@QUICK
@pytest.mark.parametrize("busy", BUSY)
def test_a_change_in_progress_is_not_repaired(lab: Lab, busy: str) -> None:
    begin, end = BUSY[busy]
    assert waited_for(lambda: _as_intended(lab), PROMISED, SELDOM), _status(lab)
    lab.sh(begin)
    assert waited_for(lambda: "it waits:" in _status(lab), 10), _status(lab)
    setting = "/proc/sys/net/ipv4/conf/all/accept_redirects"
    lab.sh(f"echo 1 > {setting}")
    assert _looked_twice(lab)
    assert lab.sh(f"cat {setting}") == "1\n"
    lab.sh(end)
    assert waited_for(lambda: lab.sh(f"cat {setting}") == "0\n", PROMISED, SELDOM)


@QUICK
def test_what_a_person_has_to_decide_is_told_once_and_left(lab: Lab) -> None:
    assert waited_for(lambda: _as_intended(lab), PROMISED, SELDOM), _status(lab)
    since = float(lab.sh("date +%s"))
    lab.sh(f"ufw allow {UNDECLARED}/tcp")
    try:
        assert waited_for(lambda: bool(_told(lab, since)), PROMISED, SELDOM), _status(lab)
        # It does not keep the rest from being put back.
        lab.sh("ip6tables -F ufw6-user-input")
        assert waited_for(lambda: _results(lab, since)[1:] != [], PROMISED, SELDOM), _status(lab)
        assert _looked_twice(lab)
        assert _results(lab, since) == ["left", "mended"], _told(lab, since)
        left, mended = _told(lab, since)
        assert f"ufw allow proto tcp from any to any port {UNDECLARED}" in left["MESSAGE"]
        assert "ufw6-user-input" in mended["MESSAGE"]
        assert _status(lab).rstrip().endswith("\nnot as intended")
    finally:  # else no test after it would find the host as it was
        lab.sh(f"ufw --force delete allow {UNDECLARED}/tcp")
    assert _as_intended(lab), _status(lab)
