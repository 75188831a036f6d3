"""A world that does not play along: the error says what to do, the host works on, and the exit code is not 0."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from tests.live.labs import Lab, Run, waited_for

ENGINES: dict[str, Callable[[Lab], Run]] = {
    "pyinfra": lambda lab: lab.pyinfra(check=False),
    "ansible": lambda lab: lab.ansible(check=False),
}
STARTED = "docker inspect -f '{{.Name}} {{.State.StartedAt}}' $(docker ps -q) | sort"
NEW = {"port": 9100, "from": ["lan"]}
LOCK = (
    "systemd-run --quiet --collect --unit=locked python3 -c '\nimport fcntl, time\n"
    'lock = open("/var/cache/apt/archives/lock", "w")\nfcntl.lockf(lock, fcntl.LOCK_EX)\n'
    'open("/run/locked", "w")\ntime.sleep(3600)\' && timeout 20 sh -c \'until test -e /run/locked; do sleep 0.1; done\''
)
# A package that exists and is on no host, and one that exists nowhere.
PACKAGE, NO_PACKAGE = "hello", "ringfence-no-such-package"


@pytest.fixture(params=ENGINES)
def run(request: pytest.FixtureRequest) -> Callable[[Lab], Run]:
    return ENGINES[request.param]


# What the host's own programs say is the same by either engine: each says it once.
BY_PYINFRA, BY_ANSIBLE = (pytest.mark.parametrize("run", [name], indirect=True) for name in ("pyinfra", "ansible"))


@pytest.fixture(autouse=True)
def host_lives(lab: Lab) -> Iterator[None]:
    """Whatever the drill: the host is reached as before, its ring stands, and its containers run on and answer."""
    lab.undeclare()
    before = lab.sh(STARTED)
    yield
    lab.undeclare()
    lab.sh("for c in $(docker ps -q); do docker exec $c true || exit 1; done")
    lab.wait_for_ssh(5)
    assert lab.reaches(8883)  # published for this place
    assert lab.sh(STARTED) == before
    assert "pending" not in lab.sh("ringfence-guard status")
    assert "Status: active" in lab.sh("ufw status")
    assert "inet ringfence" in lab.sh("nft list tables")


def _refused(run: Run, *words: str) -> None:
    """The run failed, says all of this, and ends with a summary that counts the failed host."""
    assert run.code != 0, run.text
    for word in words:
        assert word in run.text, f"{word!r} is not in:\n{run.text}"
    assert "Traceback" not in run.text
    assert re.search(
        r"atlas +: .*(failed|unreachable)=1|--> Results:|nothing was changed on atlas|failed_hosts", run.text
    )


def _declare_a_port(lab: Lab, **more: Any) -> None:
    """Something to do for the role ufw."""
    hosts = dict(lab.variables()["lab_hosts"])
    atlas = {**hosts["atlas"], "services": {**hosts["atlas"]["services"], "metrics": NEW}}
    lab.declare(lab_hosts={**hosts, "atlas": atlas}, **more)


# -- the host


def test_a_full_disk(lab: Lab, run: Callable[[Lab], Run]) -> None:
    _declare_a_port(lab)
    full = "/var/lib/ringfence/guard"  # where the state before a change is kept, without which nothing is changed
    lab.sh(f"mount -t tmpfs -o size=8k,mode=700 none {full} && ! head -c 1M /dev/zero > {full}/filler 2>/dev/null")
    try:
        refused = run(lab)
    finally:
        lab.sh(f"umount {full}")
    _refused(refused, "No space left on device", "a disk is full", "df -h")
    assert "9100" not in lab.sh("ufw status")


@BY_PYINFRA
def test_a_full_disk_under_the_stacks(lab: Lab, run: Callable[[Lab], Run]) -> None:
    services = dict(lab.variables()["lab_services"])
    broker = services["mosquitto"]
    [(path, text)] = broker["files"].items()
    broker = {**broker, "files": {path: text + "# much to say\n" * 9999}}
    lab.declare(lab_services={**services, "mosquitto": broker})
    root = "/opt/ringfence/stacks"
    used = int(lab.sh(f"du -sk {root}").split()[0])
    lab.sh(
        f"mount -t tmpfs -o size={used + 200}k,mode=711 none /mnt && cp -a {root}/. /mnt && mount --move /mnt {root}"
        f" && ! head -c 100M /dev/zero > {root}/mosquitto/filler 2>/dev/null; rm {root}/mosquitto/filler;"
        f" head -c $(($(df --output=avail {root} | tail -n 1) - 60))k /dev/zero > {root}/filler"
    )
    try:
        refused = run(lab)
    finally:
        lab.sh(f"umount {root}")
    _refused(refused, "No space left on device", "a disk is full")


@BY_ANSIBLE
def test_a_subnet_that_is_routed_already(lab: Lab, run: Callable[[Lab], Run]) -> None:
    segments = dict(lab.variables()["lab_segments"])
    services = dict(lab.variables()["lab_services"])
    guest = {"host": "atlas", "image": services["mosquitto"]["image"], "segments": ["guests"]}
    lab.declare(
        lab_segments={**segments, "guests": {"subnet": "10.77.7.0/24"}}, lab_services={**services, "guest": guest}
    )
    lab.sh("ip route add 10.77.0.0/16 via $(ip -4 route show default | awk '{print $3; exit}')")
    try:
        refused = run(lab)
    finally:
        lab.sh("ip route del 10.77.0.0/16")
    _refused(refused, "lab_segments.guests.subnet: 10.77.7.0/24 overlaps 10.77.0.0/16", "another subnet")
    assert refused.changed == []


def test_docker_that_does_not_start(lab: Lab, run: Callable[[Lab], Run]) -> None:
    folder = "/etc/systemd/system/docker.service.d"
    lab.sh(
        f"mkdir -p {folder} &&"
        f" printf '[Service]\\nExecStartPre=/bin/sh -c \"echo level=error shut; exit 1\"\\n' > {folder}/bad.conf"
        " && systemctl daemon-reload && systemctl stop docker.socket docker.service"
    )
    try:
        refused = run(lab)
    finally:
        lab.sh(f"rm {folder}/bad.conf; systemctl daemon-reload; systemctl reset-failed; systemctl start docker.service")
    _refused(refused, "Docker does not start", "level=error shut", "journalctl -u docker")


def test_a_host_without_python(lab: Lab, run: Callable[[Lab], Run]) -> None:
    lab.sh("mv /usr/bin/python3 /usr/bin/python3.away")
    try:
        refused = run(lab)
    finally:
        lab.sh("mv /usr/bin/python3.away /usr/bin/python3")
    _refused(refused, "python3", "apt-get install python3")


# -- packages


@BY_PYINFRA
def test_a_mirror_that_does_not_answer(lab: Lab, run: Callable[[Lab], Run]) -> None:
    lab.declare(guard_packages=[PACKAGE])
    for scheme in ("http", "https"):
        lab.sh(f"echo 'Acquire::{scheme}::Proxy \"http://127.0.0.1:9\";' >> /etc/apt/apt.conf.d/99bad")
    try:
        refused = run(lab)
    finally:
        lab.sh("rm /etc/apt/apt.conf.d/99bad")
    _refused(refused, "127.0.0.1:9", "package mirror", "sources.list")


@BY_ANSIBLE
def test_a_wrong_clock(lab: Lab, run: Callable[[Lab], Run]) -> None:
    # What apt says when the clock is behind: a list of packages from the future. (The clock itself is the machine's.)
    lab.declare(guard_packages=[NO_PACKAGE])
    lab.sh(
        "mkdir -p /srv/later && cd /srv/later && : > Packages &&"
        " { date -u -R -d '+9 days' | sed 's/+0000/UTC/;s/^/Date: /';"
        " printf 'SHA256:\\n %s 0 Packages\\n' $(sha256sum Packages | cut -c1-64); } > Release &&"
        " echo 'deb [trusted=yes] file:/srv/later ./' > /etc/apt/sources.list.d/later.list"
    )
    try:
        refused = run(lab)
    finally:
        lab.sh("rm -r /srv/later /etc/apt/sources.list.d/later.list")
    _refused(refused, "is not valid yet", "this host's clock says", "timedatectl set-ntp true")


def test_packages_that_somebody_else_is_installing_are_waited_for(lab: Lab) -> None:
    """By a lock that apt itself does not wait for."""
    lab.declare(guard_packages=[PACKAGE])
    lab.sh(LOCK)
    tried = set[str]()

    def tried_again() -> bool:
        tried.update(lab.sh("pgrep -f '^apt-get .*install'", check=False).split())
        return len(tried) > 1

    with ThreadPoolExecutor() as pool:
        done = pool.submit(lab.pyinfra)
        assert waited_for(lambda: done.done() or tried_again(), 90)
        lab.sh("systemctl stop locked; rm /run/locked")
        assert "guard | packages" in done.result().changed
        assert "to install packages: Could not get lock /var/cache/apt/archives/lock" in done.result().text
    assert "installed" in lab.sh(f"dpkg-query -W -f '${{db:Status-Status}}' {PACKAGE}")
    lab.sh(f"dpkg --purge {PACKAGE}")


@BY_PYINFRA
def test_a_registry_that_does_not_answer(lab: Lab, run: Callable[[Lab], Run]) -> None:
    services = dict(lab.variables()["lab_services"])
    absent = {"host": "atlas", "image": "127.0.0.1:9/absent:1", "segments": ["iot"]}
    lab.declare(lab_services={**services, "absent": absent})
    _refused(run(lab), "the image 127.0.0.1:9/absent:1 cannot be pulled", "docker load -i FILE")


# -- the way in


def _come_as_ops(lab: Lab, **variables: Any) -> None:
    # Whoever comes while their sessions before are still being closed may be closed with them.
    open_yet = "pgrep -u ops || loginctl list-sessions --no-legend | grep -w ops"
    lab.sh(
        f"pkill -KILL -u ops; timeout 30 sh -c 'while ({open_yet}) >/dev/null 2>&1; do sleep 0.1; done';"
        " id ops >/dev/null 2>&1 || useradd -m -s /bin/sh ops;"
        " echo ops:right | chpasswd; mkdir -p ~ops/.ssh &&"
        " cp /root/.ssh/authorized_keys ~ops/.ssh/ && chown -R ops: ~ops/.ssh"
    )
    folder = lab.inventory / "host_vars"
    folder.mkdir(exist_ok=True)
    lines = {"ansible_user": "ops", "ansible_become": "true", **variables}
    (folder / "atlas.yml").write_text("---\n" + "".join(f"{key}: {value}\n" for key, value in lines.items()))


@pytest.mark.parametrize("case", ["wrong-password", "no-password", "not-allowed"])
def test_no_way_to_become_root(lab: Lab, run: Callable[[Lab], Run], case: str) -> None:
    password = (
        {} if case == "no-password" else {"ansible_become_password": "wrong" if case == "wrong-password" else "right"}
    )
    _come_as_ops(lab, **password)
    lab.sh("adduser --quiet ops sudo" if case != "not-allowed" else "deluser --quiet ops sudo || true")
    try:
        refused = run(lab)
    finally:
        (lab.inventory / "host_vars" / "atlas.yml").unlink()
    fixes = {"wrong-password": "password", "no-password": "password", "not-allowed": "sudo"}
    _refused(refused, fixes[case])


def test_the_right_password_is_one(lab: Lab, run: Callable[[Lab], Run]) -> None:
    _come_as_ops(lab, ansible_become_password="right")
    lab.sh("adduser --quiet ops sudo")
    try:
        done = run(lab)
    finally:
        (lab.inventory / "host_vars" / "atlas.yml").unlink()
    assert done.code == 0, done.text


def test_an_unreachable_host_among_several_does_not_keep_the_others_waiting(
    lab: Lab, run: Callable[[Lab], Run]
) -> None:
    hosts = dict(lab.variables()["lab_hosts"])
    inventory = lab.inventory / "hosts.yml"
    alone = inventory.read_text(encoding="utf-8")
    both = yaml.safe_load(alone)
    both["all"]["children"]["demo"]["children"]["docker_hosts"]["hosts"]["ghost"] = {
        "ansible_host": "{{ demo_lan4 }}.99"
    }
    inventory.write_text(yaml.safe_dump(both), encoding="utf-8")
    atlas = {**hosts["atlas"], "services": {**hosts["atlas"]["services"], "metrics": NEW}}
    gone = {"addresses": [f"{lab.address().rpartition('.')[0]}.99"], "services": hosts["atlas"]["services"]}
    lab.declare(lab_hosts={"atlas": atlas, "ghost": gone})
    try:
        refused = run(lab)
        assert "9100" in lab.sh("ufw status"), refused.text
    finally:
        inventory.write_text(alone, encoding="utf-8")
        lab.undeclare()
        lab.pyinfra()
    assert refused.code != 0
    assert re.search(r"ghost.*(unreachable=1|Connection|connect|timed out|No route)", refused.text), refused.text
    assert "9100" not in lab.sh("ufw status")


def test_afterwards_one_run_puts_everything_right(lab: Lab) -> None:
    lab.pyinfra()
    lab.must_verify()
    lab.must_be_converged()
